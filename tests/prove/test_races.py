"""Several real processes at the same instant: one works, the others exit 4, nothing is doubled.

Each has a folder and a home of its own, with the manifest in S3 or in a file there.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.engine import Context
from hyperpod_eks.local import CHART
from hyperpod_eks.resources.s3 import OWN

from . import oracles
from .fleet import Hand, ended
from .host import NAME, REGION, STATE
from .prover import Prover
from .shell import Shell, running

PLACE = f"s3://{STATE}/ml/{NAME}.json"
DELETES = re.compile("Delete|Release|Terminate|Detach|Disassociate|Revoke")


class Races:
    """One account, and people who work on one cluster in it."""

    def __init__(self, prover: Prover, helm: str, folder: Path, place: str) -> None:
        self.shell = Shell(prover, helm, folder, in_s3=place == "S3")
        self.prover, self.stack, self.folder = prover, self.shell.stack, folder
        self.common = ["--region", REGION, *(["--manifest", PLACE] if place == "S3" else [])]
        scripts = str(prover.host.lifecycle)
        self.making = ["--chart", str(CHART), "--lifecycle", scripts, "--helm", helm, "--yes"]
        self.place = place

    def hand(self, name: str, **about: Any) -> Hand:
        return Hand(self.folder / name, self.shell.environ, **about)

    def create(self, hand: Hand, count: int = 2) -> list[str]:
        """Return the command that creates it, from a config file unless the manifest is in S3."""
        if self.place == "S3":
            return ["create", NAME, *self.common, *self.making]
        hand.folder.mkdir(exist_ok=True)
        group = f"{{name: worker-group, instance_type: ml.m5.2xlarge, instance_count: {count}}}"
        (hand.folder / "c.yaml").write_text(f"name: {NAME}\ninstance_groups: [{group}]\n")
        return ["create", "-f", "c.yaml", *self.common, *self.making]

    def delete(self) -> list[str]:
        return ["delete", NAME, *self.common, "--yes"]

    def scaled(self, count: int) -> list[str]:
        """Return the command that changes the count of nodes."""
        return ["scale", NAME, f"worker-group={count}", *self.common, "--yes"]

    def race(self, *runs: tuple[Hand, list[str]]) -> list[int]:
        """Start all at once; return the exit codes: 0 for one at least, and 4 for the others."""
        self.stack.calls.clear()
        processes = [hand.start(words) for hand, words in runs]
        codes = [ended(process) for process in processes]
        said = [
            f"{words[0]}: {code}\n{hand.said[-1500:]}"
            for (hand, words), code in zip(runs, codes, strict=True)
        ]
        assert set(codes) <= {0, 4}, "\n".join(said)
        assert 0 in codes, "\n".join(said)
        return codes

    def changes(self) -> list[str]:
        """Return the changes of anything but the tool's own objects."""
        return [
            f"{call.service}:{call.operation}"
            for call in self.stack.calls
            if call.mutating and not (OWN in call.request or STATE in call.request)
        ]

    def deletes(self) -> list[str]:
        """Return those that delete."""
        return [call for call in self.changes() if DELETES.match(call.partition(":")[2])]

    def ids(self) -> dict[str, list[str]]:
        """Return what exists by kind; EC2 shows a NAT gateway for an hour after its deletion."""
        ec2 = self.stack.inventory()[REGION]["ec2"]
        gone = ("deleting", "deleted")
        return {
            kind: sorted(id_ for id_, one in things.items() if one.get("State") not in gone)
            for kind, things in ec2.items()
            if "nterface" not in kind
        }

    def has_no_plan(self, hand: Hand, words: list[str]) -> None:
        """Check that nothing is to be done for a command's config."""
        place = ["-f", "c.yaml"] if "-f" in words else [NAME]
        making = self.making[:4] if words[0] == "create" else []
        code = hand.run(["plan", *place, *self.common, *making, "--detailed-exitcode"])
        assert code == 0, hand.said

    def round(self, number: int) -> None:
        """Race creates, then scales, then creates with deletes; all on one cluster."""
        hands = [self.hand(f"hand-{each}") for each in range(2 + number % 4)]
        codes = self.race(*((hand, self.create(hand)) for hand in hands))
        assert self.deletes() == []
        oracles.same_shape(self.prover.host, self.prover.made)
        for hand in hands[:2]:
            self.has_no_plan(hand, self.create(hand))
        before = self.ids()
        winner = hands[codes.index(0)]
        self.race(
            *(  # who has no manifest in S3 shares the winner's folder
                (hand if self.place == "S3" else replace(winner, said_to=f"said-{each}"), words)
                for each, hand in enumerate(hands)
                for words in [self.scaled(1 + each % 2 * 2)]
            )
        )
        assert self.deletes() == []
        assert self.ids() == before
        self.has_no_plan(winner, self.scaled(1))
        runs = [
            (hand, self.delete() if each % 2 else self.create(hand))
            for each, hand in enumerate(hands)
        ]
        self.race(*runs)
        first = hands[0]
        assert first.run(self.create(first)) == 0, first.said
        self.has_no_plan(first, self.create(first))
        assert first.run(self.delete()) == 0, first.said
        oracles.nothing_left(self.prover.host, self.prover.before)


