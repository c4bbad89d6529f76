"""Every command in every format, in a pipe and on a terminal: stdout, stderr and exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pyte
import pytest
import yaml

from hyperpod_eks.cli import run
from hyperpod_eks.cli.commands.schema import schemas
from hyperpod_eks.errors import Exit
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.state.file_store import locked
from hyperpod_eks.terminal.formats import render
from hyperpod_eks.terminal.text import printable
from tests.cli.test_plan import NOBODY, later
from tests.commands import EVERY, GROUPS
from tests.conftest import Said, User, at_work

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SCHEMAS = {name: json.loads(path.read_text()) for name, path in schemas().items()}


def closed(schema: Any) -> Any:
    """Return a schema that allows only the members that it names; documents may have more later."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {
        key: value if key in ("if", "then", "else") else closed(value)
        for key, value in schema.items()
    }
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    return inner | ({"additionalProperties": False} if named else {})


CLOSED = {name: closed(schema) for name, schema in SCHEMAS.items()}

NO_QUESTIONS = ["--instance-type", "ml.m5.2xlarge", "--instance-count", "2"]
COMMANDS: dict[str, tuple[list[str], int]] = {
    "create": (["create", "demo", "--chart", str(CHART)], 0),
    "create --dry-run": (["create", "demo", "--chart", str(CHART), "--dry-run"], 0),
    "plan": (["plan", "demo", "--chart", str(CHART)], 0),
    "plan of another": (
        ["plan", "other", "--chart", str(CHART), "--detailed-exitcode"],
        5,
    ),
    "status": (["status", "demo"], 0),
    "status of none": (["status", "none"], 8),
    "status --offline": (["status", "demo", "--offline"], 0),
    "outputs": (["outputs", "demo"], 0),
    "diagram": (["diagram", "demo"], 0),
    "report": (["report", "demo"], 0),
    "report of none": (["report", "none"], 8),
    "export terraform": (["export", "terraform", "demo"], 0),
    "export cloudformation": (["export", "cloudformation", "demo"], 0),
    "export of none": (["export", "terraform", "none"], 8),
    "config show": (["config", "show", "demo"], 0),
    "config show none": (["config", "show", "none"], 8),
    "outputs of none": (["outputs", "none"], 8),
    "kubeconfig": (["kubeconfig", "demo", "--kubeconfig", "k"], 0),
    "kubeconfig --stdout": (["kubeconfig", "demo", "--stdout"], 0),
    "token": (["token", "demo"], 0),
    "adopt": (["adopt", "demo", "--rebuild"], 0),
    "adopt nothing": (["adopt", "demo"], 2),
    "orphans": (["orphans"], 0),
    "list": (["list"], 0),
    "delete --dry-run": (["delete", "demo", "--dry-run"], 0),
    "delete of none": (["delete", "none", "--yes"], 0),
    "validate": (["validate", "-f", "good.yaml"], 0),
    "validate wrong": (["validate", "-f", "bad.yaml"], 2),
    "init": (
        ["init", "fresh", "-f", "-", "--region", "us-west-2", *NO_QUESTIONS],
        0,
    ),
    "schema": (["schema"], 0),
    "explain": (["explain", "10"], 0),
    "unlock": (["unlock", "demo"], 0),
    "version": (["version"], 0),
    "preflight": (["preflight", "demo", "--chart", str(CHART)], 0),
    "preflight that finds": (["preflight", "demo", "--helm", "/nowhere", "--skip", "chart"], 3),
    "policy": (["policy", "demo"], 0),
    "logs": (["logs", "demo"], 0),
    "logs --control-plane": (["logs", "demo", "--control-plane"], 0),
    "logs of both": (["logs", "demo", "--group", "g", "--control-plane"], 2),
    "events": (["events", "demo"], 0),
    "events of none": (["events", "none"], 8),
    "nodes": (["nodes", "demo"], 0),
    "nodes reboot": (["nodes", "demo", "reboot", "NODE", "--yes"], 0),
    "nodes reboot of none": (["nodes", "demo", "reboot", "i-00000000", "--yes"], 8),
    "nodes delete of none": (["nodes", "demo", "delete", "i-00000000", "--yes"], 8),
    "test": (["test", "demo"], 0),
    "test of none": (["test", "none"], 8),
    "capacity": (["capacity", "ml.p5.48xlarge"], 0),
    "capacity of none": (["capacity"], 2),
    "mirror": (["mirror", "demo", "--chart", str(CHART), "--dry-run"], 0),
    "ssm": (["ssm", "demo", "NODE"], 0),
    "ssm of none": (["ssm", "demo", "i-00000000"], 8),
    "scale": (["scale", "demo", "worker-group=2"], 0),
    "scale of none": (["scale", "demo", "others=2"], 8),
    "update-software": (["update-software", "demo", "--yes"], 0),
    "local status of none": (["local", "status"], 8),
    "local start": (["local", "start"], 0),
    "local prepare": (["local", "prepare", "-f", "good.yaml"], 0),
    "local status": (["local", "status"], 0),
    "local stop": (["local", "stop"], 0),
    "no option": (["status", "demo", "--nonsense"], 2),
}
BEFORE = {
    "local status of none": ["local", "stop"],
    "local status": ["local", "start"],
    "local stop": ["local", "stop"],
}
"""The command to run before a case."""
ANSWERS = {"preflight that finds", "nodes reboot of none", "nodes delete of none"}
"""Cases that print their document although they end with an error code."""
QUICK = {
    "create",
    "plan of another",
    "status",
    "status of none",
    "outputs",
    "nodes",
    "validate wrong",
}
"""A few cases of each kind for `make test`; the others are in the long proof."""
SILENT = {"create", "adopt", "delete of none", "scale", "update-software"}
"""Cases that print nothing with -q."""
EMPTY = {"orphans", "preflight"}
"""Cases whose table has no rows here."""
SAYS_TWICE = {"capacity", "kubeconfig", "token"}
"""Cases whose output differs each time."""


