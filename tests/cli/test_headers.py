"""Every line in the headers of some examples is typed, those of kubectl too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.local import CHART
from tests.cli import test_prepare as prepared
from tests.cli.test_objects import kubernetes
from tests.conftest import User

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVED = {
    "inferenceendpointconfigs": "/apis/inference.sagemaker.aws.amazon.com/v1",
    "workloads": "/apis/kueue.x-k8s.io/v1beta2",
}
"""Where the Kubernetes API serves what the headers get."""
user = prepared.user


def lines(example: Path) -> Iterator[list[str]]:
    """Yield the commands for AWS in the header of an example."""
    header = example.read_text().partition("# On the embedded stack")[0]
    for line in re.findall(r"^#   (\S.*)", header, re.MULTILINE):
        yield shlex.split(line, comments=True)


def kubectl(verb: str, *words: str) -> Any:
    """Do what kubectl does with one file, or with a list of objects of one kind."""
    if verb == "get":
        space = words[words.index("-n") + 1] if "-n" in words else "default"
        return kubernetes("GET", f"{SERVED[words[0]]}/namespaces/{space}/{words[0]}")["items"]
    body = yaml.safe_load((EXAMPLES / words[words.index("-f") + 1]).read_text())
    version, metadata = body["apiVersion"], body["metadata"]
    start = f"/apis/{version}" if "/" in version else f"/api/{version}"
    served = kubernetes("GET", start)["resources"]
    plural = next(x["name"] for x in served if x["kind"] == body["kind"] and "/" not in x["name"])
    path = f"{start}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"
    if verb == "delete":
        return kubernetes("DELETE", path)
    kind = "application/apply-patch+yaml"
    return kubernetes("PATCH", path, body, kind, fieldManager="kubectl", force="true")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mig", ("all-3g.40gb", "all-7g.80gb")),
        pytest.param("inference", ("demo-models]", "demo-models, more]"), marks=pytest.mark.prove),
        pytest.param("platform", ("weight: 20", "weight: 25"), marks=pytest.mark.prove),
    ],
)
def test_a_cluster_lives_by_the_lines_of_its_header(
    user: User, name: str, change: tuple[str, str]
) -> None:
    file = user.folder / f"{name}.yaml"
    text = (EXAMPLES / file.name).read_text()
    text += "" if "\nchart:\n" in text else "\nchart:\n"
    file.write_text(text.replace("\nchart:\n", f"\nchart:\n  path: {CHART}\n"))
    _, account = prepared.begun(user, EXAMPLES / file.name)
    typed, created = [*lines(EXAMPLES / file.name)], False
    assert {words[0] for words in typed} == {"hyperpod-eks", "kubectl"}
    for program, verb, *rest in typed:
        if program == "kubectl":
            assert kubectl(verb, *rest), (verb, rest)
            continue
        if verb == "delete" and "--delete-data" not in rest:
            unchanged_and_changed(user, file, change)
        said = types(user, verb, *rest)
        assert said.code == 0, said.err
        created = created or verb == "create"
    if not any(verb == "delete" for _, verb, *_ in typed):
        unchanged_and_changed(user, file, change)
    said = user.types("delete", "-f", file.name, "--yes", "--delete-data")
    assert said.code == 0, said.err
    assert prepared.inventory(user) == account
    assert created


def types(user: User, verb: str, *rest: str) -> Any:
    """Type a command as the header has it, with consent."""
    return user.types(verb, *rest, *(("--yes",) if verb in ("create", "delete") else ()))


def unchanged_and_changed(user: User, file: Path, change: tuple[str, str]) -> None:
    """Create again, which changes nothing, change a setting, and create again."""
    user.mutations()
    create = ("create", "-f", file.name)
    assert types(user, *create).code == 0
    assert user.mutations() == []
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(*change))
    said = types(user, *create)
    assert (said.code, bool(user.mutations())) == (0, True), said.err
    assert types(user, *create).code == 0
    assert user.mutations() == []
