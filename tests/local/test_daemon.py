from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
import pytest

from hyperpod_eks.cli import run as typed
from hyperpod_eks.errors import Exit, HyperpodError, Usage
from hyperpod_eks.local import daemon
from tests.conftest import apply


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A separate cache folder, without a running daemon before and after the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("AWS_PROFILE", "of-nobody")
    yield tmp_path / "hyperpod-eks"
    daemon.stop()


def run(*arguments: str, code: int = 0) -> str:
    """Run ``hyperpod-eks local ...``; return stdout."""
    with redirect_stdout(io.StringIO()) as out:
        assert typed(["local", *arguments]) == code
    return out.getvalue()


def shown(*arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(*arguments, "-o", "json"))
    stack: dict[str, Any] = document["stack"]
    return stack


def test_the_life_of_a_stack(cache: Path) -> None:
    stack = shown("start", "--speed", "100")
    assert shown("status") == shown("start") == stack
    assert f"answers at {stack['endpoint']}, 100 times as fast as AWS" in run("status")
    state = cache / "local.json"
    assert json.loads(state.read_text()) == stack
    for file in (state, cache / "local.log", cache / "local.lock"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    client = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
    script = f"{run('env')}\n{shlex.join([sys.executable, '-c', client])}"
    hostile = {"AWS_PROFILE": "of-nobody", "AWS_SESSION_TOKEN": "x", "HTTP_PROXY": "http://x:1"}
    shell = subprocess.run(
        ["sh", "-c", script], env={**os.environ, **hostile}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert shell.stdout == "arn:aws:sts::123456789012:assumed-role/Admin/local\n"

    assert run("stop") == "the embedded stack has stopped\n"
    assert not state.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(stack["endpoint"].rsplit(":", 1)[1])))
    error = json.loads(run("status", "-o", "json", code=Exit.NOT_FOUND))["error"]
    assert error["message"] == "no embedded stack is running"
    assert run("env", code=Exit.NOT_FOUND) == ""
    assert run("stop") == "no embedded stack was running\n"


def test_no_module_of_the_current_folder_runs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("json", "flask", "moto"):
        (tmp_path / f"{module}.py").write_text("exit('ran')")
    monkeypatch.chdir(tmp_path)
    running = daemon.ensure()
    assert Path(f"/proc/{running.pid}/cwd").resolve() != tmp_path
    assert (cache / "local.log").read_text() == ""


def test_two_starts_at_once_make_one_stack(cache: Path) -> None:
    code = "from hyperpod_eks.local import daemon; print(daemon.ensure().pid)"

    def start(_: int) -> str:
        return subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60)

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(start, range(2))
    assert first == second


def test_what_a_dead_stack_left_behind_is_in_nobodys_way(cache: Path) -> None:
    dead = daemon.ensure()
    os.kill(dead.pid, signal.SIGKILL)
    assert (cache / "local.json").exists()
    assert daemon.find() is None
    living = daemon.ensure()
    assert living.pid != dead.pid
    (cache / "local.json").write_text("{")
    assert daemon.find() is None
    os.kill(living.pid, signal.SIGTERM)


def test_a_stack_that_does_not_answer_is_not_taken_for_dead(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = daemon.ensure()
    monkeypatch.setattr(daemon, "TIMEOUT", 0.3)
    os.kill(running.pid, signal.SIGSTOP)
    try:
        for verb in (daemon.find, daemon.stop, daemon.ensure):
            with pytest.raises(HyperpodError, match=f"process {running.pid}. is not responding"):
                verb()
    finally:
        os.kill(running.pid, signal.SIGCONT)
    monkeypatch.setattr(daemon, "TIMEOUT", 10.0)
    assert daemon.find() == running


def test_a_log_that_is_a_link_is_not_followed(cache: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    cache.mkdir()
    (cache / "local.log").symlink_to(victim)
    daemon.ensure()
    assert victim.read_text() == "theirs"


def test_a_terminated_stack_cleans_up(cache: Path) -> None:
    running = daemon.ensure()
    os.kill(running.pid, signal.SIGTERM)
    os.waitpid(running.pid, 0)
    assert not (cache / "local.json").exists()


def test_a_stack_at_another_speed_is_not_taken_for_ours(cache: Path) -> None:
    assert daemon.ensure().speed == 60
    assert daemon.ensure(60).speed == 60
    with pytest.raises(Usage, match="runs at speed 60, not at 300") as caught:
        daemon.ensure(300)
    assert "local stop" in caught.value.hint


def test_a_start_that_fails_says_why(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HyperpodError, match=f"cannot listen on port {port}") as caught:
            daemon.ensure(port=port)
    assert str(cache / "local.log") in caught.value.hint


def test_time_passes_as_fast_as_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = daemon.ensure(1000)
    before = running.control("health")["elapsed"]
    apply(monkeypatch, running.environ)
    ec2 = boto3.Session().client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    assert vpc in running.control("inventory")[running.region]["ec2"]["Vpcs"]
    assert running.control("health")["elapsed"] - before > 1


@pytest.mark.prove
def test_fifty_thousand_calls_and_a_large_upload_leave_it_small(cache: Path) -> None:
    """Half of the calls write; the log of calls must not keep request bodies in memory."""
    stack = shown("start", "--speed", "100")
    host, port = stack["endpoint"].rpartition("//")[2].split(":")
    scope = "Credential=ASIALOCALSTACK000000/20260101/us-west-2/{}/aws4_request"
    signed = "AWS4-HMAC-SHA256 " + scope + ", SignedHeaders=host, Signature=x"

    def ask(connection: HTTPConnection, service: str, *request: Any) -> None:
        method, path, body = request
        headers = {"Authorization": signed.format(service)}
        if service == "iam":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status

    def calls(worker: int) -> None:
        connection = HTTPConnection(host, int(port), timeout=60)
        for _ in range(12_500):
            ask(connection, "s3", "PUT", f"/a-bucket/{worker}", b"x" * 100)
            ask(connection, "iam", "POST", "/", "Action=ListRoles&Version=2010-05-08")
        connection.close()

    connection = HTTPConnection(host, int(port), timeout=120)
    place = b"<CreateBucketConfiguration><LocationConstraint>us-west-2</LocationConstraint>"
    ask(connection, "s3", "PUT", "/a-bucket", place + b"</CreateBucketConfiguration>")
    connection.close()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(calls, range(2)))
    connection.connect()  # the first one has been idle for too long
    ask(connection, "s3", "PUT", "/a-bucket/large", bytes(200 << 20))
    connection.close()

    status = Path(f"/proc/{stack['pid']}/status").read_text()
    told = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status))
    assert int(told["VmRSS"]) >> 10 < 400, told
