"""Cases of the crash proof: kill the tool at a boundary, recover, and check the account."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hyperpod_eks.errors import Locked
from hyperpod_eks.resources.s3 import OWN
from tests import copies

from . import oracles
from .host import DELAYS, ELSEWHERE, HERE, STATE, Boundary, Host
from .oracles import Broken

THREE_NODES = {
    "instance_groups": [
        {"name": "worker-group", "instance_type": "ml.m5.2xlarge", "instance_count": 3},
    ]
}
TWO_NODES = {
    "instance_groups": [
        {"name": "worker-group", "instance_type": "ml.m5.2xlarge", "instance_count": 2},
    ]
}
GPUS = {
    "instance_groups": [
        *TWO_NODES["instance_groups"],
        {"name": "gpu", "instance_type": "ml.g5.8xlarge", "instance_count": 2},
    ]
}
A_CHART = TWO_NODES | {"charts": {"near": {"chart": str(Path(__file__).with_name("chart"))}}}
A_FILE_SYSTEM: Mapping[str, Any] = TWO_NODES | {"storage": {"fsx_lustre": {"data": {}}}}
A_POOL = {
    "instance_groups": [
        *TWO_NODES["instance_groups"],
        {"name": "spare", "instance_type": "ml.m5.2xlarge", "instance_count": 0},
    ],
    "auto_scaling": {
        "mode": "Enable",
        "node_pools": [{"name": "spare", "instance_groups": ["spare"]}],
    },
}
ONE_TEAM: Mapping[str, Any] = {
    **TWO_NODES,
    "teams": {"vision": {"quota": [{"instance_type": "ml.m5.2xlarge", "count": 1}]}},
    "scheduler_config": {"priority_classes": {"training": 80}},
}
TWO_TEAMS: Mapping[str, Any] = {
    **ONE_TEAM,
    "teams": {**ONE_TEAM["teams"], "speech": {"fair_share_weight": 40}},
}
FOR_PODS = TWO_NODES | {
    "addons": {"aws-fsx-csi-driver": {}},
    "operators": ["training"],
    "pod_identity": [
        {
            "namespace": "a",
            "service_account": "b",
            "policies": ["arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"],
        }
    ],
}
"""Roles with our policy and with AWS's; associations of add-ons, in both ways, and of pods."""
METRICS = TWO_NODES | {"operators": ["training"], "monitoring": "prometheus"}
LOGS = TWO_NODES | {"monitoring": "cloudwatch"}
SPACES = TWO_NODES | {"operators": ["spaces"]}
INFERENCE = TWO_NODES | {
    "operators": ["inference"],
    "addons": {"aws-mountpoint-s3-csi-driver": {"buckets": ["models"]}},
}
ENDINGS = ("resume", "delete", "killed again", "flooded")
ENDINGS_OF_CHANGES = ("resume", "killed again", "flooded")
ENDINGS_OF_TESTS = ("resume", "create", "delete")
OF_OTHERS = ("elsewhere", "suspended")
"""Another machine takes over, from one that was killed or from one that wakes up again."""


@dataclass(frozen=True)
class Case:
    """Run ``scenario``, kill it at ``boundary``, then run one of ``ENDINGS``."""

    scenario: str
    boundary: Boundary
    ending: str
    step: str = ""

    def __str__(self) -> str:
        return f"{self.scenario}, {self.boundary}, {self.ending}"


