"""A HyperPod cluster that fails because an AWS service does not know its new role yet."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpod_eks.local import CHART
from tests.conftest import User

CREATE = ("create", "demo", "--chart", str(CHART))
TOO_NEW = (
    "SageMaker cannot assume the execution role arn:aws:iam::123456789012:role/demo-nodes of "
    "instance group worker-group"
)


class Next(dict[str, str]):
    """Failures of the next creates; each happens once."""

    def get(self, key: str, default: Any = None) -> Any:
        return self.pop(key, default)


def test_it_is_created_anew_once(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user.stack.sim, "failures", Next({"hyperpod/demo": TOO_NEW}))
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    assert "hyperpod/cluster is deleted and created once more: SageMaker cannot assume" in said.err


def test_the_second_failure_is_final(user: User) -> None:
    user.stack.sim.failures["hyperpod/demo"] = TOO_NEW
    said = user.types(*CREATE)
    assert said.code == 1
    assert said.err.count("created once more") == 1
    assert "hyperpod/cluster has failed: SageMaker cannot assume" in said.err

    said = user.types(*CREATE)  # a cluster of an earlier run is replaced only on request
    assert said.code == 1
    assert "created once more" not in said.err
    assert "--replace-failed" in said.err


@pytest.mark.prove
def test_other_failures_are_told(user: User) -> None:
    user.stack.sim.failures["hyperpod/demo"] = "The subnet has no route to the internet"
    said = user.types(*CREATE)
    assert said.code == 1
    assert "created once more" not in said.err
