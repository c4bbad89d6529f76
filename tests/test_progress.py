"""Progress, and the text of `status`: whole screens, on pseudo terminals."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest

from hyperpod_eks.events import Event, EventType
from hyperpod_eks.terminal.progress import Board, elapsed, plain, render_status, wants_colour
from hyperpod_eks.terminal.text import cells, clean, cut, pad, paint

SNAPSHOTS = Path(__file__).with_name("test_progress_snapshots")


def same(name: str, text: str) -> None:
    """Compare with the snapshot; UPDATE_SNAPSHOTS=1 writes it instead: review the diff."""
    file = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(text)
    assert text == file.read_text()


# --- the tree

PLAN = {
    "iam": ["eks-role", "node-role"],
    "network": [
        "vpc",
        "internet-gateway",
        "private-subnet-usw2-az1",
        "private-subnet-usw2-az2",
        "nat-gateway-usw2-az1",
    ],
    "s3": ["bucket"],
    "eks": ["log-group", "cluster", "access-admin"],
    "addons": ["vpc-cni", "coredns"],
    "helm": ["release"],
    "hyperpod": ["cluster", "nodes"],
}
IDS = {
    "eks-role": "demo-eks-us-west-2",
    "vpc": "vpc-0ab12cd34ef56ab78",
    "internet-gateway": "igw-0ab12cd34ef56ab78",
    "private-subnet-usw2-az1": "subnet-0ab12cd34ef56ab78",
    "nat-gateway-usw2-az1": "nat-0ab12cd34ef56ab78",
    "bucket": "sagemaker-demo-111122223333-us-west-2",
    "cluster": "demo",
}


class Recorder:
    """The events of a create, up to a given point."""

    def __init__(self) -> None:
        self.board = Board("create demo in us-west-2", 0.0)

    def tell(
        self, at: float, key: str, what: EventType, why: str = "", changed: bool = False
    ) -> None:
        ident = IDS.get(key.split("/")[1], "")
        known = "" if what in (EventType.PENDING, EventType.CREATING) else ident
        self.board.take(Event(key, what, known, why, changed), at)

    def make(self, began: float, ended: float, *keys: str) -> None:
        for key in keys:
            self.tell(began, key, EventType.CREATING)
            self.tell(ended, key, EventType.READY, changed=True)

    def chapter(self, last: int) -> Board:
        for step, names in PLAN.items():
            for name in names:
                self.tell(0.1, f"{step}/{name}", EventType.PENDING)
        self.make(1, 3, "iam/eks-role", "iam/node-role")
        self.make(2, 5, *(f"network/{name}" for name in PLAN["network"][:-1]))
        self.tell(2, "network/nat-gateway-usw2-az1", EventType.CREATING)
        self.tell(6, "network/nat-gateway-usw2-az1", EventType.WAITING, "pending")
        self.tell(2, "s3/bucket", EventType.READY)
        self.tell(2, "eks/log-group", EventType.READY)
        self.tell(5, "eks/cluster", EventType.CREATING)
        self.tell(8, "eks/cluster", EventType.WAITING, "CREATING")
        if last >= 2:
            self.make(6, 100, "network/nat-gateway-usw2-az1")
            self.make(5, 500, "eks/cluster", "eks/access-admin")
            self.make(504, 540, "addons/vpc-cni", "helm/release")
            words = "DEGRADED [InsufficientNumberOfReplicas] The add-on is unhealthy.\x1b[2J\nWait."
            self.tell(504, "addons/coredns", EventType.CREATING)
            self.tell(540, "addons/coredns", EventType.WAITING, words)
            self.tell(521, "hyperpod/cluster", EventType.CREATING, "usually 10 to 25 min")
            words = "Creating, 1 of 2 nodes running; Instance i-0ab12cd34ef56ab78 is provisioned."
            self.tell(600, "hyperpod/cluster", EventType.WAITING, words)
        if last >= 3:
            why = "Instance i-0123 failed to provision: Lifecycle scripts did not run successfully."
            self.tell(1300, "hyperpod/cluster", EventType.FAILED, why)
        return self.board


@pytest.mark.parametrize(
    ("name", "chapter", "now", "width", "height"),
    [
        ("begun-80", 1, 72.3, 80, 50),
        ("waiting-80", 2, 700.0, 80, 50),
        ("waiting-200", 2, 700.0, 200, 50),
        ("waiting-80x20", 2, 700.0, 80, 20),
        ("waiting-80x12", 2, 700.0, 80, 12),
        ("waiting-80x6", 2, 700.0, 80, 6),
        ("failed-80x14", 3, 1305.0, 80, 14),
        ("waiting-40", 2, 700.0, 40, 50),
    ],
)
def test_the_tree(name: str, chapter: int, now: float, width: int, height: int) -> None:
    lines = Recorder().chapter(chapter).lines(width, height, now)
    texts = [paint(line, colour=False) for line in lines]
    assert len(texts) < height
    assert max(map(cells, texts)) <= width
    same(f"tree-{name}", "\n".join(texts) + "\n")


def test_the_newest_event_is_read_to_its_end_at_80_columns() -> None:
    lines = Recorder().chapter(2).lines(80, 24, 700.0)
    text = " ".join(" ".join(paint(line, colour=False) for line in lines).split())
    assert "1 of 2 nodes running; Instance i-0ab12cd34ef56ab78 is provisioned." in text
    assert "hyperpod 2m59s 0 of 2 usually 10 to 25 min" in text


@pytest.mark.parametrize("width", [40, 50, 60, 80])
def test_a_narrow_terminal_keeps_messages_and_tells_names_apart(width: int) -> None:
    lines = [paint(line, False) for line in Recorder().chapter(3).lines(width, 50, 1305.0)]
    text = " ".join(" ".join(lines).split())
    assert "[InsufficientNumberOfReplicas] The add-on is unhealthy." in text
    assert "i-0123 failed to provision: Lifecycle scripts did not run successfully." in text
    names = [line.split()[1] for line in lines if "-az" in line]
    assert len(set(names)) == len(names) == 3


@pytest.mark.parametrize("words", ["x" * 31, "x" * 32, "0 of 2 nodes Ready, with a word more"])
def test_words_that_just_fit_are_not_cut(words: str) -> None:
    board = Board("create demo", 0.0)
    board.take(Event(f"network/{'n' * 24}", EventType.READY), 0.0)
    board.take(Event("hyperpod/nodes", EventType.WAITING, "", words), 1.0)
    text = " ".join(" ".join(paint(line, colour=False) for line in board.lines(80, 24, 2)).split())
    assert "…" not in text
    assert words in text


def test_the_tree_of_a_delete() -> None:
    board = Board("delete demo", 0.0)
    for at, key, what, why, changed in [
        (1, "hyperpod/cluster", EventType.DELETING, "", True),
        (300, "hyperpod/cluster", EventType.GONE, "", True),
        (301, "s3/bucket", EventType.KEPT, "it holds 3 objects that are not ours", False),
        (302, "network/vpc", EventType.DELETING, "", True),
        (303, "network/vpc", EventType.WAITING, "a network interface of it is in use", True),
        (304, "network/flow-log", EventType.GONE, "", False),
    ]:
        board.take(Event(key, what, "", why, changed), at)
    texts = [paint(line, colour=False) for line in board.lines(80, 24, 310.0)]
    same("tree-delete-80", "\n".join(texts) + "\n")


def test_without_unicode_the_tree_is_ascii() -> None:
    lines = Recorder().chapter(3).lines(60, 14, 1305.0, utf8=False)
    assert all(piece.text.isascii() for line in lines for piece in line)


# --- lines


class Clock:
    now = 1795438805.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_tell_each_change_once_and_never_wrap() -> None:
    stream, clock = io.StringIO(), Clock()
    waiting = Event(
        "hyperpod/cluster", EventType.WAITING, "demo", "Creating,\n0 of 2 nodes [running]"
    )
    with plain(stream, clock) as tell:
        tell(Event("network/vpc", EventType.PENDING))
        tell(Event("network/vpc", EventType.CREATING))
        clock.now += 1.2
        tell(
            Event(
                "network/vpc", EventType.READY, "vpc-0ab12cd34ef56ab78", "available", changed=True
            )
        )
        tell(Event("s3/bucket", EventType.READY, "sagemaker-demo"))
        tell(Event("hyperpod/cluster", EventType.CREATING))
        for _ in range(70):  # two heartbeats in 70 s without a change
            clock.now += 1
            tell(waiting)
        clock.now += 1
        tell(Event("hyperpod/cluster", EventType.WAITING, "demo", "x" * 300))
        tell(Event("hyperpod/cluster", EventType.FAILED, "demo", "Lifecycle \x1b[31mscripts"))
        tell(Event("eks/role", EventType.DELETING, "r"))
        tell(Event("eks/role", EventType.GONE, "r", changed=True))
        tell(Event("s3/bucket", EventType.KEPT, "sagemaker-demo", "it holds other objects"))
    same("plain", stream.getvalue())


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "gone")


def test_a_reader_that_goes_away_ends_nothing() -> None:
    with plain(Broken()) as tell:
        tell(Event("network/vpc", EventType.READY))
    stream = io.StringIO()
    with plain(stream) as tell:
        stream.close()
        tell(Event("network/vpc", EventType.READY))


def test_a_stream_that_cannot_spell_is_written_to_nevertheless() -> None:
    raw = io.BytesIO()
    with plain(io.TextIOWrapper(raw, "ascii")) as tell:
        tell(Event("s3/größe", EventType.FAILED, "", "trop élevé"))
    assert raw.getvalue().endswith(b"s3/gr??e failed: trop ?lev?\n")


# --- real terminals and pipes

PROGRAM = """
import os, sys, time
from hyperpod_eks.terminal.progress import choose
from hyperpod_eks.events import Event, EventType
with choose(sys.stderr, os.environ, sys.argv[1], "create demo") as tell:
    assert "rich" not in sys.modules
    tell(Event("network/vpc", EventType.CREATING))
    tell(Event("network/vpc", EventType.READY, "vpc-0ab", changed=True))
    tell(Event("eks/cluster", EventType.WAITING, "demo", "[CREATING] with [brackets]"))
    if "slowly" in sys.argv:
        time.sleep(0.6)
    tell(Event("eks/cluster", EventType.READY, "demo"))
