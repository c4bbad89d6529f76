#!/usr/bin/env bash
# From a config file to nodes that kubectl can reach, as a pipeline runs it.
#
#   scripts/bootstrap.sh cluster.yaml
#
# May be run again at any time, also after it was killed: what is done stays done.  It leaves beside
# you NAME.hyperpod-eks.json (the state: keep it), NAME.json (the result), NAME.events (what
# happened) and NAME.kubeconfig.  To delete the cluster with the job that created it, and never one
# that others created, set HYPERPOD_EKS_RUN to an ID of this job and run at its end:
#
#   hyperpod-eks delete NAME --yes --if-created-by "$HYPERPOD_EKS_RUN"
set -euo pipefail
umask 077
export CI=true # nobody is there to answer

config=${1:?usage: bootstrap.sh CONFIG}

# 1. before anything costs money: is the config right, and what would be done?
name=$(hyperpod-eks validate -f "$config" --query config.name)
changes=0
hyperpod-eks plan -f "$config" --detailed-exitcode || changes=$?
case $changes in
  0) echo "nothing to change" ;;
  5) ;;
  *) exit "$changes" ;; # 7: something stands in the way; others: docs/exit-codes.md
esac

# 2. make it so; 6 says that AWS is slower than we waited, and the same command goes on
for attempt in 1 2 3; do
  code=0
  hyperpod-eks create -f "$config" -o json --events "$name.events" >"$name.json" || code=$?
  [ "$code" -eq 6 ] || break
  echo "attempt $attempt: AWS is still at work" >&2
done
[ "$code" -eq 0 ] || exit "$code"

# 3. use it
eval "$(hyperpod-eks outputs "$name" -o env)"
hyperpod-eks kubeconfig "$name" --region "$HYPERPOD_EKS_CLUSTER_REGION" --stdout >"$name.kubeconfig"
kubectl --kubeconfig "$name.kubeconfig" get nodes
echo "$HYPERPOD_EKS_CLUSTER_ARN is ready"
