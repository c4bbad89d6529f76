"""Invalid input leads to one screen with the error and its fix, and changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import boto3
import pytest

from hyperpod_eks.local.aws.sim import Fault
from tests.conftest import Clients, User

GROUP = "- {name: a, instance_type: ml.m5.2xlarge, instance_count: 1}"
MINIMAL = "name: demo\nregion: us-west-2\n"
OK_SCRIPT = "#!/bin/bash\ntrue\n"


@dataclass(frozen=True)
class Wrong:
    """Invalid input: the command, the content of files, and the expected error.

    ``config`` is written to cluster.yaml, which is passed as ``-f`` if ``words`` has its default.
    """

    name: str
    code: int
    says: str
    """A part of the message: the field, the value or the fix."""
    words: tuple[str, ...] = ()
    config: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str | None] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    stdin: str = ""
    before: Callable[[User, Clients], object] | None = None

    @property
    def command(self) -> tuple[str, ...]:
        return self.words or ("create", "-f", "cluster.yaml")


def group(**settings: object) -> str:
    """Return a config with one group, with some settings changed."""
    settings = {"name": "a", "instance_type": "ml.m5.2xlarge", "instance_count": 1, **settings}
    return f"{MINIMAL}instance_groups: [{json.dumps(settings)}]\n"


def manifest(**changes: object) -> str:
    """Return a manifest of the cluster demo in the stack's account, with some fields changed."""
    document: dict[str, Any] = {
        "schema": "hyperpod-eks/manifest/v1", "tool_version": "0.1.0", "serial": 1,
        "cluster": "demo", "account": "123456789012", "region": "us-west-2", "lineage": "x",
        "saved_at": "2026-10-04T00:00:00+00:00", "resources": {}, "durations": {}, "config": {},
    }  # fmt: skip
    return json.dumps(document | changes)


def no_helm(user: User, _: Clients) -> None:
    os.environ["PATH"] = str(user.folder)


def old_helm(user: User, aws: Clients) -> None:
    no_helm(user, aws)
    (user.folder / "helm").write_text("#!/bin/sh\necho v3.16.4\n")
    (user.folder / "helm").chmod(0o755)


def unreadable(user: User, _: Clients) -> None:
    (user.folder / "scripts").mkdir()
    circle = user.folder / "scripts" / "on_create.sh"  # even root cannot read it
    circle.symlink_to("on_create.sh")


def outside(user: User, _: Clients) -> None:
    (user.folder / "scripts").mkdir()
    (user.folder / "scripts" / "on_create.sh").symlink_to("/etc/hostname")


def taken(_: User, aws: Clients) -> None:
    """Create a role of another owner with the name that ours would get."""
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
             "Principal": {"Service": "eks.amazonaws.com"}}]}  # fmt: skip
    aws.iam.create_role(RoleName="demo-eks-us-west-2", AssumeRolePolicyDocument=json.dumps(trust))


NO_CREDENTIALS = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
HERE = {"scripts/on_create.sh": OK_SCRIPT}
LIFECYCLE = ("create", "demo", "--lifecycle", "scripts")

