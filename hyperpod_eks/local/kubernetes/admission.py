"""What an object must be, and what it gets without asking: the rules and defaults of its kind."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from ipaddress import IPv4Network

from . import cel, rules, schema
from .errors import Cause, bad_request, invalid
from .objects import Obj, clone, dig
from .resources import Resource

# --- rules ---------------------------------------------------------------------------------------

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    f"for validation is '{_LABEL}')"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    rf"for validation is '{_LABEL}(\.{_LABEL})*')"
)
_DNS_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_DNS_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    f"regex used for validation is '{_DNS_1035}')"
)
_WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet")


def check(
    resource: Resource, obj: Obj, namespace: str, live: Obj | None, *, whole: bool = False
) -> None:
    """Refuse an object that is to be stored at `resource` in `namespace`, in place of `live`.

    `whole` asks for its fields, too: controllers may be trusted with those. Raises ApiError 400 if
    the object is of another kind or place, 422 if its name or fields break a rule.
    """
    kind, version = obj["kind"], obj["apiVersion"].rpartition("/")[2]
    if (kind, obj["apiVersion"]) != (resource.kind, resource.group_version):
        here = f"{resource.group or 'core'}.{resource.kind}"
        raise bad_request(
            f'{kind} in version "{version}" cannot be handled as a {resource.kind}: converting '
            f"({version}.{kind}) to ({here}): unknown conversion"
        )
    if resource.namespaced and obj["metadata"].get("namespace", namespace) != namespace:
        raise bad_request(
            f"the namespace of the provided object does not match the namespace sent on the "
            f"request ({obj['metadata']['namespace']} is not {namespace})"
        )
    causes = [
        *_name_causes(resource, obj),
        *(_content_causes(resource, obj, live) if whole else ()),
    ]
    causes = list({cause.field: cause for cause in reversed(causes)}.values())[::-1]
    if whole and resource.definition and cel.has_rules(resource.schema):
        causes += [cel.skipped()] if causes else cel.causes(resource.schema, obj, live)
    if causes:
        raise invalid(resource.group, kind, obj["metadata"].get("name", ""), causes)


def _content_causes(resource: Resource, obj: Obj, live: Obj | None) -> Iterator[Cause]:
    yield from schema.causes(resource, obj)
    yield from rules.causes(obj, live, custom=bool(resource.definition))


def _name_causes(resource: Resource, obj: Obj) -> list[Cause]:
    name = obj["metadata"].get("name")
    if not name:
        message = "Required value: name or generateName is required"
        return [Cause("metadata.name", message, "FieldValueRequired")]
    if resource.group == "rbac.authorization.k8s.io":  # system:node and the like
        return []
    pattern, rule = _SUBDOMAIN, _SUBDOMAIN_RULE
    if resource.kind == "Namespace":
        pattern, rule = _LABEL, _LABEL_RULE
    if resource.kind == "Service" and not resource.definition:
        pattern, rule = _DNS_1035, _DNS_1035_RULE
    if re.fullmatch(pattern, name) and len(name) <= 253:
        return []
    return [Cause("metadata.name", f'Invalid value: "{name}": {rule}')]


# --- defaults ------------------------------------------------------------------------------------

_GENERATIONS = {
    *(*_WORKLOADS, "CustomResourceDefinition", "Ingress", "NetworkPolicy", "PodDisruptionBudget"),
    *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "CronJob", "Job"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
}
_POD: Obj = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
_CONTAINER: Obj = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_NODE_INFO = (
    *("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion"),
    *("kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture"),
)
PROTECTION = {
    "PersistentVolume": "kubernetes.io/pv-protection",
    "PersistentVolumeClaim": "kubernetes.io/pvc-protection",
}
"""Finalizers of volumes and claims, which `volumes` releases once nobody uses them."""
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
DEFAULTS: dict[str, Obj] = {
    "CustomResourceDefinition": {"spec": {"conversion": {"strategy": "None"}}},
    "DaemonSet": {
        "spec": {
            "revisionHistoryLimit": 10,
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
            },
        },
        "status": {
            "currentNumberScheduled": 0,
            "desiredNumberScheduled": 0,
            "numberMisscheduled": 0,
            "numberReady": 0,
        },
    },
    "Deployment": {
        "spec": {
            "replicas": 1,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
            },
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        },
        "status": {},
    },
    "HorizontalPodAutoscaler": {"status": {"currentMetrics": None, "desiredReplicas": 0}},
    "Job": {
        "spec": {
            "backoffLimit": 6,
            "completionMode": "NonIndexed",
            "suspend": False,
        }
    },
    "Namespace": {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}},
    "Node": {
        "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": dict.fromkeys(_NODE_INFO, ""),
        }
    },
    "PersistentVolume": {
        "spec": {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"},
        "status": {"phase": "Pending"},
    },
    "PersistentVolumeClaim": {
        "spec": {"volumeMode": "Filesystem"},
        "status": {"phase": "Pending"},
    },
    "Pod": {"status": {"phase": "Pending"}},
    "PodDisruptionBudget": {
        "status": {
            "currentHealthy": 0,
            "desiredHealthy": 0,
            "disruptionsAllowed": 0,
            "expectedPods": 0,
        }
    },
    "ReplicaSet": {"status": {"replicas": 0}},
    "ReplicationController": {"status": {"replicas": 0}},
    "Secret": {"type": "Opaque"},
    "Service": {"spec": {"type": "ClusterIP", "sessionAffinity": "None"}},
    "StatefulSet": {"status": {"replicas": 0}},
    "StorageClass": {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
}
"""A status has the numbers that Kubernetes' Go types write even where they are 0."""


