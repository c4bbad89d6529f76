"""Formats of a document, queries, events, and the log without secrets."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hyperpod_eks.cli.commands.schema import schemas
from hyperpod_eks.errors import Usage
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.terminal import runlog
from hyperpod_eks.terminal.formats import ask, render
from tests.conftest import User

DOCUMENT: dict[str, Any] = {
    "schema": "hyperpod-eks/orphans/v1",
    "account": "1",
    "orphans": [{"id": "vpc-1", "größe": 2, "in": None}, {"id": "i-\x1b[2J", "more": ["a"]}],
}


def text(document: Any) -> str:
    return "for people\n"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (None, "for people"),
        ("account", "1"),
        ("orphans[].id", "vpc-1\ni-\x1b[2J"),
        ("nothing", ""),
        ("length(orphans)", "2"),
        ("orphans[0]", "id     vpc-1\ngröße  2\nin"),
        ("orphans[?id=='vpc-1'].{id: id, n: größe}", "ID     N\nvpc-1  2"),
        ("`true`", "true"),
    ],
)
def test_with_a_query_text_is_what_a_shell_wants(query: str | None, said: str) -> None:
    if query and "größe" in query:
        query = query.replace("größe", '"größe"')
    assert render(DOCUMENT, "text", text, ask(query) if query else None) == said


def test_the_other_forms() -> None:
    assert json.loads(render(DOCUMENT, "json", text)) == DOCUMENT
    assert yaml.safe_load(render(DOCUMENT, "yaml", text)) == DOCUMENT
    assert render(DOCUMENT, "yaml", text, ask("orphans[0].id")) == "vpc-1"
    assert render(DOCUMENT, "table", text) == (
        'ID     GRÖSSE  IN  MORE\nvpc-1  2\ni-[2J              ["a"]'
    )
    assert render(DOCUMENT, "env", text, ask("{a: account, b: orphans[0].id}")) == (
        "HYPERPOD_EKS_A='1'\nHYPERPOD_EKS_B='vpc-1'"
    )
    assert render(DOCUMENT, "env", text, ask("account")) == "HYPERPOD_EKS_VALUE='1'"


@pytest.mark.parametrize("wrong", ["a[", "foo(", "no_such()", "length(`1`)"])
def test_a_wrong_query_names_itself(wrong: str) -> None:
    with pytest.raises(Usage, match="--query"):
        ask(wrong)(DOCUMENT)


def test_a_wrong_query_ends_before_aws_is_asked(user: User) -> None:
    user.stack.calls.clear()
    said = user.types("create", "demo", "--chart", str(CHART), "--query", "outputs.[")
    assert (said.code, said.out) == (2, "")
    assert "outputs.[" in said.err
    assert user.stack.calls == []
    assert list(user.folder.iterdir()) == []


def lines(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    schema = json.loads(schemas()["event"].read_text())
    for line in found:
        jsonschema.validate(line, schema)
    return found


def test_events_tell_what_happened_and_end_with_the_document(user: User) -> None:
    said = user.types(
        "create", "demo", "--chart", str(CHART), "--events", "e.jsonl", "-o", "json", "-q"
    )
    assert (said.code, said.err) == (0, "")
    found = lines((user.folder / "e.jsonl").read_text())
    assert found[-1]["document"] == said.document
    about = [line["what"] for line in found if line.get("key") == "network/vpc"]
    assert about[:2] == ["pending", "creating"]
    assert about[-1] == "ready"
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)


def test_events_on_stdout_are_all_there_is(user: User) -> None:
    said = user.types("delete", "none", "--yes", "--events", "-", "-o", "json")
    found = lines(said.out)
    assert found[-1]["document"]["command"] == "delete"
    said = user.types("status", "none", "--events", "-", "-o", "json")
    assert lines(said.out)[-1]["document"]["exit_code"] == 8


def test_events_on_a_descriptor(user: User) -> None:
    reader, writer = os.pipe()
    assert user.types("version", "--events", f"fd:{writer}").code == 0
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert lines(stream.read())[-1]["document"]["command"] == "version"


@pytest.mark.parametrize("where", ["fd:2147483647", f"fd:{9**30}", "nowhere/file", "."])
def test_events_that_cannot_be_written_are_wrong_usage(user: User, where: str) -> None:
    # the highest int is never a descriptor; a low one may be open for another test
    said = user.types("version", "--events", where)
    assert (said.code, said.out) == (2, "")
    assert f"--events: cannot write to {where}" in said.err


def test_events_that_are_lost_are_a_warning(user: User) -> None:
    said = user.types("delete", "none", "--yes", "--events", "/dev/full")
    warning = "warning: --events: cannot write to /dev/full: No space left on device\n"
    assert (said.code, said.err.count(warning)) == (0, 1)


def test_no_umask_makes_a_file_writable_by_all(user: User) -> None:
    before = os.umask(0)
    try:
        assert user.types("status", "none", "--events", "e.jsonl").code == 8
        assert user.types("init", "none").code == 0
    finally:
        os.umask(before)
    for name in ("e.jsonl", "none.yaml"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o644


def test_each_call_is_told_on_request(user: User) -> None:
    said = user.types("orphans", "-v")
    assert "sts:GetCallerIdentity 200" in said.err
    assert "sts:" not in user.types("orphans").err


def log_of(user: User) -> Path:
    (log,) = (user.folder.parent / "state/hyperpod-eks/logs").glob("*-create-*.log")
    return log


def test_a_failure_points_at_the_log_of_the_run(user: User) -> None:
    user.stack.faults.append(Fault("ec2", "CreateVpc", code="UnauthorizedOperation", status=403))
    said = user.types("create", "demo", "--chart", str(CHART))
    assert said.code == 3
    log = log_of(user)
    assert f"log: {log}" in said.err
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    text = log.read_text()
    assert f"hyperpod-eks create demo --chart {CHART}" in text
    assert "ec2:CreateVpc UnauthorizedOperation" in text
    assert "network/vpc failed" in text


def test_the_debug_log_has_everything_but_secrets(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "this/is/the/secret/access/key")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "this-is-the-session-token")
    said = user.types("plan", "demo", "--chart", str(CHART), "--debug")
    assert said.code == 0, said.err
    (log,) = (user.folder.parent / "state/hyperpod-eks/logs").iterdir()
    text = log.read_text()
    assert f"log: {log}" in said.err
    assert "DEBUG botocore" in text
    assert "X-Amz-Security-Token" in text
    for secret in ("this/is/the/secret", "this-is-the-session", "AWS4-HMAC-SHA256 Credential"):
        assert secret not in text


def test_the_newest_logs_of_each_command_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    logs = tmp_path / "hyperpod-eks/logs"
    logs.mkdir(parents=True)
    for number in range(30):
        for verb in ("create", "update-software"):
            (logs / f"20200101T0000{number:02}Z-{verb}-1.log").touch()
    (logs / "of-mine.log").touch()
    runlog.start("create").end()
    left = sorted(path.name for path in logs.glob("*-create-*.log"))
    assert len(left) == runlog.KEPT + 1
    assert left[0].startswith("20200101T000020Z")
    assert len(list(logs.glob("*-update-software-*.log"))) == 30
    assert (logs / "of-mine.log").exists()


def test_what_only_looks_leaves_a_log_when_it_fails(user: User) -> None:
    logs = user.folder.parent / "state/hyperpod-eks/logs"
    assert user.types("orphans").code == 0
    assert list(logs.iterdir()) == []
    user.stack.faults.append(Fault("sts", "GetCallerIdentity", code="ExpiredToken", status=403))
    said = user.types("orphans", "-o", "json")
    assert said.code == 3
    log = Path(said.document["log_file"])
    assert "ExpiredToken" in log.read_text()
    log.unlink()
    assert user.types("orphans", "--debug").code == 0  # it says where its log is
    assert len(list(logs.iterdir())) == 1


def test_no_log_is_no_failure(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    (user.folder / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(user.folder / "file"))
    assert user.types("orphans").code == 0


def test_a_log_on_a_full_disk_is_no_failure() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    log = runlog.Log(None)
    log.add(runlog.TOOL, full.open("w"), "%(message)s", logging.INFO)
    logging.getLogger(runlog.TOOL).info("so it is")
    log.end()


def test_offline_commands_leave_no_log(user: User) -> None:
    user.types("version")
    user.types("outputs", "none")
    assert not (user.folder.parent / "state").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("outputs", "none", "nothing"),
        ("validate", "-f", "nowhere.yaml"),
        ("status", "demo", "--nonsense"),
        ("version", "--query", "a["),
    ],
    ids=" ".join,
)
def test_a_process_says_an_error_once(user: User, words: tuple[str, ...]) -> None:
    """Without a log and pytest's handlers, nothing is logged to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "hyperpod_eks", *words, "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    document = json.loads(done.stdout)
    assert done.returncode == document["exit_code"]
    said = filter(None, [document["error"]["message"], document["error"]["hint"]])
    assert done.stderr == "error: " + "\n".join(said) + "\n"