CASES = [
    # names
    Wrong("capitals", 2, "lowercase letters", ("create", "Demo")),
    Wrong("underscore", 2, "name:", ("create", "a_b")),
    Wrong("long", 2, "name:", ("create", "a" * 64)),
    Wrong("folder in the name", 2, "name:", ("create", "../evil")),
    Wrong("empty name", 2, "no cluster given", ("create", "")),
    Wrong("no name", 2, "no cluster given", ("create",)),
    Wrong("no name to delete", 2, "no cluster given", ("delete", "--yes")),
    Wrong("no node", 2, "ssm: NODE is missing", ("ssm", "demo")),
    Wrong("two names", 2, "unexpected extra argument", ("create", "a", "b")),
    # options
    Wrong("no such option", 2, "--regin", ("create", "demo", "--regin", "us-west-2")),
    Wrong("no such command", 2, "No such command 'crate'", ("crate", "demo")),
    Wrong("no such output", 2, "'xml'", ("create", "demo", "-o", "xml")),
    Wrong(
        "no such output in a variable",
        2,
        "xml",
        ("status", "demo"),
        environ={"HYPERPOD_EKS_OUTPUT": "xml"},
    ),
    Wrong("no such progress", 2, "'loud'", ("create", "demo", "--progress", "loud")),
    Wrong("no calls at all", 2, "--parallelism", ("create", "demo", "--parallelism", "0")),
    Wrong("a word for a number", 2, "--parallelism", ("create", "demo", "--parallelism", "many")),
    Wrong("to wait backwards", 2, "--lock-timeout", ("create", "demo", "--lock-timeout", "-1")),
    Wrong("nothing to adopt", 2, "--resource", ("adopt", "demo")),
    Wrong(
        "to adopt what cannot be",
        2,
        "hyperpod/cluster",
        ("adopt", "demo", "--resource", "hyperpod/cluster=x"),
    ),
    Wrong("speed of a stopped clock", 2, "--speed", ("local", "start", "--speed", "0")),
    Wrong("no stack runs", 8, "local start", ("local", "env")),
    # the config file
    Wrong("no file", 2, "nowhere.yaml", ("create", "-f", "nowhere.yaml")),
    Wrong("a folder", 2, "scripts", ("create", "-f", "scripts"), files=HERE),
    Wrong("empty", 2, "name:", config=" "),
    Wrong("no mapping", 2, "cluster.yaml", config="- a\n- b\n"),
    Wrong("broken YAML", 2, "is not YAML", config=f"{MINIMAL}tags: {{a: b\n"),
    Wrong("a tab", 2, "cluster.yaml:3", config=f"{MINIMAL}\ttags: x\n"),
    Wrong(
        "from a pipe", 2, "nat", ("create", "-f", "-"), stdin=f"{MINIMAL}network: {{nat: two}}\n"
    ),
    Wrong("unknown key", 2, "cluster.yaml:3:1: nodes:", config=f"{MINIMAL}nodes: 3\n"),
    Wrong(
        "misspelt key",
        2,
        "did you mean instance_count?",
        config=group(instance_cuont=1),
    ),
    Wrong("key twice", 2, "is given twice", config=f"{MINIMAL}name: other\n"),
    Wrong(
        "ten mistakes at once",
        2,
        "log_retention_days",
        config="""\
name: Demo
region: us-west-2a
tags: {"aws:x": y}
network: {cidr: 10.0.0.0/30, nat: two}
eks: {version: 1.35, log_retention_days: 31, log_types: [audits]}
node_recovery: automatic
instance_groups: [{name: a_b, instance_type: ml.m5.huge, instance_count: -1}]
""",
    ),
    # values
    Wrong("CIDR too small", 2, "network.cidr", config=f"{MINIMAL}network: {{cidr: 10.0.0.0/28}}\n"),
    Wrong("CIDR of nobody", 2, "network.cidr", config=f"{MINIMAL}network: {{cidr: 8.8.8.8}}\n"),
    Wrong(
        "CIDR with host bits",
        2,
        "set 10.0.0.0/16",
        config=f"{MINIMAL}network: {{cidr: 10.0.1.0/16}}\n",
    ),
    Wrong("instance type", 2, "ml.m5.2xlarge", config=group(instance_type="m5.2xlarge")),
    Wrong("count below zero", 2, "-1", config=group(instance_count=-1)),
    Wrong("count beyond", 2, "7000", config=group(instance_count=7000)),
    Wrong("half a node", 2, "1.5", config=group(instance_count=1.5)),
    Wrong("a word for a count", 2, "two", config=group(instance_count="two")),
    Wrong("volume", 2, "ebs_volume_size_in_gb", config=group(ebs_volume_size_in_gb=0)),
    Wrong("threads", 2, "threads_per_core", config=group(threads_per_core=3)),
    Wrong(
        "group twice",
        2,
        "earlier group",
        config=f"{MINIMAL}instance_groups:\n  {GROUP}\n  {GROUP}\n",
    ),
    Wrong(
        "a session for a principal",
        2,
        "principal_arn",
        config=MINIMAL + 'eks: {access: [{principal_arn: "arn:aws:sts::1:assumed-role/a/b"}]}',
    ),
    # errors that only AWS can report
    Wrong(
        "version that EKS has no more",
        2,
        "EKS does not offer Kubernetes 1.30",
        ("create", "demo", "--kubernetes-version", "1.30"),
    ),
    Wrong("version of the future", 2, "9.99", ("create", "demo", "--kubernetes-version", "9.99")),
    Wrong(
        "version that is none", 2, "latest", ("create", "demo", "--kubernetes-version", "latest")
    ),
    Wrong(
        "add-on version",
        2,
        "addons.coredns.version",
        config=f"{MINIMAL}addons: {{coredns: {{version: v9.9.9-eksbuild.1}}}}\n",
    ),
    Wrong(
        "no such add-on",
        2,
        "addons.kubeproxy: EKS has no such add-on",
        config=f"{MINIMAL}addons: {{kubeproxy: }}\n",
    ),
    Wrong(
        "zone of another region",
        2,
        "use1-az1",
        config=f"{MINIMAL}network: {{availability_zone_ids: [use1-az1, usw2-az1]}}\n",
    ),
    Wrong(
        "type that no zone has", 2, "is not offered", config=group(instance_type="ml.trn2.48xlarge")
    ),
    Wrong("region", 2, "us-west-2", ("create", "demo", "--region", "us-west-22")),
    Wrong("zone for a region", 2, "use us-west-2", ("create", "demo", "--region", "us-west-2a")),
    Wrong(
        "no region",
        2,
        "region",
        ("create", "demo"),
        environ={"AWS_REGION": None, "AWS_DEFAULT_REGION": None},
    ),
    Wrong(
        "no region for a token",
        2,
        "--region us-west-2",
        ("token", "demo"),
        environ={"AWS_REGION": None, "AWS_DEFAULT_REGION": None},
    ),
    Wrong("account", 2, "999999999999", config=f'{MINIMAL}account: "999999999999"\n'),
    # credentials
    Wrong("no credentials", 3, "credentials", ("create", "demo"), environ=NO_CREDENTIALS),
    Wrong("no credentials to look", 3, "credentials", ("status", "demo"), environ=NO_CREDENTIALS),
    Wrong(
        "expired credentials",
        3,
        "expired",
        ("create", "demo"),
        faults=(
            Fault(
                "sts",
                code="ExpiredToken",
                status=403,
                message="The security token included in the request is expired",
                count=100,
            ),
        ),
    ),
    Wrong(
        "not allowed",
        3,
        "not authorized",
        ("create", "demo"),
        faults=(
            Fault(
                "ec2",
                "DescribeVpcs",
                code="UnauthorizedOperation",
                status=403,
                message="You are not authorized to perform this operation.",
                count=99,
            ),
        ),
    ),
    Wrong("unknown profile", 2, "nobody", ("create", "demo", "--profile", "nobody")),
    Wrong(
        "unknown profile in a variable",
        2,
        "nobody",
        ("create", "demo"),
        environ={"AWS_PROFILE": "nobody"},
    ),
    # lifecycle scripts
    Wrong("no lifecycle folder", 2, "scripts does not exist", LIFECYCLE),
    Wrong(
        "a file for a folder", 2, "is a file, not a folder", LIFECYCLE, files={"scripts": OK_SCRIPT}
    ),
    Wrong(
        "no entry script", 2, "has no on_create.sh", LIFECYCLE, files={"scripts/x.sh": OK_SCRIPT}
    ),
    Wrong("CRLF", 2, "CR LF", LIFECYCLE, files={"scripts/on_create.sh": "#!/bin/bash\r\ntrue\r\n"}),
    Wrong("no #!", 2, "#! line", LIFECYCLE, files={"scripts/on_create.sh": "true\n"}),
    Wrong("empty script", 2, "is empty", LIFECYCLE, files={"scripts/on_create.sh": "\n"}),
    Wrong(
        "calls what is not there",
        2,
        "main.sh",
        LIFECYCLE,
        files={"scripts/on_create.sh": f"{OK_SCRIPT}bash ./main.sh\n"},
    ),
    Wrong("unreadable script", 2, "change its permissions", LIFECYCLE, before=unreadable),
    Wrong("script elsewhere", 2, "put a copy there", LIFECYCLE, before=outside),
    # helm and the chart
    Wrong("no helm", 2, "Install helm 3.17", ("create", "demo"), before=no_helm),
    Wrong("old helm", 2, "v3.16.4", ("create", "demo"), before=old_helm),
    Wrong(
        "helm that is not there",
        2,
        "cannot be run: No such file or directory",
        ("create", "demo", "--helm", "nowhere"),
    ),
    Wrong("helm that is none", 2, "is no helm", ("create", "demo", "--helm", "/bin/true")),
    Wrong("no chart", 2, "Chart.yaml", ("create", "demo", "--chart", "scripts"), files=HERE),
    Wrong(
        "chart values",
        2,
        "deep-health-check.enabled",
        config=f"{MINIMAL}chart: {{values: {{deep-health-check: {{enabled: false}}}}}}\n",
    ),
    # the manifest
    Wrong(
        "manifest of another cluster",
        2,
        "'other'",
        ("create", "demo"),
        files={"demo.hyperpod-eks.json": manifest(cluster="other")},
    ),
    Wrong(
        "manifest of another account",
        2,
        "999999999999",
        ("create", "demo"),
        files={"demo.hyperpod-eks.json": manifest(account="999999999999")},
    ),
    Wrong(
        "manifest of another region",
        2,
        "eu-west-1",
        ("create", "demo"),
        files={"demo.hyperpod-eks.json": manifest(region="eu-west-1")},
    ),
    Wrong(
        "broken manifest",
        2,
        "adopt demo --rebuild",
        ("create", "demo"),
        files={"demo.hyperpod-eks.json": "{"},
    ),
    Wrong(
        "manifest that is none",
        2,
        "is broken",
        ("status", "demo"),
        files={"demo.hyperpod-eks.json": "[1]"},
    ),
    Wrong(
        "newer manifest",
        2,
        "manifest/v3",
        ("delete", "demo", "--yes"),
        files={"demo.hyperpod-eks.json": manifest(schema="hyperpod-eks/manifest/v3")},
    ),
    Wrong("manifest nowhere", 2, "--manifest", ("create", "demo", "--manifest", "nowhere/x.json")),
    Wrong(
        "manifest that is a folder",
        2,
        "scripts",
        ("create", "demo", "--manifest", "scripts"),
        files=HERE,
    ),
    # delete
    Wrong("nobody to ask", 2, "Pass --yes", ("delete", "demo"), stdin="demo\n"),
    Wrong("nobody to ask in CI", 2, "Pass --yes", ("delete", "demo"), environ={"CI": "true"}),
    Wrong(
        "to keep what cannot be",
        2,
        "bucket, logs, network",
        ("delete", "demo", "--yes", "--keep", "vpc"),
    ),
    Wrong(
        "protected",
        2,
        "deletion_protection",
        ("delete", "-f", "cluster.yaml", "--yes"),
        config=f"{MINIMAL}deletion_protection: true\n",
    ),
    # an account with resources of others, or with none
    Wrong("nothing there", 8, "cluster demo does not exist", ("status", "demo")),
    Wrong("name taken", 7, "demo-eks-us-west-2", ("create", "demo"), before=taken),
]


