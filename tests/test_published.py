"""The checks of tests/published.py find what they shall, and what examples/ applies passes them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.local.kubernetes import karpenter_kinds, kueue_kinds
from hyperpod_eks.local.kubernetes.resources import Registry, Resource
from hyperpod_eks.local.stack import Stack
from tests import published
from tests.change.conftest import EXAMPLES
from tests.local.test_kubernetes_cel import evaluated

POD: Any = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
CLONES = pytest.mark.skipif(
    published.CLONES is None, reason="HYPERPOD_PUBLISHED names no folder with clones"
)

SCHEMAS = pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None,
    reason="kubernetes-validate is not installed: `make test` installs it",
)


def resource(api_version: str, kind: str) -> Resource:
    """Return a kind as a server would serve it."""
    group, _, version = api_version.rpartition("/")
    for each in Registry():
        if (each.group, each.version, each.kind) == (group, version, kind):
            return each
    plural = f"{kind.lower()}{'es' if kind.endswith('s') else 's'}"
    name = f"{plural}.{group}"
    return Resource(group, version, plural, kind, False, kind.lower(), definition=name)


def found(obj: Any, *, ours: bool = False) -> list[str]:
    kind = resource(obj["apiVersion"], obj["kind"])
    return [each.partition(": ")[2] for each in published.faults(kind, obj, ours=ours)]


@pytest.mark.parametrize(
    ("service", "operation", "request_", "says"),
    [
        ("logs", "describe_log_groups", {"logGroupNamePrefix": "a b"}, "does not match"),
        ("eks", "list_addons", {"clusterName": "a" * 101}, "has 101 characters"),
        ("sagemaker", "create_cluster", {"ClusterName": "a", "NodeRecovery": "Manual"},
         "is not one of"),
    ],
)  # fmt: skip
def test_a_request_that_botocore_lets_through_is_found(
    stack: Stack, session: boto3.Session, service: str, operation: str, request_: Any, says: str
) -> None:
    client = getattr(Aws(session._session, "demo", {}), service)
    with suppress(ClientError):
        getattr(client, operation)(**request_)
    assert says in "\n".join(published.problems())
    assert service in {name for name, _ in published.requests}


@SCHEMAS
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"priority": "high"}, "spec.priority: 'high' is not of type 'integer', 'null'"),
        ({"nodeSelecter": {}}, "spec: Additional properties are not allowed ('nodeSelecter'"),
        ({"containers": [{"image": "a"}]}, "spec.containers[0]: 'name' is a required property"),
        ({"hostnameOverride": "a"}, "spec: Additional properties are not allowed ('hostnameOver"),
    ],
)
def test_an_object_that_kubernetes_refuses_is_found(change: Any, says: str) -> None:
    """The last one is a field that the newest version has and the oldest has not."""
    pod = {"apiVersion": "v1", "kind": "Pod", **POD, "spec": {**POD["spec"], **change}}
    text = "\n".join(found(pod, ours=True))
    assert says in text
    assert bool(says) == bool(text)
    if "hostnameOverride" in change:
        assert found(pod) == []


def test_a_kind_of_ours_has_a_published_definition_or_a_reason() -> None:
    unheard = {"apiVersion": "unheard.of/v1", "kind": "Thing", "metadata": {"name": "a"}}
    assert found(unheard, ours=True) == ["name the definition of its kind in tests/published.py"]


def node_pool(**spec: Any) -> Any:
    reference = {"group": "karpenter.sagemaker.amazonaws.com", "kind": "HyperpodNodeClass"}
    types = {"key": "node.kubernetes.io/instance-type", "operator": "Exists"}
    template = {"spec": {"nodeClassRef": {**reference, "name": "a"}, "requirements": [types]}}
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "a"},
        "spec": {"template": template, **spec},
    }


@CLONES
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, ""),
        ({"weight": 101}, "spec.weight: 101 is greater than the maximum of 100"),
        ({"colour": "red"}, "spec: Additional properties are not allowed ('colour' was"),
        pytest.param(
            {"weight": 1, "replicas": 1},
            "'weight' is not supported on static NodePools",
            marks=evaluated,
        ),
    ],
)
def test_a_custom_resource_that_its_definition_refuses_is_found(spec: Any, says: str) -> None:
    text = "\n".join(found(node_pool(**spec)))
    assert says in text
    assert bool(says) == bool(text)


@SCHEMAS
@pytest.mark.skipif(
    not any(published.WHEELS.glob("*.whl")), reason="no wheel in .cache: `make test` fetches it"
)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"nprocPerNodes": "8"}, "spec: Additional properties are not allowed ('nprocPerNodes'"),
        ({"runPolicy": {"jobMaxRetries": 1}}, "spec.runPolicy"),
        ({"replicaSpecs": [{"name": "pods", "template": {"spec": {"container": []}}}]},
         "spec.replicaSpecs[0].template.spec: 'containers' is a required property"),
    ],
)  # fmt: skip
def test_a_hyperpod_pytorch_job_has_the_members_that_aws_publishes(change: Any, says: str) -> None:
    replicas = {"name": "pods", "replicas": 2, "template": {"spec": POD["spec"]}}
    job = {
        "apiVersion": "sagemaker.amazonaws.com/v1",
        "kind": "HyperPodPyTorchJob",
        "metadata": {"name": "a"},
        "spec": {"nprocPerNode": "8", "replicaSpecs": [replicas], **change},
    }
    text = "\n".join(found(job, ours=True))
    assert says in text
    assert bool(says) == bool(text)


@CLONES
@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("karpenter.sh/v1", "NodeClaim"),
        ("kueue.x-k8s.io/v1beta1", "ClusterQueue"),
        ("kueue.x-k8s.io/v1beta1", "WorkloadPriorityClass"),
        ("cert-manager.io/v1", "Certificate"),
        ("acme.cert-manager.io/v1", "Order"),
        ("ray.io/v1", "RayCluster"),
        ("kubeflow.org/v1", "PyTorchJob"),
        ("kubeflow.org/v2beta1", "MPIJob"),
        ("inference.sagemaker.aws.amazon.com/v1", "InferenceEndpointConfig"),
        ("inference.sagemaker.aws.amazon.com/v1", "JumpStartModel"),
        ("workspace.jupyter.org/v1alpha1", "Workspace"),
    ],
)
def test_definitions_are_where_they_are_said_to_be(api_version: str, kind: str) -> None:
    schema = published.definition(resource(api_version, kind))
    assert schema
    assert schema.get("properties")


RULES = ("default", "enum", "maxItems", "maxLength", "maxProperties", "maximum", "minItems",
         "minLength", "minimum", "pattern", "required", "type")  # fmt: skip


def differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Yield where two structural schemas differ, rules in CEL by their number alone."""
    for rule in RULES:
        here, there = ours.get(rule), theirs.get(rule)
        lists = isinstance(here, list) and isinstance(there, list)
        if here != there and not (lists and sorted(map(str, here)) == sorted(map(str, there))):
            yield f"{path} {rule}: {here} is published as {there}"
    count, published_count = (len(s.get("x-kubernetes-validations", ())) for s in (ours, theirs))
    if count != published_count:
        yield f"{path}: {count} rules, {published_count} are published"
    mine, others = (s.get("properties") or {} for s in (ours, theirs))
    yield from (f"{path}.{name} is on one side alone" for name in mine.keys() ^ others.keys())
    for name in mine.keys() & others.keys():
        yield from differences(mine[name], others[name], f"{path}.{name}")
    for below in ("items", "additionalProperties"):
        if below in ours or below in theirs:
            yield from differences(ours.get(below, {}), theirs.get(below, {}), f"{path}[]")


