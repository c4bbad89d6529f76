"""``hyperpod-eks init``: write a config file with a comment about each setting."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.help import Formatter
from hyperpod_eks.cli.options import Output, argument, option
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.terminal.text import clean

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import Init
    from hyperpod_eks.events import Report

QUESTIONS = {
    "name": "Name of the cluster",
    "region": "AWS region",
    "instance_type": "Instance type of the nodes",
    "instance_count": "How many nodes",
}
"""Questions on a terminal, by setting; an option replaces its question."""
EXAMPLES = (
    "p5-training-plans",
    "spot-autoscaling",
    "closed-network",
    "existing-vpc",
    "existing-eks",
    "pod-roles",
    "storage",
    "inference",
    "platform",
)
"""Files of examples/ that need no other files."""
PLACEHOLDER = re.compile(
    r"\b[a-z]+-0123456789abcdef\d\b|\b123456789012\b|\b203\.0\.113\.0/24|\b[a-z]+\d-az\d\b"
    r"|(?<=eks_cluster: )\S+|(?<=helm_release: )\S+|(?<=buckets: \[)[^]]+"
)
"""What an example cannot know: ids, the account, the addresses of an office, the zones that have
capacity, and the names of what exists already."""
MINIMAL = "minimal"
Answer = str | int
DEFAULTS: dict[str, Answer] = {
    "name": "demo",
    "instance_type": "ml.m5.2xlarge",
    "instance_count": 2,
}

TEMPLATE = """\
# A HyperPod cluster on EKS. To create or change it, run
#
#   hyperpod-eks create -f {file}
#
# Lines that start with # show defaults or examples.  Every setting: hyperpod-eks explain config
name: {name}
region: {region}
# account: "111122223333"       # refuse to run in any other account
# tags:                         # on every resource
#   team: research

network:
  # cidr: 10.0.0.0/16
  # availability_zone_ids: []   # two to six, like usw2-az1; empty: two that offer the instance type
  nat: {nat}                   # per-az: one gateway in each zone, which survives the loss of one

eks:
  {version}
  # support_type: EXTENDED      # STANDARD lets EKS upgrade the control plane
  # log_retention_days: 30
  # access:                     # who may use the Kubernetes API, besides you
  #   - principal_arn: arn:aws:iam::111122223333:role/team/reader
  #     policy: AmazonEKSViewPolicy

# lifecycle:                    # what runs on each node when it starts
#   path: ./lifecycle
#   on_create: on_create.sh

node_recovery: Automatic        # HyperPod replaces faulty nodes by itself

instance_groups:
  - name: worker-group
    instance_type: {instance_type}
    instance_count: {instance_count}
    threads_per_core: 1         # 2: hyper-threading
    ebs_volume_size_in_gb: 500  # for images and files of pods

