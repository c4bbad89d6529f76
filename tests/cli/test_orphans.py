"""``hyperpod-eks orphans``: what no manifest knows is listed, with the command that ends it."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.conftest import REGION, User

ELSEWHERE = "eu-west-1"


def test_a_lost_cluster_is_listed_with_the_command_that_takes_it_away(user: User) -> None:
    user.makes("demo", "--region", ELSEWHERE)
    place = ("--region", ELSEWHERE)
    assert user.types("orphans", *place).out.startswith("no orphans in eu-west-1")
    Path("demo.hyperpod-eks.json").unlink()
    user.mutations()

    said = user.types("orphans", *place)

    assert said.code == 0
    assert user.mutations() == []
    *rows, hint = said.out.splitlines()
    kinds = {row.split()[1] for row in rows}
    assert {
        "vpc",
        "subnet",
        "natgateway",
        "elastic-ip",
        "role",
        "policy",
        "bucket",
        "log-group",
    } <= kinds
    assert {row.split()[0] for row in rows} == {"demo"}
    assert hint == f"To delete them: hyperpod-eks delete demo --region {ELSEWHERE}"
    assert REGION != ELSEWHERE, "or the hint would be right without its region"
    assert user.types(*shlex.split(hint)[4:], "--yes").code == 0
    assert user.types("orphans", *place).out.startswith("no orphans")


def test_a_manifest_that_is_named_knows_its_cluster(user: User) -> None:
    user.types("create", "demo", "--timeout", "0.001", "--manifest", "kept.json")

    assert user.types("orphans").out != ""
    known = user.types("orphans", "--manifest", "kept.json")
    assert known.out.startswith("no orphans")


def test_where_there_is_no_cluster_the_hint_leads_to_the_same_place(user: User) -> None:
    said = user.types("status", "demo", "--region", ELSEWHERE)

    assert said.code == 8
    assert f"Make it: hyperpod-eks create demo --region {ELSEWHERE}\n" in said.err
