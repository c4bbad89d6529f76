"""Every mistyped or wrongly set value leads to an error with its own exit code, never to 70."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.local import CHART
from tests.conftest import Said, User

HEAD = "name: demo\nregion: us-west-2\n"
ODD = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def in_words(said: Said, *codes: int) -> None:
    assert said.code in codes, said.err[:2000]
    assert "Traceback" not in said.err
    assert len(said.err) < 5000
    assert not ODD.search(said.err)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("staus", "No such command 'staus'. Did you mean 'status'?"),
        ("local sart", "No such command 'sart'. Did you mean 'start'?"),
        ("config shw", "No such command 'shw'. Did you mean 'show'?"),
        ("xyzzy", "No such command 'xyzzy'.\nUsage: "),
        ("Status demo", "No such command 'Status'. Did you mean 'status'?"),
    ],
)
def test_a_mistyped_command_is_answered_with_similar_ones(
    user: User, words: str, says: str
) -> None:
    said = user.types(*words.split())
    in_words(said, 2)
    assert said.err.startswith(f"error: {says}")


@pytest.mark.parametrize(
    "words",
    [
        ("events", "demo", "--since", "999999d"),
        ("events", "demo", "--since", f"{'9' * 5000}d"),
        ("version", "--events", "fd:99999999999999999999"),
        ("version", "--events", f"fd:{'9' * 5000}"),
        ("version", "--events", "fd:-1"),
        ("version", "--events", "fd:x"),
        ("scale", "demo", "a=1", "a=2"),
        ("adopt", "demo", "--resource", "network/vpc=a", "--resource", "network/vpc=b"),
        ("version", "-o", "json", "--query", "`1e400`"),
        ("scale", "demo", f"a={'9' * 5000}"),
        ("create", "d" * 300),
        ("status", "d" * 300),
        ("outputs", "d" * 300),
        ("delete", "d" * 300, "--yes"),
        ("kubeconfig", "d" * 300),
        ("create", "\udcff"),
        ("status", "\udcff"),
        ("outputs", "\udcff"),
        ("token", "\udcff"),
        ("create", "a\nb\x1b[2J"),
        ("status", "demo", "--manifest", "m" * 300),
        ("outputs", "--manifest", "m" * 300),
        ("validate", "-f", "f" * 300),
        ("create", "demo", "--chart", "c" * 300),
        ("create", "demo", "--lifecycle", "l" * 5000),
        ("create", "demo", "--lifecycle", "~nosuchuser/x"),
        ("create", "demo", "--helm", "h" * 5000),
        ("create", "demo", "--chart", str(CHART), "--timeline", "t" * 300),
        ("create", "demo", "--chart", str(CHART), "--timeline", "nowhere/t.svg"),
        ("version", "--query", "[" * 3000),
        ("version", "--query", "!" * 3000),
        ("nodes", "demo", "reboot", "\udcff"),
        ("adopt", "demo", "--resource", "=" * 5000),
        ("create", "demo", "--timeout", "nan"),
        ("create", "demo", "--lock-timeout", "nan"),
        ("init", "d" * 300),
        ("init", "demo", "-f", "f" * 300),
        ("schema", "--document", "\udcff"),
    ],
    ids=lambda words: (
        " ".join(word.replace(str(CHART), "CHART")[:30] for word in words)
        .encode("ascii", "replace")
        .decode()
    ),
)
def test_an_option_that_cannot_be_is_wrong_usage(user: User, words: tuple[str, ...]) -> None:
    in_words(user.types(*words), 2, 8)


@pytest.mark.parametrize("option", ["-f", "--manifest", "--run", "--events", "--timeline"])
def test_an_option_whose_variable_is_not_set_is_not_left_out(user: User, option: str) -> None:
    """``create demo -f "$CONFIG"`` without CONFIG would create another cluster than was meant."""
    said = user.types("create", "demo", option, "", "--chart", str(CHART))
    in_words(said, 2)
    assert f"{option}" in said.err
    assert "it is empty; pass a value, or omit the option" in said.err
    assert user.mutations() == []


def test_commands_that_read_no_config_say_that_a_region_is_missing(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    for words in (("orphans",), ("list",), ("token", "demo"), ("kubeconfig", "demo")):
        said = user.types(*words)
        in_words(said, 2)
        assert "no AWS region" in said.err
        assert "--region us-west-2" in said.err
    assert user.mutations() == []


def test_half_a_character_is_valid_json(user: User) -> None:
    said = user.types("version", "-o", "json", "--query", '`"\\ud800"`')
    assert (said.code, said.out) == (0, '"\\ud800"\n')


def test_a_config_comes_through_a_pipe(user: User) -> None:
    """As with ``-f <(...)`` of a shell."""
    pipe = user.folder / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(HEAD,))
    writer.start()
    said = user.types("validate", "-f", "pipe")
    writer.join()
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    "line",
    [
        "deletion_protection: !!bool maybe",
        "deletion_protection: !!bool ''",
        "account: !!int ''",
        "account: !!int '-'",
        "account: !!int '+'",
        "account: !!int 0x",
        f"account: {'9' * 5000}",
        f"account: 0x{'f' * 5000}",
        "account: !!float ''",
        "account: !!float '.'",
        "account: !!binary '%'",
        "account: !!timestamp x",
        "tags: !!set {a, b}",
        "tags: !!omap [a: b]",
        "tags: !!python/object/apply:os.system [ls]",
        "tags: {? [a] : b}",
        "lifecycle: {path: ~nosuchuser/x}",
        f"lifecycle: {{path: {'x' * 5000}}}",
        'lifecycle: {path: "a\\0b\\e[2J"}',
        f"chart: {{path: {'x' * 5000}}}",
        'chart: {path: "\\ud800"}',
        'tags: {"\\ud800": x}',
    ],
    ids=lambda line: line[:40],
)
def test_a_value_that_no_reader_can_make_is_told_with_its_place(user: User, line: str) -> None:
    (user.folder / "c.yaml").write_text(f"{HEAD}{line}\n")
    said = user.types("validate", "-f", "c.yaml", "-o", "json")
    in_words(said, 2)
    assert "c.yaml:3:" in said.err


def test_text_of_many_languages_is_kept_and_valid_json(user: User) -> None:
    (user.folder / "c.yaml").write_text(f'{HEAD}tags: {{"größe": "日本 ü", "b": "مرحبا"}}\n')
    said = user.types("validate", "-f", "c.yaml", "-o", "json")
    assert said.document["config"]["tags"] == {"größe": "日本 ü", "b": "مرحبا"}
    assert said.out.isascii()
    (user.folder / "c.yaml").write_bytes(HEAD.encode("utf-16"))
    in_words(user.types("validate", "-f", "c.yaml"), 2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a manifest with records of several kinds, as create writes it."""

    def record(kind: str, **want: object) -> dict[str, Any]:
        about = {"state": "ready", "since": 1.0, "token": "", "id": "x-1", "arn": ""}
        return {"kind": kind, "want": want, **about, "origin": "created"}

    group = {"name": "g", "vpc": {"$resource": "network/vpc"}}
    return {
        "schema": "hyperpod-eks/manifest/v1", "tool_version": "0.1.0", "serial": 3,
        "cluster": "demo", "account": "123456789012", "region": "us-west-2", "lineage": "x",
        "saved_at": "2026-10-04T00:00:00+00:00", "durations": {"network/vpc": 2.5},
        "config": {"name": "demo", "region": "us-west-2"},
        "resources": {
            "network/vpc": record("network.Vpc", cidr="10.0.0.0/16"),
            "network/group": record("network.SecurityGroup", **group),
        },
    }  # fmt: skip


