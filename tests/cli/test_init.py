"""`init` writes a config that `validate` accepts, and asks on a terminal only."""

from __future__ import annotations

import os
import pty
import re
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from hyperpod_eks.cli import run
from hyperpod_eks.cli.commands.init import EXAMPLES
from hyperpod_eks.config.load import load
from tests.cli.test_commands import on_a_terminal
from tests.cli.test_outputs import shell
from tests.conftest import User

ROOT = Path(__file__).parents[2]


def test_what_init_writes_is_the_default_cluster(user: User) -> None:
    said = user.types("init", "demo")
    assert (said.code, said.out) == (0, "wrote demo.yaml; next: hyperpod-eks plan -f demo.yaml\n")
    assert load("demo.yaml", {}, {}) == load(None, {"name": "demo", "region": "us-west-2"}, {})
    assert user.types("validate", "-f", "demo.yaml").out == (
        "demo.yaml is valid: demo in us-west-2: 2 ml.m5.2xlarge\n"
    )


def test_validate_names_the_groups_if_there_are_several(user: User) -> None:
    group = "- {name: %s, instance_type: ml.p5.48xlarge, instance_count: 2}\n"
    text = "name: demo\nregion: us-west-2\ninstance_groups:\n" + group % "a" + group % "b"
    (user.folder / "c.yaml").write_text(text)
    said = user.types("validate", "-f", "c.yaml").out.splitlines()[-1]
    assert said == (
        "c.yaml is valid: demo in us-west-2: 2 ml.p5.48xlarge (a), 2 ml.p5.48xlarge (b)"
    )


def test_every_question_has_a_flag(user: User) -> None:
    said = user.types(
        "init", "big", "-f", "c.yaml", "--region", "eu-west-1", "--instance-type", "ml.g5.8xlarge",
        "--instance-count", "7", "--nat", "per-az", "--kubernetes-version", "1.34",
    )  # fmt: skip
    assert said.code == 0, said.err
    config = load("c.yaml", {}, {})
    (group,) = config.instance_groups
    assert (config.name, config.region, config.network.nat, config.eks.version) == (
        "big",
        "eu-west-1",
        "per-az",
        "1.34",
    )
    assert (group.instance_type, group.instance_count) == ("ml.g5.8xlarge", 7)


def test_the_minimal_cluster_is_an_example_too(user: User) -> None:
    user.types("init", "demo")
    said = user.types("init", "demo", "-f", "c.yaml", "--example", "minimal")
    assert said.code == 0, said.err
    assert load("c.yaml", {}, {}) == load("demo.yaml", {}, {})
    words = ("--example", "minimal", "--instance-type", "ml.c5.large")
    assert user.types("init", "demo", "-f", "small.yaml", *words).code == 0


def test_a_file_that_exists_is_not_touched(user: User) -> None:
    (user.folder / "demo.yaml").write_text("mine")
    said = user.types("init", "demo")
    assert said.code == 2
    assert "demo.yaml already exists and was not changed" in said.err
    assert (user.folder / "demo.yaml").read_text() == "mine"


def test_a_file_that_cannot_be_written_whole_is_not_left(user: User) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        said = user.types("init", "demo")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (said.code, list(user.folder.iterdir())) == (2, [])
    assert "cannot write demo.yaml: File too large" in said.err


@pytest.mark.parametrize(
    "words", [["Bad!"], ["demo", "--instance-type", "m5.large"], ["demo", "--region", "mars"]]
)
def test_a_wrong_answer_writes_nothing(user: User, words: list[str]) -> None:
    said = user.types("init", *words)
    assert said.code == 2
    assert list(user.folder.iterdir()) == []


