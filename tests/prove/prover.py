"""Cases of the crash proof: kill the tool at a boundary, recover, and check the account."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests import copies

from . import oracles
from .host import DELAYS, Boundary, Host
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
ENDINGS = ("resume", "delete", "killed again", "flooded")
ENDINGS_OF_CHANGES = ("resume", "killed again", "flooded")


@dataclass(frozen=True)
class Case:
    """Run ``scenario``, kill it at ``boundary``, then run one of ``ENDINGS``."""

    scenario: str
    boundary: Boundary
    ending: str
    step: str = ""

    def __str__(self) -> str:
        return f"{self.scenario}, {self.boundary}, {self.ending}"


SCENARIOS = ("create", "scale", "re-create", "delete", "create in a VPC of others")
"""The index is the seed of AWS's behaviour; three scenarios start with a copy of one cluster."""


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
    _created: tuple[bytes, str, Path] | None = None

    def begin(self, scenario: str = "create") -> None:
        """Start with an account that has resources of others."""
        # those have existed for a long time
        self.host.begin(replace(DELAYS, unseen=0), seed=SCENARIOS.index(scenario))
        self.theirs = TWO_NODES | oracles.decoys(self.host)
        self.host.stack.sim.delays = DELAYS
        self.before = oracles.inventory(self.host)

    def created(self) -> None:
        """Start with a cluster of two nodes: create it the first time, copy it later."""
        if self._created is None:
            self.begin("scale")
            self.finish("create", TWO_NODES)
            kept = self.host.folder / "created"
            shutil.copytree(self.host.folder_now, kept)
            self._created = copies.taken(self.host.stack), self.before, kept
            return
        self.host.begin()
        account, self.before, kept = self._created
        copies.restore(self.host.stack, account)
        shutil.copytree(kept, self.host.folder_now, dirs_exist_ok=True)

    def prepared(self, scenario: str) -> tuple[str, Mapping[str, Any]]:
        """Prepare the account for a scenario; return the command and its config.

        Killed and undisturbed runs start with identical accounts, so that AWS behaves the same.
        """
        if scenario.startswith("create"):
            self.begin(scenario)
            return "create", TWO_NODES if scenario == "create" else self.theirs
        self.created()
        if scenario == "delete":
            return "delete", TWO_NODES
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
            if verb == "delete":
                oracles.nothing_left(self.host, self.before)
            else:
                oracles.journal_knows(self.host)
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

    def quiet(self, config: Mapping[str, Any]) -> None:
        """O4: one more run changes nothing."""
        self.host.stack.calls.clear()
        process = self.host.run("create", config=config)
        if process.changes:
            what = [f"{c.service}:{c.operation}" for c in self.host.stack.calls if c.mutating]
            raise Broken(f"a run with nothing to do made {what}")

    def prove(self, case: Case) -> None:
        """Run one case.  Raises Broken if a check fails, or the tool's error."""
        host = self.host
        shape = self.undisturbed(case.scenario).shape
        verb, config = self.prepared(case.scenario)
        died = host.run(verb, fuse=case.boundary, flood=case.ending == "flooded", config=config)
        if not died.dead:
            raise Broken("the boundary was not reached")
        oracles.others_untouched(host, self.before)
        if case.ending == "killed again":
            self.die_again(verb, config, case)
        if verb == "create" and case.ending != "delete":
            self.finish("create", config)
            self.quiet(config)
            oracles.same_shape(host, shape)
            oracles.journal_knows(host)
            oracles.others_untouched(host, self.before)
        self.finish("delete", config)
        oracles.nothing_left(host, self.before)

    def finish(self, verb: str, config: Mapping[str, Any]) -> None:
        """Run a command without a kill."""
        if self.host.run(verb, config=config).dead:
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
    a write that only leave a temporary file or a backup are omitted.
    """
    found: dict[int, Boundary] = {}
    for boundary, state in path:
        found.setdefault(state, boundary)
    return [
        b
        for b in found.values()
        if files or b.kind != "file" or b.what == "rename" or b.nth % 10 == 1
    ]


def cases(prover: Prover) -> Iterator[Case]:
    """Yield every case of the long proof."""
    for scenario in SCENARIOS:
        path = prover.undisturbed(scenario).path
        endings = ENDINGS if scenario.startswith("create") else ENDINGS_OF_CHANGES
        for number, boundary in enumerate(states(path, files=False)):
            if scenario == "create":
                for ending in endings:
                    yield Case(scenario, boundary, ending)
            else:
                yield Case(scenario, boundary, endings[number % len(endings)])