MUTANTS: list[tuple[tuple[str, ...], Any]] = [
    (("resources", "network/vpc", "want"), None),
    (("resources", "network/vpc", "want"), "x"),
    (("resources", "network/group", "want", "vpc", "$resource"), ["network/vpc"]),
    (("resources", "network/group", "want", "vpc", "$resource"), "network/group"),
    (("resources", "network/vpc", "kind"), []),
    (("resources", "network/vpc", "state"), ["ready"]),
    (("resources", "network/vpc", "state"), "done"),
    (("resources", "network/vpc", "since"), "yesterday"),
    (("resources", "network/vpc", "since"), float("nan")),
    (("resources", "network/vpc", "id"), 5),
    (("resources", "network/vpc"), None),
    (("resources",), []),
    (("region",), ["us-west-2"]),
    (("cluster",), {}),
    (("serial",), "3"),
    (("serial",), True),
    (("durations",), []),
    (("durations", "network/vpc"), "long"),
    (("config",), []),
    (("schema",), ["x"]),
]


@pytest.mark.parametrize(("place", "value"), MUTANTS, ids=lambda x: str(x)[:50])
def test_a_manifest_with_a_wrong_type_is_broken_and_names_the_cure(
    user: User, written: dict[str, Any], place: tuple[str, ...], value: object
) -> None:
    document = json.loads(json.dumps(written))
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = user.folder / "demo.hyperpod-eks.json"
    path.write_text(text := json.dumps(document))
    for words in (("outputs", "demo"), ("status", "demo", "--offline"), ("plan", "demo")):
        said = user.types(*words)
        in_words(said, 2)
        assert place == ("schema",) or "is broken" in said.err
        assert place == ("schema",) or "adopt demo --rebuild" in said.err
    assert path.read_text() == text


