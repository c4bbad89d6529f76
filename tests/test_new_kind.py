"""A new kind of resource is one file: every reader of the stack uses its attributes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import boto3
import pytest

from hyperpod_eks import engine
from hyperpod_eks.aws.client import Aws, Identity
from hyperpod_eks.aws.prices import Item, Rate
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, LABEL, LINEAGE
from hyperpod_eks.cli.commands import delete
from hyperpod_eks.config.load import load
from hyperpod_eks.engine import plan as plans
from hyperpod_eks.engine.decide import Action
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.inventory.untracked import delete_order, signed, untracked
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.policy.statements import statements
from hyperpod_eks.preflight import quotas
from hyperpod_eks.preflight.inputs import Facts
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    KINDS,
    CountedQuota,
    Differs,
    Live,
    References,
    Resource,
)
from hyperpod_eks.resources.compare import Observation, Status
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import Statement, Statements
from hyperpod_eks.resources.tagged import Candidate, Tagged
from hyperpod_eks.stack import kinds
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import read
from tests.conftest import REGION

HERE = Identity("arn:aws:iam::123456789012:user/me", "123456789012", "aws", REGION)
OURS = lineage(HERE, "demo")


@frozen
class Shelf(Resource):
    """A kind that AWS does not have, with every attribute of a kind."""

    vpc: Vpc | None = None
    boards: int = 3

    kind = "toys/Shelf"
    step = "toys"
    tag_type = "shelf"
    keep_group = "shelves"
    quota = CountedQuota("quota-shelves", "vpc", "VPCs per Region", lambda snapshot: 5)
    facts = answers = ("boards",)
    there: ClassVar[dict[str, int]] = {}

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        yield Statement("Shelves", ("toys:BuildShelf",), (resolved.arn("toys", "shelf/*"),))

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Resource:
        return Shelf(found.label, vpc=vpc)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        tags = {CLUSTER: "demo", LINEAGE: OURS, LABEL: "old-shelf"}
        yield "shelf", "shelf-7", lambda: tags

    def prices(self, *, extended: bool) -> Iterator[Item]:
        yield Item("board", self.boards, Rate(2.0))

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        found = self.there.get(self.label)
        return [] if found is None else [self._live(found)]

    def _live(self, boards: int) -> Live:
        return Live(f"shelf {self.label}", owner=OURS, facts={"boards": boards})

    def create(self, aws: Aws, references: References, token: str) -> Live:
        self.there[self.label] = self.boards
        return self._live(self.boards)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        return self.create(aws, references, "")

    def delete(self, aws: Aws, live: Live) -> None:
        del self.there[self.label]


del KINDS["toys/Shelf"]  # other tests count the kinds


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "toys/Shelf", Shelf)
    monkeypatch.setattr(Shelf, "there", {})


@pytest.fixture
def aws(session: boto3.Session) -> Aws:
    found = Aws(session._session, "demo", {})
    found.lineage, found.region = OURS, REGION
    return found


CONFIG = load({"name": "demo", "region": REGION}, {}, {}, files=False)
RESOLVED = ResolvedConfig(CONFIG, HERE, ("usw2-az1", "usw2-az2"), {}, "")
SHELF = Shelf("shelf")


def test_it_has_its_place_among_the_kinds() -> None:
    assert kinds().index(Shelf) > kinds().index(Vpc)  # unknown steps come later
    order = delete_order()
    assert order.index(Shelf) < order.index(Vpc)


def test_it_is_planned_created_changed_and_deleted(aws: Aws, tmp_path: Path) -> None:
    path = tmp_path / "demo.json"

    def context() -> engine.Context:
        return engine.Context(aws, read(FileStore(path), "demo"), lambda event: None)

    rows, _ = plans.plan([SHELF], context())
    assert [(row.key, row.decision.action) for row in rows] == [("toys/shelf", Action.CREATE)]
    engine.create([SHELF], context())
    assert [each.status for each in engine.status([SHELF], context())] == [Status.MATCHES]
    engine.create([Shelf("shelf", boards=4)], context())
    assert Shelf.there == {"shelf": 4}
    assert type(read(FileStore(path)).remembered()["toys/shelf"]) is Shelf
    assert engine.delete([], context()) == (["toys/shelf"], {})
    assert Shelf.there == {}


def test_its_permissions_are_in_the_policy() -> None:
    (row,) = [row for row in statements(RESOLVED) if row.sid == "Shelves"]
    assert row.resources == (f"arn:aws:toys:{REGION}:123456789012:shelf/*",)


def test_its_price_is_in_the_estimate() -> None:
    cost = plans.cost([SHELF], {}, REGION, extended=False)
    assert (cost["usd_per_hour"], cost["items"][0]["what"]) == (6.0, "board")


def test_its_quota_is_checked(aws: Aws, stack: Stack) -> None:
    facts = Facts(aws, CONFIG, RESOLVED, {SHELF.key: Observation(SHELF, Status.ABSENT)})
    (finding,) = quotas.quotas(facts)
    assert (finding.id, finding.severity) == ("quota-shelves", "error")


def test_what_carries_our_tags_is_found_and_deleted(aws: Aws, stack: Stack) -> None:
    assert [(one.kind, one.id) for one in signed(aws)] == [("shelf", "shelf-7")]
    old, vpc = untracked(aws, RESOLVED, [Vpc("vpc", cidr="10.0.0.0/16")])
    assert (type(old), old.key, vpc.key) == (Shelf, "toys/old-shelf", "network/vpc")
    assert vpc in old.needs()


def test_it_can_be_kept() -> None:
    with pytest.raises(Usage, match="use bucket, logs, network, shelves"):
        delete._groups_to_keep("chairs")
    assert delete._kept_keys([SHELF], ["shelves"]) == {"toys/shelf"}
