"""Validate an add-on's settings against the JSON Schema that EKS publishes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hyperpod_eks.documents import JsonMapping

if TYPE_CHECKING:
    from jsonschema import ValidationError


def problems(values: JsonMapping, schema: str) -> list[str]:
    """Return the violations of a JSON Schema, each as ``path: rule``, without the values.

    ``schema`` is ``configurationSchema`` of DescribeAddonConfiguration.  An invalid schema yields
    no violations: EKS validates the settings itself.

    >>> problems({"replicaCount": "two"}, '{"properties": {"replicaCount": {"type": "integer"}}}')
    ['replicaCount: is not as the schema says: type "integer"']
    >>> problems({"replicas": 2}, "no schema")
    []
    """
    from jsonschema import SchemaError, validators  # noqa: PLC0415  costs 0.1 s
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        document = json.loads(schema)
        kind = validators.validator_for(document)
        kind.check_schema(document)
        errors = sorted(kind(document).iter_errors(dict(values)), key=lambda each: each.json_path)
    except (ValueError, TypeError, SchemaError, Unresolvable):
        return []
    return [_words(each) for each in errors]


def _words(error: ValidationError) -> str:
    path = error.json_path.removeprefix("$").removeprefix(".")
    where = f"{path}: " if path else ""
    if error.validator == "additionalProperties":  # its message has no values
        rules = error.schema if isinstance(error.schema, Mapping) else {}
        known = ", ".join(sorted(rules.get("properties", ()))[:8])
        return f"{where}{error.message}" + (f"; the schema has {known}" if known else "")
    rule = json.dumps(error.validator_value)[:100]
    return f"{where}is not as the schema says: {error.validator} {rule}"