SCENARIOS = {
    "create": ENDINGS,
    "scale": ENDINGS_OF_CHANGES,
    "re-create": ENDINGS_OF_CHANGES,
    "delete": ENDINGS_OF_CHANGES,
    "create in a VPC of others": (*ENDINGS, *OF_OTHERS),
    "create, state in S3": (*OF_OTHERS, *ENDINGS),
    "delete, state in S3": (*OF_OTHERS, *ENDINGS_OF_CHANGES),
    "a chart more": ENDINGS_OF_CHANGES,
    "a chart less": ENDINGS_OF_CHANGES,
    "create with a file system": ENDINGS,
    "delete with a file system": ENDINGS_OF_CHANGES,
    "delete with its data": ENDINGS_OF_CHANGES,
    "roles for pods": ENDINGS_OF_CHANGES,
    "metrics": ENDINGS_OF_CHANGES,
    "logs instead of metrics": ENDINGS_OF_CHANGES,
    "delete with logs": ENDINGS_OF_CHANGES,
    "a node pool": ENDINGS_OF_CHANGES,
    "delete with a node pool": ENDINGS_OF_CHANGES,
    "a node pool less": ENDINGS_OF_CHANGES,
    "teams": ENDINGS_OF_CHANGES,
    "a team less": ENDINGS_OF_CHANGES,
    "delete with teams": ENDINGS_OF_CHANGES,
    "test": ENDINGS_OF_TESTS,
    "spaces": ENDINGS_OF_CHANGES,
    "inference": ENDINGS_OF_CHANGES,
    "inference less": ENDINGS_OF_CHANGES,
    "delete with certificates": ENDINGS_OF_CHANGES,
}
"""The endings of each scenario, whose index is the seed of AWS's behaviour.

Of those that do not begin with a create, all start with a copy of one cluster.
"""


@dataclass
class Undisturbed:
    """A scenario without a kill: its boundaries, and the account after it."""

    path: list[tuple[Boundary, int]]
    shape: Counter[str]


