"""The Helm release of whole commands: helm 3 and 4, the stand-in chart and AWS's chart."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from tests.conftest import User, helm

# Dependencies that AWS's chart downloads; cert-manager is off by default.
WITHOUT_REMOTE = {
    "nvidia-device-plugin": {"devicePlugin": {"enabled": False}},
    "aws-efa-k8s-device-plugin": {"devicePlugin": {"enabled": False}},
}


def charts() -> list[Any]:
    """Yield the charts: AWS's is included if HYPERPOD_CHART is its folder or a checkout with it."""
    real = os.environ.get("HYPERPOD_CHART")
    why = "HYPERPOD_CHART names no checkout of AWS's chart"
    mark = pytest.mark.skipif(not real, reason=why)
    return [
        pytest.param(CHART, {}, id="stand-in"),
        pytest.param(Path(real or "."), WITHOUT_REMOTE, id="real", marks=mark),
    ]


@pytest.mark.prove
@pytest.mark.parametrize("version", ["3.17.2", "4.3.1"])
@pytest.mark.parametrize(("chart", "values"), charts())
def test_install_again_upgrade_delete(
    chart: Path, values: dict[str, Any], version: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{helm(version)}{os.pathsep}{os.environ['PATH']}")
    empty = json.dumps(user.stack.inventory())

    def create(more: dict[str, Any]) -> bool:
        config = {
            "name": "demo",
            "region": "us-west-2",
            "chart": {"path": str(chart), "values": {**values, **more}},
        }
        (user.folder / "cluster.yaml").write_text(json.dumps(config))  # JSON is YAML
        said = user.types("create", "-f", "cluster.yaml", "-o", "json")
        assert said.code == 0, said.err
        return bool(said.document["changed"])

    def release() -> tuple[str, int]:
        shown = user.types("status", "demo", "-o", "json").document["helm"]
        return shown["status"], shown["revision"]

    def has_operator() -> bool:
        (kubernetes,) = user.stack.sim.clusters.values()
        return any(key.startswith("deployments.apps/") and "mpi-operator" in key
                   for key in kubernetes.snapshot())  # fmt: skip

    assert create({})
    assert (release(), has_operator()) == (("deployed", 1), True)
    before = json.dumps(user.stack.inventory())
    assert not create({})
    assert json.dumps(user.stack.inventory()) == before
    assert create({"mpi-operator": {"enabled": False}})
    assert (release(), has_operator()) == (("deployed", 2), False)
    assert user.types("delete", "demo", "--yes").code == 0
    assert json.dumps(user.stack.inventory()) == empty
