"""Check every request and every object against what AWS, Kubernetes and others publish.

The embedded stack could accept what a real server refuses.  `watch` therefore looks at all that
goes through a process: requests of the tool's clients against botocore's models, with the maxima,
patterns and enumerations that botocore itself ignores; and each object that a Kubernetes server of
the stack stores, whoever wrote it, against the schemas of Kubernetes (`kubernetes-validate`) and
the CustomResourceDefinitions of its kind.  `problems` says what was wrong since the last time.

Definitions are in Git repositories only: the variable HYPERPOD_PUBLISHED names a folder with clones
(``kubernetes-sigs/karpenter`` and so on), which scripts/get_published.py makes.  Without it, custom
resources are not checked, but for HyperPodPyTorchJobs: AWS publishes their members as Python
classes, in a wheel that `make` fetches.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipimport
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from botocore.client import BaseClient
from jsonschema import Draft202012Validator
from referencing import Registry

from hyperpod_eks.aws.published import OLDEST_KUBERNETES
from hyperpod_eks.aws.service_model import service as model
from hyperpod_eks.aws.service_model import violations
from hyperpod_eks.kube.objects import MANAGER
from hyperpod_eks.local.kubernetes import cel, store
from hyperpod_eks.local.kubernetes.resources import Resource

NEWEST_KUBERNETES = "1.36"
"""The version of the types of the embedded stack (types.json)."""
CLONES = os.environ.get("HYPERPOD_PUBLISHED")
MOST = 20
"""Objects of a kind that are checked although no client wrote them: nodes, pods and so on."""

Schema = dict[str, Any]


COMMITS = {
    "aws/sagemaker-hyperpod-cli": "011ca927123e02b35a399935bbb3ab1905fe33c7",
    "awslabs/awsome-distributed-ai": "95b939cdc5b24ded03a70da21533964f9354b731",
    "awslabs/mountpoint-s3-csi-driver": "57c6bedb46e2c1281883b80dad4d5d54b438b0de",
    "cert-manager/cert-manager": "2d0d7f7f74241a9cbf79f0e2a7bb247238ee09fd",
    "jupyter-infra/jupyter-k8s": "f2670353e769c58b4164d0a08c6f296a1e4e9b3e",
    "kubernetes-sigs/aws-ebs-csi-driver": "429e202e589798e55c0f8ddcc81b2850b7f000d0",
    "kubernetes-sigs/aws-fsx-csi-driver": "5b227125add708cd0b87c76abe1a4c074e71dfc5",
    "kubernetes-sigs/karpenter": "2266468104f36373ed002241afaee2d3bbc26078",
    "kubernetes-sigs/kueue": "ff69552e79ad21652c36caa97038382e55625cf7",
    "ray-project/kuberay": "feeaf72facab4881ba2b179248bb67315634e229",
}
"""The repositories, each at the commit that is read: `scripts/get_published.py` clones them."""


class Source(NamedTuple):
    """A file of a public repository."""

    repository: str
    path: str

    def read(self) -> str | None:
        """Return its text; None without a clone that has the commit."""
        if CLONES is None:
            return None
        clone = Path(CLONES, self.repository)
        command = ["git", "-C", str(clone), "show", f"{COMMITS[self.repository]}:{self.path}"]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        return shown.stdout if shown.returncode == 0 else None


class Models(NamedTuple):
    """Classes of pydantic in a wheel: that of a kind's spec, and that which has a pod template."""

    wheel: Path
    module: str
    spec: str
    template: str

    def schema(self) -> Schema | None:
        """Return the schema of the kind; None without the wheel.  Pods are as Kubernetes has them.

        The classes mix some members of a pod up: those that have the same name in its source.
        """
        if not self.wheel.exists():
            return None
        folder, _, name = self.module.rpartition("/")
        importer = zipimport.zipimporter(f"{self.wheel}/{folder}")
        spec = importer.find_spec(name)
        assert spec is not None
        module = sys.modules[name] = module_from_spec(spec)
        importer.exec_module(module)
        found: Schema = getattr(module, self.spec).model_json_schema(by_alias=False)
        types = found.pop("$defs")
        types[self.template]["properties"]["template"] = {"$ref": f"{TYPES}{POD_TEMPLATE}"}
        spec_of_kind = {**found, "additionalProperties": False}
        return {"$defs": types, "properties": {"spec": spec_of_kind, "status": {}}}


TYPES = "https://kubernetes.io/api/_definitions.json#/$defs/"
POD_TEMPLATE = "io.k8s.api.core.v1.PodTemplateSpec"
WHEELS = Path(__file__).parents[1] / ".cache/published"

