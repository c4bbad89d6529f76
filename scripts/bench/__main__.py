"""Measure this tool beside an AWS CLI script and a plain boto3 script: `make bench`.

Everything runs on this machine against the embedded stack, where each call takes 40 ms as if
AWS were at its usual distance.  Runs of the tools alternate, figures are medians, and what counts
are ratios: seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import page
from run import HERE, ROOT, Backend, Cost, backends, run

OURS, TEAM = "hyperpod-eks", "hyperpod-eks, state in S3"
SEQUENTIAL, CLI = "sequential boto3", "AWS CLI"
PHASES = ("create", "no-op", "status", "delete")

SLOW = {
    "eks_create": 62,
    "nat_create": 21,
    "addon": 8,
    "hyperpod_create": 12,
    "hyperpod_provision": 48,
    "hyperpod_lifecycle": 12,
    "eks_delete": 21,
    "nat_delete": 12,
    "hyperpod_delete": 33,
}
"""Seconds; a tenth of what AWS takes for EKS and HyperPod, a fifth for the others."""
PATHS = {"create": 62 + 72, "delete": 33 + 21 + 21}
"""Seconds of the slow simulation that nobody can avoid: EKS, then HyperPod, and back.

EKS may write its log group anew after it has gone; a delete that leaves nothing looks at the group
once more, after as long as the cluster took to go.
"""
READY = {
    "create": [
        ("eks:CreateCluster", 62, "eks:CreateAccessEntry"),
        ("ec2:CreateNatGateway", 21, "ec2:CreateRoute"),
        ("sagemaker:CreateCluster", 72, ""),
    ],
    "delete": [
        ("sagemaker:DeleteCluster", 33, "eks:DeleteCluster"),
        ("ec2:DeleteNatGateway", 12, "ec2:ReleaseAddress"),
        ("eks:DeleteCluster", 21, "ec2:DeleteVpc"),
    ],
}
"""What is waited for, its seconds, and the call that needs it; empty for the command's end."""

WRITES = 42
LOOKS = 23
CONFIRMATIONS = 3
LEAST = WRITES + LOOKS + CONFIRMATIONS
"""The least calls of a first create, which docs/performance.md lists."""
STATE = "bench-state"
"""The bucket of the manifest in S3, in another place than the cluster's."""
PREFLIGHT = frozenset({"SimulatePrincipalPolicy", "ListServiceQuotas", "ListClusters"})
"""What nobody but the preflight asks."""


