"""The documents and API calls of a cluster from create to delete, compared with files in `golden`.

``GOLDEN=write`` writes the files after an intended change; review the diff.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from tests.conftest import Said, at_work

GOLDEN = Path(__file__).with_name("golden")
CHANGES_BY_RUN = (
    (r"\b(vpc|subnet|igw|eipalloc|nat|rtb|sg|vpce|i)-[0-9a-f]{8,17}\b", r"\1-#"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "#"),
    (r"(?<=:cluster/)[0-9a-z]{12}\b", "#"),
    (r"https://[0-9A-Za-z.:/-]+", "https://#"),
    (r'"as_of": "[0-9-]+"', '"as_of": "<today>"'),
    (r"\b20\d\d-\d\d-\d\dT[0-9:.]+(?:Z|\+00:00)", "<time>"),
    (r'"serial": \d+', '"serial": 0'),
    (r"\b127\.\d+\.\d+\.\d+\b", "127.#"),
)  # fmt: skip
"""Ids, addresses, times and serials, which differ from run to run."""
LIFE: dict[str, tuple[str, ...]] = {
    "policy": ("policy", "demo", "-o", "json"),
    "preflight": ("preflight", "demo", "--chart", str(CHART), "-o", "json"),
    "plan": ("plan", "demo", "--chart", str(CHART), "-o", "json"),
    "create": ("create", "demo", "--chart", str(CHART), "-o", "json"),
    "create-again": ("create", "demo", "-o", "json"),
    "outputs": ("outputs", "demo", "-o", "json"),
    "status": ("status", "demo", "-o", "json"),
    "scale": ("scale", "demo", "worker-group=3", "-o", "json"),
    "orphans": ("orphans", "--manifest", "elsewhere.json", "-o", "json"),
    "delete": ("delete", "demo", "--yes", "-o", "json"),
}
"""Commands by name of the golden file."""


@pytest.fixture(scope="module")
def life(
    one_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Said, Counter[str]]]:
    """Run all commands once; return each command's output and counts of its calls."""
    found = {}
    with (
        at_work(one_stack, tmp_path_factory.mktemp("life")) as user,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("loop.FRESH", "destroy.FRESH", "destroy.SHORTEST"):
            patch.setattr(f"hyperpod_eks.engine.{name}", 600.0)  # no read is repeated under load
        seen = -1
        while seen != len(one_stack.calls):  # threads of earlier tests may still make calls
            seen = len(one_stack.calls)
            time.sleep(0.5)
        for name, words in LIFE.items():
            one_stack.calls.clear()
            said = user.types(*words)
            counted = Counter(f"{call.service}.{call.operation}" for call in one_stack.calls)
            del counted["service-quotas.ListServiceQuotas"]  # started early, needed or not
            found[name] = said, counted
    return found


def compared(name: str, value: Any) -> None:
    """Compare with the golden file, without ids and times."""
    if "removed" in value:
        value["removed"].sort()  # concurrent deletes have no fixed order
        for step in value["steps"]:
            step["resources"].sort(key=lambda row: row["key"])
    text = json.dumps(value, indent=1).replace(str(CHART), "CHART")
    for pattern, stands_for in CHANGES_BY_RUN:
        text = re.sub(pattern, stands_for, text)
    path = GOLDEN / f"{name}.json"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text + "\n")
    assert json.loads(text) == json.loads(path.read_text())


@pytest.mark.parametrize("name", LIFE)
def test_documents_are_as_they_were(life: dict[str, tuple[Said, Counter[str]]], name: str) -> None:
    said, _ = life[name]
    assert said.code == 0, said.err
    compared(name, said.document)


@pytest.mark.parametrize("name", LIFE)
def test_aws_is_asked_what_it_was(life: dict[str, tuple[Said, Counter[str]]], name: str) -> None:
    _, calls = life[name]
    compared(f"{name}-calls", dict(sorted(calls.items())))
