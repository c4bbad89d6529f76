"""Cleanup in pipelines: a job deletes the cluster that it created, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.cli.commands import create
from hyperpod_eks.local import CHART
from tests.cli.test_commands import valid
from tests.conftest import Said, User

TYPO = "name: demo\nregion: us-west-2\ninstance_gruops: []\n"
MANIFEST = "demo.hyperpod-eks.json"


def trap(user: User, run: str, *words: str) -> Said:
    """Run the trap of the docs."""
    return user.types("delete", "demo", "--yes", "--if-created-by", run, *words)


def untouched(user: User, run: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # a call to AWS would fail
        said = trap(user, run)
        assert (said.code, said.err) == (0, "")
        assert said.out == f"cluster demo was not created by run {run}: nothing was deleted\n"
        valid(trap(user, run, "-o", "json").document)


@pytest.mark.prove
def test_a_trap_deletes_only_what_its_own_job_created(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = user.stack.inventory()
    (user.folder / "cluster.yaml").write_text(TYPO)
    assert user.types("create", "-f", "cluster.yaml", "--run", "job-1").code == 2
    untouched(user, "job-1")  # there is no cluster

    monkeypatch.setenv("HYPERPOD_EKS_RUN", "job-2")
    user.makes("demo")
    monkeypatch.delenv("HYPERPOD_EKS_RUN")
    user.makes("demo", "--run", "job-3")
    manifest = user.folder / MANIFEST
    manifest.rename(user.folder / "elsewhere.json")
    untouched(user, "job-2")  # another machine
    (user.folder / "elsewhere.json").rename(manifest)
    untouched(user, "job-3")  # job-3 only used the cluster

    said = trap(user, "job-2", "-o", "json")
    assert said.document["removed"] != []
    assert {k: v for k, v in user.stack.inventory().items() if k != "iam"} == {
        k: v for k, v in empty.items() if k != "iam"
    }
    untouched(user, "job-2")


def test_what_existed_before_is_no_runs(user: User) -> None:
    made = user.has("demo")
    assert made["next"] == "hyperpod-eks kubeconfig demo"
    said = user.types("delete", "demo", "--yes", "--keep", "network")
    assert said.code == 0
    assert "the kept NAT gateways and addresses still cost 0.05 USD per hour" in said.out
    (user.folder / MANIFEST).unlink()
    user.makes("demo", "--run", "job-1")
    untouched(user, "job-1")


@pytest.mark.prove
def test_what_is_created_after_a_delete_that_kept_the_manifest_is_no_earlier_runs(
    user: User,
) -> None:
    user.has("demo")
    manifest = user.folder / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"run": "job-1"}))
    assert trap(user, "job-1", "--keep", "logs").code == 0
    user.makes("demo")
    untouched(user, "job-1")


def test_an_empty_run_is_nobodys(user: User) -> None:
    said = trap(user, "")
    assert (said.code, said.out) == (2, "")
    assert "--if-created-by" in said.err


def test_a_config_that_is_wrong_keeps_nobody_from_deleting(user: User) -> None:
    user.has("demo")
    (user.folder / "cluster.yaml").write_text(TYPO)
    said = user.types("delete", "-f", "cluster.yaml", "--yes", "--region", "us-west-2")
    assert said.code == 2
    assert "instance_gruops" in said.err
    assert "delete it without the file: hyperpod-eks delete demo --region us-west-2" in said.err

    manifest = user.folder / MANIFEST
    document = json.loads(manifest.read_text())
    document["config"] |= {"setting_of_old": 1}
    manifest.write_text(json.dumps(document))
    assert user.types("status", "demo").code == 2
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert "nothing remains" in said.out


def test_a_cluster_that_another_job_created_meanwhile_is_not_its_own(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs find nothing at the same moment; the one that comes second has none."""
    is_new = create._is_new
    (tmp_path / "first").mkdir()

    def late(*about: Any) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(create, "_is_new", is_new)
            patch.chdir(tmp_path / "first")
            user.makes("demo", "--run", "job-1")
        return is_new(*about)

    monkeypatch.setattr(create, "_is_new", late)
    said = user.types("create", "demo", "--chart", str(CHART), "--run", "job-2")
    assert said.code == 4, said.err
    untouched(user, "job-2")
    monkeypatch.chdir(tmp_path / "first")
    assert "nothing remains" in trap(user, "job-1").out
