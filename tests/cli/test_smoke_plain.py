"""``hyperpod-eks test`` of a cluster whose nodes have no accelerators."""

from __future__ import annotations

import pytest

from tests.conftest import User


@pytest.mark.parametrize("level", ["3", "4"])
def test_a_cluster_of_which_every_check_is_skipped_is_not_said_to_work(
    user: User, level: str
) -> None:
    user.has("demo")
    user.mutations()
    said = user.types("test", "demo", "--level", level)  # nothing to agree to
    assert (said.code, user.mutations()) == (0, []), said.err
    assert said.out.splitlines()[-1] == "demo was not tested: every check was skipped"
    assert "no node has accelerators" in said.out or "no group has two nodes" in said.out


def test_a_check_that_ran_says_that_the_cluster_works(user: User) -> None:
    user.has("demo")
    said = user.types("test", "demo", "--level", "1", "--level", "4")
    assert (said.code, said.out.splitlines()[-1]) == (0, "demo works"), said.err
