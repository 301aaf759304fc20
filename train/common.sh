# Shared by the launchers: options, dry runs, and the program after "--".
# shellcheck shell=bash
set -euo pipefail

# Names of options with a value, and of switches; a launcher sets its own.
known="" switches=""
dry_run=""
program=()

fail() {
  echo "${0##*/}: $1" >&2
  exit 2
}

# The comment at the head of the launcher.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

# Reads --name VALUE into the variable `name`, --switch likewise as "yes", and the words
# after -- into `program`.
parse() {
  local option
  while [ $# -gt 0 ]; do
    option=${1#--}
    case $1 in
      --) shift && program=("$@") && return ;;
      --help | -h) usage && exit 0 ;;
      --dry-run) dry_run=yes ;;
      *)
        if [[ " $switches " == *" $option "* && $1 == --* ]]; then
          printf -v "$option" yes
        elif [[ " $known " == *" $option "* && $1 == --* ]]; then
          [ $# -gt 1 ] || fail "need a value, got $1 alone. Write $1 VALUE."
          printf -v "$option" %s "$2"
          shift
        else
          fail "need an option, or -- and the program, got $1. See --help."
        fi
        ;;
    esac
    shift
  done
}

# Fails unless every option named has a value.
need() {
  local option
  for option in "$@"; do
    [ -n "${!option}" ] || fail "need --$option VALUE, got none. See --help."
  done
}

need_program() {
  [ ${#program[@]} -gt 0 ] ||
    fail "need a program, got none. Write -- python -m jaxguide.train --config FILE."
}

# The words of a command as a shell reads them.
quoted() {
  local words
  printf -v words '%q ' "$@"
  echo "${words% }"
}

# Runs a command; in a dry run prints it.
run() {
  if [ -n "$dry_run" ]; then
    quoted "$@"
  else
    "$@"
  fi
}

# The last commit as one file, for machines that have no copy of it.
pack() {
  run git archive --format=tar.gz --output="$1" HEAD
}

# What a fresh TPU VM needs, after jaxguide.tar.gz lies in its home folder. Its own
# Python is older than jaxguide wants; uv brings one.
setup_tpu() {
  cat <<'SETUP'
mkdir -p ~/jaxguide && tar -xzf ~/jaxguide.tar.gz -C ~/jaxguide
python3 -m pip install --quiet --user uv
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 ~/venv
~/.local/bin/uv pip install --quiet --python ~/venv/bin/python "jax[tpu]" ~/jaxguide
SETUP
}

# Mounts a bucket at /mnt/bucket, unless it is there.
setup_bucket() {
  cat <<'SETUP'
if ! command -v gcsfuse >/dev/null; then
  key=/usr/share/keyrings/cloud.google.asc apt=https://packages.cloud.google.com/apt
  curl -sS $apt/doc/apt-key.gpg | sudo tee $key >/dev/null
  echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get update -qq && sudo apt-get install -qq -y gcsfuse
fi
sudo mkdir -p /mnt/bucket && sudo chown "$(id -u)" /mnt/bucket
SETUP
  echo "mountpoint -q /mnt/bucket || gcsfuse --implicit-dirs $1 /mnt/bucket"
}
