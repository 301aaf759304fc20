#!/usr/bin/env bash
# A TPU VM, of one host or a pod slice of many, by gcloud.
#
#   train/tpu_vm.sh create  --name NAME --zone ZONE [--type v6e-16]
#                           [--runtime v2-alpha-tpuv6e] [--spot]
#   train/tpu_vm.sh install --name NAME --zone ZONE [--bucket BUCKET]
#   train/tpu_vm.sh run     --name NAME --zone ZONE -- python -m jaxguide.train ...
#   train/tpu_vm.sh delete  --name NAME --zone ZONE
#
# install copies the last commit to every host, and mounts a bucket at /mnt/bucket. run
# starts the same program on every host; the processes find each other. --dry-run prints
# the commands instead. Install again after a commit.
# shellcheck source=train/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

action=${1:-}
known="name zone type runtime bucket" switches="spot"
name="" zone="" type="v6e-16" runtime="v2-alpha-tpuv6e" bucket="" spot=""
case $action in
  create | install | run | delete) parse "${@:2}" ;;
  --help | -h) usage && exit 0 ;;
  *) fail "need create, install, run or delete, got '$action'. See --help." ;;
esac
need name zone

tpu() { run gcloud compute tpus tpu-vm "$@" "--zone=$zone"; }
everywhere() { tpu ssh "$name" --worker=all "--command=$1"; }

create() {
  tpu create "$name" "--accelerator-type=$type" "--version=$runtime" ${spot:+--spot}
}

install() {
  local file=jaxguide.tar.gz setup
  setup="set -e; $(setup_tpu)"
  [ -z "$bucket" ] || setup+=$'\n'$(setup_bucket "$bucket")
  pack "$file"
  tpu scp "$file" "$name:$file" --worker=all
  run rm "$file"
  everywhere "$setup"
}

start() {
  need_program
  everywhere "cd ~/jaxguide && PATH=~/venv/bin:\$PATH $(quoted "${program[@]}")"
}

case $action in
  create) create ;;
  install) install ;;
  run) start ;;
  delete) tpu delete "$name" --quiet ;;
esac