print("RESULT")
"""
BASE = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}


@contextmanager
def terminal(columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """A pseudo terminal: the side that controls it, and the side for the program."""
    control, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield control, program
    finally:
        os.close(control)


def on_a_terminal(
    *arguments: str,
    stdout: Any = None,
    columns: int = 80,
    rows: int = 24,
    environ: dict[str, str] | None = None,
) -> bytes:
    """Return the program's output to a terminal; `stdout` is redirected if given."""
    with terminal(columns, rows) as (control, program):
        command = [sys.executable, "-c", PROGRAM, *arguments]
        out = program if stdout is None else stdout
        process = subprocess.Popen(
            command, stdin=program, stdout=out, stderr=program, env=BASE | (environ or {})
        )
        os.close(program)
        written = b""
        while True:
            try:
                chunk = os.read(control, 65536)
            except OSError:  # on Linux, the other side is closed
                break
            if not chunk:
                break
            written += chunk
        assert process.wait() == 0
        return written


def screen(written: bytes, columns: int = 80, rows: int = 24) -> list[str]:
    """Return the final content of the screen."""
    shown = pyte.Screen(columns, rows)
    pyte.ByteStream(shown).feed(written)
    return [line.rstrip() for line in shown.display if line.strip()]


FINAL = [
    "create demo                          2 of 2",
    "✔ network                            1 created",
    "  ✔ vpc                              created   vpc-0ab",
    "✔ eks                                1 ready",
    "  ✔ cluster                          ready     demo",
]


