#!/usr/bin/env bash
# A JobSet on Google Kubernetes Engine: TPU slices, or hosts with GPUs.
#
#   train/gke.sh --accelerator tpu|gpu --name NAME --image IMAGE --bucket BUCKET
#                [--dry-run] -- python -m jaxguide.train --config FILE \
#                               --config.folder=/mnt/bucket/NAME
#
# Builds the image of the last commit, pushes it, and applies train/jobset-tpu.yaml or
# train/jobset-gpu.yaml. --dry-run prints the commands and the manifest.
# shellcheck source=train/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

known="accelerator name image bucket"
accelerator="" name="" image="" bucket=""
parse "$@"
need accelerator name image bucket
need_program
case $accelerator in
  tpu) extra=tpu ;;
  gpu) extra=cuda12 ;;
  *) fail "need --accelerator tpu or gpu, got $accelerator." ;;
esac

# The words of the program as YAML's double-quoted strings, separated by commas.
listed() {
  local word text=""
  for word in "$@"; do
    word=${word//\\/\\\\}
    text+=", \"${word//\"/\\\"}\""
  done
  echo "${text#, }"
}

manifest() {
  local text
  text=$(<"$(dirname "${BASH_SOURCE[0]}")/jobset-$accelerator.yaml")
  text=${text//"name: NAME"/"name: $name"}
  text=${text//"image: IMAGE"/"image: $image"}
  text=${text//"bucketName: BUCKET"/"bucketName: $bucket"}
  echo "${text//"[PROGRAM,"/"[$(listed "${program[@]}"),"}"
}

build=(docker build --build-arg "ACCELERATOR=$extra" -f train/Dockerfile -t "$image" -)
if [ -n "$dry_run" ]; then
  echo "git archive HEAD | $(quoted "${build[@]}")"
  quoted docker push "$image"
  echo "kubectl apply -f - <<'MANIFEST'"
  manifest
  echo "MANIFEST"
  exit 0
fi
git archive HEAD | "${build[@]}"
docker push "$image"
manifest | kubectl apply -f -