def has_generation(resource: Resource) -> bool:
    """Whether the kind counts the changes of its specification in `metadata.generation`."""
    return bool(resource.definition) or resource.kind in _GENERATIONS


def fill(resource: Resource, obj: Obj, services: IPv4Network, *, new: bool) -> Obj:
    """A copy of `obj` with the defaults of its kind; `new` if it is being created.

    `services` has the addresses of Services.
    """
    obj = clone(obj)
    if new and resource.subresources and resource.kind != "Node":
        obj.pop("status", None)  # only controllers say how things stand
    if resource.definition:
        return obj
    _set_defaults(obj, DEFAULTS.get(obj["kind"], {}))
    match obj["kind"]:
        case "Secret":
            for key, text in obj.pop("stringData", {}).items():
                encoded = base64.b64encode(text.encode()).decode()
                obj.setdefault("data", {})[key] = encoded
        case "Namespace":
            name = obj["metadata"]["name"]
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
        case "Node" if new and NOT_READY not in (dig(obj, "spec", "taints") or []):
            taints = obj.setdefault("spec", {}).setdefault("taints", [])
            taints.append(NOT_READY)
        case "Job":
            if obj["spec"].get("parallelism") is None:
                obj["spec"].setdefault("completions", 1)
                obj["spec"]["parallelism"] = 1
        case "Pod":
            _fill_pod(obj["spec"])
        case "Service":
            _fill_service(obj, services)
        case "CustomResourceDefinition":
            _fill_definition(obj, new=new)
        case "PersistentVolume" | "PersistentVolumeClaim" if new:
            held = obj["metadata"].setdefault("finalizers", [])
            held.extend({PROTECTION[obj["kind"]]} - set(held))
    if template := dig(obj, "spec", "template", "spec"):
        _fill_pod(template)
    return obj


def _set_defaults(obj: Obj, defaults: Obj) -> None:
    for name, value in defaults.items():
        if isinstance(value, dict) and isinstance(obj.get(name), dict):
            _set_defaults(obj[name], value)
        else:
            obj.setdefault(name, clone(value))


def _fill_pod(spec: Obj) -> None:
    _set_defaults(spec, _POD)
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        _set_defaults(container, _CONTAINER)
        tag = container.get("image", "").rpartition("/")[2].partition(":")[2]
        container.setdefault(
            "imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent"
        )
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")


def _fill_service(service: Obj, services: IPv4Network) -> None:
    spec = service.setdefault("spec", {})
    for port in spec.get("ports", ()):
        _set_defaults(port, {"protocol": "TCP", "targetPort": port["port"]})
    if spec.get("type") != "ExternalName":
        # Some address of the range, none of its first 16; the same one for the same name, always.
        key = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
        address = services[16 + number % (services.num_addresses - 17)]
        spec.setdefault("clusterIP", str(address))


def _fill_definition(definition: Obj, *, new: bool) -> None:
    names, versions = definition["spec"]["names"], definition["spec"]["versions"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    if new:
        definition["status"] = {
            "conditions": None,
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": [v["name"] for v in versions if v.get("storage")],
        }


def claim_pods(job: Obj) -> None:
    """Give a new Job the labels by which it knows its pods, unless it brings a selector."""
    spec, metadata = job["spec"], job["metadata"]
    if spec.get("manualSelector"):
        return
    names = dict.fromkeys(("batch.kubernetes.io/job-name", "job-name"), metadata["name"])
    owners = ("batch.kubernetes.io/controller-uid", "controller-uid")
    template = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    template.update({**names, **dict.fromkeys(owners, metadata["uid"])})
    spec["selector"] = {"matchLabels": {owners[0]: metadata["uid"]}}
