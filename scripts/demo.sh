#!/usr/bin/env bash
# The whole life of a cluster on the embedded stack: made, shown, made again without any change,
# taken away.  `make demo` runs this; nothing outside this folder and this machine is touched.
set -euo pipefail
export XDG_CACHE_HOME="$(cd "$(dirname "$0")/.." && pwd)/.cache" # a stack of the demo's own
folder=$(mktemp -d)
export XDG_STATE_HOME="$folder/state"
cd "$folder"
cleanup() {
  hyperpod-eks local stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap cleanup EXIT

step() { # step "what this is" command...
  printf '\n# %s\n\033[1m$ %s\033[0m\n' "$1" "${*:2}"
  "${@:2}"
}

hyperpod-eks local stop >/dev/null 2>&1 || true
step 'An AWS account on this machine, 250 times as fast as the real one' \
  hyperpod-eks local start --speed 250
step 'Make a cluster: some forty minutes on AWS, fifteen seconds here' \
  hyperpod-eks create demo --local
step 'Look at it' \
  hyperpod-eks status demo --local
step 'Make it again: everything is there, so nothing is changed' \
  hyperpod-eks create demo --local --progress none
step 'Take it away, and have AWS prove that it is gone' \
  hyperpod-eks delete demo --local --yes
