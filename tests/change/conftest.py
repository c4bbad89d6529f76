"""Fixtures for tests that change a cluster: they declare configs and check the embedded stack."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from hyperpod_eks import engine
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.config.load import load
from hyperpod_eks.config.model import Config
from hyperpod_eks.engine import Context
from hyperpod_eks.errors import Usage
from hyperpod_eks.events import Event
from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resolve.resolved import check_plans
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.session import Purpose, Session
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import read
from tests.conftest import changes, known_helm, new_session

EXAMPLES = Path(__file__).parents[2] / "examples"


ADOPTING = Purpose(looks_first=False)


class Killed(BaseException):
    """SIGKILL."""


class Owner:
    """Declares a cluster with one config after another, and reads the account's state."""

    def __init__(self, stack: Stack, session: boto3.Session, folder: Path, helm: Path) -> None:
        self.stack, self.folder, self.helm, self.chart = stack, folder, helm, CHART
        self._session = session._session
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        session.events.register("provide-client-params", self._hear)
        self.events: list[Event] = []
        self.lost: list[str] = []
        self.aws = Aws(session._session, "demo", {})
        self.before = self.account()

    def _hear(self, params: dict[str, Any], model: Any, **_: object) -> None:
        """Record a request."""
        service = model.service_model.service_name
        if service in ("sagemaker", "eks"):
            self.sent.append((service, model.name, params))

    def account(self) -> list[str]:
        """Return everything in the account as lines, for comparisons."""
        return json.dumps(self.stack.inventory(), sort_keys=True, indent=1).splitlines()

    @staticmethod
    def example(name: str) -> str:
        """Return the text of a file in examples/."""
        return (EXAMPLES / f"{name}.yaml").read_text()

    def config(self, text: str) -> Config:
        file = self.folder / "cluster.yaml"
        file.write_text(text)
        return load(str(file), {"chart.path": str(self.chart)}, os.environ)

    def context(self, config: Config, *, yes: bool = False) -> tuple[Context, list[Resource]]:
        def consent(lost: list[str]) -> None:
            self.lost = lost
            if not yes:
                raise Usage("\n".join(lost))

        manifest = read(FileStore(self.folder / "demo.json"), config.name)
        aws = Aws(self._session, config.name, config.tags)
        context = Context(aws, manifest, self.events.append, consent=consent)
        self.opened = Session(config, context, ADOPTING)
        self.opened.begin()
        self.opened.resolve(str(self.helm / "helm"))
        check_plans(self.opened.resolved, aws)
        return context, self.opened.wants

    def declares(self, text: str, *, yes: bool = False) -> list[str]:
        """Create or update the cluster of a config; return the mutating calls."""
        self.lost = []
        self.stack.calls.clear()
        context, wants = self.context(self.config(text), yes=yes)
        try:
            engine.create(wants, context)
        finally:
            context.close()
        return self.mutations()

    def killed(self, event: str, text: str) -> list[str]:
        """Declare with consent, killed at an event of botocore; return the mutating calls."""

        def kill(**_: object) -> None:
            raise Killed

        self._session.register(event, kill)
        try:
            with pytest.raises(Killed):
                self.declares(text, yes=True)
        finally:
            self._session.unregister(event, kill)
        return self.mutations()

    def mutations(self) -> list[str]:
        return [call.operation for call in self.stack.calls if changes(call)]

    def looks(self, text: str) -> list[Observation]:
        context, wants = self.context(self.config(text))
        return engine.status(wants, context)

    def deletes(self, text: str) -> list[str]:
        """Delete the cluster; return the keys of resources that are left."""
        context, wants = self.context(self.config(text))
        try:
            _, kept = engine.delete(wants, context)
            left = engine.verify_deleted(wants, context, frozenset(kept))
            if not left:
                self.opened.retire()
        finally:
            context.close()
        return list(left)

    def cluster(self, name: str = "demo") -> Any:
        """Return SageMaker's description of the cluster."""
        return self.aws.sagemaker.describe_cluster(ClusterName=name)

    def groups(self) -> dict[str, Any]:
        return {group["InstanceGroupName"]: group for group in self.cluster()["InstanceGroups"]}

    def eks(self) -> Any:
        """Return EKS's description of the cluster."""
        return self.aws.eks.describe_cluster(name="demo")["cluster"]

    def nodes(self, group: str = "") -> list[dict[str, Any]]:
        """Return the nodes in Kubernetes, all or those of one group."""
        (content,) = self.stack.inventory()["kubernetes"].values()
        nodes = [each for key, each in content.items() if key.startswith("nodes/")]
        label = "sagemaker.amazonaws.com/instance-group-name"
        return [n for n in nodes if group in ("", n["metadata"]["labels"].get(label))]

    def requests(self, operation: str) -> list[dict[str, Any]]:
        return [params for _, name, params in self.sent if name == operation]


@pytest.fixture
def owner(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owner:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.fsync", lambda _: None)  # tests/test_manifest.py covers power cuts
    # its own session, because it registers a handler
    return Owner(stack, new_session(), tmp_path, known_helm())


@pytest.fixture
def plan(stack: Stack, owner: Owner) -> Callable[[str, str, int], str]:
    """Buy a training plan for a type in a zone id; return its ARN."""

    def buy(name: str, zone_id: str, count: int, kind: str = "ml.p5.48xlarge") -> str:
        sagemaker: Any = owner.aws.sagemaker
        offers = sagemaker.search_training_plan_offerings(
            InstanceType=kind, InstanceCount=count, DurationHours=24,
            TargetResources=["hyperpod-cluster"],
        )["TrainingPlanOfferings"]  # fmt: skip
        zones = owner.aws.ec2.describe_availability_zones()["AvailabilityZones"]
        names = {zone["ZoneId"]: zone["ZoneName"] for zone in zones}
        offer = next(
            each
            for each in offers
            if each["ReservedCapacityOfferings"][0]["AvailabilityZone"] == names[zone_id]
        )
        return str(
            sagemaker.create_training_plan(
                TrainingPlanName=name, TrainingPlanOfferingId=offer["TrainingPlanOfferingId"]
            )["TrainingPlanArn"]
        )

    return buy