KARPENTER = "kubernetes-sigs/karpenter"
KUEUE = "kubernetes-sigs/kueue"
CERT_MANAGER = "cert-manager/cert-manager"
KUBERAY = "ray-project/kuberay"
HYPERPOD = "aws/sagemaker-hyperpod-cli"
JUPYTER = "jupyter-infra/jupyter-k8s"
CHARTS = "helm_chart/HyperPodHelmChart/charts"

DEFINITIONS: Mapping[str, Source | Models] = {
    "karpenter.sh": Source(KARPENTER, "pkg/apis/crds/{group}_{plural}.yaml"),
    "kueue.x-k8s.io": Source(KUEUE, "config/components/crd/bases/{group}_{plural}.yaml"),
    "cert-manager.io": Source(CERT_MANAGER, "deploy/crds/{group}_{plural}.yaml"),
    "acme.cert-manager.io": Source(CERT_MANAGER, "deploy/crds/{group}_{plural}.yaml"),
    "ray.io": Source(KUBERAY, "ray-operator/config/crd/bases/{group}_{plural}.yaml"),
    "kubeflow.org": Source(
        HYPERPOD, f"{CHARTS}/training-operators/crds/{{plural}}.{{group}}-CustomResourceDefinition"
        ".yaml"),
    "mpijobs.kubeflow.org": Source(HYPERPOD, f"{CHARTS}/mpi-operator/templates/mpijob-crd.yaml"),
    "workspace.jupyter.org": Source(JUPYTER, "config/crd/bases/{group}_{plural}.yaml"),
    "sagemaker.amazonaws.com": Models(
        WHEELS / "sagemaker_hyperpod-3.12.0-py3-none-any.whl",
        "sagemaker/hyperpod/training/config/hyperpod_pytorch_job_unified_config",
        "_HyperPodPytorchJob",
        "ReplicaSpec",
    ),
    "inference.sagemaker.aws.amazon.com": Source(
        HYPERPOD, f"{CHARTS}/inference-operator/config/crd/{{group}}_{{plural}}.yaml"
    ),
}  # fmt: skip
"""Where the definitions of a group are published, or those of one kind."""

UNPUBLISHED = {
    "karpenter.sagemaker.amazonaws.com": "SageMaker developer guide, 'Create a NodeClass'",
}
"""Groups whose definitions AWS does not publish, and what it does publish."""

_found: list[str] = []
_stored: Counter[tuple[str, str]] = Counter()
_seen: set[str] = set()
_right: set[str] = set()
"""Requests in which nothing was wrong."""
requests: set[tuple[str, str]] = set()
"""Each service and operation that was requested."""


def watch() -> None:
    """Check what this process sends and stores from now on."""
    client: Any = BaseClient
    convert = client._convert_to_request_dict

    def checked(
        self: Any, api_params: Any, operation_model: Any, *others: Any, **named: Any
    ) -> Any:
        service, operation = self.meta.service_model.service_name, operation_model.name
        # a client of the tool, and a call of the tool: tests send others, and what is wrong
        if "_make_api_call" in vars(self) and operation in model(service)["operations"]:
            requests.add((service, operation))
            about = f"{service}:{operation} {api_params}"
            if about not in _right:
                takes_any = operation_model.input_shape is not None
                wrong = violations(service, operation, api_params) if takes_any else api_params
                _found.extend(f"{service}:{operation} {each}" for each in wrong)
                if not wrong and len(about) < 2000:
                    _right.add(about)
        return convert(self, api_params, operation_model, *others, **named)

    client._convert_to_request_dict = checked
    store.OBSERVERS.append(_look)


def problems() -> list[str]:
    """Return what was wrong since the last time."""
    found = list(dict.fromkeys(_found))
    _found.clear()
    return found


def _look(event: store.Event) -> None:
    if event.type == "DELETED":
        return
    resource, obj = event.resource, event.obj
    managers = {each.get("manager") for each in obj["metadata"].get("managedFields") or ()}
    if not managers:
        _stored[resource.group, resource.kind] += 1
        if _stored[resource.group, resource.kind] > MOST:
            return
    content = json.dumps({**obj, "metadata": _plain(obj["metadata"])}, sort_keys=True)
    if content not in _seen:
        _seen.add(content)
        _found.extend(faults(resource, obj, ours=MANAGER in managers))