def squeezed(lines: list[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


def test_the_last_picture_stays_and_nothing_follows_it() -> None:
    written = on_a_terminal("auto")
    assert squeezed(screen(written)) == squeezed([*FINAL, "RESULT"])
    assert written.endswith(b"RESULT\r\n")
    assert written.startswith(b"create demo \xe2\x80\xa6"), "a line before rich is imported"


def test_brackets_of_aws_survive_while_waiting() -> None:
    assert b"[CREATING] with [brackets]" in on_a_terminal("auto", "slowly")


def test_the_result_goes_to_a_pipe_untouched(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        written = on_a_terminal("auto", stdout=out)
    assert (tmp_path / "out").read_bytes() == b"RESULT\n"
    assert squeezed(screen(written)) == squeezed(FINAL)


def test_a_narrow_terminal_wraps_nothing() -> None:
    lines = screen(on_a_terminal("auto", columns=30, rows=10), 30, 10)
    assert len(lines) == len(FINAL) + 1


@pytest.mark.parametrize(
    ("environ", "progress", "animated", "coloured"),
    [
        ({}, "auto", True, True),
        ({"NO_COLOR": "1"}, "auto", True, False),
        ({"CLICOLOR": "0"}, "auto", True, False),
        ({"NO_COLOR": ""}, "auto", True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "auto", True, False),
        ({"CI": "true"}, "auto", False, False),
        ({"CI": "true", "FORCE_COLOR": "1"}, "auto", False, False),
        ({"CI": "false"}, "auto", True, True),
        ({"CI": "true"}, "live", True, True),
        ({"TERM": "dumb"}, "auto", False, False),
        ({"TERM": "dumb"}, "live", False, False),
        ({}, "plain", False, False),
    ],
)
def test_on_a_terminal(
    environ: dict[str, str], progress: str, animated: bool, coloured: bool
) -> None:
    written = on_a_terminal(progress, environ=environ)
    assert (b"\x1b[?25l" in written) is animated
    assert (b"\x1b[32m" in written) is coloured
    assert (b"Z network/vpc created vpc-0ab" in written) is not animated


@pytest.mark.parametrize(
    "environ",
    [{}, {"FORCE_COLOR": "1"}, {"CLICOLOR_FORCE": "1"}, {"CI": "true"}, {"TTY_INTERACTIVE": "1"}],
)
@pytest.mark.parametrize("progress", ["auto", "live", "plain"])
def test_in_a_pipe_there_are_lines_without_a_single_escape(
    environ: dict[str, str], progress: str
) -> None:
    command = [sys.executable, "-c", PROGRAM, progress]
    done = subprocess.run(command, capture_output=True, env=BASE | environ, check=True)
    assert b"\x1b" not in done.stderr
    assert b"\r" not in done.stderr
    texts = [line.split(b"Z ")[1].split(b" (")[0] for line in done.stderr.splitlines()]
    assert texts == [
        b"network/vpc creating",
        b"network/vpc created vpc-0ab",
        b"eks/cluster waiting demo: [CREATING] with [brackets]",
        b"eks/cluster ready demo",
    ]


def test_none_is_silent() -> None:
    assert on_a_terminal("none") == b"RESULT\r\n"


def test_a_closed_standard_error_ends_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", PROGRAM, "plain"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=write, env=BASE, check=False)
    os.close(write)
    assert (done.returncode, done.stdout) == (0, b"RESULT\n")


def test_colour_is_a_matter_of_its_own() -> None:
    pipe = io.StringIO()
    assert not wants_colour(pipe, {})
    assert wants_colour(pipe, {"FORCE_COLOR": "1"})
    assert wants_colour(pipe, {"CLICOLOR_FORCE": "1"})
    assert not wants_colour(pipe, {"CLICOLOR_FORCE": "0"})
    assert not wants_colour(pipe, {"NO_COLOR": "1", "FORCE_COLOR": "1"})


# --- status


def document(nodes: int = 2, trouble: bool = False) -> dict[str, Any]:
    """Return a status document, healthy or with one of each kind of problem."""
    versions = {"vpc-cni": "v1.20.4", "kube-proxy": "v1.35.0", "coredns": "v1.12.4"}
    versions |= {"eks-pod-identity-agent": "v1.3.10"}
    issue = {
        "code": "InsufficientNumberOfReplicas",
        "message": "The add-on is unhealthy: it doesn't have the desired number of replicas.",
    }
    ill = trouble and nodes > 0
    wrong: list[dict[str, Any]] = [
        {"name": "nat-gateway-usw2-az1", "state": "missing", "why": "deleted by hand"},
        {
            "name": "private-subnet-usw2-az2",
            "state": "drifted",
            "why": "",
            "differs": {"map_public_ip": [True, False], "tags.team": ["red", None]},
        },
        {"name": "cluster-sg", "state": "foreign", "why": "it carries no tag of ours"},
    ]
    counts = {"iam": 7, "network": 21, "s3": 5, "eks": 4, "addons": 4, "helm": 1, "hyperpod": 2}
    return {
        "schema": "hyperpod-eks/status/v1",
        "cluster": {
            "name": "demo",
            "arn": "arn:aws:sagemaker:us-west-2:111122223333:cluster/a1b2c3d4e5f6",
            "status": "InService",
            "failure": "",
            "ready": not trouble,
        },
        "account": "111122223333",
        "region": "us-west-2",
        "eks": {
            "name": "demo",
            "version": "1.35",
            "status": "ACTIVE",
            "health": [{"code": "Ec2SubnetNotFound", "message": "[subnet-0] is gone"}] * trouble,
            "endpoint": "https://example.com",
        },
        "addons": [
            {
                "name": name,
                "version": f"{version}-eksbuild.1",
                "status": "DEGRADED" if trouble and name == "coredns" else "ACTIVE",
                "issues": [issue] if trouble and name == "coredns" else [],
            }
            for name, version in versions.items()
        ],
        "helm": {
            "release": "hyperpod-dependencies",
            "namespace": "kube-system",
            "status": "deployed",
            "revision": 1,
            "chart": "hyperpod-0.1.0",
        },
        "instance_groups": [
            {
                "name": "worker-group",
                "instance_type": "ml.m5.2xlarge",
                "status": "InService",
                "current": nodes - ill,
                "target": nodes,
            }
        ],
        "nodes": [
            {
                "name": f"hyperpod-i-0{n:016x}",
                "instance_id": f"i-0{n:016x}",
                "instance_group": "worker-group",
                "instance_type": "ml.m5.2xlarge",
                "status": "Pending" if ill and n == nodes - 1 else "Running",
                "ready": not (ill and n == nodes - 1),
                "health": "Schedulable",
            }
            for n in range(nodes)
        ],
        "steps": [
            {
                "name": step,
                "resources": [
                    *({"name": f"{step}-{n}", "state": "ready"} for n in range(count)),
                    *(wrong if trouble and step == "network" else []),
                ],
            }
            for step, count in counts.items()
        ],
        "differences": [],
    }


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("well", document()),
        ("trouble", document(2, True)),
        ("many", document(300)),
        ("many-trouble", document(300, True)),
    ],
)
def test_status(name: str, shown: dict[str, Any], width: int) -> None:
    text = render_status(shown, width, colour=False)
    assert max(map(cells, text.splitlines())) <= width
    assert len(text.splitlines()) <= 30
    same(f"status-{name}-{width}", text)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_keeps_the_status_of_nodes_and_groups(width: int) -> None:
    shown = document(2, True)
    shown["instance_groups"][0] |= {"name": "a-group-of-a-long-name", "status": "RollingBack"}
    for node in shown["nodes"]:
        node["instance_group"] = "a-group-of-a-long-name"
    shown["nodes"][0] |= {"status": "DeepHealthCheckInProgress", "health": "Unschedulable"}
    text = render_status(shown, width, colour=False)
    assert max(map(cells, text.splitlines())) <= width
    tables = text[text.index("GROUP") :]
    for kept in ("RollingBack  1 of 2", "DeepHealthCheckInProgress  yes", "  no", "READY"):
        assert kept in tables
    assert all(node["instance_id"][-3:] in tables for node in shown["nodes"])
    if width == 40:
        same("status-trouble-40", text)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 1000])
