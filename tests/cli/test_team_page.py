"""docs/teams.md: its commands work in the order of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hyperpod_eks.local import CHART
from tests.conftest import Clients, User

PAGE = (Path(__file__).parents[2] / "docs/teams.md").read_text()


@pytest.mark.prove
def test_the_commands_of_the_page_work(
    user: User, aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the AWS CLI are made with boto3; from "another machine" on, in an empty folder."""
    (config,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (user.folder / "demo.yaml").write_text(config)
    monkeypatch.setenv("CI_JOB_ID", "4711")
    there: dict[str, str] = {"LocationConstraint": "us-west-2"}
    ran = []
    for heading, section in re.findall(
        r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE
    ):
        if heading == "Work from another machine":
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            monkeypatch.chdir(elsewhere)
        for line in "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).splitlines():
            program, *words = shlex.split(line.replace("$CI_JOB_ID", "4711"))
            if program == "aws":
                bucket = words[words.index("--bucket") + 1]
                aws.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=there)
            elif program == "export":
                monkeypatch.setenv(*words[0].split("="))
            else:
                new = words[0] == "create" and words[1] in ("-f", "ci")
                said = user.types(*words, *(["--chart", str(CHART)] if new else []))
                assert said.code == 0, (line, said.err)
                ran.append(words[0])
    assert {"create", "status", "plan", "scale", "unlock", "delete", "list", "orphans"} <= {*ran}
