"""Kueue's kinds, and the policy that HyperPod task governance has beside them."""

from __future__ import annotations

from collections.abc import Iterator

from .objects import Obj

GROUP = "kueue.x-k8s.io"
QUEUE = f"{GROUP}/queue-name"
POLICY = "hyperpod-task-governance-admission-policy"
MANAGED = {
    "sagemaker.amazonaws.com/activate-quota": "Enabled",
    "sagemaker.amazonaws.com/sagemaker-managed-queue": "true",
}
"""The labels of the namespaces in which the policy counts."""
POLICY_KIND = "ValidatingAdmissionPolicy"
NO_QUEUE = f"The label '{QUEUE}' is either missing or does not have a value set."
RULES = (
    ("", "v1", ["pods"]),
    ("apps", "v1", ["deployments", "statefulsets"]),
    ("batch", "v1", ["jobs"]),
    ("kubeflow.org", "*", ["mpijobs", "pytorchjobs"]),
    ("ray.io", "*", ["rayclusters", "rayjobs"]),
)

_TEXT: Obj = {"type": "string"}
_TEXTS: Obj = {"type": "object", "additionalProperties": _TEXT}
_ANY: Obj = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_QUANTITY: Obj = {"x-kubernetes-int-or-string": True}


def _object(required: tuple[str, ...] = (), **properties: Obj) -> Obj:
    found: Obj = {**_ANY, "properties": properties}
    return {**found, "required": list(required)} if required else found


def _list(items: Obj, most: int) -> Obj:
    return {"type": "array", "items": items, "maxItems": most}


def definitions(*, old: bool = False) -> Iterator[Obj]:
    """Yield the CustomResourceDefinitions: those of kubernetes-sigs/kueue, config/components/crd.

    Names, scopes and members are Kueue's (apis/kueue/v1beta2); what is not checked is preserved.
    Kueue since 0.16 serves v1beta2, and v1beta1 as deprecated.  ``old`` are those of 0.12 and
    before, with v1beta1 alone, and cohorts as v1alpha1.
    """
    resource = _object(
        ("name", "nominalQuota"),
        name=_TEXT,
        nominalQuota=_QUANTITY,
        borrowingLimit=_QUANTITY,
        lendingLimit=_QUANTITY,
    )
    flavor = _object(("name", "resources"), name=_TEXT, resources=_list(resource, 64))
    group = _object(
        ("coveredResources", "flavors"),
        coveredResources=_list(_TEXT, 64),
        flavors=_list(flavor, 64),
    )
    never = {"type": "string", "enum": ["Never", "LowerPriority", "LowerOrNewerEqualPriority"]}
    queue = _object(
        resourceGroups=_list(group, 16),
        preemption=_object(
            withinClusterQueue=never,
            reclaimWithinCohort={"type": "string", "enum": ["Never", "LowerPriority", "Any"]},
        ),
        fairSharing=_object(weight=_QUANTITY),
        stopPolicy={"type": "string", "enum": ["None", "Hold", "HoldAndDrain"]},
    )
    queue["properties"]["cohort" if old else "cohortName"] = _TEXT
    count = {"type": "integer", "default": 1}
    pod_set = _object(("template",), name=_TEXT, count=count, template=_ANY)
    workload = _object(
        podSets=_list(pod_set, 18),
        queueName=_TEXT,
        priority={"type": "integer"},
    )
    for kind, scope, spec in (
        ("ClusterQueue", "Cluster", queue),
        ("LocalQueue", "Namespaced", _object(clusterQueue=_TEXT)),
        ("Workload", "Namespaced", workload),
        ("ResourceFlavor", "Cluster", _object(nodeLabels=_TEXTS)),
        ("Cohort", "Cluster", _object(parentName=_TEXT)),
        ("Topology", "Cluster", _ANY),
        ("AdmissionCheck", "Cluster", _ANY),
        ("MultiKueueCluster", "Cluster", _ANY),
        ("MultiKueueConfig", "Cluster", _ANY),
        ("ProvisioningRequestConfig", "Cluster", _ANY),
    ):
        yield _definition(kind, scope, _object(spec=spec, status=_ANY), old=old)
    value = {"type": "integer", "format": "int32"}
    schema = _object(("value",), value=value, description=_TEXT)
    yield _definition("WorkloadPriorityClass", "Cluster", schema, old=old)


def _definition(kind: str, scope: str, schema: Obj, *, old: bool) -> Obj:
    plural = {"Topology": "topologies", "WorkloadPriorityClass": "workloadpriorityclasses"}.get(
        kind, f"{kind.lower()}s"
    )
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    beta1 = "v1alpha1" if old and kind == "Cohort" else "v1beta1"
    versions = [
        {
            "name": name,
            "served": True,
            "storage": stored,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema},
            **({} if stored else {"deprecated": True}),
        }
        for name, stored in ([(beta1, True)] if old else [("v1beta2", True), (beta1, False)])
    ]
    return {
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": scope, "names": names, "versions": versions},
    }


def policy() -> Iterator[tuple[str, Obj]]:
    """Yield the policy and its binding.

    A public report of a real cluster has its name, its message, that it is about pods, Deployments,
    StatefulSets and Ray clusters, that what the training operator owns is left out, and the labels
    that its binding selects; jobs are as in Kueue's own sample ("Setup a Job Admission Policy").
    """
    named = f"object.metadata.labels['{QUEUE}']"
    owners = "object.metadata.ownerReferences"
    yield (
        POLICY_KIND,
        {
            "metadata": {"name": POLICY},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [group],
                            "apiVersions": [version],
                            "operations": ["CREATE"],
                            "resources": resources,
                        }
                        for group, version, resources in RULES
                    ]
                },
                "matchConditions": [
                    {
                        "name": "exclude-training-operator",
                        "expression": f"!(has({owners}) && {owners}.exists(o, "
                        "o.kind=='HyperPodPyTorchJob'))",
                    }
                ],
                "validations": [
                    {
                        "expression": "has(object.metadata.labels) && "
                        f"'{QUEUE}' in object.metadata.labels && {named} != ''",
                        "message": NO_QUEUE,
                    }
                ],
            },
        },
    )
    yield (
        f"{POLICY_KIND}Binding",
        {
            "metadata": {"name": f"{POLICY}-binding"},
            "spec": {
                "policyName": POLICY,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": MANAGED}},
            },
        },
    )
