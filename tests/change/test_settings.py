"""A change of each single setting on a running cluster has the documented effect."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml
from pydantic import BaseModel

from hyperpod_eks.config.model import Config
from hyperpod_eks.config.rules import fields, find
from hyperpod_eks.errors import Foreign, Usage
from hyperpod_eks.resources.trust import trust

from .conftest import Owner
from .rows import (
    ANOTHER,
    BASE,
    CONSENT,
    IN_PLACE,
    KEY,
    LATER,
    NODE_ROLE,
    OTHER_KEY,
    OTHER_ROLE,
    REFUSED,
    ROLE,
    ROWS,
    G,
    Row,
)  # fmt: skip

SOME = ("tags", "network.cidr", "eks.log_retention_days", G + "image_id")
"""The rows that `make test` covers: one of each outcome."""


def put(config: dict[str, Any], row: Row) -> dict[str, Any]:
    """Return the config with one setting changed; in lists, in the first entry."""
    config = copy.deepcopy(config)
    here: Any = config
    *sections, leaf = row.setting.replace("<name>", "vpc-cni").split(".")
    for name in sections:
        here = here.setdefault(name, {}) if not name.endswith("[]") else here[name[:-2]][0]
    here[leaf] = row.after(here[leaf]) if callable(row.after) else row.after
    if leaf == "instance_requirements":  # replaces the type
        del here["instance_type"]
    return config


def prepare(owner: Owner) -> dict[str, str]:
    """Create roles and keys and set quotas for the rows; return the key ARNs by name."""
    iam: Any = owner.aws.iam
    for arn, service in (
        (ROLE, "ec2"),
        (OTHER_ROLE, "ec2"),
        (NODE_ROLE, "sagemaker"),
        (f"{ROLE.rpartition('/')[0]}/Pods", "pods.eks"),
    ):
        document = trust(f"{service}.amazonaws.com")
        document["Statement"][0]["Action"] = ["sts:AssumeRole", "sts:TagSession"]
        name = arn.rpartition("/")[2]
        iam.create_role(RoleName=name, Path="/team/", AssumeRolePolicyDocument=json.dumps(document))
    allowed = {"Effect": "Allow", "Action": ["ec2:*", "s3:*"], "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [allowed]}
    iam.put_role_policy(RoleName="Nodes", PolicyName="x", PolicyDocument=json.dumps(document))
    spot = "Total number of Spot instances allowed across SageMaker HyperPod clusters"
    for quota in (spot, "ml.g5.4xlarge for cluster spot instance usage"):
        owner.stack.sim.set_quota("sagemaker", quota, 10)
    kms: Any = owner.aws.session.create_client("kms")
    return {name: kms.create_key()["KeyMetadata"]["Arn"] for name in (OTHER_KEY, KEY)}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([row for row in ROWS if row.setting in SOME], id="some"),
        pytest.param(ROWS, id="all", marks=pytest.mark.prove),  # takes minutes
    ],
)
def test_every_setting_does_what_the_page_says(owner: Owner, rows: Sequence[Row]) -> None:
    keys, now = prepare(owner), BASE
    owner.declares(yaml.safe_dump(now))
    wrong = []
    for row in rows:
        if row.shown:
            continue
        try:
            then = put(now, row)
            text = yaml.safe_dump(then)
            for name, arn in keys.items():
                text = text.replace(f": {name}\n", f": {arn}\n")
            if tried(owner, row, text):
                now = then
        except BaseException as error:  # noqa: BLE001  all failures are reported together
            wrong.append(f"{row.setting} ({row.outcome}): {type(error).__name__}: {error}"[:600])
    assert wrong == [], "\n".join(wrong)


def tried(owner: Owner, row: Row, text: str) -> bool:
    """Declare the config and check the row's outcome; return whether it was applied."""
    if row.outcome == REFUSED:
        with pytest.raises((Usage, Foreign), match=re.escape(row.says)):
            owner.declares(text, yes=True)
        assert owner.mutations() == []
        return False
    if row.outcome == CONSENT:
        with pytest.raises(Usage):
            owner.declares(text)
        assert owner.lost
        assert owner.mutations() == []
    before = owner.account() if row.setting.startswith(("chart", "objects")) else []
    changed: list[str] = owner.declares(text, yes=row.outcome == CONSENT)
    if before and owner.account() != before:  # helm's and Kubernetes' calls are not AWS's
        changed = ["in the cluster"]
    assert bool(changed) == (row.outcome in (IN_PLACE, CONSENT) and "guard" not in row.why)
    assert owner.declares(text) == []
    return True


OWN = {"restricted_instance_groups": {"environment_config"}}
"""Settings of restricted groups that other groups do not have."""


def settings(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every setting; a list or mapping of sections is a setting, and so are its members."""
    for name, field in fields(section).items():
        inner, _ = find(field.annotation, ())
        item, end = inner, "."
        if get_origin(inner) is tuple:
            item, end = find(inner, (0,))[0], "[]."
        elif get_origin(inner) is Mapping:
            item, end = find(inner, ("",))[0], ".<name>."
        nested = isinstance(item, type) and issubclass(item, BaseModel)
        if not nested or item is not inner:
            yield prefix + name
        if nested:
            below = settings(item, f"{prefix}{name}{end}")
            only = OWN.get(name)
            yield from (x for x in below if only is None or x.rpartition(".")[2] in only)


def test_the_page_has_every_setting() -> None:
    assert {row.setting for row in ROWS} == set(settings(Config))
    assert {row.outcome for row in ROWS} == {IN_PLACE, CONSENT, REFUSED, LATER, ANOTHER}
    assert {row.outcome for row in ROWS if row.setting in SOME} >= {
        IN_PLACE, CONSENT, REFUSED, LATER,
    }  # fmt: skip
    assert [row for row in ROWS if (row.outcome == REFUSED) and not (row.says or row.shown)] == []


TESTS = Path(__file__).parents[1]


def exists(name: str) -> bool:
    """Whether FILE::TEST exists in this folder or its parent, or FOLDER/FILE::TEST in another."""
    file, _, test = name.partition("::")
    sources = [
        path.read_text() for at in ("", "change/") if (path := TESTS / f"{at}{file}.py").exists()
    ]
    return any(f"def {test}(" in source if test else True for source in sources)


def test_every_test_that_a_page_names_exists() -> None:
    page = (TESTS.parent / "docs/comparison.md").read_text()
    named = [row.shown for row in ROWS if row.shown]
    named += re.findall(r"`((?:\w+/)?test_\w+(?:::\w+)?)`", page)
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    yes = [row for row in rows if row[6] == "**Y**"]
    assert len(yes) > 80
    assert [row[0] for row in yes if "`" not in row[7]] == []
    assert [row[0] for row in rows if not row[7].strip(" |")] == []  # a "No" has a reason
    assert [name for name in named if not exists(name)] == []