@dataclass
class Prover:
    """Runs cases on one simulated machine, and keeps the results of undisturbed runs."""

    host: Host
    before: str = ""
    theirs: Mapping[str, Any] = field(default_factory=dict)
    """The config of a cluster in another team's VPC."""
    known: dict[str, Undisturbed] = field(default_factory=dict)
    _created: dict[str, tuple[bytes, str, Path]] = field(default_factory=dict)

    def begin(self, scenario: str = "create") -> None:
        """Start with an account that has resources of others."""
        # those have existed for a long time
        delays, seed = replace(DELAYS, unseen=0), [*SCENARIOS].index(scenario)
        self.host.begin(delays, seed=seed, in_s3=is_in_s3(scenario))
        self.theirs = TWO_NODES | oracles.decoys(self.host)
        self.host.stack.sim.delays = DELAYS
        self.before = oracles.inventory(self.host)

    def created(self, like: str = "scale") -> None:
        """Start with a cluster of two nodes: create it the first time, copy it later.

        ``like`` is a scenario: of its manifest's place, and with or without a file system.
        """
        if like not in self._created:
            self.begin(like)
            self.finish("create", A_FILE_SYSTEM if has_files(like) else TWO_NODES)
            if has_files(like):
                oracles.a_volume(self.host)
            kept = self.host.folder / f"created-{len(self._created)}"
            shutil.copytree(self.host.folder_now, kept)
            self._created[like] = copies.taken(self.host.stack), self.before, kept
            return
        self.host.begin(in_s3=is_in_s3(like))
        account, self.before, kept = self._created[like]
        copies.restore(self.host.stack, account)
        shutil.copytree(kept, self.host.folder_now, dirs_exist_ok=True)

    def prepared(self, scenario: str) -> tuple[str, Mapping[str, Any]]:
        """Prepare the account for a scenario; return the command and its config.

        Killed and undisturbed runs start with identical accounts, so that AWS behaves the same.
        """
        if scenario.startswith("create"):
            self.begin(scenario)
            if has_files(scenario):
                return "create", A_FILE_SYSTEM
            return "create", self.theirs if "VPC" in scenario else TWO_NODES
        if has_files(scenario):
            self.created("delete with a file system")
            return "delete data" if "its data" in scenario else "delete", A_FILE_SYSTEM
        self.created("delete, state in S3" if is_in_s3(scenario) else "scale")
        if scenario == "test":
            self.finish("create", GPUS)
            oracles.a_test_of_others(self.host)
            return "test", GPUS
        if scenario == "a node pool":
            return "create", A_POOL
        if scenario == "a node pool less":
            self.finish("create", A_POOL)
            return "create", TWO_NODES | {"auto_scaling": {"mode": "Disable"}}
        if scenario == "metrics":
            return "create", METRICS
        if scenario == "logs instead of metrics":
            self.finish("create", METRICS)
            return "create", LOGS
        if scenario == "spaces":
            return "create", SPACES
        if scenario == "inference":
            return "create", INFERENCE
        if scenario == "inference less":
            self.finish("create", INFERENCE)
            return "create", TWO_NODES
        if scenario == "delete with certificates":
            self.finish("create", INFERENCE)
            oracles.a_certificate(self.host)
            return "delete data", INFERENCE
        if scenario == "delete with logs":
            self.finish("create", LOGS)
            return "delete data", LOGS
        if scenario == "delete with a node pool":
            self.finish("create", A_POOL)
            return "delete", A_POOL
        if scenario == "teams":
            return "create", TWO_TEAMS
        if scenario in ("a team less", "delete with teams"):
            self.finish("create", TWO_TEAMS)
            return ("create", ONE_TEAM) if "less" in scenario else ("delete", TWO_TEAMS)
        if scenario.startswith("delete"):
            return "delete", TWO_NODES
        if scenario == "a chart more":
            return "create", A_CHART
        if scenario == "a chart less":
            self.finish("create", A_CHART)
            return "create", TWO_NODES
        if scenario == "roles for pods":
            return "create", FOR_PODS
        if scenario == "re-create":
            self.finish("create", THREE_NODES)
            self.lose_a_gateway()
        return "create", THREE_NODES

    def undisturbed(self, scenario: str) -> Undisturbed:
        """Run a scenario once without a kill, for comparison with every case of it."""
        if scenario not in self.known:
            verb, config = self.prepared(scenario)
            path = self.host.run(verb, config=config).path
            self.known[scenario] = Undisturbed(path, oracles.shape(self.host))
            if verb == "delete" and has_files(scenario):
                oracles.data_is_kept(self.host, 1)
            elif verb.startswith("delete"):
                oracles.nothing_left(self.host, self.before)
            else:
                oracles.no_test_left(self.host)
                oracles.journal_knows(self.host)
                oracles.locks_are_free(self.host)
        return self.known[scenario]

    @property
    def made(self) -> Counter[str]:
        """The shape of the account after an undisturbed create."""
        return self.undisturbed("create").shape

    def lose_a_gateway(self) -> None:
        """Delete a NAT gateway by hand, and let two hours pass."""
        host = self.host
        ec2 = host.session.somebody("ec2")
        ours = ec2.describe_nat_gateways(Filter=[{"Name": "state", "Values": ["available"]}])
        ec2.delete_nat_gateway(NatGatewayId=ours["NatGateways"][0]["NatGatewayId"])
        host.stack.clock.advance(7200)

    def quiet(self, config: Mapping[str, Any], machine: str = HERE) -> None:
        """O4: one more run changes nothing."""
        self.host.stack.calls.clear()
        process = self.host.run("create", config=config, machine=machine)
        if process.changes:
            what = [f"{c.service}:{c.operation}" for c in self.host.stack.calls if c.mutating]
            raise Broken(f"a run with nothing to do made {what}")

    def prove(self, case: Case) -> None:
        """Run one case.  Raises Broken if a check fails, or the tool's error."""
        host = self.host
        shape = self.undisturbed(case.scenario).shape
        verb, config = self.prepared(case.scenario)
        machine = ELSEWHERE if case.ending in OF_OTHERS else HERE
        if case.ending == "suspended":
            self.suspend(verb, config, case.boundary)
        else:
            flood = case.ending == "flooded"
            died = host.run(verb, fuse=case.boundary, flood=flood, config=config)
            if not died.dead:
                raise Broken("the boundary was not reached")
        oracles.others_untouched(host, self.before)
        if case.ending == "killed again":
            self.die_again(verb, config, case)
        if verb == "delete" and has_files(case.scenario):
            oracles.data_is_kept(host, 1)
        if verb == "create" and case.ending != "delete":
            self.finish("create", config, machine)
            self.quiet(config, machine)
            oracles.same_shape(host, shape)
            oracles.journal_knows(host)
            oracles.others_untouched(host, self.before)
        if verb == "test" and case.ending != "delete":
            self.finish("test" if case.ending == "resume" else "create", config)
            oracles.no_test_left(host)
            oracles.a_test_of_others_is_there(host)
            oracles.journal_knows(host)
        if verb != "delete data":
            self.finish("delete", config, machine)
        if "monitoring" in config or "certificates" in case.scenario:
            self.finish("delete data", config, machine)
        if has_files(case.scenario):
            self.delete_data(case, config, machine)
        oracles.nothing_left(host, self.before)

    def delete_data(self, case: Case, config: Mapping[str, Any], machine: str) -> None:
        """O9: data is kept until its delete is asked for, and then it has one backup."""
        whole = case.scenario != "create with a file system" or case.ending != "delete"
        volumes = 0 if case.scenario.startswith("create") else 1
        if whole and "its data" not in case.scenario:
            oracles.data_is_kept(self.host, volumes)
        self.finish("delete data", config, machine)
        if whole:
            oracles.data_is_saved(self.host, volumes)

    def suspend(self, verb: str, config: Mapping[str, Any], boundary: Boundary) -> None:
        """Suspend a command until another machine has done it; then it must change nothing.

        It may have been about to send a call, which takes effect.
        """
        host = self.host
        reached = False

        def meanwhile() -> None:
            nonlocal reached
            self.finish(verb, config, ELSEWHERE)
            host.stack.calls.clear()
            reached = True

        with suppress(Locked):
            host.run(verb, fuse=boundary, config=config, meanwhile=meanwhile)
        if not reached:
            raise Broken("the boundary was not reached")
        made = [
            f"{call.service}:{call.operation}"
            for call in host.stack.calls
            if call.mutating and call.status < 300
            if not (OWN in call.request or call.request.startswith(f"/{STATE}/"))
        ]
        if made and not (boundary.kind == "before" and made == [boundary.what]):
            raise Broken(f"it woke up and made {made}")

    def finish(self, verb: str, config: Mapping[str, Any], machine: str = HERE) -> None:
        """Run a command without a kill."""
        if self.host.run(verb, config=config, machine=machine).dead:
            raise Broken(f"{verb} died by itself")

    def die_again(self, verb: str, config: Mapping[str, Any], case: Case) -> None:
        """Kill the resumed run too, at a boundary that is derived from the case's name."""
        rng = random.Random(str(case))
        kind, what = rng.choice(
            [("after", "ec2:CreateVpc"), ("file", "rename"), ("wait", "tick"), ("file", "rename")]
            if verb == "create"
            else [("after", "eks:DeleteCluster"), ("file", "rename"), ("wait", "tick")]
        )
        self.host.run(
            verb, fuse=Boundary(kind, what, rng.randint(1, 30)), flood=True, config=config
        )


