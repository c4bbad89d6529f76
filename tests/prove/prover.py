"""Every place where the tool may die, and what becomes of it afterwards."""

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
    """Do ``scenario``, die at ``boundary``, then end in one of ``ENDINGS``."""

    scenario: str
    boundary: Boundary
    ending: str
    step: str = ""

    def __str__(self) -> str:
        return f"{self.scenario}, {self.boundary}, {self.ending}"


SCENARIOS = ("create", "scale", "re-create", "delete", "create in a VPC of others")
"""In the order of the seeds of AWS's moods; three begin with the same cluster, and its moods."""


@dataclass
class Undisturbed:
    """What a scenario comes to when nobody is killed: its boundaries, and the account after it."""

    path: list[tuple[Boundary, int]]
    shape: Counter[str]


@dataclass
class Prover:
    """One machine, and what undisturbed runs look like on it."""

    host: Host
    before: str = ""
    theirs: Mapping[str, Any] = field(default_factory=dict)
    """The configuration of a cluster in a VPC that is somebody's."""
    known: dict[str, Undisturbed] = field(default_factory=dict)
    _created: tuple[bytes, str, Path] | None = None

    def begin(self, scenario: str = "create") -> None:
        """An account with other people's things in it."""
        # what others have was there long before
        self.host.begin(replace(DELAYS, unseen=0), seed=SCENARIOS.index(scenario))
        self.theirs = TWO_NODES | oracles.decoys(self.host)
        self.host.stack.sim.delays = DELAYS
        self.before = oracles.inventory(self.host)

    def created(self) -> None:
        """Begin with a cluster of two nodes: once it is created, from then on it is copied."""
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
        """Bring an account to where a scenario begins; returns the command and its config.

        Who is killed and who is not come the same way there, so AWS is in the same mood.
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
        """Run a scenario once, undisturbed: what every case of it is compared with."""
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
        """The account after an undisturbed create."""
        return self.undisturbed("create").shape

    def lose_a_gateway(self) -> None:
        """Somebody deletes a NAT gateway by hand, and an hour goes by."""
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
        """Run one case; raises what an oracle says, or what the tool said."""
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
        """Run a command that nobody kills."""
        if self.host.run(verb, config=config).dead:
            raise Broken(f"{verb} died by itself")

    def die_again(self, verb: str, config: Mapping[str, Any], case: Case) -> None:
        """Kill the resumed run too, at a place that the case's name chooses."""
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
    """One boundary for each state of account, disk and clock that a run passes through.

    Between two boundaries of one state nothing happened that a later process could see.  Without
    ``files`` the sub-steps of a write that leave only a draft or a backup behind are left out.
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
    """Every case of the long proof."""
    for scenario in SCENARIOS:
        path = prover.undisturbed(scenario).path
        endings = ENDINGS if scenario.startswith("create") else ENDINGS_OF_CHANGES
        for number, boundary in enumerate(states(path, files=False)):
            if scenario == "create":
                for ending in endings:
                    yield Case(scenario, boundary, ending)
            else:
                yield Case(scenario, boundary, endings[number % len(endings)])
