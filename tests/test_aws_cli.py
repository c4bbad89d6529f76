"""Region and access key are those of boto3 and of the AWS CLI, in every situation of a user."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from tests import test_aws_session as base
from tests.conftest import Said
from tests.test_aws_session import KEYS, REGIONS, ROLE, SECRET, WITHOUT, Someone

someone, sts = base.someone, base.sts  # fixtures

CLI = Path(__file__).parents[1] / ".cache/awscli/bin/aws"
US = {"AWS_DEFAULT_REGION": "us-west-2"}
ENV = {"AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT", "AWS_SECRET_ACCESS_KEY": f"{SECRET}ENV"}


def keys(name: str) -> str:
    """Return the settings of a profile's own access key."""
    return KEYS.replace("AKIAIOSFODNN7EXAMPLE", f"AKIA{name.upper()}")


class Situation(NamedTuple):
    """What a user has set, and the access key and region that count; none where it fails."""

    environ: Mapping[str, str]
    profile: str | None = None
    key: str = ""
    region: str = ""
    files: Mapping[str, str] = {}
    """Files in ``~/.aws`` that take the place of the usual ones."""


BOTH = {
    "config": f"[default]\nregion = eu-west-1\n[profile b]\n{keys('config')}region = eu-west-2\n"
    f"[c]\n{keys('bare')}region = eu-west-3\n",
    "credentials": f"[default]\n{keys('file')}[b]\n{keys('fileb')}[d]\n{keys('filed')}",
    "other": f"[default]\n{keys('other')}region = eu-north-1\n",
}
SOURCES: dict[str, Situation] = {
    "variables": Situation({**ENV, **US}, None, "AKIAENVIRONMENT", "us-west-2"),
    "variables and AWS_PROFILE": Situation(
        {**ENV, "AWS_PROFILE": "tokyo"}, None, "AKIAENVIRONMENT", "ap-northeast-1"
    ),
    "variables and --profile": Situation(ENV, "tokyo", "AKIAIOSFODNN7EXAMPLE", "ap-northeast-1"),
    "half of the variables": Situation({"AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT", **US}),
    "empty variables": Situation(
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        None, "AKIAIOSFODNN7EXAMPLE", "us-east-1",
    ),
    "both files": Situation({}, None, "AKIAFILE", "eu-west-1", BOTH),
    "a profile in both files": Situation({}, "b", "AKIAFILEB", "eu-west-2", BOTH),
    "a profile of credentials alone": Situation(US, "d", "AKIAFILED", "us-west-2", BOTH),
    "a section without profile": Situation(US, "c", files=BOTH),
    "AWS_CONFIG_FILE": Situation(
        {"AWS_CONFIG_FILE": "~/.aws/other"}, None, "AKIAFILE", "eu-north-1", BOTH
    ),
    "AWS_SHARED_CREDENTIALS_FILE": Situation(
        {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/other"}, None, "AKIAOTHER", "eu-north-1", BOTH
    ),
    "a role of the variables": Situation(
        {**ENV, **US}, "r", "ASIAROLE", "us-west-2",
        {"config": f"[profile r]\n{ROLE}credential_source = Environment\n"},
    ),
    "a role of a profile": Situation({}, "role", "ASIAROLE", "eu-west-2"),
    "a credential_process": Situation({}, "process", "ASIAIOSFODNN7EXAMPLE", "eu-north-1"),
    "nothing": Situation(US, files={"config": ""}),
}  # fmt: skip
"""Every source of credentials that has no server of its own, and pairs of them."""
SITUATIONS = {
    **SOURCES,
    **{
        f"region {number}": Situation(environ, profile, "*", region)
        for number, (environ, profile, region) in enumerate(REGIONS)
    },
    **{f"without: {profile}": Situation(US, profile) for profile, _ in WITHOUT},
    "an unknown AWS_PROFILE": Situation({"AWS_PROFILE": "nobody", **US}),
    "a missing AWS_CONFIG_FILE": Situation({"AWS_CONFIG_FILE": "/nonexistent"}),
}
DIFFERENT = {
    "region 9": ("AKIAIOSFODNN7EXAMPLE", "eu-west-3"),  # version 1 does not read AWS_REGION
    "region 10": ("", ""),
    "without: emptykey": ("", "us-west-2"),  # it signs with anything; AWS refuses that later
    "without: section": ("AKIAEXAMPLE", "us-west-2"),
    "without: listkey": ("ASIAIOSFODNN7EXAMPLE", "us-west-2"),
    "without: listtoken": ("ASIAIOSFODNN7EXAMPLE", "us-west-2"),
}
"""What the AWS CLI takes where it is not what we take; docs/pipelines.md says so."""


def prepared(someone: Someone, situation: Situation) -> tuple[str, ...]:
    """Set up a situation, and return the options that name its profile."""
    someone.has(situation.environ)
    for name, text in situation.files.items():
        (someone.config.parent / name).write_text(text)
    return ("--profile", situation.profile) if situation.profile else ()


def signed(said: Said) -> tuple[str, str]:
    """Return the access key and the region with which a token is signed; none without a token."""
    if said.code:
        return "", ""
    token = json.loads(said.out)["status"]["token"].removeprefix("k8s-aws-v1.")
    url = base64.urlsafe_b64decode(token + "==").decode()
    match = re.search(r"X-Amz-Credential=(\w*)%2F\d+%2F([\w-]+)%2Fsts", url)
    return (match[1], match[2]) if match else ("", "")


def boto3s(profile: str | None) -> tuple[str, str]:
    """Return the access key and the region that boto3 takes; none where it cannot sign."""
    try:
        session = boto3.Session(profile_name=profile)
        chain: Any = session._session.get_component("credential_provider")
        chain.get_provider("assume-role")._prompter = None  # it would ask the terminal for a code
        found = session.get_credentials()
        key = found.get_frozen_credentials().access_key if found else None
    except Exception:  # noqa: BLE001  of many kinds
        return "", ""
    region = session.region_name or ""
    return (key, region) if isinstance(key, str) and region else ("", "")


@pytest.mark.parametrize("name", SOURCES)
def test_access_key_and_region_are_boto3s(someone: Someone, name: str) -> None:
    situation = SOURCES[name]
    said = someone.types("token", "demo", *prepared(someone, situation))
    assert signed(said) == (situation.key, situation.region) == boto3s(situation.profile)
    assert said.code == (0 if situation.key else 2 if "section" in name else 3), said.err


@pytest.mark.prove
@pytest.mark.parametrize("name", SITUATIONS)
def test_access_key_and_region_are_the_aws_clis(someone: Someone, name: str) -> None:
    """`aws eks get-token` signs as `token` does, or both fail."""
    if not CLI.exists():
        pytest.skip("no AWS CLI in .cache/awscli: `make .cache/awscli/bin/aws`")
    situation = SITUATIONS[name]
    named = prepared(someone, situation)
    ours = signed(someone.types("token", "demo", *named))
    done = subprocess.run(
        [str(CLI), "eks", "get-token", "--cluster-name", "demo", *named],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        start_new_session=True,  # without a terminal to ask for a code
    )  # fmt: skip
    theirs = signed(Said(done.returncode, done.stdout, done.stderr))
    assert ours != DIFFERENT.get(name)
    assert theirs == DIFFERENT.get(name, ours), done.stderr
    assert theirs == boto3s(situation.profile)
    assert situation.key in ("*", ours[0])
    assert situation.region == ours[1]