# deletion_protection: true     # `delete` is refused until it is false again
"""


@frozen
class Options(Output):
    """Options of init."""

    name: str | None = argument()
    file: str | None = option(
        "-f", "--file", metavar="FILE", help="File to write; - is stdout.  [default: ./NAME.yaml]"
    )
    region: str | None = option("--region", metavar="REGION", help="AWS region.")
    example: str | None = option(
        "--example",
        metavar="EXAMPLE",
        type=click.Choice([MINIMAL, *EXAMPLES]),
        help=f"Start from an example: {', '.join(EXAMPLES)}.  [default: {MINIMAL}]",
    )
    instance_type: str | None = option(
        "--instance-type", metavar="ml.TYPE", help="Instance type of the nodes."
    )
    instance_count: int | None = option(
        "--instance-count", type=click.IntRange(0), metavar="N", help="Number of nodes."
    )
    kubernetes_version: str | None = option(
        "--kubernetes-version", metavar="1.N", help="Kubernetes version."
    )
    nat: str = option(
        "--nat",
        type=click.Choice(["single", "per-az"]),
        default="single",
        help="One NAT gateway, or one in each zone.",
    )


def init(options: Options, report: Report) -> Init:
    """Write a config file to start from.

    It is the minimal cluster with a comment about each setting, or an example.  On a terminal, the
    command asks for missing values.  An existing file is not changed.
    """
    import yaml

    from hyperpod_eks.config.load import load

    if options.file or options.name:  # before anything is asked
        _absent(options.file or f"{options.name}.yaml")
    options = _kind(options)
    found = _answers(options)
    target = options.file or f"{found['name']}.yaml"
    fill = _example if options.example else _filled
    filled = fill(options, found, target)
    load(yaml.safe_load(filled), {}, {}, files=False)
    if target != "-":
        _write(target, filled)
    return {**head("init"), "path": None if target == "-" else target, "content": filled}


def _kind(options: Options) -> Options:
    """Return the options with an example, if one is chosen, and without for the minimal cluster.

    Asks on a terminal.  Raises Usage for options that an example does not have.
    """
    if options.example == MINIMAL:
        return replace(options, example=None)
    others = {
        "--instance-type": options.instance_type,
        "--instance-count": options.instance_count,
        "--kubernetes-version": options.kubernetes_version,
        "--nat": None if options.nat == "single" else options.nat,
    }
    given = [name for name, value in others.items() if value is not None]
    if options.example and given:
        raise Usage(
            f"init: {given[0]} cannot be combined with --example",
            "Change it in the file that is written.",
        )
    if options.example or given or not _asks():
        return options
    kinds = click.Choice([MINIMAL, *EXAMPLES])
    click.echo(_described(), err=True)
    chosen = click.prompt("Kind of cluster", MINIMAL, type=kinds, show_choices=False, err=True)
    return options if chosen == MINIMAL else replace(options, example=chosen)


def _described() -> str:
    """Return the kinds of clusters, each with the first sentence of its example."""
    rows = [(MINIMAL, "One group of CPU nodes; each setting has a comment.")]
    for name in EXAMPLES:
        lines = re.findall(r"^# (.*)", _packaged(name), re.MULTILINE)
        rows.append((name, re.split(r"(?<=\.) ", " ".join(lines))[0]))
    formatter = Formatter(max_width=100)
    formatter.write_dl(rows)
    return formatter.getvalue()


def _packaged(example: str) -> str:
    from hyperpod_eks.folders import packaged

    return (packaged("_examples", "examples") / f"{example}.yaml").read_text(encoding="utf-8")


def _asks() -> bool:
    return sys.stdin.isatty() and not os.environ.get("CI")


def _example(options: Options, found: Mapping[str, Answer | None], target: str) -> str:
    """Return an example with the cluster's name and region, and its file's, instead of its own.

    Its own name is replaced as a whole word: not in the name of a bucket or a path.
    """
    from hyperpod_eks.aws.published import zone_prefix

    name, region = str(found["name"]), str(found["region"])
    _check("region", region)
    content = _packaged(str(options.example))
    own = {key: re.findall(rf"(?m)^{key}: (.+)$", content)[0] for key in ("name", "region")}
    words = {
        f"{options.example}.yaml": clean(target) if target != "-" else "cluster.yaml",
        f"name: {own['name']}": f"name: {_spelled(name)}",
        own["name"]: name,
        own["region"]: region,
        zone_prefix(own["region"]): zone_prefix(region),
    }
    file, setting, word, place, zone = map(re.escape, words)
    places = rf"{file}|^{setting}$|(?<![\w./-]){word}(?![\w./-])|{place}|\b{zone}(?=-az\d)"
    return re.sub(places, lambda match: words[match[0]], content, flags=re.MULTILINE)


def _filled(options: Options, found: Mapping[str, Answer | None], target: str) -> str:
    version = options.kubernetes_version
    return TEMPLATE.format(
        file=clean(target) if target != "-" else "cluster.yaml",
        name=_spelled(found["name"]),
        region=_spelled(found["region"]),
        nat=options.nat,
        version=f"version: {json.dumps(version)}"
        if version
        else '# version: "1.35"             # without it: the newest that fits',
        instance_type=_spelled(found["instance_type"]),
        instance_count=found["instance_count"],
    )


def _absent(target: str) -> None:
    if target != "-" and os.path.lexists(target):
        raise Usage(f"{target} already exists and was not changed", "Choose another file: -f FILE.")


def _write(target: str, content: str) -> None:
    from hyperpod_eks import files

    _absent(target)
    try:
        files.replace(Path(target), content.encode())
    except OSError as error:
        raise Usage(f"cannot write {target}: {error.strerror}") from error


def _answer(key: str, default: Answer | None, file: str | None) -> Answer:
    """Ask until the answer is valid; return it.  Without ``file``, the name is also the file's."""
    question = QUESTIONS[key]
    while True:
        answer: Answer
        if key == "instance_count":
            answer = click.prompt(question, int(default or 0), err=True, type=int)
        else:
            suggested = None if default is None else str(default)
            answer = click.prompt(question, suggested, err=True, type=str)
        try:
            _check(key, answer)
            if key == "name" and not file:
                _absent(f"{answer}.yaml")
        except Usage as error:
            click.echo(f"{error}", err=True)
        else:
            return answer


