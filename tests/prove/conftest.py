"""Fixtures: one `Prover` for all cases of a process; long tests run only with ``-m prove``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .host import Host
from .prover import Prover

HELM = Path(__file__).parents[2] / ".cache" / "helm" / "4.3.1" / "helm"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "prove" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("prove")]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def helm() -> str:
    """Return the path of a helm program."""
    if not HELM.exists():
        pytest.skip("no helm in .cache/helm")
    return str(HELM)


@pytest.fixture(scope="session")
def prover(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prover]:
    before = os.environ.get("HYPERPOD_EKS_HELM")
    os.environ["HYPERPOD_EKS_HELM"] = helm
    host = Host(tmp_path_factory.mktemp("host"))
    prover = Prover(host)
    prover.undisturbed("create")  # now: cases use the account later
    yield prover
    host.stop()
    if before is None:
        del os.environ["HYPERPOD_EKS_HELM"]
    else:
        os.environ["HYPERPOD_EKS_HELM"] = before