@CLONES
def test_karpenters_kinds_are_as_karpenter_publishes_them() -> None:
    """A pattern for a list of values, which it also has, means nothing."""
    for definition in karpenter_kinds.definitions():
        spec = definition["spec"]
        if spec["group"] in published.UNPUBLISHED:
            continue
        theirs = published.definition(resource(f"{spec['group']}/v1", spec["names"]["kind"]))
        assert theirs
        ours = spec["versions"][0]["schema"]["openAPIV3Schema"]
        found = differences(ours["properties"]["spec"], theirs["properties"]["spec"], "spec")
        assert [each for each in found if "requirements[].values " not in each] == []


def stricter(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Yield where a schema refuses what the published one accepts, or has a field of its own."""
    for rule in RULES:
        here, there = ours.get(rule), theirs.get(rule)
        fewer = isinstance(here, list) and isinstance(there, list) and {*here} <= {*there}
        if here is not None and here != there and not (fewer and rule == "required"):
            yield f"{path} {rule}: {here} is published as {there}"
    for name, below in (ours.get("properties") or {}).items():
        yield from stricter(below, theirs.get("properties", {}).get(name, {}), f"{path}.{name}")
    for below in ("items", "additionalProperties"):
        if isinstance(ours.get(below), dict):
            yield from stricter(ours[below], theirs.get(below) or {}, f"{path}[]")


@CLONES
def test_kueues_kinds_refuse_nothing_that_kueues_own_accept() -> None:
    for definition in kueue_kinds.definitions():
        names = definition["spec"]["names"]
        (version,) = definition["spec"]["versions"]
        api_version = f"{definition['spec']['group']}/{version['name']}"
        kind = resource(api_version, names["kind"])
        theirs = published.definition(dataclasses.replace(kind, plural=names["plural"]))
        assert theirs
        ours = version["schema"]["openAPIV3Schema"]
        found = stricter(ours, theirs, names["kind"])
        assert [each for each in found if ".status " not in each] == []


def of_examples() -> Iterator[Any]:
    """Yield an example's name and each object that it declares, or that is in a file of its own."""
    for file in sorted(EXAMPLES.rglob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            for obj in [document] if "apiVersion" in document else document.get("objects") or ():
                yield pytest.param(obj, id=f"{file.stem}-{obj['kind']}")


@pytest.mark.parametrize("obj", list(of_examples()))
def test_an_object_of_the_examples_is_as_its_kind_is_published(obj: Any) -> None:
    assert found(obj, ours=True) == []
