#!/bin/bash
# Run by HyperPod as root on every new node, before the node joins the EKS cluster.
#
# Where the instance group has a second EBS volume, HyperPod mounts it at /opt/sagemaker, but
# containerd and kubelet would still fill the root volume, whose size cannot be chosen.  This
# script moves both over.  Without that volume it changes nothing.
#
#   Amazon Linux 2     EKS's bootstrap starts containerd with a copy of
#                      /etc/eks/containerd/containerd-config.toml: `root` is set there.
#   Amazon Linux 2023  nodeadm writes /etc/containerd/config.toml anew after this script, so
#                      containerd's unit gets --root, which outranks the file.
#   both               /var/lib/kubelet becomes a link: no configuration names it everywhere.
#
# Running it again changes nothing; after a run that broke off, it does the rest.
# Everything said goes to stdout (CloudWatch) and to /var/log/provision/provisioning.log.
#
#   HYPERPOD_EKS_ROOT      a directory that stands for /, for tests
#   HYPERPOD_EKS_PATIENCE  seconds to wait for an attached volume to be mounted, and, after a
#                          failure, for the log to be shipped before HyperPod takes the node (60)
set -Eeuo pipefail

root=${HYPERPOD_EKS_ROOT:-}
patience=${HYPERPOD_EKS_PATIENCE:-60}
log=$root/var/log/provision/provisioning.log
volume=/opt/sagemaker
images=$volume/containerd/data-root

say() { TZ=UTC printf '%(%FT%TZ)T %s\n' -1 "$*"; }

die() {
  say "failed: $*"
  exit 1
}

mounted() { awk -v at="$volume" '$2 == at { found = 1 } END { exit !found }' "$root/proc/mounts"; }

# More than one EBS disk: something beside the root volume was asked for.
attached() {
  local disks
  disks=$(cat "$root"/sys/block/nvme*/device/model 2>/dev/null | grep -c 'Elastic Block Store') ||
    return 1
  ((disks > 1))
}

# Whether there is a volume to move to, given time to appear.
have_volume() {
  local waited
  for ((waited = 0; ; waited++)); do
    if mounted; then return 0; fi
    if ! attached; then return 1; fi
    if ((waited >= patience)); then
      say "warning: a second EBS volume is attached, but $volume is not mounted after ${patience} s"
      return 1
    fi
    if ((waited == 0)); then say "waiting for $volume to be mounted"; fi
    sleep 1
  done
}

# Give directory $2 on the volume what the system image has in $1: the pause image that cannot be
# pulled, kubelet's kubeconfig.  What an earlier system image left there would not fit this one.
fill() {
  mkdir -p "$(dirname "$2")"
  if [[ ! -d $1 ]]; then
    mkdir -p "$2"
    return
  fi
  rm -rf "$2" "$2.part"
  cp -a "$1" "$2.part"
  mv "$2.part" "$2"
}

# Write stdin to file $1 in one step; the file keeps its mode.
replace() {
  if [[ -f $1 ]]; then cp -p "$1" "$1.part"; fi
  cat >"$1.part"
  mv "$1.part" "$1"
}

# Set the top-level key `root` of the TOML file $1, which has to stand before the first table.
set_root() {
  local text
  text=$(awk -v line="root = \"$images\"" '
    !done && /^[[:space:]]*root[[:space:]]*=/ { print line; done = 1; next }
    !done && /^[[:space:]]*\[/ { print line; done = 1 }
    { print }
    END { if (!done) print line }' "$1")
  replace "$1" <<<"$text"
}

# Copy containerd's data while its database does not change.
copy_images() {
  was_running=
  if systemctl is-active --quiet containerd; then
    systemctl stop containerd
    was_running=yes
  fi
  fill "$root/var/lib/containerd" "$root$images"
}

restart() {
  systemctl daemon-reload
  if [[ $was_running ]]; then systemctl start containerd; fi
  say "containerd keeps its data in $images"
}

# In both, what says "moved" is written last.
containerd_on_al2() {
  local config=$root/etc/eks/containerd/containerd-config.toml
  [[ -f $config ]] || die "no ${config#"$root"}, which every EKS image of Amazon Linux 2 has:" \
    "containerd cannot be moved to $volume"
  if grep -qF "root = \"$images\"" "$config"; then return; fi
  copy_images
  set_root "$config"
  restart
}

containerd_on_al2023() {
  local config=$root/etc/containerd/config.toml unit start
  local dropin=$root/etc/systemd/system/containerd.service.d/50-hyperpod-eks.conf
  unit=$root/etc/systemd/system/containerd.service
  [[ -f $unit ]] || unit=$root/usr/lib/systemd/system/containerd.service
  [[ -f $unit ]] || die "no containerd.service in /etc/systemd/system or /usr/lib/systemd/system:" \
    "containerd cannot be moved to $volume"
  start=$(sed -n 's/^ExecStart=//p' "$unit" | tail -n 1)
  [[ $start ]] || die "${unit#"$root"} has no ExecStart: containerd cannot be moved to $volume"
  if [[ -f $dropin ]]; then return; fi
  copy_images
  if [[ -f $config ]]; then set_root "$config"; fi
  mkdir -p "$(dirname "$dropin")"
  printf '[Service]\nExecStart=\nExecStart=%s --root %s\n' "$start" "$images" | replace "$dropin"
  restart
}

move_kubelet() {
  local link=$root/var/lib/kubelet
  if [[ -L $link ]]; then return; fi
  fill "$link" "$root$volume/kubelet"
  rm -rf "$link"
  ln -s "$volume/kubelet" "$link"
  say "kubelet keeps its data in $volume/kubelet"
}

main() {
  trap 'say "failed: line $LINENO: $BASH_COMMAND"' ERR
  say "begin: on_create.sh"
  if have_volume; then
    local version
    version=$(sed -n 's/^VERSION_ID=//p' "$root/etc/os-release" | tr -d '"')
    case $version in
      2) containerd_on_al2 ;;
      2023) containerd_on_al2023 ;;
      *) die "VERSION_ID in /etc/os-release is '$version': only Amazon Linux 2 and 2023 are known" ;;
    esac
    move_kubelet
  else
    say "no volume at $volume: containerd and kubelet stay on the root volume"
  fi
  say "end: on_create.sh"
}

mkdir -p "$(dirname "$log")" || true
set +e # so that a failure of main comes back here
(
  set -e
  main
) 2>&1 | tee -a "$log"
status=${PIPESTATUS[0]}
if ((status != 0)); then
  say "on_create.sh failed; waiting $patience s for this log to be shipped" | tee -a "$log"
  sync "$log"
  sleep "$patience"
fi
exit "$status"