def matrix() -> Iterator[Any]:
    """Yield all cases with JSON, which does not change stderr; without, one for each exit code."""
    seen = set()
    for wrong, output in product(CASES, ("json", "text")):
        long = output == "text" and wrong.code in seen
        marks = [pytest.mark.prove] if long else []
        yield pytest.param(
            wrong, output, marks=marks, id=f"{wrong.name} {output}".replace(" ", "-")
        )
        if output == "text":
            seen.add(wrong.code)


@pytest.mark.parametrize(("wrong", "output"), [*matrix()])
def test_it_is_told_on_one_screen_and_nothing_is_changed(
    wrong: Wrong, output: str, user: User, session: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"cluster.yaml": wrong.config} if wrong.config else {}
    for name, text in {**wrong.files, **config}.items():
        (user.folder / name).parent.mkdir(exist_ok=True)
        (user.folder / name).write_bytes(text.encode())
    for name, value in wrong.environ.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    if wrong.before:
        wrong.before(user, Clients(session, user.stack.endpoint))
    user.stack.faults[:] = [Fault(**vars(fault)) for fault in wrong.faults]
    user.mutations()
    there = set(user.folder.parent.rglob("*"))

    json_too = ("-o", "json") if output == "json" and "-o" not in wrong.command else ()
    if wrong.command[0] in ("local", "crate") or "HYPERPOD_EKS_OUTPUT" in wrong.environ:
        json_too = ()
    said = user.types(*wrong.command, *json_too, stdin=wrong.stdin)

    assert said.code == wrong.code, said
    assert wrong.says in said.err
    assert "Traceback" not in said.err
    assert user.mutations() == []
    assert screens(said.err) <= 24, said.err
    if json_too:
        document = said.document
        assert document["schema"] == "hyperpod-eks/result/v1"
        assert (document["ok"], document["exit_code"]) == (False, wrong.code)
        assert wrong.says in document["error"]["message"] + document["error"]["hint"]
    else:
        assert said.out == ""
    left = {path.name for path in set(user.folder.parent.rglob("*")) - there if path.is_file()}
    assert {name for name in left if not name.endswith(".log")} <= {
        "demo.hyperpod-eks.json.lock",
        "demo.hyperpod-eks.lock",
    }