STREAMS = [(">/dev/full", 1), ("<&- >&- 2>&-", 0), (">&-", 0), ("2>&-", 0)]
PLAN = f"plan demo --chart {CHART}"


@pytest.mark.parametrize(
    ("command", "streams", "code"),
    [
        *(pytest.param("delete none --yes", *e, marks=pytest.mark.prove) for e in STREAMS[:2]),
        *(pytest.param("version", *each) for each in STREAMS),
        *(
            pytest.param("delete none --yes", *each, marks=pytest.mark.prove)
            for each in STREAMS[2:]
        ),
        *(pytest.param(PLAN, *each, marks=pytest.mark.prove) for each in STREAMS),
        ("version --events -", ">/dev/full", 1),
        ("outputs none", "2>/dev/full", 8),
        ("bogus", "2>/dev/full", 2),
    ],
)
def test_a_stream_that_takes_nothing_is_no_bug(
    user: User, command: str, streams: str, code: int
) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m hyperpod_eks {command} {streams}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert "error: cannot write to stdout: No space left on device\n" in done.stderr


def test_a_reader_that_went_away_leaves_the_exit_code(user: User) -> None:
    command = f"{sys.executable} -m hyperpod_eks status none -o json; echo $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({command}) | true"], capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("\n8\n")
    assert "Traceback" not in done.stderr
