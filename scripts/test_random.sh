#!/usr/bin/env bash
# Run all tests three times, each time in another order, beside a busy loop on each core.
set -euo pipefail

busy=()
trap 'kill "${busy[@]}"' EXIT
for _ in $(seq "$(getconf _NPROCESSORS_ONLN)"); do
  (while :; do :; done) &
  busy+=($!)
done
for run in 1 2 3; do
  echo "run $run of 3"
  TEST_ORDER=random "${MAKE:-make}" test
done