@pytest.fixture(scope="module")
def here(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("matrix")) as user:
        os.environ["COLUMNS"] = "100"
        (user.folder / "good.yaml").write_text("name: good\nregion: us-west-2\n")
        (user.folder / "bad.yaml").write_text("name: Bad!\nregion: us-west-2\n")
        user.has("demo")
        yield user
        user.types("local", "stop")
        del os.environ["COLUMNS"]


def bare(text: str) -> str:
    """Return text without terminal escape sequences."""
    return "\n".join(line.rstrip() for line in ESCAPE.sub("", text).split("\n"))


def valid(document: Any) -> None:
    """Validate a document against its published schema, which must name every member."""
    if document.get("schema"):
        jsonschema.validate(document, CLOSED[document["schema"].split("/")[1]])


def on_a_terminal(*words: str, typed: str = "") -> Said:
    """Run a command whose stdin, stdout and stderr are separate pseudo terminals."""
    controls, written, readers, streams = [], {}, [], []
    for name in ("stdin", "stdout", "stderr"):
        control, program = pty.openpty()
        controls.append(control)
        streams.append(os.fdopen(program, "r" if name == "stdin" else "w", encoding="utf-8"))
        written[name] = bytearray()

        def read(control: int = control, into: bytearray = written[name]) -> None:
            while True:
                try:
                    into += os.read(control, 65536)
                except OSError:
                    return

        readers.append(threading.Thread(target=read))
        readers[-1].start()
    os.write(controls[0], typed.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        code = run(words)
    for stream in streams:
        stream.close()
    for reader in readers:
        reader.join()
    for control in controls:
        os.close(control)
    return Said(
        int(code),
        *(bytes(written[n]).decode().replace("\r\n", "\n") for n in ("stdout", "stderr")),
    )


def slow(name: object, quick: Collection[object]) -> Any:
    return pytest.param(name, marks=[] if name in quick else pytest.mark.prove)


@pytest.mark.parametrize("name", [slow(name, QUICK) for name in COMMANDS])
def test_a_command(here: User, name: str) -> None:
    words, code = COMMANDS[name]
    if "NODE" in words:
        node = here.types("nodes", "demo", "--query", "nodes[0].instance_id").out.strip()
        words = [node if word == "NODE" else word for word in words]
    if name in BEFORE:
        here.types(*BEFORE[name])
    failed = code not in (0, 5) and name not in ANSWERS
    pipe = here.types(*words)
    assert pipe.code == code, pipe.err
    assert "\x1b" not in pipe.out + pipe.err
    assert bool(pipe.out) is not failed
    assert bool(pipe.err) >= failed

    shown = on_a_terminal(*words)
    assert shown.code == code
    if name not in SAYS_TWICE:
        assert bare(shown.out) == printable(pipe.out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        plain = on_a_terminal(*words)
    assert plain.code == code
    assert "\x1b" not in plain.out
    assert not re.search(r"\x1b\[[0-9;]*m", plain.err)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")
        automatic = on_a_terminal(*words)
    assert automatic.code == code
    assert "\x1b[?25l" not in automatic.err, "nothing is animated"
    if name not in SAYS_TWICE:
        assert bare(automatic.out) == printable(pipe.out)

    quiet = here.types(*words, "-q")
    assert quiet.code == code
    assert bool(quiet.err) is failed
    if name not in SAYS_TWICE:
        assert quiet.out == ("" if name in SILENT else pipe.out)

    document = json.loads(here.types(*words, "-o", "json").out)
    valid(document)
    if "exit_code" in document:
        assert document["exit_code"] == code
    if failed:
        assert document["command"] == " ".join(words[: 1 + (words[0] in ("config", "local"))])
        assert document["error"]["docs"] == f"docs/exit-codes.md#exit-{code}"
        assert document["error"]["next"]
    else:
        other_forms(document)
        assert render(document, "table", str) or name in EMPTY


def other_forms(document: dict[str, Any]) -> None:
    """Check the other formats, which depend only on the document."""
    assert yaml.safe_load(render(document, "yaml", str)) == document
    assert render(document, "github", str) or not render(document, "env", str)
    for word in shlex.split(render(document, "env", str)):
        assert re.match("HYPERPOD_EKS_[A-Z0-9_]+=", word)


def test_a_question_stands_on_a_line_of_its_own(here: User) -> None:
    said = on_a_terminal("delete", "demo", typed="other\n")

    assert said.code == 2
    screen = pyte.Screen(100, 10)
    pyte.Stream(screen).feed(said.err.replace("\n", "\r\n"))
    summary, question, *_ = screen.display
    assert summary.startswith("This deletes the cluster demo and all its data (account ")
    assert question.startswith("Type the name of the cluster to continue: ")


def test_what_is_kept_is_said_before_it_is_asked(here: User) -> None:
    said = here.types("delete", "demo", "--keep", "bucket,logs")
    assert "all its data but bucket, logs (account " in said.err


@pytest.mark.parametrize("form", ["yaml", "table", "env"])
def test_a_form_is_printed(here: User, form: str) -> None:
    document = here.types("outputs", "demo", "-o", "json").document
    assert here.types("outputs", "demo", "-o", form).out == f"{render(document, form, str)}\n"
    failed = here.types("outputs", "none", "-o", form)
    assert failed.code == 8
    assert bool(failed.out) is (form == "yaml")


def test_every_command_is_tried() -> None:
    known = {" ".join(words) for words, _ in COMMANDS.values()}
    missing = {
        name
        for name in EVERY.keys() - GROUPS
        if not any(f"{each} ".startswith(f"{name} ") for each in known)
    }
    assert missing == {"completion", "local env"}, "what prints lines for a shell, and has no -o"


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_schema_is_one_and_can_be_printed(user: User, name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert user.types("schema", "--document", name).document == SCHEMAS[name]


# --- every exit code


def refused(code: str, service: str, operation: str, status: int = 400) -> Callable[[User], Said]:
    def scene(user: User) -> Said:
        user.stack.faults.append(Fault(service, operation, code=code, status=status, count=10**6))
        return user.types("create", "demo", "--chart", str(CHART), "-o", "json")

    return scene


def locked_out(user: User) -> Said:
    with locked(user.folder / "demo.hyperpod-eks.json"):
        return user.types("create", "demo", "--chart", str(CHART), "-o", "json")


def too_slow(user: User) -> Said:
    user.stack.sim.delays.__dict__["eks_create"] = 1e6
    return user.types("create", "demo", "--chart", str(CHART), "--timeout", "1", "-o", "json")


def taken(user: User) -> Said:
    boto3.client("iam").create_role(RoleName="demo-eks-us-west-2", AssumeRolePolicyDocument=NOBODY)
    return user.types("create", "demo", "--chart", str(CHART), "-o", "json")


def held(user: User) -> Said:
    user.has("demo")
    later(user)
    fault = Fault("ec2", "DeleteVpc", code="DependencyViolation", count=10**6)
    user.stack.faults.append(fault)
    return user.types("delete", "demo", "--yes", "--timeout", "2", "-o", "json")


def crashing(user: User) -> Said:
    user.makes("demo")
    user.stack.sim.failures["kubernetes/crash"] = "aws-node"
    for cluster in user.stack.sim.clusters.values():
        cluster.wake()
    return user.types("test", "demo", "-o", "json")


def broken(user: User) -> Said:
    """Run a command with an injected bug: no input of a user leads to one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyperpod_eks.cli.commands.version.PACKAGES", (0,))
        return user.types("version", "-o", "json")


SCENES: dict[Exit, Callable[[User], Said]] = {
    Exit.OK: lambda user: user.types("delete", "none", "--yes", "-o", "json"),
    Exit.FAILED: refused("InvalidParameterException", "eks", "CreateCluster"),
    Exit.USAGE: lambda user: user.types("status", "demo", "--query", "a[", "-o", "json"),
    Exit.DENIED: refused("AccessDenied", "ec2", "CreateVpc", 403),
    Exit.LOCKED: locked_out,
    Exit.CHANGES: lambda user: user.types(
        "plan", "demo", "--chart", str(CHART), "--detailed-exitcode", "-o", "json"
    ),
    Exit.UNFINISHED: too_slow,
    Exit.FOREIGN: taken,
    Exit.NOT_FOUND: lambda user: user.types("status", "none", "-o", "json"),
    Exit.REMAINS: held,
    Exit.CAPACITY: refused("VpcLimitExceeded", "ec2", "CreateVpc"),
    Exit.NOT_WORKING: crashing,
    Exit.BUG: broken,
}
SIGNALS = {
    Exit.HANGUP: signal.SIGHUP,
    Exit.INTERRUPTED: signal.SIGINT,
    Exit.TERMINATED: signal.SIGTERM,
}
AGAIN = {Exit.FAILED, Exit.DENIED, Exit.LOCKED, Exit.UNFINISHED, Exit.REMAINS, Exit.CAPACITY}


def test_every_exit_code_has_a_scene() -> None:
    assert set(SCENES) | set(SIGNALS) == set(Exit)


QUICK_CODES = {
    Exit.OK,
    Exit.USAGE,
    Exit.DENIED,
    Exit.LOCKED,
    Exit.CHANGES,
    Exit.NOT_FOUND,
    Exit.BUG,
}
"""Exit codes that are reached quickly, for `make test`."""


@pytest.mark.parametrize(
    "code", [slow(code, QUICK_CODES) for code in SCENES], ids=lambda code: code.name
)
def test_an_exit_code(user: User, code: Exit) -> None:
    said = SCENES[code](user)
    assert said.code == code, said.err
    document = said.document
    valid(document)
    assert document["exit_code"] == code
    if code in (Exit.OK, Exit.CHANGES):
        return
    assert document["ok"] is False
    if code is Exit.NOT_WORKING:
        return  # a document of its own
    assert document["error"]["message"] in said.err
    resume = document["resume"]
    assert (resume is not None) is (code in AGAIN)
    if resume:
        assert resume.startswith("hyperpod-eks ")
    if code in (Exit.FAILED, Exit.DENIED, Exit.CAPACITY):
        aws = document["error"]["aws"]
        assert aws["operation"].startswith("Create")
        assert aws["code"]
        assert aws["request_id"]
        assert aws["request_id"] in Path(document["log_file"]).read_text()


@pytest.mark.parametrize(
    "code", [slow(c, {Exit.TERMINATED}) for c in SIGNALS], ids=lambda code: code.name
)
def test_a_signal(user: User, code: Exit) -> None:
    user.stack.sim.delays.__dict__["eks_create"] = 1e6
    words = ["create", "demo", "--chart", str(CHART), "--skip", "roles", "--yes", "-o", "json"]
    with subprocess.Popen(
        [sys.executable, "-m", "hyperpod_eks", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        assert process.stdout
        for line in process.stderr:
            if "eks/cluster" in line:
                break
        process.send_signal(SIGNALS[code])
        document = json.loads(process.stdout.read())
        told = process.stderr.read()
        assert process.wait(30) == code
    valid(document)
    assert document["exit_code"] == code
    assert document["resume"] == shlex.join(["hyperpod-eks", *words]), "no option is lost"
    assert f"To continue: {document['resume']}\n" in told
