"""An answer that is not from AWS leads to exit code 1 or 3 in bounded time, and a short error."""

from __future__ import annotations

import gc
import re
import resource
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from hyperpod_eks.aws import answers
from hyperpod_eks.aws import session as aws_session
from hyperpod_eks.aws.answers import NoAnswer
from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from tests import evil
from tests.conftest import Said, User, new_aws


def asked(user: User, patch: pytest.MonkeyPatch, url: str, *words: str) -> Said:
    patch.setenv("AWS_ENDPOINT_URL", url)
    patch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    words = words or ("status", "demo")
    said = user.types(*words, "--region", "us-west-2", "-o", "json")
    assert said.code in (1, 3), said.err
    assert said.document["exit_code"] == said.code
    assert len(said.err) < 3000
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said.err)
    assert "Traceback" not in said.err
    return said


@pytest.mark.parametrize("kind", evil.ANSWERS)
def test_an_answer_of_a_stranger(user: User, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with evil.server(evil.sending(evil.ANSWERS[kind])) as url:
        said = asked(user, monkeypatch, url)
    if kind == "a page":
        assert "Sign in to HotelWifi" in said.err


@pytest.mark.parametrize("kind", ["a page", "empty JSON", "empty XML", "half of JSON"])
def test_each_command_asks_who_answers(
    user: User, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also commands that call EKS or SageMaker before STS; create writes no manifest."""
    with evil.server(evil.sending(evil.ANSWERS[kind])) as url:
        for words in (("kubeconfig", "demo"), ("nodes", "demo"), ("logs", "demo"), ("orphans",)):
            asked(user, monkeypatch, url, *words)
        asked(user, monkeypatch, url, "create", "demo", "--chart", str(CHART))
        asked(user, monkeypatch, url, "delete", "demo", "--yes")
    assert not list(user.folder.glob("*.json"))


def test_an_error_without_an_error_is_not_from_aws(stack: Stack) -> None:
    """botocore's parser for EC2 finds no `Error` in other XML."""
    aws = new_aws("key", "secret")
    aws.region = "us-west-2"
    page = evil.said(b"<html><p>refused by proxy</p></html>", "text/xml", "403 Forbidden")
    with evil.server(evil.sending(page)) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(NoAnswer, match=r"ec2:DescribeVpcs: .* not from AWS: .*by proxy"):
            aws.ec2.describe_vpcs()


def test_all_answers_together_are_bounded(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded for concurrent reads, and for small answers that expand when parsed."""
    monkeypatch.setattr(answers, "LARGEST", 8 << 20)
    user.types("status", "demo")  # allocates the clients
    gc.collect()  # frees objects of earlier tests
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with evil.server(evil.endless) as url:
        said = asked(user, monkeypatch, url)
    assert "does not end" in said.err
    with evil.server(evil.sending(evil.ANSWERS["laughs"])) as url:
        said = asked(user, monkeypatch, url)
    assert "what answers is not AWS: '<!DOCTYPE x" in said.err
    # 39 to 63 MiB, and 130 to 160 where each answer is bounded by itself
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def hasten(patch: pytest.MonkeyPatch) -> None:
    """Make all limits of time a hundredth of what they are."""
    for name in ("CONNECT", "ANSWER", "SILENCE", "PATIENCE"):
        patch.setattr(answers, name, getattr(answers, name) / 100)


def test_what_is_silent_is_asked_each_question_twice(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call ends within two minutes, and whoever waits for the same answer asks no more."""
    assert answers.PATIENCE <= 120
    hasten(monkeypatch)
    heard: list[bytes] = []
    with evil.server(evil.never, heard) as url:
        said = asked(user, monkeypatch, url)
    assert said.code == 1
    assert "sts:GetCallerIdentity" in said.err
    counted = Counter(question(one) for one in heard)
    assert counted[b"POST / HTTP/1.1", b"", b"Action=GetCallerIdentity&Version=2011-06-15"] > 0
    assert max(counted.values()) <= 2, counted


def test_what_is_silent_to_a_login_is_given_up(
    user: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """botocore waits 60 s, and asks up to five times."""
    assert 5 * aws_session.ANSWER <= 120 - 15  # its pauses
    monkeypatch.setattr(aws_session, "ANSWER", 0.1)
    config = tmp_path / "config"
    role = "role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = base\n"
    keys = "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = key\n"
    config.write_text(f"[profile role]\n{role}[profile base]\n{keys}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    began, heard = time.monotonic(), list[bytes]()
    with evil.server(evil.never, heard) as url:
        said = asked(user, monkeypatch, url, "status", "demo", "--profile", "role")
    assert time.monotonic() - began < 20
    assert said.code == 1
    assert 1 < len(heard) <= 5


def question(request: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what a request asks: without its time and signature."""
    head, _, body = request.partition(b"\r\n\r\n")
    target = re.search(rb"(?i)x-amz-target: (\S+)", head)
    return head.splitlines()[0], target[1] if target else b"", body


@pytest.mark.parametrize("kind", evil.WAYS)
def test_what_never_ends_is_told_and_given_up(
    user: User, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    hasten(monkeypatch)
    monkeypatch.setattr(answers, "LARGEST", 8 << 20)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with evil.server(evil.WAYS[kind]) as url:
        said = asked(user, monkeypatch, url, "orphans")
    assert time.monotonic() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    if kind == "silent":
        assert "warning: sts:GetCallerIdentity (127.0.0.1:" in said.err
        assert "has not answered" in said.err


def test_a_look_at_what_refuses_connections_is_given_up_soon(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr("hyperpod_eks.cli.opening.LOOKING", 0.2)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", "http://127.0.0.1:1")
    for words in (
        ("status", "demo"),
        ("plan", "demo"),
        ("preflight", "demo", "--chart", str(CHART)),
    ):
        began = time.monotonic()
        said = user.types(*words, "--region", "us-west-2")
        assert said.code in (1, 3), said.err
        assert "http://127.0.0.1:1/" in said.err + said.out
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("text", ['{"Ver\x00sion": 1}', "", "<html>", "[]"])
def test_a_policy_that_is_not_json_is_not_from_aws(text: str) -> None:
    with pytest.raises(NoAnswer, match="a policy is not a JSON object, so not from AWS: "):
        answers.policy(text)