def _plain(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is not of one object alone."""
    own = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "managedFields")
    return {name: value for name, value in metadata.items() if name not in own}


def faults(resource: Resource, obj: Mapping[str, Any], *, ours: bool = False) -> Iterator[str]:
    """Yield what the published schema of its kind refuses in an object.

    One of ours has to fit the oldest Kubernetes that HyperPod has, too.
    """
    where = f"{resource.group_version} {resource.kind} {obj['metadata'].get('name')}"
    if resource.definition:
        if ours and not known(resource) and not resource.group.endswith("example.com"):
            yield f"{where}: name the definition of its kind in tests/published.py"
        if (schema := definition(resource)) is not None:
            whole = _with_defaults(schema, dict(obj))
            validator = Draft202012Validator(_closed(schema, root=True), registry=_types())
            for text in _wrong(validator, whole):
                yield f"{where}: {text}"
            for cause in cel.causes(schema, whole, None):
                yield f"{where}: {cause.field}: {cause.message}"
        return
    for version in (OLDEST_KUBERNETES, NEWEST_KUBERNETES) if ours else (NEWEST_KUBERNETES,):
        if (validator := builtin(version, resource)) is not None:
            for text in _wrong(validator, obj):
                yield f"{where}: {text} (Kubernetes {version})"


def _wrong(validator: Any, obj: Any) -> Iterator[str]:
    for failed in validator.iter_errors(obj):
        error = failed
        while error.context:  # of several alternatives the one that fits furthest
            error = max(error.context, key=lambda each: len(each.absolute_path))
        yield f"{error.json_path[2:]}: {error.message[:300]}"


# --- built-in kinds -----------------------------------------------------------------------------


@cache
def _definitions(version: str) -> tuple[Schema, Mapping[tuple[str, str, str], str]]:
    """Return Kubernetes' own types, without unknown fields, and the type of each kind."""
    spec = find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        return {}, {}
    folder = Path(spec.origin).parent / f"kubernetes-json-schema/v{version}.0-local-strict"
    found: Schema = json.loads((folder / "_definitions.json").read_text())
    kinds = {
        (kind["group"], kind["version"], kind["kind"]): name
        for name, schema in found["$defs"].items()
        for kind in schema.get("x-kubernetes-group-version-kind") or ()
    }
    return found, kinds


@cache
def _types() -> Registry:
    found, _ = _definitions(NEWEST_KUBERNETES)
    return Registry().with_contents([(found["$id"], found)] if found else [])


@cache
def builtin(version: str, resource: Resource) -> Any:
    """Return a validator of a built-in kind; None if this version, or this machine, has none."""
    found, kinds = _definitions(version)
    name = kinds.get((resource.group, resource.version, resource.kind))
    return name and Draft202012Validator({**found, "$ref": f"#/$defs/{name}"})


# --- custom resources ---------------------------------------------------------------------------


def known(resource: Resource) -> bool:
    """Whether it is said here where the kind's definition is published, or that it is not."""
    groups = (resource.qualified, resource.group)
    return any(each in DEFINITIONS or each in UNPUBLISHED for each in groups)


@cache
def definition(resource: Resource) -> Schema | None:
    """Return the published schema of a kind; None if it is not at hand."""
    group = resource.group
    source = DEFINITIONS.get(resource.qualified) or DEFINITIONS.get(group)
    if source is None or isinstance(source, Models):
        return source and source.schema()
    path = source.path.format(group=group, plural=resource.plural)
    text = source._replace(path=path).read()
    if text is None:
        return None
    for version in yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]:
        if version["name"] == resource.version:
            schema: Schema = version["schema"]["openAPIV3Schema"]
            return schema
    return {"not": {}, "description": "the published definition does not have the version"}


def _closed(schema: Schema, *, root: bool = False) -> Schema:
    """Return a structural schema as JSON Schema, under which unknown fields are wrong."""
    found = {name: value for name, value in schema.items() if name != "properties"}
    if found.pop("x-kubernetes-int-or-string", False):
        found["type"] = ["integer", "string"]
    known = {name: _closed(below) for name, below in (schema.get("properties") or {}).items()}
    if root or schema.get("x-kubernetes-embedded-resource"):
        known |= {name: {} for name in ("apiVersion", "kind", "metadata")}
    if known:
        found["properties"] = known
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        found["additionalProperties"] = _closed(more)
    elif known and not schema.get("x-kubernetes-preserve-unknown-fields") and more is None:
        found["additionalProperties"] = False
    if isinstance(items := schema.get("items"), dict):
        found["items"] = _closed(items)
    return {"anyOf": [found, {"type": "null"}]} if schema.get("nullable") else found


def _with_defaults(schema: Schema, value: Any) -> Any:
    """Return a value with the defaults that the schema gives it."""
    if isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        return [_with_defaults(items, each) for each in value]
    if not isinstance(value, dict):
        return value
    known, more = schema.get("properties") or {}, schema.get("additionalProperties")
    defaults = {name: below["default"] for name, below in known.items() if "default" in below}
    rest = more if isinstance(more, dict) else {}
    return {
        name: _with_defaults(known.get(name, rest), each)
        for name, each in {**defaults, **value}.items()
    }