def python(
    *words: str, where: Path, shell: str = "", **environ: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m hyperpod_eks "$@" {shell}', sys.executable, *words],
        capture_output=True, check=False, cwd=where, env={"PATH": "/usr/bin:/bin", **environ},
    )  # fmt: skip


def test_completion_without_a_shell_is_no_bug(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_HYPERPOD_EKS_COMPLETE", "bash_complete")
    monkeypatch.delenv("COMP_WORDS", raising=False)
    in_words(user.types("status", "demo"), 2)
    monkeypatch.setenv("COMP_WORDS", "hyperpod-eks pl")
    monkeypatch.setenv("COMP_CWORD", "first")
    in_words(user.types("status", "demo"), 2)


def test_a_machine_without_threads_to_give_is_no_bug(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's limit of processes includes threads."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "hyperpod-eks":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    said = user.types("status", "demo")
    in_words(said, 1)
    assert "this machine has no more threads or memory for this process" in said.err


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["completion", "bash"], ["schema"]])
def test_a_full_device_is_told(tmp_path: Path, words: list[str]) -> None:
    done = python(*words, where=tmp_path, shell=">/dev/full", HOME=str(tmp_path))
    assert done.returncode == 1
    assert b"cannot write to stdout: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    "encoding",
    [
        "gbk",
        "ascii",
        *(pytest.param(each, marks=pytest.mark.prove) for each in ("latin-1", "koi8-r", "euc-jp")),
    ],
)
def test_help_and_documents_survive_every_locale(tmp_path: Path, encoding: str) -> None:
    environ = {"PYTHONIOENCODING": encoding, "HOME": str(tmp_path)}
    values = {"größe ✓": "日本 🚀 Я"}
    config = f"{HEAD}chart: {{values: {{a: {json.dumps(values, ensure_ascii=False)}}}}}\n"
    (tmp_path / "c.yaml").write_text(config, encoding="utf-8")
    if encoding == "ascii":  # then click writes UTF-8
        encoding = "utf-8"
    for words in (["logs", "--help"], ["validate", "-f", "c.yaml"]):
        done = python(*words, where=tmp_path, **environ)
        assert (done.returncode, done.stderr) == (0, b"")
        done.stdout.decode(encoding)
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        done = python("validate", "-f", "c.yaml", "-o", form, where=tmp_path, **environ)
        found = read(done.stdout.decode(encoding))["config"]["chart"]["values"]
        assert found == {"a": values}