FILES, S3 = (("files", pytest.param("S3", marks=pytest.mark.prove)),
             (pytest.param("files", marks=pytest.mark.prove), "S3"))  # fmt: skip
"""Where the manifest is: one place in every run of the tests, both in the long proof."""


@pytest.fixture
def races(prover: Prover, helm: str, tmp_path: Path, request: Any) -> Iterator[Races]:
    races = Races(prover, helm, tmp_path, request.param)
    with running(races.stack):
        yield races


@pytest.mark.parametrize("races", FILES, indirect=True)
@pytest.mark.parametrize("rounds", [1, pytest.param(17, marks=pytest.mark.prove)])
def test_of_many_runs_at_once_one_works_and_nothing_is_doubled(races: Races, rounds: int) -> None:
    for number in range(rounds):
        races.round(number)


@pytest.mark.prove
@pytest.mark.parametrize("races", S3, indirect=True)
def test_a_killed_run_is_followed_at_once_here_and_after_a_term_elsewhere(races: Races) -> None:
    here = races.hand("here")
    killed = here.start(races.create(here))
    races.shell.until("ec2:CreateSubnet")
    killed.kill()
    assert ended(killed) == -9
    there = races.hand("there", stranger=True, term=2.0)
    assert there.run(races.create(there)) == 4, there.said
    assert "--lock-timeout" in there.said
    began = time.monotonic()
    assert there.run([*races.create(there), "--lock-timeout", "30"]) == 0, there.said
    assert time.monotonic() - began >= 2.0
    oracles.same_shape(races.prover.host, races.prover.made)
    killed = here.start(races.delete())
    races.shell.until("sagemaker:DeleteCluster")
    killed.kill()
    ended(killed)
    assert here.run(races.delete()) == 0, here.said
    oracles.nothing_left(races.prover.host, races.prover.before)


@pytest.mark.prove
@pytest.mark.parametrize("races", S3, indirect=True)
def test_a_run_that_was_stopped_for_a_term_wakes_up_and_changes_nothing(races: Races) -> None:
    first, second = (races.hand(name, stranger=True, term=2.0) for name in ("first", "second"))
    stopped = first.start(races.create(first))
    assert stopped.pid
    races.shell.until("ec2:CreateSubnet")
    os.kill(stopped.pid, signal.SIGSTOP)
    time.sleep(0.5)  # what was in the socket arrives
    assert second.run([*races.create(second), "--lock-timeout", "30"]) == 0, second.said
    before = races.ids()
    races.stack.calls.clear()
    os.kill(stopped.pid, signal.SIGCONT)
    assert ended(stopped) == 4, first.said
    assert "holds the lock" in first.said or "another run has written" in first.said
    # each worker may have passed the check just before the stop; the next look finds what it made
    assert len(races.changes()) <= Context.parallelism
    assert second.run(races.create(second)) == 0, second.said
    assert races.ids() == before
    races.has_no_plan(second, races.create(second))
    oracles.same_shape(races.prover.host, races.prover.made)
    assert second.run(races.delete()) == 0, second.said
    oracles.nothing_left(races.prover.host, races.prover.before)
