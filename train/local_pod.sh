#!/usr/bin/env bash
# Rehearses a pod on one machine: N processes of one program that join each other.
#
#   train/local_pod.sh N [--dry-run] -- python -m jaxguide.train --config FILE ...
#
# Every line that they print carries the number of its process. If one fails, the others
# have a minute to end (they do so by themselves). The script ends with the exit code of
# one that failed by itself if there is one, else with 75, that of those that ended
# because another did. SIGTERM, and Ctrl-C as SIGTERM, are passed on to all.
# shellcheck source=train/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PATIENCE=60
PEER_GONE=75

count=${1:-}
[[ $count =~ ^[1-9][0-9]*$ ]] || fail "need the number of processes first, got '$count'."
parse "${@:2}"
need_program

free_port() {
  python3 -c '
import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    print(probe.getsockname()[1])'
}

label() {
  local line
  while IFS= read -r line || [ -n "$line" ]; do
    printf '[%s] %s\n' "$1" "$line"
  done
}

# Prints nothing; sends a signal to the processes that are still there.
tell() {
  kill "-$1" "${pids[@]}" 2>/dev/null || true
}

port=PORT
[ -n "$dry_run" ] || port=$(free_port)
program+=(--coordinator "127.0.0.1:$port" --num_processes "$count" --process_id)
if [ -n "$dry_run" ]; then
  for ((i = 0; i < count; i++)); do run "${program[@]}" "$i"; done
  exit 0
fi

export PYTHONUNBUFFERED=1
folder=$(mktemp -d)
pids=() labels=()
trap 'tell KILL; rm -rf "$folder"' EXIT
trap 'tell TERM' TERM INT
for ((i = 0; i < count; i++)); do
  mkfifo "$folder/$i"
  label "$i" <"$folder/$i" &
  labels+=($!)
  "${program[@]}" "$i" >"$folder/$i" 2>&1 &
  pids+=($!)
done

code=0 deadline="" killed=""
alive=("${pids[@]}")
while [ ${#alive[@]} -gt 0 ]; do
  sleep 0.2
  still=()
  for pid in "${alive[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      still+=("$pid")
      continue
    fi
    status=0
    wait "$pid" || status=$?
    [ "$status" -ne 0 ] || continue
    : "${deadline:=$((SECONDS + PATIENCE))}"
    # Within one round, and a peer ends fast, the order says nothing of the cause.
    if [ "$code" -eq 0 ] || [ "$code" -eq "$PEER_GONE" ]; then
      code=$status
    fi
  done
  alive=(${still[@]+"${still[@]}"})
  if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ] && [ ${#alive[@]} -gt 0 ]; then
    [ -n "$killed" ] ||
      echo "local_pod: ${#alive[@]} still there $PATIENCE s after another had failed; killed"
    killed=yes
    tell KILL
  fi
done 2>/dev/null # where bash reports what was killed
wait "${labels[@]}"
exit "$code"
