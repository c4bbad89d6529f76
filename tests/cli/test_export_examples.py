"""Exports of every example after its create: other tools read them, and nothing is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hcl2
import pytest

from tests.cli.test_prepare import EXAMPLES, commands, user  # noqa: F401  a fixture
from tests.conftest import User

CFN_LINT = Path(sys.executable).with_name("cfn-lint")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.sample("existing-eks", "minimal")
def test_an_example_is_exported_whole(
    user: User,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    example: Path,
) -> None:
    if example.stem == "ray":
        pytest.skip("its charts come from the internet; tests/test_export.py has them")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    (user.folder / example.name).write_text(example.read_text())
    for words in commands(example):
        said = user.types(*words)
        assert said.code == 0, said.err
    (manifest,) = user.folder.glob("*.hyperpod-eks.json")
    name = manifest.name.partition(".")[0]
    recorded = {*json.loads(manifest.read_text())["resources"]}
    user.stack.calls.clear()

    folders = {}
    for language in ("terraform", "cloudformation"):
        said = user.types("export", language, name, "-o", "json")
        assert said.code == 0, said.err
        document = said.document
        assert {*document["resources"], *document["left_out"]} == recorded
        folders[language] = user.folder / document["folder"]
    assert user.stack.calls == []

    blocks = [hcl2.loads(file.read_text()) for file in folders["terraform"].glob("*.tf")]
    assert sum(len(each.get("import", ())) for each in blocks) > 3
    template = folders["cloudformation"] / "template.json"
    assert json.loads(template.read_text())["Resources"]
    if request.node.get_closest_marker("prove"):  # it takes seconds
        done = subprocess.run(
            # in its schemas, of 2026-10-20, this region has every type that is exported
            [CFN_LINT, "--regions", "us-east-1", "--", template],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout + done.stderr == ""
