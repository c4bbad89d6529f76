"""Add-ons: what EKS installs into a cluster and keeps an eye on.

``Sim.failures["addon/NAME"]`` is an AddonIssueCode (``ConfigurationConflict``) with which the
creation or update of that add-on fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from hyperpod_eks.local.aws import eks_access, eks_inference, eks_kube, roles
from hyperpod_eks.local.aws.eks_data import ADDONS, CREATABLE, SETTINGS, AddonKind
from hyperpod_eks.local.aws.eks_model import Addon, Cluster
from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.wire import Refused, new_uuid

#: What EKS installs by itself with bootstrapSelfManagedAddons.
GOVERNANCE = "amazon-sagemaker-hyperpod-taskgovernance"
INFERENCE = "amazon-sagemaker-hyperpod-inference"
OLD_KUEUE = "v1.3."
"""Versions whose Kueue stores cohorts as v1alpha1, as Kueue before 0.13 does.  v1.5 and v1.6 store
the same versions, and v1.6 has Kueue 0.19: v1beta2 (developer guide, "Upgrade the task …")."""
_SELF_MANAGED = ("vpc-cni", "kube-proxy", "coredns")


def create(cluster: Cluster, request: dict[str, Any]) -> Addon:
    """Begin to install an add-on (EKS API CreateAddon)."""
    sim, name = current(), request["addonName"]
    if (there := cluster.addons.get(name)) is not None:
        if request.get("clientRequestToken") and there.request == request:
            return there
        raise Refused("ResourceInUseException", "Addon already exists.")
    kind = _kind(cluster, name)
    _check(cluster, kind, request)
    version = request.get("addonVersion") or default_version(kind, cluster.document["version"])
    now, (what, namespace, workload) = sim.clock.now(), kind.workload.split("/")
    region = cluster.arn.split(":")[3]
    arn = f"arn:aws:eks:{region}:{ACCOUNT}:addon/{cluster.name}/{name}/{new_uuid(sim.ids)}"
    addon = Addon(
        {
            "addonName": name,
            "clusterName": cluster.name,
            "status": "CREATING",
            "addonVersion": version,
            "health": {"issues": []},
            "addonArn": arn,
            "createdAt": now,
            "modifiedAt": now,
            "serviceAccountRoleArn": request.get("serviceAccountRoleArn"),
            "tags": dict(request.get("tags") or {}),
            "publisher": "eks",
            "owner": "aws",
            "configurationValues": request.get("configurationValues"),
            "podIdentityAssociations": _associate(cluster, namespace, request, arn),
            "namespaceConfig": {"namespace": namespace},
        },
        request,
        (what, namespace, workload),
    )
    cluster.addons[name] = addon
    _settle_later(cluster, addon, force=request.get("resolveConflicts") == "OVERWRITE")
    return addon


def update(cluster: Cluster, request: dict[str, Any]) -> dict[str, Any]:
    """Begin to change an add-on (EKS API UpdateAddon); returns the Update."""
    sim, addon = current(), find(cluster, request)
    status = addon.document["status"]
    if status in ("CREATING", "UPDATING", "DELETING"):
        text = f"Addon {addon.document['addonName']} cannot be updated as it is currently in "
        raise Refused("ResourceInUseException", f"{text}{status} state")
    kind = _kind(cluster, request["addonName"])
    _check(cluster, kind, request)
    members = ("addonVersion", "serviceAccountRoleArn", "configurationValues")
    changes = {member: request[member] for member in members if request.get(member) is not None}
    document = addon.document
    update_ = {
        "id": new_uuid(sim.ids),
        "status": "InProgress",
        "type": "AddonUpdate",
        "params": [{"type": k[0].upper() + k[1:], "value": str(v)} for k, v in changes.items()],
        "createdAt": sim.clock.now(),
        "errors": [],
        "addonName": document["addonName"],
    }
    cluster.updates[update_["id"]] = update_
    if request.get("podIdentityAssociations") is not None:
        for association_id in [
            each
            for each, one in cluster.associations.items()
            if one.document["ownerArn"] == document["addonArn"]
        ]:
            del cluster.associations[association_id]
        arns = _associate(cluster, addon.workload[1], request, document["addonArn"])
        document["podIdentityAssociations"] = arns
    before = document["addonVersion"]
    document.update(changes, status="UPDATING", modifiedAt=sim.clock.now())
    force = request.get("resolveConflicts") == "OVERWRITE"
    _settle_later(cluster, addon, force=force, update=update_, before=before)
    return update_


def delete(cluster: Cluster, request: dict[str, Any]) -> Addon:
    """Begin to remove an add-on; with ``preserve`` its workload stays."""
    sim, addon = current(), find(cluster, request)
    addon.document["status"] = "DELETING"

    def gone() -> None:
        if cluster.addons.get(request["addonName"]) is not addon:
            return
        del cluster.addons[request["addonName"]]
        owned = addon.document["addonArn"]
        for association_id, association in list(cluster.associations.items()):
            if association.document["ownerArn"] == owned:
                del cluster.associations[association_id]
        if not request.get("preserve"):
            eks_kube.delete_workload(cluster, addon.workload)
            if request["addonName"] == GOVERNANCE and (kubernetes := eks_kube.endpoint(cluster)):
                kubernetes.queue(installed=False)

    sim.clock.after(sim.delays.addon, gone)
    return addon


def find(cluster: Cluster, request: dict[str, Any]) -> Addon:
    """Return an add-on by name; ResourceNotFoundException without."""
    addon = cluster.addons.get(request["addonName"])
    if addon is None:
        text = f"No addon: {request['addonName']} found in cluster: {cluster.name}"
        raise Refused("ResourceNotFoundException", text)
    return addon


def describe(cluster: Cluster, addon: Addon) -> dict[str, Any]:
    """Return the Addon with its health of this moment.

    A Deployment that lacks replicas makes it DEGRADED, so that coredns is until nodes are ready
    (EKS User Guide, "Amazon EKS add-ons"; InsufficientNumberOfReplicas).  EKS looks at one that is
    DEGRADED every quarter of an hour or so (``Delays.addon_check``): "coredns always takes 15
    minutes, although its pods are already running" (aws-ia/terraform-aws-eks-blueprints, #642).
    """
    document, sim = addon.document, current()
    if document["status"] in ("ACTIVE", "DEGRADED"):
        healthy = eks_kube.is_healthy(cluster, addon.workload)
        if not healthy:
            addon.healthy_since = None
        elif addon.healthy_since is None:
            addon.healthy_since = sim.clock.elapsed()
        if healthy and document["status"] == "DEGRADED":
            since = addon.healthy_since or 0.0
            healthy = sim.clock.elapsed() >= since + sim.delays.addon_check
        document["status"] = "ACTIVE" if healthy else "DEGRADED"
        text = "The add-on is unhealthy because it doesn't have the desired number of replicas."
        document["health"] = {
            "issues": [] if healthy else [_issue("InsufficientNumberOfReplicas", text)]
        }
    return document


def install_self_managed(cluster: Cluster) -> None:
    """Install the networking add-ons that EKS then does not manage."""
    for name in _SELF_MANAGED:
        kind = ADDONS[name]
        version = default_version(kind, cluster.document["version"])
        what, namespace, workload = kind.workload.split("/")
        image = _image(cluster, workload, version)
        eks_kube.apply_workload(
            cluster, (what, namespace, workload), f"{image}-self-managed", manager="eks-bootstrap",
            force=True,
        )  # fmt: skip


def _settle_later(
    cluster: Cluster,
    addon: Addon,
    *,
    force: bool,
    update: dict[str, Any] | None = None,
    before: str = "",
) -> None:
    sim, document = current(), addon.document

    def settle() -> None:
        name = document["addonName"]
        busy = document["status"] in ("CREATING", "UPDATING")
        if cluster.addons.get(name) is not addon or not busy:
            return
        code, text = sim.failure("addon", name), "Simulated add-on failure."
        if name == GOVERNANCE and not code and (text := _stored(before, document["addonVersion"])):
            code, document["addonVersion"] = "ConfigurationConflict", before
        if not code:
            code, text = _missing(cluster, name)
        if not code and name == INFERENCE:
            code, text = eks_inference.refusal(cluster, document["configurationValues"] or "{}")
        if not code:
            image = _image(cluster, addon.workload[2], document["addonVersion"])
            settings = yaml.safe_load(document["configurationValues"] or "{}")
            tolerations = settings.get("tolerations")
            text = eks_kube.apply_workload(
                cluster, addon.workload, image, manager="eks", force=force, tolerations=tolerations
            )
            for each in ADDONS[name].defines:
                text = text or eks_kube.define(cluster, each)
            code = "ConfigurationConflict" if text else ""
            if name == GOVERNANCE and not code and (kubernetes := eks_kube.endpoint(cluster)):
                kubernetes.queue(installed=True, old=document["addonVersion"].startswith(OLD_KUEUE))
        document["modifiedAt"] = sim.clock.now()
        document["health"] = {"issues": [_issue(code, text)] if code else []}
        if code:
            document["status"] = "UPDATE_FAILED" if update else "CREATE_FAILED"
        else:
            document["status"] = "ACTIVE"
        if update is not None:
            update["status"] = "Failed" if code else "Successful"
            update["errors"] = [{"errorCode": code, "errorMessage": text}] if code else []

    sim.clock.after(sim.delays.addon, settle)


def _missing(cluster: Cluster, name: str) -> tuple[str, str]:
    """Return the issue of an add-on whose manifest has objects of kinds that are not defined.

    cert-manager is "a prerequisite" of the training operator, whose manifest has Certificates
    (SageMaker developer guide, "Installing the training operator"); the words are kubectl's.
    """
    if not (needs := ADDONS[name].needs):
        return "", ""
    group, _, other = needs.partition("/")
    for each in ADDONS[name].beside:
        if not eks_kube.exists(cluster, ADDONS[each].workload):
            return "K8sResourceNotFound", f"required add-on {each} is not installed"
    if eks_kube.exists(cluster, ADDONS[other].workload):
        return "", ""
    text = f'no matches for kind "Certificate" in version "{group}/v1"'
    return "K8sResourceNotFound", f"{text}; ensure CRDs are installed first"


def _stored(before: str, after: str) -> str:
    """Return why Kueue is not upgraded from v1.3, whose objects are stored as v1alpha1.

    SageMaker developer guide, "Upgrade the task governance add-on"; the code of the issue is ours.
    """
    if not before.startswith(OLD_KUEUE) or after.startswith(OLD_KUEUE):
        return ""
    return (
        'CustomResourceDefinition.apiextensions.k8s.io "cohorts.kueue.x-k8s.io" is invalid:'
        ' status.storedVersions[0]: Invalid value: "v1alpha1": missing from spec.versions'
    )


def _issue(code: str, text: str) -> dict[str, Any]:
    return {"code": code, "message": text, "resourceIds": []}


def _image(cluster: Cluster, name: str, version: str) -> str:
    region = cluster.arn.split(":")[3]
    return f"602401143452.dkr.ecr.{region}.amazonaws.com/eks/{name}:{version}"


def _kind(cluster: Cluster, name: str) -> AddonKind:
    version = cluster.document["version"]
    if name not in ADDONS or not ADDONS[name].for_kubernetes(version):
        text = f"Addon {name} specified is not supported in {version} kubernetes version"
        raise Refused("InvalidParameterException", text)
    return ADDONS[name]


def _check(cluster: Cluster, kind: AddonKind, request: dict[str, Any]) -> None:
    kubernetes = cluster.document["version"]
    version = request.get("addonVersion") or default_version(kind, kubernetes)
    if version not in kind.for_kubernetes(kubernetes):
        text = "Addon version specified is not supported"
        raise Refused("InvalidParameterException", f"{text}: {version}")
    role = request.get("serviceAccountRoleArn")
    if role and roles.find(role) is None:
        text = f"Role with arn: {role} does not exist"
        raise Refused("InvalidParameterException", text)
    if request.get("podIdentityAssociations") and not kind.pod_identity:
        text = f"Pod Identity feature is not supported for addon version: {version}"
        raise Refused("InvalidParameterException", text)
    if not request.get("configurationValues"):
        return
    no = "ConfigurationValue provided in request is not supported: "
    try:
        values = yaml.safe_load(request["configurationValues"])
    except yaml.YAMLError as error:
        raise Refused("InvalidParameterException", f"{no}not a JSON or YAML object") from error
    if wrong := _violations(settings_schema(request["addonName"]), values):
        text = f"{no}Json schema validation failed with error: [{', '.join(wrong)}]"
        raise Refused("InvalidParameterException", text)


def settings_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of an add-on's settings."""
    schema = {"$schema": "http://json-schema.org/draft-06/schema#", "type": "object"}
    if (known := SETTINGS.get(name)) is None:
        return schema
    properties = {setting: {"type": kind} for setting, kind in known.items()}
    return {**schema, "additionalProperties": False, "properties": properties}


