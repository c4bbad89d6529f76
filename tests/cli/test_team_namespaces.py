"""Nothing but consent takes a team's namespace: the ways to lose one, each tried."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from hyperpod_eks import session as session_of
from hyperpod_eks.local import CHART
from hyperpod_eks.local.kubernetes import Fault
from hyperpod_eks.resources.s3 import claim_key
from hyperpod_eks.state import lease
from hyperpod_eks.state.lease import Lease
from hyperpod_eks.state.objects import Objects
from tests.cli.test_objects import kubernetes
from tests.cli.test_task_governance import (
    BASE,
    CREATE,
    NAMESPACES,
    PLAN,
    TEAMS,
    VISION,
    declare,
    quota,
    spaces,
    two_teams,
)
from tests.cli.test_team_contents import DEFINITIONS, NOTEBOOKS
from tests.conftest import Clients, Said, User, new_aws
from tests.local.test_governance import ADDON, JOBS, QUEUE, SPACE, job

MANIFEST = "demo.hyperpod-eks.json"
BUCKET = "sagemaker-demo-123456789012-us-west-2"
QUOTA_OF_ONE = "    quota: [{instance_type: ml.m5.2xlarge, count: 1}]\n    fair"
SPEECH = TEAMS[TEAMS.index("  speech") : TEAMS.index("scheduler")]
WEIGHT = "    fair_share_weight: 60\n"

Way = Callable[[User, Clients], tuple[Said, int]]


@pytest.fixture
def owner(user: User, clients: Clients) -> User:
    """A user with a cluster of two teams."""
    two_teams(user, clients)
    return user


def creates(*changes: tuple[str, str], code: int = 2, options: tuple[str, ...] = ()) -> Way:
    """Declare something else, and create without consent."""

    def way(user: User, aws: Clients) -> tuple[Said, int]:
        declare(user, TEAMS, *changes)
        return user.types(*CREATE, *options), code

    return way


def types(*words: str, code: int = 0, teams: str = TEAMS) -> Way:
    """Run another command, with ``teams`` in the file."""

    def way(user: User, aws: Clients) -> tuple[Said, int]:
        declare(user, teams)
        return user.types(*words), code

    return way


def has(aws: Clients, status: str, policy: bool = False) -> None:
    """Let the quota, or the policy, be in a status."""
    from hyperpod_eks.local.aws.hyperpod_clusters import of_region  # noqa: PLC0415  loads moto
    from hyperpod_eks.local.aws.hyperpod_governance import POLICY, QUOTA  # noqa: PLC0415

    governance = of_region("us-west-2").governance
    if policy:
        (found,) = aws.sagemaker.list_cluster_scheduler_configs()["ClusterSchedulerConfigSummaries"]
        id_ = {"ClusterSchedulerConfigId": found["ClusterSchedulerConfigId"]}
        governance.find(POLICY, id_)["Status"] = status
        return
    governance.find(QUOTA, {"ComputeQuotaId": quota(aws)["ComputeQuotaId"]})["Status"] = status


def sets(aws: Clients, **target: Any) -> None:
    """Change the quota, as somebody else."""
    found = quota(aws)
    aws.sagemaker.update_compute_quota(
        ComputeQuotaId=found["ComputeQuotaId"],
        TargetVersion=found["ComputeQuotaVersion"],
        ComputeQuotaTarget={"TeamName": "vision", **target},
    )


def lost_manifest(user: User, aws: Clients) -> tuple[Said, int]:
    (user.folder / MANIFEST).unlink()
    return user.types(*CREATE), 0


def lost_with_the_team(user: User, aws: Clients) -> tuple[Said, int]:
    """Nobody knows of the quota any more: it stays."""
    (user.folder / MANIFEST).unlink()
    declare(user, TEAMS, (VISION, ""))
    return user.types(*CREATE, "--yes"), 0


def rebuilt_without_the_team(user: User, aws: Clients) -> tuple[Said, int]:
    (user.folder / MANIFEST).unlink()
    declare(user, TEAMS, (VISION, ""))
    said = user.types("adopt", "-f", "c.yaml", "--rebuild")
    assert said.code == 0, said.err
    return user.types(*CREATE), 0


def in_a_second_folder(user: User, aws: Clients, *options: str) -> tuple[Said, int]:
    """A colleague's file has never had the team, and there is no manifest beside it."""
    folder = user.folder / "second"
    folder.mkdir()
    (folder / "c.yaml").write_text(BASE + TEAMS.replace(VISION, ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return user.types(*CREATE, *options), 0


def in_a_copied_folder(user: User, aws: Clients) -> tuple[Said, int]:
    """A colleague has a copy of the manifest, and a file without the team."""
    folder = user.folder / "second"
    folder.mkdir()
    shutil.copy(user.folder / MANIFEST, folder)
    (folder / "c.yaml").write_text(BASE + TEAMS.replace(VISION, ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return user.types(*CREATE), 2


def failed_update(user: User, aws: Clients) -> tuple[Said, int]:
    has(aws, "UpdateFailed")
    return user.types(*CREATE, "--replace-failed"), 0


def failed_delete(user: User, aws: Clients) -> tuple[Said, int]:
    has(aws, "DeleteFailed")
    return user.types(*CREATE, "--replace-failed"), 1


def failed_creation(user: User, aws: Clients) -> tuple[Said, int]:
    """The quota counts as never created, and yet there is work in its namespace."""
    kubernetes("POST", JOBS, job("night-run", QUEUE, cpu="1"))
    has(aws, "CreateFailed")
    return user.types(*CREATE, "--replace-failed"), 1


def failed_policy(user: User, aws: Clients) -> tuple[Said, int]:
    """SageMaker refuses to delete a policy while there are quotas."""
    has(aws, "CreateFailed", policy=True)
    return user.types(*CREATE, "--replace-failed"), 1


def failed_addon(user: User, aws: Clients) -> tuple[Said, int]:
    """The add-on is deleted and created again, beneath quotas that stay."""
    from hyperpod_eks.local.aws.eks_clusters import of_region  # noqa: PLC0415  loads moto

    of_region("us-west-2").clusters["demo"].addons[ADDON].document["status"] = "CREATE_FAILED"
    return user.types(*CREATE, "--replace-failed"), 0


def failed_control_plane(user: User, aws: Clients) -> tuple[Said, int]:
    from hyperpod_eks.local.aws.eks_clusters import of_region  # noqa: PLC0415  loads moto

    of_region("us-west-2").clusters["demo"].document["status"] = "FAILED"
    return user.types(*CREATE, "--replace-failed"), 1


def failed_cluster(user: User, aws: Clients) -> tuple[Said, int]:
    from hyperpod_eks.local.aws.hyperpod_clusters import of_region  # noqa: PLC0415  loads moto

    of_region("us-west-2").hyperpod["demo"].status = "Failed"
    return user.types(*CREATE, "--replace-failed"), 1


def another_cluster_arn(user: User, aws: Clients) -> tuple[Said, int]:
    """HyperPod's cluster is another one in the same EKS cluster, which has no quota yet."""
    from hyperpod_eks.local.aws.hyperpod_clusters import of_region  # noqa: PLC0415  loads moto

    region = of_region("us-west-2")
    cluster = region.hyperpod["demo"]
    cluster.id = "a" * 12
    cluster.arn = f"{cluster.arn.rpartition('/')[0]}/{cluster.id}"
    region._ids[cluster.arn] = "demo"
    return user.types(*CREATE), 0


def upgraded_addon(user: User, aws: Clients) -> tuple[Said, int]:
    from hyperpod_eks.local.aws.eks_clusters import of_region  # noqa: PLC0415  loads moto

    addon = of_region("us-west-2").clusters["demo"].addons[ADDON].document
    newest, addon["addonVersion"] = addon["addonVersion"], "v1.6.0-eksbuild.1"
    declare(user, f"addons: {{{ADDON}: {{version: {newest}}}}}\n{TEAMS}")
    said = user.types(*CREATE)
    assert addon["addonVersion"] == newest, said.err
    return said, 0


def unreadable(user: User, aws: Clients) -> tuple[Said, int]:
    declare(user, TEAMS, (VISION, ""))
    cluster = next(iter(user.stack.sim.clusters.values()))
    cluster.faults.append(Fault(403, "Forbidden", "no", path="namespaces/hyperpod", times=99))
    said = user.types(*CREATE), 1
    cluster.faults.clear()
    return said


def moved_quota(user: User, aws: Clients) -> tuple[Said, int]:
    """Somebody has given the quota to another team: its delete would take that one's namespace."""
    sets(aws, TeamName="seeing")
    assert user.types(*CREATE).code == 7
    seeing = f"{NAMESPACES}/hyperpod-ns-seeing"
    before = kubernetes("GET", seeing)["metadata"]["uid"]
    declare(user, TEAMS, (VISION, ""))
    said = user.types(*CREATE, "--yes")
    assert kubernetes("GET", seeing)["metadata"]["uid"] == before
    return said, 0


def changed_meanwhile(user: User, aws: Clients) -> tuple[Said, int]:
    sets(aws, FairShareWeight=1)
    return user.types(*CREATE), 2


def moved_to_another_team(user: User, aws: Clients) -> tuple[Said, int]:
    """A namespace of its own goes from one team to the other, with its people."""
    shared = "objects: [{apiVersion: v1, kind: Namespace, metadata: {name: data}}]\n"
    ours = TEAMS.replace(WEIGHT, f"{WEIGHT}    namespaces: [data]\n")
    declare(user, ours + shared)
    assert user.types(*CREATE).code == 0
    before = kubernetes("GET", f"{NAMESPACES}/data")["metadata"]["uid"]
    declare(user, TEAMS.replace("  speech:\n", "  speech:\n    namespaces: [data]\n") + shared)
    said = user.types(*CREATE)
    assert kubernetes("GET", f"{NAMESPACES}/data")["metadata"]["uid"] == before
    return said, 0


def while_another_run_works(user: User, aws: Clients) -> tuple[Said, int]:
    """Consent is given, and yet another run holds the cluster."""
    declare(user, TEAMS, (VISION, ""))
    other = Lease(Objects(new_aws(), BUCKET), claim_key("demo"))
    other.look()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "_process", lambda pid: [])
        other.hold()
    other._over.set()
    return user.types(*CREATE, "--yes"), 4


def file_of_another_cluster(user: User, aws: Clients) -> tuple[Said, int]:
    (user.folder / "other.yaml").write_text(BASE.replace("demo", "other"))
    return user.types("create", "-f", "other.yaml", "--chart", str(CHART), "--yes"), 0


def manifest_of_another_cluster(user: User, aws: Clients) -> tuple[Said, int]:
    (user.folder / "other.yaml").write_text(BASE.replace("demo", "other"))
    words = ("create", "-f", "other.yaml", "--chart", str(CHART), "--manifest", MANIFEST, "--yes")
    return user.types(*words), 2


WAYS: dict[str, Way] = {
    "the team is no longer declared": creates((VISION, "")),
    "the team has another name": creates(("  vision:", "  seeing:")),
    "no team is declared": creates((TEAMS, "")),
    "the policy is no longer declared": creates((TEAMS[TEAMS.index("scheduler") :], ""), code=0),
    "the teams are in another order": creates((VISION + SPEECH, SPEECH + VISION), code=0),
    "its quota is empty": creates((QUOTA_OF_ONE, "    fair"), code=0),
    "its quota is zero": creates((QUOTA_OF_ONE, QUOTA_OF_ONE.replace("1}", "0}")), code=0),
    "it is disabled": creates((WEIGHT, f"{WEIGHT}    activation_state: Disabled\n"), code=0),
    "its name is no name": creates(("  vision:", "  Vision:")),
    "a namespace moves to another team": moved_to_another_team,
    "plan": types(*PLAN),
    "plan without the team": types(*PLAN, code=5, teams=TEAMS.replace(VISION, "")),
    "create without the team is only shown": types(
        *CREATE, "--dry-run", teams=TEAMS.replace(VISION, "")
    ),
    "all nodes go": types("scale", "-f", "c.yaml", "a=0", "--yes", code=2),
    "scale without the team": types(
        "scale", "-f", "c.yaml", "a=3", code=2, teams=TEAMS.replace(VISION, "")
    ),
    "update-software without the team": types(
        "update-software", "-f", "c.yaml", code=2, teams=TEAMS.replace(VISION, "")
    ),
    "orphans": types("orphans"),
    "delete is only shown": types("delete", "demo", "--dry-run"),
    "delete is not confirmed": types("delete", "demo", code=2),
    "delete of what another job created": types(
        "delete", "demo", "--yes", "--if-created-by", "another"
    ),
    "another name is deleted": types("delete", "other", "--yes"),
    "the file is another cluster's": file_of_another_cluster,
    "the manifest is another cluster's": manifest_of_another_cluster,
    "the manifest is lost": lost_manifest,
    "the manifest is lost, and the team with it": lost_with_the_team,
    "the manifest is rebuilt without the team": rebuilt_without_the_team,
    "a second folder without the team": in_a_second_folder,
    "a second folder without the team, with a copied manifest": in_a_copied_folder,
    "another run is at work": while_another_run_works,
    "its update has failed": failed_update,
    "its delete has failed": failed_delete,
    "its creation has failed": failed_creation,
    "the policy has failed": failed_policy,
    "the add-on has failed": failed_addon,
    "the add-on is upgraded": upgraded_addon,
    "the cluster has failed": failed_cluster,
    "the control plane has failed": failed_control_plane,
    "the cluster has another ARN": another_cluster_arn,
    "what is in it cannot be read": unreadable,
    "somebody else gives its quota to another team": moved_quota,
    "somebody else changes it": changed_meanwhile,
}


@pytest.mark.sample(
    "its delete has failed",
    "the control plane has failed",
    "somebody else gives its quota to another team",
)
@pytest.mark.parametrize("name", WAYS)
def test_nothing_but_consent_takes_a_teams_namespace(
    owner: User, clients: Clients, name: str
) -> None:
    before = kubernetes("GET", f"{NAMESPACES}/{SPACE}")["metadata"]["uid"]
    said, code = WAYS[name](owner, clients)
    assert kubernetes("GET", f"{NAMESPACES}/{SPACE}")["metadata"]["uid"] == before, said.err
    assert said.code == code, said.err
    assert "Traceback" not in said.err


THEIRS: dict[str, tuple[str, str, str]] = {
    "endpoint": (
        "inference.sagemaker.aws.amazon.com",
        "InferenceEndpointConfig",
        "inferenceendpointconfig",
    ),
    "model": ("inference.sagemaker.aws.amazon.com", "JumpStartModel", "jumpstartmodel"),
    "notebook": ("workspace.jupyter.org", "Workspace", "workspace"),
}


@pytest.mark.sample("notebook")
@pytest.mark.parametrize("what", THEIRS)
def test_what_operators_keep_in_it_is_named_and_keeps_a_quota_that_failed(
    owner: User, clients: Clients, what: str
) -> None:
    group, kind, singular = THEIRS[what]
    definition = json.loads(json.dumps(NOTEBOOKS).replace("kubeflow.org", group))
    names = {"kind": kind, "plural": f"{singular}s", "singular": singular}
    definition["metadata"]["name"] = f"{singular}s.{group}"
    definition["spec"]["names"] = names
    kubernetes("POST", DEFINITIONS, definition)
    path = f"/apis/{group}/v1/namespaces/{SPACE}/{singular}s"
    kubernetes("POST", path, {"metadata": {"name": "mine"}})
    has(clients, "CreateFailed")
    said = owner.types(*CREATE, "--replace-failed")
    assert (said.code, f"is in use: {singular} mine" in said.err) == (1, True), said.err
    has(clients, "Created")
    declare(owner, TEAMS, (VISION, ""))
    said = owner.types(*CREATE)
    assert (said.code, f"everything in it ({singular} mine)" in said.err) == (2, True), said.err
    assert kubernetes("GET", f"{path}/mine")


def test_consent_to_a_quota_is_none_to_another_that_took_its_place(
    owner: User, clients: Clients
) -> None:
    """While the user is asked, somebody else deletes the quota and creates one for the team."""
    declare(owner, TEAMS, (VISION, ""))

    def agree(lines: list[str]) -> None:
        found = quota(clients)
        clients.sagemaker.delete_compute_quota(ComputeQuotaId=found["ComputeQuotaId"])
        assert SPACE not in spaces()
        about = {name: found[name] for name in ("ClusterArn", "ComputeQuotaConfig")}
        target = {"TeamName": "vision"}
        clients.sagemaker.create_compute_quota(Name="theirs", ComputeQuotaTarget=target, **about)
        assert any(SPACE in each for each in lines)

    file = owner.folder / "c.yaml"
    file.write_text(f"chart: {{path: {CHART}}}\n{file.read_text()}")
    with session_of.connect("c.yaml") as cluster:
        cluster.context.consent = agree
        cluster.create()
    assert SPACE in spaces()
    assert quota(clients)["Name"] == "theirs"
