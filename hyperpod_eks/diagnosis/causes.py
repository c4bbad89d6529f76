"""The table of known causes of failures: how to recognise them, and what to do next."""

from __future__ import annotations

from hyperpod_eks.aws.errors import CLOCK
from hyperpod_eks.diagnosis.cause import Cause
from hyperpod_eks.diagnosis.smoke import SMOKE

_SHOW_LOG = "hyperpod-eks logs {cluster} --group {group}"
_REMAKE = "hyperpod-eks create {cluster} --replace-failed"
_AGAIN = "{again}"
_SCRIPT = ("script-failed", "script-timeout")
_LOG = "lifecycle log"

CAUSES: tuple[Cause, ...] = (
    # --- credentials and permissions
    Cause(
        "no-credentials",
        r"Unable to locate credentials|Partial credentials found",
        "AWS credentials are missing or incomplete",
        "select a profile that has credentials (--profile, AWS_PROFILE), then run the same command"
        " again",
    ),
    Cause(
        "expired-credentials",
        r"ExpiredToken|UnrecognizedClientException|InvalidClientTokenId"
        r"|security token included in the request is (expired|invalid)"
        r"|validate the provided access credentials|Token has expired",
        "the AWS credentials have expired or are not valid in this region",
        "renew the credentials (for SSO: aws sso login), then run the same command again",
    ),
    Cause(
        "clock",
        CLOCK,
        "the clock of this machine is off by several minutes, or a request was delayed that long"
        " (for example, the laptop was asleep)",
        "compare date -u with the actual UTC time and correct the clock (timedatectl set-ntp true),"
        " then run the same command again; if the clock is right, get new credentials",
        source="error",
        instead_of=("expired-credentials",),
    ),
    Cause(
        "certificate",
        r"CERTIFICATE_VERIFY_FAILED|failed to verify certificate|x509: certificate signed by",
        "this machine does not trust the certificate of the server or of a proxy in front of it",
        "set AWS_CA_BUNDLE, or ca_bundle in the profile, to a CA bundle that contains its"
        " certificate authority, then run the same command again",
        source="error",
    ),
    Cause(
        "proxy",
        r"Proxy Authentication Required|proxyconnect tcp|Failed to connect to proxy",
        "the proxy refused the connection",
        "correct HTTPS_PROXY, or add the host to NO_PROXY, then run the same command again",
        source="error",
    ),
    Cause(
        "pass-role",
        r"not authorized to perform:? iam:PassRole",
        "your identity is not allowed to pass the role to the AWS service (iam:PassRole)",
        "hyperpod-eks policy {cluster} prints the statement RolesPass: attach it to your identity",
        instead_of=("not-allowed",),
    ),
    Cause(
        "service-linked-role",
        r"iam:CreateServiceLinkedRole|service role .* could not be created",
        "HyperPod's service-linked role does not exist, and you are not allowed to create it",
        "aws iam create-service-linked-role --aws-service-name hyperpod.sagemaker.amazonaws.com"
        " (run it as an identity that is allowed to)",
        instead_of=("not-allowed",),
    ),
    # Amazon S3 User Guide, "Using server-side encryption with AWS KMS keys", Permissions; S3
    # passes the refusals of KMS on with the prefix "KMS."
    Cause(
        "bucket-key",
        r"perform:? kms:|KMS\.\w+Exception",
        "the KMS key of a bucket cannot be used: your identity or the key's policy lacks"
        " kms:Decrypt or kms:GenerateDataKey, or the key is disabled or is being deleted",
        "aws kms describe-key --key-id KEY --region {region} shows the state of the key; enable it,"
        " or allow both actions, then run the same command again",
        source="error",
        instead_of=("not-allowed",),
    ),
    Cause(
        "no-bucket",
        "",
        "the bucket {bucket} does not exist",
        "aws s3 mb s3://{bucket} --region {region}, if it is to keep the manifest; hyperpod-eks"
        " create {cluster}, if it is the cluster's own",
    ),
    Cause(
        "not-allowed",
        r"not authorized to perform|UnauthorizedOperation|\(AccessDenied(Exception)?\)",
        "your identity lacks a permission, or a permissions boundary or SCP removes it",
        "hyperpod-eks policy {cluster} prints what is needed; hyperpod-eks preflight {cluster}"
        " names what is missing",
        source="error",
    ),
    Cause(
        "no-access-entry",
        "asked for the client to provide credentials",
        "the Kubernetes API does not accept your identity: the EKS cluster has no access entry for"
        " your IAM role, or the entry names a role session instead of the role",
        "aws eks list-access-entries --cluster-name {eks} --region {region}, then"
        " hyperpod-eks create {cluster}, which creates yours",
    ),
    # --- region, quotas, capacity
    Cause(
        "no-hyperpod-region",
        r"Could not connect to the endpoint URL.*sagemaker|UnknownOperation.*"
        r"|AWS::SageMaker::Cluster cannot be found",
        "HyperPod is not available in this region",
        "choose another region, for example: hyperpod-eks create {name} --region us-west-2",
    ),
    Cause(
        "instance-quota",
        r"service limit '(?P<quota>[^']+)' is (?P<limit>[\d.]+)",
        'the quota "{quota}" of the account is {limit}; the default for most instance types is 0',
        "aws service-quotas list-service-quotas --service-code sagemaker --region {region} --query"
        " \"Quotas[?QuotaName=='{quota}'].QuotaCode\", then request-service-quota-increase",
        source="error|FailureMessage|event",
    ),
    Cause(
        "account-quota",
        r"(?P<what>Vpc|InternetGateway|Address|NatGateway|RouteTable|SecurityGroup)LimitExceeded",
        "the account has reached its {what} quota in this region",
        "hyperpod-eks preflight {cluster} shows the quota, the usage and the command that requests"
        " an increase",
    ),
    Cause(
        "no-capacity-in-zone",
        r"sufficient capacity in the Availability Zone",
        "AWS has no capacity for this instance type in the chosen zone",
        "choose another zone in network.availability_zone_ids, or run the same command later",
        instead_of=("no-capacity",),
    ),
    Cause(
        "no-capacity",
        r"sufficient capacity|Insufficient ?(Instance)?Capacity|Cannot provision requested",
        "AWS has no capacity for this instance type right now",
        "run the same command later, choose another type or zone, or use a training plan",
    ),
    Cause(
        "capacity-elsewhere",
        r"No subnets in the capacity AZ",
        "the capacity (training plan or reservation) is in a zone where the cluster has no subnet",
        "add its zone id to network.availability_zone_ids; use zone ids (usw2-az1), not zone names"
        " (us-west-2a)",
    ),
    # --- nodes: network
    Cause(
        "efa-self-rule",
        r"EFA health checks did not run successfully",
        "the security group does not allow all traffic from and to itself, which EFA requires (a"
        " 0.0.0.0/0 rule is not enough)",
        "hyperpod-eks preflight {cluster} names the missing rule; then " + _REMAKE,
    ),
    Cause(
        "no-way-out",
        r"network misconfiguration|Connect timeout on endpoint URL",
        "nodes cannot reach AWS: there is no route to a NAT gateway or endpoint, DNS is disabled,"
        " or an endpoint's security group blocks port 443",
        "hyperpod-eks status {cluster} shows routes and gateways; hyperpod-eks preflight {cluster}"
        " checks adopted VPCs",
        instead_of=_SCRIPT,
    ),
    # --- nodes: lifecycle scripts
    Cause(
        "script-carriage-return",
        r"\$'\\r'|bad interpreter",
        "the lifecycle script has Windows line endings (CRLF) or an invalid shebang line",
        "sed -i 's/\\r$//' on_create.sh, then " + _AGAIN,
        _LOG,
        _SCRIPT,
    ),
    Cause(
        "script-old-path",
        r"/etc/eks/containerd/containerd-config\.toml: No such file",
        "the lifecycle script was written for Amazon Linux 2, and the nodes run Amazon Linux 2023",
        "use the script included in hyperpod-eks (remove lifecycle.path from the config), then "
        + _AGAIN,
        _LOG,
        ("script-missing", *_SCRIPT),
    ),
    Cause(
        "script-not-readable",
        r"AccessDenied.*GetObject|GetObject.*AccessDenied|kms:Decrypt",
        "the nodes' execution role cannot read the lifecycle bucket or use its KMS key (the AWS"
        " managed policy covers only buckets named sagemaker-*)",
        "hyperpod-eks status {cluster} shows the drift; allow the execution role to read the"
        " bucket",
        _LOG,
        _SCRIPT,
    ),
    Cause(
        "script-missing",
        r"NoSuchBucket|NoSuchKey|: No such file",
        "the lifecycle script, or a file that it calls, is not in the bucket",
        "hyperpod-eks create {cluster} uploads the folder that lifecycle.path names",
        _LOG,
        _SCRIPT,
    ),
    Cause(
        "script-timeout",
        r"Lifecycle scripts execution timed out",
        "the lifecycle script timed out; move large downloads out of it",
        _SHOW_LOG,
        also=_LOG,
    ),
    Cause(
        "script-failed",
        r"Lifecycle scripts did not run successfully",
        "the lifecycle script exited with an error",
        _SHOW_LOG + ", correct the script, then " + _AGAIN,
        also=_LOG,
    ),
    # --- nodes: others
    Cause(
        "not-ready",
        "",
        "nodes are running, but the kubelet does not report Ready: usually the VPC CNI fails, or"
        " the nodes cannot reach the EKS endpoint",
        "hyperpod-eks nodes {cluster}, then hyperpod-eks ssm {cluster} NODE --run and"
        " journalctl -u kubelet",
    ),
    Cause(
        "too-many-pods",
        r"Too many pods",
        "the nodes do not have room for the add-on pods; small instance types run only a few pods",
        "add nodes or choose a larger instance type in instance_groups, then " + _AGAIN,
    ),
    Cause(
        "role-lacks-permission",
        r"(?P<role>arn:\S+) does not have permission to perform (?P<action>\S+)"
        r"|cannot assume the execution role",
        "the nodes' execution role is missing a permission or its trust policy; HyperPod needs both"
        " until the cluster is deleted",
        "hyperpod-eks create {cluster} restores the role; AWS then continues by itself",
    ),
    Cause(
        "chart-missing",
        r"missing one or more required dependencies",
        "the HyperPod Helm chart is not installed, or its values disable a required component",
        "remove the disabling values from chart.values, then " + _AGAIN,
    ),
    Cause(
        "chart-values",
        "",
        "some values in chart.values conflict",
        "correct chart.values as the message says; hyperpod-eks preflight {cluster} checks it",
    ),
    Cause(
        "chart-not-fetched",
        "x509|could not download chart",
        "the chart, or one of its dependencies, cannot be downloaded from this machine",
        "pass a local copy with --chart FOLDER, or disable the component in chart.values; of a"
        " further chart, correct its address and version, or name a folder in charts",
        source="error",
    ),
    Cause(
        "image-not-copied",
        "",
        "an image of a chart cannot be copied to ECR",
        "run hyperpod-eks mirror where the registry can be reached; it continues with what is"
        " missing",
    ),
    # --- EKS and add-ons
    Cause(
        "addon-conflict",
        r"ConfigurationConflict",
        "another tool manages fields of the add-on {about}",
        "aws eks update-addon --cluster-name {eks} --addon-name {about} --resolve-conflicts"
        " OVERWRITE --region {region}, then " + _AGAIN,
        "add-on",
    ),
    Cause(
        "addon-denied",
        r"AddonPermissionFailure|AdmissionRequestDenied",
        "the add-on {about} was rejected: its role lacks a permission, or an admission webhook"
        " denied the request",
        "aws eks describe-addon --cluster-name {eks} --addon-name {about} --region {region}",
        "add-on",
    ),
    Cause(
        "eks-no-addresses",
        r"InsufficientFreeAddresses",
        "a subnet of the control plane has fewer than six free addresses",
        "free some addresses or choose another subnet; then " + _REMAKE,
    ),
    Cause(
        "eks-role-gone",
        r"IamRoleNotFound",
        "the control plane's role was deleted or changed",
        "hyperpod-eks create {cluster} creates it again",
    ),
    Cause(
        "failed-in-use",
        "",
        "AWS reports a cluster that was ready before as failed; what is in it may still be needed",
        "ask AWS Support to repair it, or delete it by hand, then hyperpod-eks create {cluster}",
    ),
    Cause(
        "eks-failed",
        "",
        "AWS could not create the EKS control plane, and a failed EKS cluster does not recover",
        _REMAKE,
        vague=True,
    ),
    Cause(
        "no-nodes-for-addons",
        r"InsufficientNumberOfReplicas",
        "the add-on {about} has no node to run on yet: it becomes ready with the first nodes",
        "hyperpod-eks status {cluster}: see why there are no nodes",
        "add-on",
        vague=True,
    ),
    # --- names, deletes
    Cause(
        "name-taken",
        "",
        "a resource that belongs to {who} already has a name that this cluster needs",
        "choose another cluster name, or remove that resource yourself",
    ),
    Cause(
        "held-by-interface",
        "",
        "a network interface ({eni}) still uses the cluster's network",
        "aws ec2 delete-network-interface --network-interface-id {eni} --region {region} (when"
        " nothing needs it), then run the same command again",
        instead_of=("still-used",),
    ),
    Cause(
        "still-used",
        r"DependencyViolation|has dependencies|dependent object|mapped public address",
        "something that the cluster did not create still uses its network",
        "hyperpod-eks status {cluster} shows what remains; remove what uses the network, then"
        " run the same command again",
        vague=True,
    ),
    *SMOKE,
    # --- if no other cause matches
    Cause(
        "failed-is-final",
        "",
        "the HyperPod cluster has status Failed, and a Failed cluster does not recover",
        "remove the cause, then " + _REMAKE,
        vague=True,
    ),
    Cause(
        "stuck-nodes",
        "",
        "instance group {group} has {current} of its {target} nodes, and AWS gives no reason yet",
        "hyperpod-eks events {cluster}, then hyperpod-eks create {cluster} to continue waiting",
        vague=True,
    ),
)