def _violations(schema: dict[str, Any], values: Any) -> list[str]:
    """Say what a schema refuses, in the words of EKS's validator.

    They are public in aws/containers-roadmap#2216 and cookpad/terraform-aws-eks#331.
    """
    from jsonschema import Draft6Validator  # noqa: PLC0415  costs 0.1 s

    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer",
             float: "number", type(None): "null"}  # fmt: skip
    wrong = []
    for error in Draft6Validator(schema).iter_errors(values):
        if error.validator == "type":
            found = kinds.get(type(error.instance), "object")
            wrong.append(f"{error.json_path}: {found} found, {error.validator_value} expected")
        else:
            more = sorted(set(error.instance) - set(error.schema["properties"]))
            no = "is not defined in the schema and the schema does not allow additional properties"
            wrong += [f"{error.json_path}.{each}: {no}" for each in more]
    return wrong


def _associate(cluster: Cluster, namespace: str, request: dict[str, Any], owner: str) -> list[str]:
    return [
        eks_access.create_association(cluster, {"namespace": namespace, **each}, owner).document[
            "associationArn"
        ]
        for each in request.get("podIdentityAssociations") or []
    ]


# -- versions ------------------------------------------------------------------------------------


def default_version(kind: AddonKind, kubernetes: str) -> str:
    """Return the version that EKS installs when none is named."""
    versions = kind.for_kubernetes(kubernetes)
    return versions[min(kind.default, len(versions) - 1)]