def screens(text: str) -> int:
    """Return the number of lines on a terminal of 80 columns."""
    return sum(max(1, -(-len(line) // 80)) for line in text.splitlines())


@pytest.mark.parametrize("account", ["123456789012", "999999999999"])
def test_without_credentials_a_cluster_of_the_embedded_stack_is_known_by_its_account(
    account: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user.folder / "demo.hyperpod-eks.json").write_text(manifest(account=account))
    for name in NO_CREDENTIALS:
        monkeypatch.delenv(name)
    for words in (("status", "demo"), ("delete", "demo", "--yes"), ("kubeconfig", "demo")):
        said = user.types(*words)
        assert said.code == 3
        assert said.err.startswith("error: no AWS credentials: ")
        local = f"To run the command there: hyperpod-eks {' '.join(words)} --local\n"
        assert (local in said.err) is (account == "123456789012"), said.err
        assert ("Select a profile" in said.err) is (account == "999999999999")


def test_helm_is_looked_for_where_only_the_manifest_has_the_cluster(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest says that the chart is installed; somebody else has deleted the cluster."""
    user.has("demo")
    manifest = user.folder / "demo.hyperpod-eks.json"
    before = manifest.read_bytes()
    assert user.types("delete", "demo", "--yes").code == 0
    manifest.write_bytes(before)
    user.mutations()
    monkeypatch.setenv("PATH", str(user.folder))
    said = user.types("create", "demo")
    assert said.code == 3
    assert "helm: no usable helm" in said.err
    assert user.mutations() == []