def _check(key: str, answer: Answer) -> None:
    """Raise Usage if the answer is invalid by itself."""
    from hyperpod_eks.config.load import load

    group: dict[str, object] = {**DEFAULTS, "name": "worker-group"}
    config: dict[str, object] = {"name": "demo", "region": "us-west-2", "instance_groups": [group]}
    (config if key in config else group)[key] = answer
    load(config, {}, {}, files=False)


def _answers(options: Options) -> dict[str, Answer | None]:
    """Return the answers: from options, else asked on a terminal."""
    from hyperpod_eks.config.load import load

    given: dict[str, Answer | None] = {
        "name": options.name,
        "region": options.region,
        "instance_type": options.instance_type,
        "instance_count": options.instance_count,
    }
    found = dict(given)
    unset: Usage | None = None
    if found["region"] is None:
        try:
            found["region"] = load({"name": "any"}, {}, os.environ, files=False).region
        except Usage as error:  # no region is set, or none that can be used: ask for it
            unset = error
    asks = _asks()
    for key in QUESTIONS:
        if options.example and key not in ("name", "region"):
            continue
        if (answer := given[key]) is None:
            default = found[key] or DEFAULTS.get(key)
            found[key] = _answer(key, default, options.file) if asks else default
        elif asks:
            _check(key, answer)
    if not found["region"]:
        if unset and "is missing" not in str(unset):
            raise unset
        raise Usage("region: is missing (every cluster has one); pass --region, or set AWS_REGION")
    return found


def _spelled(value: object) -> str:
    """Return a string as a YAML scalar: ``no`` and ``1e3`` need quotes."""
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, width=1000)).split("\n")[0]


def text(document: Init) -> str:
    """Return a message about the written file; the config itself with ``-f -``."""
    path = document["path"]
    if path is None:
        return str(document["content"])
    settings = re.sub(r"#.*", "", str(document["content"]))
    if others := ", ".join(dict.fromkeys(PLACEHOLDER.findall(settings))):
        return f"wrote {path}; replace {others} in it, then: hyperpod-eks plan -f {path}"
    return f"wrote {path}; next: hyperpod-eks plan -f {path}"


command = define(
    "init",
    Options,
    init,
    text,
    """
    hyperpod-eks init                              asks
    hyperpod-eks init demo --region us-west-2 --instance-type ml.g5.8xlarge
    hyperpod-eks init demo --example p5-training-plans
    hyperpod-eks init demo --region us-west-2 -f - | hyperpod-eks validate -f -
    """,
)
