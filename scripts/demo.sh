#!/usr/bin/env bash
# The whole life of a cluster on the embedded stack: made, shown, made again without any change,
# taken away.  `make demo` runs this; nothing outside this folder and this machine is touched.
set -euo pipefail
cd "$(dirname "$0")/.."
export XDG_CACHE_HOME="$PWD/.cache" # a stack of its own, beside one that you may have running
folder=$(mktemp -d)
cleanup() {
  hyperpod-eks local stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap cleanup EXIT

step() {
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

hyperpod-eks local stop >/dev/null 2>&1 || true
# 150 simulated seconds in one: half an hour of AWS in about fifteen seconds
step hyperpod-eks local start --speed 150
step hyperpod-eks create demo --local --manifest "$folder/demo.json"
step hyperpod-eks status demo --local --manifest "$folder/demo.json"
step hyperpod-eks create demo --local --manifest "$folder/demo.json"
step hyperpod-eks delete demo --local --manifest "$folder/demo.json" --yes