def states(path: Sequence[tuple[Boundary, int]], *, files: bool) -> list[Boundary]:
    """Return one boundary for each state of account, disk and clock during a run.

    Boundaries with the same state are equivalent for a later process.  Without ``files``, steps of
    a write that only leave a temporary file or a backup are omitted, and most deletes of kept
    versions of a manifest in S3.
    """
    found: dict[int, Boundary] = {}
    for boundary, state in path:
        found.setdefault(state, boundary)
    return [
        b
        for b in found.values()
        if files
        or b.nth % 10 == 1
        or (b.what == "rename" if b.kind == "file" else b.what != "s3:DeleteObject")
    ]


def cases(prover: Prover) -> Iterator[Case]:
    """Yield every case of the long proof; but for create, the endings take turns."""
    for scenario, endings in SCENARIOS.items():
        path = prover.undisturbed(scenario).path
        for number, boundary in enumerate(states(path, files=False)):
            some = endings if scenario == "create" else endings[number % len(endings) :][:1]
            for ending in some:
                yield Case(scenario, boundary, ending)


def has_files(scenario: str) -> bool:
    """Whether the cluster of a scenario has a file system."""
    return "file system" in scenario or "its data" in scenario


def is_in_s3(scenario: str) -> bool:
    """Whether a scenario's manifest is in S3."""
    return scenario.endswith("state in S3")