def test_without_a_region_it_says_so(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    said = user.types("init", "demo")
    assert said.code == 2
    assert "region: is missing (every cluster has one); pass --region, or set AWS_" in said.err


def test_a_region_that_cannot_be_used_is_not_said_to_be_missing(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "nowhere-9")
    said = user.types("init", "demo")
    assert said.code == 2
    assert 'variable AWS_REGION: region: "nowhere-9" is not an AWS region' in said.err


def test_on_a_terminal_it_asks(user: User, capfd: pytest.CaptureFixture[str]) -> None:
    control, program = pty.openpty()
    os.write(control, b"\nasked\n\nml.c5.large\n3\n")
    drain = threading.Thread(target=lambda: _drain(control), daemon=True)
    drain.start()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(program, "r") as stdin:
        patch.setattr(sys, "stdin", stdin)
        assert run(["init", "-o", "json"]) == 0
    os.close(control)
    config = load("asked.yaml", {}, {})
    (group,) = config.instance_groups
    assert (config.region, group.instance_type, group.instance_count) == (
        "us-west-2",
        "ml.c5.large",
        3,
    )
    both = capfd.readouterr()
    assert both.out.startswith("{"), "questions go to stderr"
    assert "AWS region [us-west-2]:" in both.err


def test_a_wrong_answer_is_asked_again_at_its_question(user: User) -> None:
    said = on_a_terminal("init", typed="\nDemo_X\nasked\nmars\n\nml.nonsense\n\n3\n")
    assert said.code == 0, said.err
    assert said.err.count("Name of the cluster") == 2
    assert said.err.count("AWS region [") == 2
    assert (user.folder / "asked.yaml").exists()


def test_ctrl_c_at_a_question_claims_nothing(user: User) -> None:
    """Nothing was recorded, and there is nothing to continue."""
    control, program = pty.openpty()
    words = [sys.executable, "-m", "hyperpod_eks", "init", "--example", "storage"]
    environ = {**os.environ, "CI": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        os.fdopen(control),
        os.fdopen(program) as stdin,
        subprocess.Popen(words, stdin=stdin, stderr=subprocess.PIPE, env=environ) as process,
    ):
        assert process.stderr
        asked = process.stderr.read(len("Name of the cluster [demo]:"))
        while process.poll() is None:  # a signal just before Python's read does not end that read
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
        said = (asked + process.stderr.read()).decode()
    assert process.returncode == 130, said
    assert re.fullmatch(r"Name of the cluster \[demo\]: ?\nerror: stopped by SIGINT\n", said)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_becomes_the_config_of_a_cluster(user: User, example: str) -> None:
    said = user.types("init", "mine", "--example", example)
    assert said.out.startswith("wrote mine.yaml; ")
    assert said.out.endswith(": hyperpod-eks plan -f mine.yaml\n")
    own, text = load("mine.yaml", {}, {}), (user.folder / "mine.yaml").read_text()
    theirs = load(f"{ROOT}/examples/{example}.yaml", {"name": "mine"}, {})
    assert own.model_dump() == theirs.model_dump()
    assert "hyperpod-eks create -f mine.yaml" in text
    assert f"{example}.yaml" not in text


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_names_the_cluster_that_was_passed_and_no_other(
    user: User, example: str
) -> None:
    """Else `delete NAME` in the comments deletes somebody else's cluster."""
    said = user.types("init", "cspot", "-f", "-", "--example", example)
    assert said.code == 0, said.err
    theirs = (ROOT / f"examples/{example}.yaml").read_text()
    assert len(re.findall(r"\bcspot\b", said.out)) == len(re.findall(r"\bdemo(?![\w-])", theirs))
    assert re.findall(r"demo[\w-]*", said.out) == re.findall(r"demo-[\w-]+", theirs)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_says_where_the_files_are_that_init_does_not_write(
    user: User, example: str
) -> None:
    said = user.types("init", "demo", "-f", "-", "--example", example)
    for file in {*re.findall(r"kubectl .*-f (\S+)", said.out)} - {"cluster.yaml"}:
        assert f"# {file} is in the folder examples/ of hyperpod-eks's source" in said.out
        assert (ROOT / "examples" / file).exists()


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_written_for_the_region_that_was_passed(user: User, example: str) -> None:
    said = user.types("init", "mine", "--region", "us-east-1", "--example", example)
    assert said.code == 0, said.err
    text = (user.folder / "mine.yaml").read_text()
    assert not re.search("us-west-2|usw2", text)
    assert load("mine.yaml", {}, {}).region == "us-east-1"


def test_a_long_value_that_a_message_quotes_keeps_its_quotes(user: User) -> None:
    user.types("init", "mine", "--example", "p5-training-plans")
    said = user.types("validate", "-f", "mine.yaml", "--region", "us-east-1")
    assert said.code == 2
    assert 'arn:aws:sagemaker:us-west-2:123456789012:training-plan/tr…" is not in' in said.err


def test_an_example_keeps_the_words_that_only_contain_its_name(user: User) -> None:
    said = user.types("init", "us-west-2", "-f", "demo", "--example", "inference")
    assert said.code == 0, said.err
    text = (user.folder / "demo").read_text()
    for line in ("name: us-west-2\n", "create -f demo\n", "delete us-west-2 ", "[demo-models]"):
        assert line in text


def test_a_kind_of_cluster_is_chosen_on_a_terminal(user: User) -> None:
    said = on_a_terminal("init", typed="huge\nexisting-vpc\nasked\neu-west-1\n")
    assert said.code == 0, said.err
    assert re.search(r"closed-network +Nothing leads to the internet", said.err)
    config = load("asked.yaml", {}, {})
    assert (config.existing.vpc, config.region) == ("vpc-0123456789abcdef0", "eu-west-1")
    assert "Instance type" not in said.err


UNKNOWN = {
    "p5-training-plans": "usw2-az1, usw2-az2, 123456789012",
    "spot-autoscaling": "",
    "closed-network": "usw2-az1, usw2-az2, 123456789012, 203.0.113.0/24",
    "existing-vpc": "vpc-0123456789abcdef0, subnet-0123456789abcdef0, subnet-0123456789abcdef1,"
    " sg-0123456789abcdef0, rtb-0123456789abcdef0",
    "existing-eks": "platform, kube-system/dependencies",
    "pod-roles": "training-data, checkpoints, 123456789012",
    "storage": "demo-datasets",
    "inference": "demo-models",
    "platform": "123456789012",
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_an_example_cannot_know_is_to_be_replaced(user: User, example: str) -> None:
    said = user.types("init", "platform", "--example", example)
    unknown = UNKNOWN[example]
    then = f"replace {unknown} in it, then" if unknown else "next"
    assert said.out == f"wrote platform.yaml; {then}: hyperpod-eks plan -f platform.yaml\n"


def test_a_file_that_exists_is_refused_before_anything_else_is_asked(user: User) -> None:
    (user.folder / "demo.yaml").write_text("mine")
    said = on_a_terminal("init", typed="\ndemo\nasked\n\n\n\n")
    assert said.code == 0, said.err
    assert "demo.yaml already exists" in said.err
    assert said.err.count("Name of the cluster") == 2
    assert (user.folder / "asked.yaml").exists()
    said = on_a_terminal("init", "demo")
    assert (said.code, "Kind of cluster" in said.err) == (2, False)
    assert (user.folder / "demo.yaml").read_text() == "mine"


def test_an_example_keeps_its_instance_types(user: User) -> None:
    said = user.types("init", "mine", "--example", "storage", "--instance-type", "ml.c5.large")
    assert said.code == 2
    assert "--instance-type cannot be combined with --example" in said.err
    assert list(user.folder.iterdir()) == []


def test_a_group_of_several_types_is_named_by_them(user: User) -> None:
    file = ROOT / "examples/spot-autoscaling.yaml"
    said = user.types("validate", "-f", str(file))
    assert (said.code, "None" in said.out) == (0, False), said.out + said.err


def _drain(control: int) -> None:
    try:
        while os.read(control, 1024):
            pass
    except OSError:
        return


def test_a_config_from_stdin_and_its_mistakes(user: User) -> None:
    said = user.types("validate", "-f", "-", stdin="name: demo\nregion: us-west-2\nnodes: 1\n")
    assert (said.code, said.out) == (2, "")
    assert "3:1: nodes" in said.err


@pytest.mark.prove
def test_bootstrap_is_a_whole_pipeline(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "bootstrap.sh"
    helm = Path(__file__).parents[2] / ".cache" / "helm" / "4.3.1"
    if not (helm / "helm").exists():
        pytest.skip("no helm in .cache/helm: `make test` fetches it")
    from hyperpod_eks.local import CHART  # noqa: PLC0415

    done = shell(
        f"""
        export PATH={helm}:$PATH
        trap 'hyperpod-eks local stop' EXIT
        hyperpod-eks local start --speed 2000 >/dev/null
        eval "$(hyperpod-eks local env)"
        hyperpod-eks init demo -f cluster.yaml >/dev/null
        {script} cluster.yaml >first 2>log
        {script} cluster.yaml >second 2>>log
        hyperpod-eks delete demo --yes -q
        """,
        tmp_path,
        HOME=str(tmp_path),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        XDG_STATE_HOME=str(tmp_path / "state"),
        HYPERPOD_EKS_CHART=str(CHART),
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    first, second = ((tmp_path / name).read_text() for name in ("first", "second"))
    assert first.count(" Ready ") == 2
    assert "nothing to change" in second
    assert second.splitlines()[-1].endswith("is ready")