def test_two_resources_never_look_the_same_however_narrow_a_terminal_is(width: int) -> None:
    """Names of the platform example, which differ where they were cut."""
    shown = document(2, True)
    long = "amazon-sagemaker-hyperpod-training-operator"
    account = "hyperpod-observability/hyperpod-observability-operator-otel-collector"
    names = [f"{account}-policy", f"{account}-role", f"{account}-association"]
    rows = [{"name": name, "state": "missing", "why": ""} for name in names]
    rows[0]["why"] = "deleted by hand"
    shown["steps"] += [{"name": "kubernetes", "resources": rows}]
    shown["steps"] += [{"name": f"{long}-{n}", "resources": [{"state": "ready"}]} for n in range(9)]
    shown["addons"] += [{"name": long, "status": "absent"}]
    shown["instance_groups"] = [
        {**shown["instance_groups"][0], "name": f"{team}-workers-of-a-long-name"}
        for team in ("vision", "speech")
    ]
    text = render_status(shown, width, colour=False)
    assert max(map(cells, text.splitlines())) <= width
    words = "".join(text.split())
    for name in (
        *names,
        f"{long}absent",
        shown["cluster"]["arn"],
        f"{long}-8",
        "kubernetes3missing",
    ):
        assert name in words
    groups = [line for line in text.splitlines() if line.endswith(" 1 of 2")]
    assert len({line.split()[1] for line in groups}) == 2
    assert "…" not in text or width < 80  # of groups, and of AWS's words after three lines


