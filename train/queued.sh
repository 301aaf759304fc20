#!/usr/bin/env bash
# A TPU slice as a queued resource, which may be taken away and comes again.
#
#   train/queued.sh --name NAME --zone ZONE --bucket BUCKET [--type v6e-16]
#                   [--runtime v2-alpha-tpuv6e] [--spot] [--dry-run]
#                   -- python -m jaxguide.train --config FILE \
#                      --config.folder=/mnt/bucket/NAME
#
# Puts the last commit into the bucket, asks for the slice, and looks every five minutes
# whether it is still there; when it was taken away it asks again. Every host starts the
# program by itself when it boots, and again as long as it exits with 75. At the end the
# slice is given back. Ctrl-C stops only the looking; the same command goes on with it.
# --dry-run prints the commands, and what a host does.
# shellcheck source=train/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

known="name zone bucket type runtime" switches="spot"
name="" zone="" bucket="" type="v6e-16" runtime="v2-alpha-tpuv6e" spot=""
parse "$@"
need name zone bucket
need_program

queue() { run gcloud compute tpus queued-resources "$@" "--zone=$zone"; }

# What every host does when it boots. The first one that ends leaves its code in the
# bucket, unless it only wants to be started again.
boot() {
  echo "#!/bin/bash"
  echo "export HOME=/root"
  echo "cd ~ && gcloud storage cp gs://$bucket/$name/jaxguide.tar.gz ."
  setup_tpu
  setup_bucket "$bucket"
  cat <<BOOT
cd ~/jaxguide
code=75
while [ \$code = 75 ]; do
  PATH=~/venv/bin:\$PATH $(quoted "${program[@]}" --wait 600) 2>&1 |
    tee -a "/mnt/bucket/$name/log-\$(hostname).txt"
  code=\${PIPESTATUS[0]}
done
echo \$code >"/mnt/bucket/$name/exit-code"
BOOT
}

create() {
  queue create "$name" "--node-id=$name" "--accelerator-type=$type" \
    "--runtime-version=$runtime" "--metadata-from-file=startup-script=$folder/boot.sh" \
    ${spot:+--spot}
}

delete() { queue delete "$name" --force --quiet; }

ended=gs://$bucket/$name/exit-code
folder=FOLDER
if [ -n "$dry_run" ]; then
  boot | sed "s|^|# $folder/boot.sh: |"
  pack "$folder/jaxguide.tar.gz"
  run gcloud storage cp "$folder/jaxguide.tar.gz" "gs://$bucket/$name/"
  queue describe "$name" "--format=value(state.state)"
  create
  run gcloud storage cat "$ended"
  delete
  exit 0
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
boot >"$folder/boot.sh"
pack "$folder/jaxguide.tar.gz"
gcloud storage cp "$folder/jaxguide.tar.gz" "gs://$bucket/$name/"
while true; do
  state=$(queue describe "$name" "--format=value(state.state)" 2>/dev/null) || state=NONE
  echo "$(date +%H:%M) $name: $state"
  case $state in
    NONE) gcloud storage rm "$ended" 2>/dev/null || true && create ;;
    SUSPENDED | FAILED) delete && create ;;
  esac
  code=$(gcloud storage cat "$ended" 2>/dev/null) && break
  sleep 300
done
delete
echo "$name ended with exit code $code; see gs://$bucket/$name/"
exit "$code"
