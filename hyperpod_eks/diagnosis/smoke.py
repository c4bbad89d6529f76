"""Causes for which a cluster that exists does not work, as `hyperpod-eks test` finds them."""

from __future__ import annotations

from hyperpod_eks.diagnosis.cause import Cause

SMOKE: tuple[Cause, ...] = (
    Cause(
        "not-registered",
        "",
        "HyperPod has more nodes than Kubernetes: some have not registered with the cluster yet, or"
        " cannot reach the EKS endpoint",
        "hyperpod-eks nodes {cluster}, then hyperpod-eks logs {cluster} --group {group}",
    ),
    Cause(
        "node-unhealthy",
        "",
        "HyperPod has found a fault of the node {node}, and keeps pods away from it",
        "hyperpod-eks events {cluster}, then hyperpod-eks nodes {cluster} replace {node}",
    ),
    Cause(
        "node-checking",
        "",
        "deep health checks are running, and the node accepts no pods until they end",
        "hyperpod-eks status {cluster}, and run the same command again once they have ended",
    ),
    Cause(
        "node-taint",
        "",
        "the node {node} has a taint that its instance group does not declare, so no pod that"
        " does not tolerate it is scheduled there",
        "kubectl taint node {node} {taint}- removes it",
    ),
    Cause(
        "no-device",
        "",
        "nodes of {type} offer fewer {device} to pods than they have: the chart's device plugin is"
        " off, does not list the type, or does not run",
        "kubectl get pods --all-namespaces | grep device-plugin, then hyperpod-eks create {cluster}"
        " with the plugin on in chart.values",
    ),
    Cause(
        "addon-unhealthy",
        "",
        "the add-on {about} is not healthy",
        "aws eks describe-addon --cluster-name {eks} --addon-name {about} --region {region}",
        vague=True,
    ),
    Cause(
        "addon-missing",
        "",
        "the EKS add-on {about} of the cluster does not exist: it was deleted, or not created yet",
        "hyperpod-eks create {cluster} creates it",
    ),
    Cause(
        "component-failing",
        "",
        "the {kind} {workload} in {namespace} does not run on all nodes that it should run on",
        "kubectl --namespace {namespace} describe {kind} {workload}, and kubectl --namespace"
        " {namespace} logs {kind}/{workload}",
    ),
    Cause(
        "kind-missing",
        "",
        "the kind {kind} is not defined: its operator was not installed, or its"
        " CustomResourceDefinition was deleted",
        "hyperpod-eks create {cluster} installs it",
    ),
    Cause(
        "claim-pending",
        "",
        "the claim {claim} in {namespace} has no volume, so that pods that use it do not start",
        "kubectl --namespace {namespace} describe pvc {claim}, then hyperpod-eks create {cluster}",
    ),
    Cause(
        "not-admitted",
        "",
        "the job of the test does not start: its queue has no free quota, or a policy of the"
        " cluster refuses it",
        "kubectl get workloads --all-namespaces, then run the same command again once jobs have"
        " ended",
    ),
    Cause(
        "pod-unplaced",
        "",
        "no node of the instance group {group} accepts a pod: other pods use what it needs, or a"
        " taint keeps it away",
        "kubectl get pods --all-namespaces --output wide, and hyperpod-eks nodes {cluster}",
    ),
    Cause(
        "image-not-pulled",
        "",
        "nodes of {group} cannot pull an image: there is no route to the registry, or their role"
        " may not read from it",
        "hyperpod-eks status {cluster} shows routes, endpoints and roles; --image names another"
        " image",
    ),
    Cause(
        "pod-no-address",
        r"failed to assign an IP address to container",
        "the VPC CNI has no free address for a pod",
        "aws ec2 describe-subnets --region {region} shows the free addresses; use larger subnets or"
        " fewer pods, see network.secondary_cidrs",
        source="test .*",
    ),
    Cause(
        "pod-not-started",
        "",
        "a pod was assigned to a node of {group}, and its containers do not start",
        "kubectl get events --all-namespaces --field-selector type=Warning, then hyperpod-eks nodes"
        " {cluster}",
    ),
    Cause(
        "volume-not-mounted",
        "",
        "nodes of {group} cannot mount a file system: its security group does not let them in, its"
        " CSI driver fails, or the nodes have no Lustre client",
        "kubectl --namespace kube-system get pods | grep csi, then hyperpod-eks status {cluster}",
    ),
    Cause(
        "file-system-read-only",
        "",
        "pods of {group} cannot write to a file system",
        "aws fsx describe-file-systems --region {region}, or aws efs describe-file-systems --region"
        " {region}: it may be full, or mounted read-only",
    ),
    Cause(
        "pod-dns",
        "",
        "pods of {group} cannot resolve names: CoreDNS does not answer them, or the VPC's DNS is"
        " disabled",
        "kubectl --namespace kube-system logs deployment/coredns; the security group must allow"
        " port 53 among nodes",
    ),
    Cause(
        "pod-no-way-out",
        "",
        "pods of {group} do not reach AWS: there is no route to a NAT gateway or to an endpoint of"
        " STS, or its security group blocks port 443",
        "hyperpod-eks status {cluster} shows routes and gateways; hyperpod-eks preflight {cluster}"
        " checks adopted VPCs",
    ),
    Cause(
        "pod-credentials",
        "",
        "a pod of a service account with a role gets no credentials: its association, the trust"
        " policy of the role or the agent is wrong",
        "aws eks list-pod-identity-associations --cluster-name {eks} --region {region}, then"
        " hyperpod-eks create {cluster}, which restores them",
    ),
    Cause(
        "kubelet-unreachable",
        "",
        "the control plane does not reach the kubelets of {group}, so kubectl logs and exec fail: a"
        " security group blocks port 10250 from the control plane to the nodes",
        "hyperpod-eks status {cluster} shows the security groups; allow port 10250, then run the"
        " same command again",
    ),
    Cause(
        "all-reduce-failed",
        "",
        "an all-reduce between two nodes of {group} does not run to its end",
        "hyperpod-eks test {cluster} --level 4 lets HyperPod examine the nodes; it replaces one"
        " that fails",
    ),
    Cause(
        "efa-not-used",
        "",
        "NCCL uses TCP sockets instead of EFA between nodes of {group}: its OFI plugin or libfabric"
        " is missing in the image, or EFA does not work",
        "hyperpod-eks preflight {cluster} checks the security group; the image needs aws-ofi-nccl"
        " and libfabric with the provider efa",
    ),
    Cause(
        "slow-network",
        "",
        "the bandwidth between two {type} is below {least} GB/s, which this type reaches",
        "hyperpod-eks test {cluster} --level 4 lets HyperPod examine the nodes; other jobs must not"
        " use them meanwhile",
    ),
    Cause(
        "deep-check-failed",
        "",
        "HyperPod's deep health checks found a fault of the node {node}, or did not end",
        "hyperpod-eks events {cluster}; HyperPod reboots or replaces the node, or hyperpod-eks"
        " nodes {cluster} replace {node} does",
    ),
)