def versions(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the AddonInfo of every add-on that a request asks for (DescribeAddonVersions)."""
    wanted = request.get("kubernetesVersion")
    for name, kind in ADDONS.items():
        if request.get("addonName") not in (None, name) or not _asked(kind, request):
            continue
        for_these = [v for v in CREATABLE if wanted in (None, v) and kind.for_kubernetes(v)]
        if for_these:
            yield {
                "addonName": name,
                "type": kind.type,
                "addonVersions": [
                    one
                    for version in kind.versions
                    if (one := _info(kind, version, for_these))["compatibilities"]
                ],
                "publisher": "eks",
                "owner": "aws",
                "defaultNamespace": kind.workload.split("/")[1],
            }


def _asked(kind: AddonKind, request: dict[str, Any]) -> bool:
    return all(
        value in (request.get(member) or [value])
        for member, value in (("types", kind.type), ("publishers", "eks"), ("owners", "aws"))
    )


def _info(kind: AddonKind, version: str, kubernetes: list[str]) -> dict[str, Any]:
    return {
        "addonVersion": version,
        "architecture": ["amd64", "arm64"],
        "computeTypes": ["ec2", "hybrid", "hyperpod"],
        "compatibilities": [
            {
                "clusterVersion": each,
                "platformVersions": ["*"],
                "defaultVersion": version == default_version(kind, each),
            }
            for each in kubernetes
            if version in kind.for_kubernetes(each)
        ],
        "requiresConfiguration": False,
        "requiresIamPermissions": kind.pod_identity,
    }


def configuration(request: dict[str, Any]) -> dict[str, Any]:
    """Answer an add-on's settings and recommended policies (DescribeAddonConfiguration)."""
    name, version = request["addonName"], request["addonVersion"]
    if name not in ADDONS or version not in ADDONS[name].versions:
        text = f"Addon {name} with version {version} not found"
        raise Refused("ResourceNotFoundException", text)
    return {
        "addonName": name,
        "addonVersion": version,
        "configurationSchema": json.dumps(settings_schema(name)),
        "podIdentityConfiguration": [
            {
                "serviceAccount": account,
                "recommendedManagedPolicies": [
                    f"arn:aws:iam::aws:policy/{policy}"
                    for whose, policy in ADDONS[name].recommended
                    if whose == account
                ],
            }
            for account in dict.fromkeys(whose for whose, _ in ADDONS[name].recommended)
        ],
    }
