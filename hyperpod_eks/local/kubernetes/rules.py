"""What a kind's own validation refuses although every type is right.

The rules are those of kube-apiserver that a chart can meet, from k8s.io/kubernetes
pkg/apis/*/validation and k8s.io/apimachinery/pkg/api/validation; the wording is theirs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from . import cel, policies
from .errors import Cause
from .objects import Obj, dig
from .schema import QUANTITY
from .selection import selects

_LABEL = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_VALUE = re.compile("(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_NAME_PART = re.compile("([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_CONFIG_KEY = re.compile("[-._a-zA-Z0-9]+")
_CHARACTERS = (
    "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_TEMPLATED = ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet")
_RBAC = "rbac.authorization.k8s.io"


def required(field: str, message: str = "") -> Cause:
    """A field is missing."""
    told = f"Required value: {message}" if message else "Required value"
    return Cause(field, told, "FieldValueRequired")


def _invalid(field: str, value: Any, message: str) -> Cause:
    found = json.dumps(value, separators=(",", ":"))
    return Cause(field, f"Invalid value: {found}: {message}")


def _duplicate(field: str, value: Any) -> Cause:
    return Cause(field, f"Duplicate value: {json.dumps(value)}", "FieldValueDuplicate")


def _one_of(field: str, value: Any, allowed: Iterable[str]) -> Iterator[Cause]:
    allowed = tuple(allowed)
    if value is not None and value not in allowed:
        told = ", ".join(f'"{name}"' for name in allowed)
        message = f"Unsupported value: {json.dumps(value)}: supported values: {told}"
        yield Cause(field, message, "FieldValueNotSupported")


def causes(obj: Obj, live: Obj | None, *, custom: bool) -> Iterator[Cause]:
    """What is wrong with an object that replaces `live`, or is new."""
    yield from _metadata(obj["metadata"], custom=custom)
    if not custom:
        kind = obj["kind"]
        if check := _KINDS.get(kind):
            yield from check(obj)
        if live:
            yield from _unchangeable(obj, live)


# --- metadata ------------------------------------------------------------------------------------


def _metadata(metadata: Obj, *, custom: bool) -> Iterator[Cause]:
    yield from _labels(metadata.get("labels"), "metadata.labels")
    for key in metadata.get("annotations") or {}:
        yield from _qualified(key.lower(), "metadata.annotations")
    for n, name in enumerate(metadata.get("finalizers") or ()):
        at = f"metadata.finalizers[{n}]"
        yield from _qualified(name, at)
        # Unqualified names are the server's own; custom resources get a warning only.
        if "/" not in name and name not in _STANDARD_FINALIZERS and not custom:
            message = "name is neither a standard finalizer name nor is it fully qualified"
            yield _invalid(at, name, message)
    owners = metadata.get("ownerReferences") or ()
    for owner in owners:
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                at, message = f"metadata.ownerReferences.{field}", "must not be empty"
                yield _invalid(at, owner.get(field) or "", message)
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        message = "Only one reference can have Controller set to true"
        yield _invalid("metadata.ownerReferences", len(owners), message)


def _labels(found: Obj | None, path: str) -> Iterator[Cause]:
    for key, value in (found or {}).items():
        yield from _qualified(key, path)
        if not _VALUE.fullmatch(value):
            message = (
                f"a valid label must be an empty string or {_CHARACTERS} (e.g. 'MyValue',  or "
                f"'my_value',  or '12345', regex used for validation is '{_VALUE.pattern}')"
            )
            yield _invalid(path, value, message)
        elif len(value) > 63:
            yield _invalid(path, value, "must be no more than 63 bytes")


def _qualified(key: str, path: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not _SUBDOMAIN.fullmatch(prefix):
        yield _invalid(path, key, f"prefix part {_LABEL_RULE.replace('label', 'subdomain', 1)}")
    if not _NAME_PART.fullmatch(name):
        message = (
            f"name part must {_CHARACTERS} (e.g. 'MyName',  or 'my.name',  or '123-abc', regex "
            f"used for validation is '{_NAME_PART.pattern}')"
        )
        yield _invalid(path, key, message)
    elif len(name) > 63:
        yield _invalid(path, key, "name part must be no more than 63 bytes")


# --- pods ----------------------------------------------------------------------------------------


def _pod(pod: Obj) -> Iterator[Cause]:
    yield from _pod_spec(pod.get("spec") or {}, "spec")


def _template(template: Obj | None, path: str, *, policies: tuple[str, ...]) -> Iterator[Cause]:
    template = template or {}
    yield from _labels(dig(template, "metadata", "labels"), f"{path}.metadata.labels")
    spec = template.get("spec") or {}
    policy, at = spec.get("restartPolicy"), f"{path}.spec.restartPolicy"
    if "Always" not in policies and policy in (None, "", "Always"):
        yield required(at, "valid values: " + ", ".join(f'"{name}"' for name in policies))
    else:
        yield from _one_of(at, policy, policies)
    yield from _pod_spec(spec, f"{path}.spec")


def _pod_spec(spec: Obj, path: str) -> Iterator[Cause]:
    volumes: set[str] = set()
    for n, volume in enumerate(spec.get("volumes") or ()):
        name, at = volume.get("name", ""), f"{path}.volumes[{n}]"
        if name in volumes:
            yield _duplicate(f"{at}.name", name)
        volumes.add(name)
        if name and not _LABEL.fullmatch(name):
            yield _invalid(f"{at}.name", name, _LABEL_RULE)
        sources = [key for key in volume if key != "name"]
        if len(sources) > 1:
            message = "Forbidden: may not specify more than 1 volume type"
            yield Cause(f"{at}.{sources[1]}", message, "FieldValueForbidden")
    names: set[str] = set()
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    for field in ("initContainers", "containers"):
        for n, container in enumerate(spec.get(field) or ()):
            at = f"{path}.{field}[{n}]"
            name = container.get("name", "")
            if name in names:
                yield _duplicate(f"{at}.name", name)
            names.add(name)
            yield from _container(container, at, volumes)
    yield from _one_of(
        f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never")
    )
    policies = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
    yield from _one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), policies)
    yield from _labels(spec.get("nodeSelector"), f"{path}.nodeSelector")
    for n, toleration in enumerate(spec.get("tolerations") or ()):
        at, operator = f"{path}.tolerations[{n}]", toleration.get("operator") or "Equal"
        yield from _one_of(f"{at}.operator", operator, ("Equal", "Exists", "Gt", "Lt"))
        if operator == "Exists" and toleration.get("value"):
            message = "value must be empty when `operator` is 'Exists'"
            yield _invalid(f"{at}.operator", toleration["value"], message)
        if operator == "Equal" and not toleration.get("key"):
            message = 'operator must be Exists when `key` is empty, which means "match all"'
            yield _invalid(f"{at}.operator", operator, message)
        effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
        yield from _one_of(f"{at}.effect", toleration.get("effect") or None, effects)


def _container(container: Obj, path: str, volumes: set[str]) -> Iterator[Cause]:
    name = container.get("name", "")
    if name and not (_LABEL.fullmatch(name) and len(name) <= 63):
        yield _invalid(f"{path}.name", name, _LABEL_RULE)
    if not container.get("image"):
        yield required(f"{path}.image")
    elif container["image"].strip() != container["image"]:
        message = "must not have leading or trailing whitespace"
        yield _invalid(f"{path}.image", container["image"], message)
    policies = ("Always", "IfNotPresent", "Never")
    yield from _one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), policies)
    mounted: set[str] = set()
    for n, mount in enumerate(container.get("volumeMounts") or ()):
        at, where = f"{path}.volumeMounts[{n}]", mount.get("mountPath", "")
        if mount.get("name") and mount["name"] not in volumes:
            found = f"Not found: {json.dumps(mount['name'])}"
            yield Cause(f"{at}.name", found, "FieldValueNotFound")
        if where and where in mounted:
            yield _invalid(f"{at}.mountPath", where, "must be unique")
        mounted.add(where)
    ports: set[str] = set()
    for n, port in enumerate(container.get("ports") or ()):
        at = f"{path}.ports[{n}]"
        yield from _port(port.get("containerPort"), f"{at}.containerPort")
        yield from _one_of(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
        if (name := port.get("name")) and name in ports:
            yield _duplicate(f"{at}.name", name)
        ports.add(name or "")
    yield from _amounts(container.get("resources") or {}, f"{path}.resources")


def _port(port: Any, path: str) -> Iterator[Cause]:
    if isinstance(port, int) and not 0 < port < 65536:
        yield _invalid(path, port, "must be between 1 and 65535, inclusive")


def amount(quantity: Any) -> Decimal | None:
    """The value of a quantity, or None if it is none.

    >>> amount("500m"), amount("1Ki"), amount(2)
    (Decimal('0.500'), Decimal('1024'), Decimal('2'))
    """
    match = QUANTITY.fullmatch(str(quantity))
    if not match:
        return None
    number, suffix = match.groups()
    scales = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
    powers = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
    try:
        if suffix in scales:
            return Decimal(number) * scales[suffix]
        if suffix in powers:
            return Decimal(f"{number}e{powers[suffix]}")
        return Decimal(number + suffix)
    except InvalidOperation:
        return None


def _amounts(resources: Obj, path: str) -> Iterator[Cause]:
    limits, requests = (resources.get(name) or {} for name in ("limits", "requests"))
    for name, found in (("limits", limits), ("requests", requests)):
        for resource, quantity in found.items():
            value = amount(quantity)
            if value is not None and value < 0:
                message = "must be greater than or equal to 0"
                yield _invalid(f"{path}.{name}.{resource}", quantity, message)
    for resource, quantity in requests.items():
        most, wanted = amount(limits.get(resource, "")), amount(quantity)
        if most is not None and wanted is not None and wanted > most:
            message = f"must be less than or equal to {resource} limit of {limits[resource]}"
            yield _invalid(f"{path}.requests", quantity, message)


# --- workloads -----------------------------------------------------------------------------------


def _workload(obj: Obj) -> Iterator[Cause]:
    spec, kind = obj.get("spec") or {}, obj["kind"]
    replicas, selector = spec.get("replicas"), spec.get("selector")
    if isinstance(replicas, int) and replicas < 0:
        yield _invalid("spec.replicas", replicas, "must be greater than or equal to 0")
    found = dig(spec, "template", "metadata", "labels") or {}
    if selector == {}:
        message = f"empty selector is invalid for {kind[0].lower()}{kind[1:]}"
        yield _invalid("spec.selector", {}, message)
    elif selector and not selects(selector, found):
        message = "`selector` does not match template `labels`"
        yield _invalid("spec.template.metadata.labels", found, message)
    if selector:
        yield from _labels(selector.get("matchLabels"), "spec.selector.matchLabels")
    yield from _template(spec.get("template"), "spec.template", policies=("Always",))


def _job(job: Obj) -> Iterator[Cause]:
    yield from _job_spec(job.get("spec") or {}, "spec")


def _job_spec(spec: Obj, path: str) -> Iterator[Cause]:
    for field in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds"):
        if isinstance(spec.get(field), int) and spec[field] < 0:
            message = "must be greater than or equal to 0"
            yield _invalid(f"{path}.{field}", spec[field], message)
    mode = spec.get("completionMode")
    yield from _one_of(f"{path}.completionMode", mode, ("NonIndexed", "Indexed"))
    if mode == "Indexed" and spec.get("completions") is None:
        yield required(f"{path}.completions", "when completion mode is Indexed")
    if spec.get("template"):
        template = spec["template"]
        yield from _template(template, f"{path}.template", policies=("OnFailure", "Never"))


def _cron_job(cron_job: Obj) -> Iterator[Cause]:
    spec = cron_job.get("spec") or {}
    schedule = spec.get("schedule")
    if schedule and not schedule.startswith("@") and len(schedule.split()) != 5:
        fields = schedule.split()
        message = f"expected exactly 5 fields, found {len(fields)}: {fields}"
        yield _invalid("spec.schedule", schedule, message)
    policies = ("Allow", "Forbid", "Replace")
    yield from _one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies)
    yield from _job_spec(dig(spec, "jobTemplate", "spec") or {}, "spec.jobTemplate.spec")


# --- the rest ------------------------------------------------------------------------------------


def _data(obj: Obj) -> Iterator[Cause]:
    for field in ("data", "binaryData", "stringData"):
        for key in obj.get(field) or {}:
            if not _CONFIG_KEY.fullmatch(key) or key in (".", ".."):
                message = (
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
                    "(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation "
                    f"is '{_CONFIG_KEY.pattern}')"
                )
                yield _invalid(f"{field}[{key}]", key, message)
    for key in (obj.get("data") or {}).keys() & (obj.get("binaryData") or {}).keys():
        yield _invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    size = sum(len(v) for f in ("data", "binaryData") for v in (obj.get(f) or {}).values())
    if size > (1 << 20) * (4 / 3 if obj["kind"] == "Secret" else 1):
        message = f"Too long: may not be more than {1 << 20} bytes"
        yield Cause("data" if obj["kind"] == "Secret" else "", message, "FieldValueTooLong")


# What a Secret of a type must have: https://kubernetes.io/docs/concepts/configuration/secret/.
_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def _secret(secret: Obj) -> Iterator[Cause]:
    yield from _data(secret)
    data = {**(secret.get("data") or {}), **(secret.get("stringData") or {})}
    for key in _KEYS.get(kind := secret.get("type") or "", ()):
        if key not in data:
            yield required(f"data[{key}]")
        elif "docker" in kind and key in (secret.get("data") or {}):
            try:
                json.loads(base64.b64decode(data[key]))
            except ValueError:
                yield _invalid(f"data[{key}]", "<secret contents redacted>", "invalid character")
    account = "kubernetes.io/service-account.name"
    if kind == "kubernetes.io/service-account-token" and not (
        (secret["metadata"].get("annotations") or {}).get(account)
    ):
        yield required(f"metadata.annotations[{account}]")
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        yield required("data[username]")
        yield required("data[password]")


def _service(service: Obj) -> Iterator[Cause]:
    spec = service.get("spec") or {}
    kind, ports = spec.get("type") or "ClusterIP", spec.get("ports") or ()
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    yield from _one_of("spec.type", kind, kinds)
    if kind == "ExternalName" and not spec.get("externalName"):
        yield required("spec.externalName")
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    seen: set[Any] = set()
    for n, port in enumerate(ports):
        at, name = f"spec.ports[{n}]", port.get("name", "")
        yield from _port(port.get("port"), f"{at}.port")
        yield from _one_of(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
        if len(ports) > 1 and not name:
            yield required(f"{at}.name")
        if name and name in seen:
            yield _duplicate(f"{at}.name", name)
        seen.add(name)
    yield from _labels(spec.get("selector"), "spec.selector")


def _binding(binding: Obj) -> Iterator[Cause]:
    reference = binding.get("roleRef") or {}
    kinds = ("ClusterRole",) if binding["kind"] == "ClusterRoleBinding" else ("Role", "ClusterRole")
    yield from _one_of("roleRef.apiGroup", reference.get("apiGroup") or None, (_RBAC,))
    yield from _one_of("roleRef.kind", reference.get("kind") or None, kinds)
    for n, subject in enumerate(binding.get("subjects") or ()):
        at, kind = f"subjects[{n}]", subject.get("kind")
        yield from _one_of(f"{at}.kind", kind, ("ServiceAccount", "User", "Group"))
        group = "" if kind == "ServiceAccount" else _RBAC
        yield from _one_of(f"{at}.apiGroup", subject.get("apiGroup") or None, (group,))
        # A binding in a namespace does not fill this in, either.
        if kind == "ServiceAccount" and not subject.get("namespace"):
            yield required(f"{at}.namespace")


def _role(role: Obj) -> Iterator[Cause]:
    for n, rule in enumerate(role.get("rules") or ()):
        at = f"rules[{n}]"
        if not rule.get("verbs"):
            yield required(f"{at}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if role["kind"] == "Role":
                message = "namespaced rules cannot apply to non-resource URLs"
                yield _invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"], message)
            continue
        if not rule.get("apiGroups"):
            yield required(f"{at}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            yield required(f"{at}.resources", "resource rules must supply at least one resource")


def _volume(volume: Obj) -> Iterator[Cause]:
    spec = volume.get("spec") or {}
    if not spec.get("accessModes"):
        yield required("spec.accessModes")
    if not spec.get("capacity"):
        yield required("spec.capacity")
    yield from _access_modes(spec)
    policies = ("Delete", "Recycle", "Retain")
    yield from _one_of(
        "spec.persistentVolumeReclaimPolicy", spec.get("persistentVolumeReclaimPolicy"), policies
    )
    sources = [*_source(volume)] if spec else []
    if not sources:
        yield required("spec", "must specify a volume type")
    for name in sources[1:]:
        message = "Forbidden: may not specify more than 1 volume type"
        yield Cause(f"spec.{name}", message, "FieldValueForbidden")
    for name in ("driver", "volumeHandle") if "csi" in spec else ():
        if not spec["csi"].get(name):
            yield required(f"spec.csi.{name}")


def _access_modes(spec: Obj) -> Iterator[Cause]:
    modes = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    for mode in spec.get("accessModes") or ():
        yield from _one_of("spec.accessModes", mode, modes)


def _storage_class(storage_class: Obj) -> Iterator[Cause]:
    if not storage_class.get("provisioner"):
        yield required("provisioner")
    for name, allowed in (
        ("reclaimPolicy", ("Delete", "Retain")),
        ("volumeBindingMode", ("Immediate", "WaitForFirstConsumer")),
    ):
        yield from _one_of(name, storage_class.get(name), allowed)


def _claim(claim: Obj) -> Iterator[Cause]:
    spec = claim.get("spec") or {}
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    yield from _access_modes(spec)
    if dig(spec, "resources", "requests", "storage") is None:
        yield required("spec.resources[storage]")


def _autoscaler(autoscaler: Obj) -> Iterator[Cause]:
    spec = autoscaler.get("spec") or {}
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas")
    if least < 1:
        yield _invalid("spec.minReplicas", least, "must be greater than or equal to 1")
    if most is not None and most < 1:
        yield _invalid("spec.maxReplicas", most, "must be greater than 0")
    elif most is not None and most < least:
        message = "must be greater than or equal to `minReplicas`"
        yield _invalid("spec.maxReplicas", most, message)


def _ingress(ingress: Obj) -> Iterator[Cause]:
    spec = ingress.get("spec") or {}
    if not spec.get("rules") and not spec.get("defaultBackend"):
        message = "either `defaultBackend` or `rules` must be specified"
        yield _invalid("spec", spec.get("rules") or [], message)


def _network_policy(policy: Obj) -> Iterator[Cause]:
    for n, kind in enumerate((policy.get("spec") or {}).get("policyTypes") or ()):
        yield from _one_of(f"spec.policyTypes[{n}]", kind, ("Egress", "Ingress"))


def _priority(priority: Obj) -> Iterator[Cause]:
    highest = 1_000_000_000
    system = priority["metadata"].get("name", "").startswith("system-")
    if (priority.get("value") or 0) > highest and not system:
        message = f"maximum allowed value of a user defined priority is {highest}"
        yield Cause("value", f"Forbidden: {message}", "FieldValueForbidden")


def _limits(limits: Obj) -> Iterator[Cause]:
    for n, item in enumerate((limits.get("spec") or {}).get("limits") or ()):
        most = item.get("max") or {}
        for name, least in (item.get("min") or {}).items():
            low, high = amount(least), amount(most.get(name))
            if low is not None and high is not None and low > high:
                message = f"min value {least} is greater than max value {most[name]}"
                yield _invalid(f"spec.limits[{n}].min[{name}]", least, message)


def _quota(quota: Obj) -> Iterator[Cause]:
    for name, hard in ((quota.get("spec") or {}).get("hard") or {}).items():
        value = amount(hard)
        whole = name.startswith("count/") or name in _COUNTED
        if whole and value is not None and value != int(value):
            yield _invalid(f"spec.hard[{name}]", hard, "must be an integer")


_COUNTED = {
    *("pods", "services", "secrets", "configmaps", "persistentvolumeclaims", "resourcequotas"),
    *("replicationcontrollers", "services.nodeports", "services.loadbalancers"),
}


def _lease(lease: Obj) -> Iterator[Cause]:
    seconds = (lease.get("spec") or {}).get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        yield _invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")


def _budget(budget: Obj) -> Iterator[Cause]:
    spec = budget.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        yield _invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")


def _admission_policy(policy: Obj) -> Iterator[Cause]:
    spec = policy.get("spec") or {}
    yield from _one_of("spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"))
    if spec.get("matchConstraints") is None:
        yield required("spec.matchConstraints")
    elif not spec["matchConstraints"].get("resourceRules"):
        yield required("spec.matchConstraints.resourceRules")
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        for field in ("validations", "auditAnnotations"):
            message = "validations or auditAnnotations must contain at least one item"
            yield required(f"spec.{field}", message)
    for n, entry in enumerate(spec.get("validations") or ()):
        at = f"spec.validations[{n}].reason"
        yield from _one_of(at, entry.get("reason"), sorted(policies.CODES))
    for where, text, problem in policies.mistakes(policy):
        yield _invalid(where, text, f"compilation failed: {problem}")


def _policy_binding(binding: Obj) -> Iterator[Cause]:
    spec = binding.get("spec") or {}
    actions = spec.get("validationActions") or []
    for n, action in enumerate(actions):
        yield from _one_of(f"spec.validationActions[{n}]", action, ("Audit", "Deny", "Warn"))
    if {"Deny", "Warn"} <= set(actions):
        message = (
            "must not contain both Deny and Warn (repeating the same validation failure "
            "information in the API response and headers serves no purpose)"
        )
        yield _invalid("spec.validationActions", actions, message)
    ref = spec.get("paramRef")
    if ref is not None:
        if not ref.get("name") and ref.get("selector") is None:
            yield required("spec.paramRef", "one of name or selector must be specified")
        if ref.get("name") and ref.get("selector") is not None:
            for field in ("name", "selector"):
                message = "Forbidden: name and selector are mutually exclusive"
                yield Cause(f"spec.paramRef.{field}", message, "FieldValueForbidden")
        if not ref.get("parameterNotFoundAction"):
            yield required("spec.paramRef.parameterNotFoundAction")
        found = ref.get("parameterNotFoundAction") or None
        yield from _one_of("spec.paramRef.parameterNotFoundAction", found, ("Allow", "Deny"))


def _definition(definition: Obj) -> Iterator[Cause]:
    spec = definition.get("spec") or {}
    names, versions = spec.get("names") or {}, spec.get("versions") or ()
    group, name = spec.get("group", ""), definition["metadata"].get("name", "")
    if names.get("plural") and group and name != f"{names['plural']}.{group}":
        yield _invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if group and "." not in group:
        yield _invalid("spec.group", group, "should be a domain with at least one dot")
    yield from _one_of("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    if names.get("plural") and not _LABEL.fullmatch(names["plural"]):
        yield _invalid("spec.names.plural", names["plural"], _LABEL_RULE)
    if versions and sum(bool(version.get("storage")) for version in versions) != 1:
        message = "must have exactly one version marked as storage version"
        yield _invalid("spec.versions", [v.get("name") for v in versions], message)
    approved = "api-approved.kubernetes.io"
    protected = group.endswith((".k8s.io", ".kubernetes.io"))
    if protected and approved not in (definition["metadata"].get("annotations") or {}):
        message = "protected groups must have approval annotation"
        yield required(f"metadata.annotations[{approved}]", f'{message} "{approved}"')
    for n, version in enumerate(versions):
        at = f"spec.versions[{n}].schema.openAPIV3Schema"
        schema = dig(version, "schema", "openAPIV3Schema")
        if schema is None:
            yield required(at, "schemas are required")
        else:
            yield from _structural(schema, at)
    yield from cel.definition_causes(definition)


def _structural(schema: Obj, path: str) -> Iterator[Cause]:
    """The rule of structural schemas that is broken most: every field has a type."""
    open_ended = ("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not any(schema.get(name) for name in open_ended):
        yield required(f"{path}.type", "must not be empty for specified object fields")
    for name, below in (schema.get("properties") or {}).items():
        yield from _structural(below, f"{path}.properties[{name}]")
    for field in ("items", "additionalProperties"):
        if isinstance(below := schema.get(field), dict):
            yield from _structural(below, f"{path}.{field}")
    if schema.get("type") == "array" and not schema.get("items"):
        yield required(f"{path}.items", "must be specified")


_KINDS: dict[str, Callable[[Obj], Iterator[Cause]]] = {
    **dict.fromkeys(_TEMPLATED, _workload),
    "ClusterRole": _role,
    "ClusterRoleBinding": _binding,
    "ConfigMap": _data,
    "CronJob": _cron_job,
    "CustomResourceDefinition": _definition,
    "HorizontalPodAutoscaler": _autoscaler,
    "Job": _job,
    "PersistentVolume": _volume,
    "PersistentVolumeClaim": _claim,
    "StorageClass": _storage_class,
    "Pod": _pod,
    "PodDisruptionBudget": _budget,
    "Role": _role,
    "RoleBinding": _binding,
    "Secret": _secret,
    "Service": _service,
    "Ingress": _ingress,
    "Lease": _lease,
    "LimitRange": _limits,
    "NetworkPolicy": _network_policy,
    "PriorityClass": _priority,
    "ResourceQuota": _quota,
    "ValidatingAdmissionPolicy": _admission_policy,
    "ValidatingAdmissionPolicyBinding": _policy_binding,
}

# --- changes -------------------------------------------------------------------------------------

_IMMUTABLE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Deployment": (("spec", "selector"),),
    "DaemonSet": (("spec", "selector"),),
    "StatefulSet": (("spec", "selector"), ("spec", "serviceName")),
    "ReplicaSet": (("spec", "selector"),),
    "Job": (("spec", "selector"), ("spec", "template"), ("spec", "completionMode")),
    "RoleBinding": (("roleRef",),),
    "ClusterRoleBinding": (("roleRef",),),
    "Secret": (("type",),),
    "PriorityClass": (("value",),),
    "StorageClass": (
        ("provisioner",),
        ("parameters",),
        ("reclaimPolicy",),
        ("volumeBindingMode",),
    ),
}
_NO_SOURCES = {
    *("accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "volumeMode"),
    *("persistentVolumeReclaimPolicy", "storageClassName", "volumeAttributesClassName"),
}
"""Members of PersistentVolumeSpec that do not say where the volume is."""
_POD_MAY_CHANGE = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")


def _source(volume: Obj) -> Obj:
    """Return where a volume is (kubernetes, pkg/apis/core/validation: PersistentVolumeUpdate)."""
    return {name: value for name, value in volume["spec"].items() if name not in _NO_SOURCES}


def _unchangeable(obj: Obj, live: Obj) -> Iterator[Cause]:
    for path in _IMMUTABLE.get(obj["kind"], ()):
        before, now = dig(live, *path), dig(obj, *path)
        if before is not None and before != now:
            yield _invalid(".".join(path), now, "field is immutable")
    if obj["kind"] == "PersistentVolume" and _source(obj) != _source(live):
        where = "spec.persistentvolumesource"
        message = f"Forbidden: {where} is immutable after creation"
        yield Cause(where, message, "FieldValueForbidden")
    if obj["kind"] == "PersistentVolumeClaim" and _claimed(obj, live) != _claimed(live, live):
        message = (
            "Forbidden: spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims"
        )
        yield Cause("spec", message, "FieldValueForbidden")
    if live.get("immutable") and obj["kind"] in ("ConfigMap", "Secret"):
        for field in ("immutable", "data", "binaryData"):
            if (obj.get(field) or None) != (live.get(field) or None):
                message = "Forbidden: field is immutable when `immutable` is set"
                yield Cause(field, message, "FieldValueForbidden")
    if obj["kind"] == "Pod" and _fixed(obj) != _fixed(live):
        message = (
            "Forbidden: pod updates may not change fields other than "
            "`spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
            "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        yield Cause("spec", message, "FieldValueForbidden")


def _claimed(claim: Obj, live: Obj) -> Obj:
    """Return what a claim keeps; a volume and a class may be named once."""
    bound = dig(live, "status", "phase") == "Bound"
    free = {"resources", "volumeAttributesClassName"} if bound else set()
    free |= {name for name in ("volumeName", "storageClassName") if not dig(live, "spec", name)}
    return {name: value for name, value in claim["spec"].items() if name not in free}


def _fixed(pod: Obj) -> Obj:
    spec = {k: v for k, v in (pod.get("spec") or {}).items() if k not in _POD_MAY_CHANGE}
    for field in ("containers", "initContainers"):
        if field in spec:
            left = ("image", "imagePullPolicy")
            spec[field] = [{k: v for k, v in c.items() if k not in left} for c in spec[field]]
    return spec