def test_status_of_what_is_not_there_yet() -> None:
    absent = document(0)
    absent["cluster"] |= {"status": "absent", "arn": "", "ready": False}
    absent["eks"] |= {"status": "absent", "version": "", "endpoint": ""}
    absent["addons"] = [{"name": name, "status": "absent"} for name in ("vpc-cni", "coredns")]
    absent |= {"helm": {}, "instance_groups": [], "nodes": []}
    for step in absent["steps"]:
        for resource in step["resources"]:
            resource["state"] = "missing"
    same("status-absent-80", render_status(absent, 80, colour=False))
    assert render_status({"cluster": {"name": "demo"}}, 80, colour=False) == "○ demo  absent\n"


def test_status_of_a_failed_cluster_tells_awss_words() -> None:
    failed = document(0)
    words = (
        "Instance i-0 failed to provision with the following error: Lifecycle scripts did not run."
    )
    failed["cluster"] |= {"status": "Failed", "failure": words, "ready": False}
    text = render_status(failed, 80, colour=False)
    assert text.startswith("✘ demo  Failed\n")
    assert " ".join(text.split()).find(words) > 0


def test_colour_changes_no_letter() -> None:
    plain_text = render_status(document(2, True), 80, colour=False)
    coloured = render_status(document(2, True), 80, colour=True)
    shown = pyte.Screen(80, 40)
    pyte.Stream(shown).feed(coloured.replace("\n", "\r\n"))
    assert [line.rstrip() for line in shown.display][: plain_text.count("\n")] == [
        line.rstrip() for line in plain_text.splitlines()
    ]
    assert "\x1b[32m✔" in coloured


def test_without_unicode_the_status_is_ascii() -> None:
    assert render_status(document(2, True), 60, colour=False, utf8=False).isascii()


# --- the pieces


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.04, "0s"),
        (1.25, "1.2s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (432, "7m12s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (90000, "25h00m"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text


def test_text_is_measured_in_columns() -> None:
    assert cells("größe") == 5
    assert cells("東京") == 4
    assert cells("e\u0301") == 1
    assert cut("東京都", 5) == "東京…"
    assert pad("東京", 6) == "東京  "
    assert clean("a\n b\x1b[2J\u202ec") == "a b[2Jc"