class Tools:
    """How each tool is called for each phase."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = Path(sys.executable).with_name("hyperpod-eks")
        self.program = str(program if program.exists() else shutil.which("hyperpod-eks"))

    def __call__(self, tool: str, phase: str, name: str = "bench") -> list[str]:
        """Return the command of a phase."""
        verb = {"no-op": "create"}.get(phase, phase)
        if tool == SEQUENTIAL:
            return [sys.executable, str(HERE / "sequential.py"), verb, name]
        if tool == CLI:
            return [str(HERE / "aws_cli.sh"), verb, name]
        chart = ["--chart", str(ROOT / "hyperpod_eks/local/chart")]
        options = {"create": chart, "delete": ["--yes"]}.get(verb, [])
        manifest = str(self.folder / f"{name}.json")
        if tool == TEAM:
            manifest = f"s3://{STATE}/{name}.json"
        return [self.program, verb, name, "--manifest", manifest, *options]


def checked(cost: Cost, what: str) -> Cost:
    """Return what a command cost; end with its words if it failed."""
    if cost.status:
        sys.exit(f"{what} failed:\n{cost.output[-4000:]}")
    print(f"{what:<40} {cost.wall:7.2f} s  {len(cost.calls):4} calls", flush=True)
    return cost


# --- what is measured


def lives(backend: Backend, tools: Tools, names: Sequence[str], runs: int) -> dict[str, Any]:
    """Create, create again, look and delete with each tool, alternating.

    One life that does not count goes before them: moto loads a service when it is first called.
    """
    for phase in ("create", "delete"):
        checked(backend.run(tools(SEQUENTIAL, phase)), f"(warming up) {phase}")
    costs: dict[tuple[str, str], list[Cost]] = {}
    for number in range(runs):
        for tool in names:
            if tool == CLI and number:
                continue  # a minute each, and its noise is small beside that
            backend.reset(state=STATE)
            for phase in PHASES:
                if phase == "status" and tool not in (OURS, TEAM):
                    continue
                cost = checked(backend.run(tools(tool, phase)), f"{tool}: {phase}")
                costs.setdefault((tool, phase), []).append(cost)
    return {f"{tool}: {phase}": median(found) for (tool, phase), found in costs.items()}


def median(costs: Sequence[Cost]) -> dict[str, float]:
    """The middle of each figure."""
    figures: dict[str, Callable[[Cost], float]] = {
        "wall": lambda c: c.wall,
        "without helm": lambda c: c.wall - c.helm,
        "cpu": lambda c: c.cpu,
        "memory": lambda c: c.memory,
        "calls": lambda c: len(c.calls),
        "preflight": lambda c: sum(call["operation"] in PREFLIGHT for call in c.calls),
        "writes": lambda c: c.writes,
        "rounds": lambda c: c.rounds,
        "idle": lambda c: c.idle,
    }
    return {name: statistics.median(map(of, costs)) for name, of in figures.items()}


STARTS = ("--help", "status", "aws --version", "two describes")


def starts(
    backend: Backend, tools: Tools, aws: str | None, names: Sequence[str] = STARTS, pairs: int = 7
) -> dict[str, Any]:
    """--help beside `aws --version`, status beside two `aws ... describe-cluster`."""
    backend.reset()
    checked(backend.run(tools(OURS, "create")), "a cluster to look at")
    asks = (
        "aws eks describe-cluster --name bench; aws sagemaker describe-cluster --cluster-name bench"
    )
    commands = {
        "--help": [tools.program, "--help"],
        "status": tools(OURS, "status"),
        **(
            {"aws --version": [aws, "--version"], "two describes": ["sh", "-c", asks]}
            if aws
            else {}
        ),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in names if name in commands}
    for _ in range(pairs):
        for name, found in costs.items():
            found.append(backend.run(commands[name]))
    # a create in the next, empty account would wait a minute for what the manifest records
    checked(backend.run(tools(OURS, "delete")), "delete it")
    return {name: median(found) for name, found in costs.items()}


def encrypted(backend: Backend, tools: Tools, aws: str | None, runs: int) -> dict[str, Any]:
    """The same through TLS, beside boto3; status beside two describes."""
    return {
        "lives": lives(backend, tools, (OURS, SEQUENTIAL), runs),
        "starts": starts(backend, tools, aws, ("status", "two describes")),
    }


def throttled(backend: Backend, tools: Tools, runs: int = 20) -> dict[str, Any]:
    """Create while every tenth call is refused, beside create undisturbed."""
    calm, disturbed, finished = [], [], 0
    for number in range(runs):
        name = f"calls{number}"
        for share in (0.1, 0.0) if number % 4 == 0 else (0.1,):
            backend.reset(throttled=share, seed=number)
            cost = backend.run(tools(OURS, "create", f"{name}-{share:g}".replace(".", "")))
            if not share:
                calm.append(checked(cost, "undisturbed"))
                continue
            print(f"{'10 % throttled':<40} {cost.wall:7.2f} s  exit {cost.status}", flush=True)
            disturbed.append(cost)
            finished += cost.status == 0
    return {
        "runs": runs,
        "finished": finished,
        "wall": statistics.median(c.wall for c in disturbed),
        "undisturbed": statistics.median(c.wall for c in calm),
    }


def slow(backend: Backend, tools: Tools, tool: str) -> dict[str, Any]:
    """Create and delete while EKS, NAT gateway, add-ons and HyperPod take their time."""
    backend.reset(delays=SLOW, state=STATE)
    found: dict[str, Any] = {}
    for phase in PATHS:
        name = "slow"
        cost = checked(backend.run(tools(tool, phase, name)), f"{tool}: slow {phase}")
        found[phase] = {
            **median([cost]),
            "gaps": dict(gaps(cost, phase)),
        }
    return found


def gaps(cost: Cost, phase: str) -> Iterator[tuple[str, float]]:
    """Seconds between a thing being ready and the next call that needed it."""
    for after, seconds, needed in READY[phase]:
        times: dict[str, list[dict[str, Any]]] = {}
        for call in cost.calls:
            times.setdefault(f"{call['service']}:{call['operation']}", []).append(call)
        ready = times[after][0]["end"] + seconds
        # a public route does not wait for the NAT gateway: take the first call that could
        begins = [call["start"] for call in times.get(needed, ()) if call["start"] > ready - 0.1]
        yield after, (min(begins) if begins else cost.began + cost.wall) - ready


def scale(backend: Backend, tools: Tools, sizes: Sequence[int] = (1000, 10000)) -> dict[str, Any]:
    """Status of clusters of many nodes in 100 instance groups."""
    found = {}
    for nodes in sizes:
        backend.reset()
        config = tools.folder / f"nodes{nodes}.yaml"
        config.write_text(json.dumps(large(f"nodes{nodes}", nodes)))
        manifest = ["--manifest", str(tools.folder / f"nodes{nodes}.json"), "--file", str(config)]
        checked(backend.run([tools.program, "create", *manifest]), f"create {nodes} nodes")
        look = [tools.program, "status", *manifest, "-o", "json"]
        costs = [checked(backend.run(look), f"status of {nodes} nodes") for _ in range(3)]
        lists = sum(call["operation"] == "ListClusterNodes" for call in costs[0].calls)
        found[str(nodes)] = {**median(costs), "lists": lists}
    return found


def large(name: str, nodes: int) -> dict[str, Any]:
    """A config of 100 instance groups."""
    group = {"instance_type": "ml.m5.2xlarge", "instance_count": nodes // 100}
    return {
        "name": name,
        "chart": {"path": str(ROOT / "hyperpod_eks/local/chart")},
        "instance_groups": [{"name": f"group-{i:03}", **group} for i in range(100)],
    }


# --- what it must show


def goals(found: dict[str, Any]) -> list[page.Goal]:
    """Compare what was measured with what was promised."""
    rows: list[page.Goal] = []

    def at_most(what: str, limit: float, measure: Callable[[], float], unit: str = "") -> None:
        try:
            rows.append(page.Goal(what, limit, measure(), unit))
        except KeyError:
            rows.append(page.Goal(what, limit, None, unit))

    def wall(tool: str, phase: str, figure: str = "wall", through: Any = found) -> float:
        return float(through["lives"][f"{tool}: {phase}"][figure])

    def first(figure: str, through: Any = found) -> float:
        return wall(OURS, "create", figure, through) / wall(SEQUENTIAL, "create", figure, through)

    def overhead(phase: str) -> float:
        return float(found["slow"][OURS][phase]["wall"] / PATHS[phase])

    at_most("slow create ÷ critical path", 1.02, lambda: overhead("create"))
    at_most(
        "slow create, state in S3 ÷ state in a file",
        1.02,
        lambda: found["slow"][TEAM]["create"]["wall"] / found["slow"][OURS]["create"]["wall"],
    )
    at_most("slow delete ÷ critical path", 1.10, lambda: overhead("delete"))
    at_most(
        "from ready to the call that needed it",
        5.5,
        lambda: max(g for p in PATHS for g in found["slow"][OURS][p]["gaps"].values()),
        "s",
    )
    at_most("no-op create: writes", 0, lambda: wall(OURS, "no-op", "writes"))
    at_most("no-op create: rounds", 6, lambda: wall(OURS, "no-op", "rounds"))
    at_most("no-op create ÷ AWS CLI", 0.06, lambda: wall(OURS, "no-op") / wall(CLI, "no-op"))
    for where, through in (("", found), (", TLS", found.get("tls", {}))):
        at_most(
            f"no-op create ÷ sequential boto3{where}",
            0.28,
            lambda t=through: wall(OURS, "no-op", through=t) / wall(SEQUENTIAL, "no-op", through=t),
        )
        at_most(
            f"status ÷ two aws describe-cluster{where}",
            0.50,
            lambda t=through: t["starts"]["status"]["wall"] / t["starts"]["two describes"]["wall"],
        )
        at_most(
            f"first create ÷ sequential boto3{where}",
            0.33,
            lambda t=through: first("wall", t),
        )
    at_most(
        "first create ÷ sequential boto3, helm's time left out", 0.33, lambda: first("without helm")
    )
    at_most("first create: rounds", 20, lambda: wall(OURS, "create", "rounds"))
    at_most(
        f"first create: calls ÷ the least possible ({LEAST}), without the preflight's own",
        1.28,  # seven ask in vain beside the first look, eleven review what AWS only accepted
        lambda: (wall(OURS, "create", "calls") - wall(OURS, "create", "preflight")) / LEAST,
    )
    start = found.get("starts", {})
    at_most(
        "--help ÷ aws --version",
        0.15,
        lambda: start["--help"]["wall"] / start["aws --version"]["wall"],
    )
    at_most("--help: memory", 20, lambda: start["--help"]["memory"], "MiB")
    refused = found.get("throttled", {})
    at_most(
        "10 % throttled: runs of 20 that did not finish",
        0,
        lambda: refused["runs"] - refused["finished"],
    )
    at_most("10 % throttled ÷ undisturbed", 2.0, lambda: refused["wall"] / refused["undisturbed"])
    sizes = found.get("scale", {})
    at_most("status of 10,000 nodes", 4, lambda: sizes["10000"]["wall"], "s")
    at_most("status of 10,000 nodes: listing calls", 110, lambda: sizes["10000"]["lists"])
    at_most("status of 10,000 nodes: memory", 400, lambda: sizes["10000"]["memory"], "MiB")
    at_most(
        "status of 10,000 nodes ÷ 1,000 nodes",
        11,
        lambda: sizes["10000"]["wall"] / sizes["1000"]["wall"],
    )
    return rows


# --- the command


SECTIONS = ("lives", "starts", "tls", "throttled", "slow", "scale")


@contextmanager
def ground() -> Iterator[Path]:
    """Lend a folder; Python writes its bytecode beforehand, as an installation does."""
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", str(ROOT / "hyperpod_eks")], check=True
    )
    with tempfile.TemporaryDirectory(prefix="hyperpod-eks-bench-") as folder:
        yield Path(folder)


def main() -> None:
    """Measure, print the goals, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="measure this alone")
    parser.add_argument("--runs", type=int, default=5)
    fetched = ROOT / ".cache/awscli/bin/aws"
    aws = str(fetched) if fetched.exists() else shutil.which("aws")
    parser.add_argument("--aws", default=aws, help="the AWS CLI to compare with")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    given = parser.parse_args()
    sections = given.only or SECTIONS
    began = time.monotonic()
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "aws": version(given.aws),
        "load": os.getloadavg()[0],
    }
    if found["load"] > 1:
        print(f"The load average is {found['load']:.1f}: somebody else is at work here.")
    if not given.aws:
        print("There is no AWS CLI here: its column is left out.")
    names = [OURS, TEAM, SEQUENTIAL, *([CLI] if given.aws else [])]
    with ground() as folder:
        tools = Tools(folder)
        if given.aws:
            os.environ["PATH"] = f"{Path(given.aws).parent}:{os.environ['PATH']}"
        with backends(folder) as (backend,):
            if "lives" in sections:
                found["lives"] = lives(backend, tools, names, given.runs)
            if "starts" in sections:
                found["starts"] = starts(backend, tools, given.aws)
        if "tls" in sections:
            with backends(folder, tls=True) as (backend,):
                found["tls"] = encrypted(backend, tools, given.aws, given.runs)
        with ThreadPoolExecutor(3) as pool, backends(folder, 4) as (mine, team, theirs, other):
            waits = {}
            if "slow" in sections:  # mostly waiting, so that all can do it at a time
                for tool, place in ((OURS, mine), (TEAM, team), (SEQUENTIAL, theirs)):
                    waits[tool] = pool.submit(slow, place, tools, tool)
                waits[OURS].result()  # and then the rest beside the longer one
            if "throttled" in sections:
                found["throttled"] = throttled(other, tools)
            if "scale" in sections:
                found["scale"] = scale(other, tools)
            if waits:
                found["slow"] = {tool: wait.result() for tool, wait in waits.items()}
    rows = goals(found)
    print(page.tables(found, rows, PATHS))
    print(f"{time.monotonic() - began:.0f} s")
    if given.write:
        page.write(ROOT / "docs", found, rows, PATHS)


def version(aws: str | None) -> str:
    """Name the AWS CLI."""
    return run([aws, "--version"]).output.split()[0] if aws else ""


if __name__ == "__main__":
    main()
