#!/usr/bin/env bash
# A cluster on the embedded stack: created, shown, created again without any change, deleted.
# `make demo` runs this; nothing outside this folder and this machine is changed.
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

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\033[1m' plain=$'\033[0m'
fi
step() { # step "what this is" command...
  printf '\n# %s\n%s$ %s%s\n' "$1" "$bold" "${*:2}" "$plain"
  "${@:2}"
}

hyperpod-eks local stop >/dev/null 2>&1 || true
step 'An AWS account on this machine, 250 times as fast as the real one' \
  hyperpod-eks local start --speed 250
step 'Create a cluster: 20 to 40 minutes on AWS, 15 seconds here' \
  hyperpod-eks create demo --local
step 'Show it' \
  hyperpod-eks status demo --local
step 'Create it again: everything exists, so nothing is changed' \
  hyperpod-eks create demo --local --progress none
step 'Delete it, and check with AWS that nothing is left' \
  hyperpod-eks delete demo --local --yes
cat <<'END'

To continue by hand, with an account on this machine, in this folder:

  . .venv/bin/activate
  export HYPERPOD_EKS_HELM="$PWD/.cache/helm/4.1.4/helm"   # the helm of the demo
  hyperpod-eks create mine --local
  hyperpod-eks plan -f examples/storage.yaml --local
  hyperpod-eks delete mine --local
  hyperpod-eks local stop

On AWS: README.md, "On AWS".
END
