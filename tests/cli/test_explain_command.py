"""`explain` prints sections of the documentation as plain text."""

from __future__ import annotations

import pytest

from hyperpod_eks.diagnosis.causes import CAUSES
from hyperpod_eks.errors import Exit
from tests.conftest import User


def test_every_exit_code_and_every_cause_is_explained(user: User) -> None:
    said = user.types("explain")
    assert said.code == 0
    listed = [line.split()[0] for line in said.out.splitlines()]
    assert {str(int(code)) for code in Exit} | {cause.id for cause in CAUSES} == set(listed)


@pytest.mark.parametrize("topic", ["10", "exit-10", "certificate"])
def test_a_topic_is_plain_text(user: User, topic: str) -> None:
    said = user.types("explain", topic, "-o", "json")
    assert said.code == 0, said.err
    assert said.document["topic"] == topic.removeprefix("exit-")
    assert len(said.document["text"]) > 80
    assert not {"`", "](", "#"} & set(said.document["text"])
    assert user.stack.calls == []


def test_an_unknown_topic_is_refused(user: User) -> None:
    said = user.types("explain", "gremlins")
    assert said.code == 2
    assert "unknown topic 'gremlins'" in said.err
