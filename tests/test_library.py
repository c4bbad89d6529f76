"""The Python API: the example in docs/library.md works, and a program can lose nothing unawares."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from hyperpod_eks import session
from hyperpod_eks.aws.tags import CLUSTER, LINEAGE
from hyperpod_eks.config.load import load
from hyperpod_eks.errors import Denied, HyperpodError, Unfinished, Usage
from hyperpod_eks.events import Event, EventType
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Delays, Fault
from hyperpod_eks.resources.hyperpod.api import describe
from tests.conftest import Clients, User, until

PAGE = Path(__file__).parent.parent / "docs/library.md"


def test_the_example_runs(
    user: User, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    config = f"name: demo\nregion: us-west-2\nchart:\n  path: {CHART}\n"
    (user.folder / "cluster.yaml").write_text(config)
    monkeypatch.chdir(user.folder)
    before = user.stack.inventory()

    exec(compile(example, str(PAGE), "exec"), {})

    out = capsys.readouterr().out.splitlines()
    assert any(line.startswith("create eks/cluster usually ") for line in out)
    assert "hyperpod/cluster matches" in out
    assert re.fullmatch(r"\d+ resources deleted; kept: iam/service-linked-role", out[-1])
    assert user.stack.inventory().keys() - before.keys() == set()
    assert not (user.folder / "demo.hyperpod-eks.json").exists()


def test_what_is_wrong_is_an_error_with_a_hint(user: User) -> None:
    with (
        pytest.raises(Usage, match=r"^name: "),
        session.connect({"name": "no/name", "region": "us-west-2"}),
    ):
        pass
    assert issubclass(Usage, HyperpodError)


def test_a_protected_cluster_is_not_deleted(user: User) -> None:
    config = {"name": "demo", "region": "us-west-2", "deletion_protection": True}
    (user.folder / "demo.yaml").write_text(json.dumps(config))
    user.has("demo", "-f", "demo.yaml")
    with session.connect("demo.yaml", purpose=session.DELETE) as cluster:
        user.mutations()
        with pytest.raises(Usage, match="is protected"):
            cluster.delete()
    assert user.mutations() == []


def test_a_program_that_waits_before_it_deletes_looks_again(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperpod_eks.engine.loop.GRACE", 0.0)  # it was created just now
    user.has("demo")
    (address,) = user.stack.inventory()["us-west-2"]["ec2"]["Addresses"]
    with session.connect({"name": "demo", "region": "us-west-2"}, purpose=session.DELETE) as it:
        tags = [{"Key": LINEAGE}, {"Key": CLUSTER}]  # somebody else has taken it over
        aws.ec2.delete_tags(Resources=[address], Tags=tags)
        it.delete()
    assert address in user.stack.inventory()["us-west-2"]["ec2"]["Addresses"]


def test_settings_are_compared_whatever_a_cluster_was_opened_for(user: User, aws: Clients) -> None:
    user.has("demo")
    (vpc,) = aws.ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": ["demo-*"]}])["Vpcs"]
    aws.ec2.modify_vpc_attribute(VpcId=vpc["VpcId"], EnableDnsHostnames={"Value": False})
    config = {"name": "demo", "region": "us-west-2", "chart": {"path": str(CHART)}}
    with session.connect(config, purpose=session.DELETE) as it:
        found = {each.want.key: str(each.status) for each in it.status()}
    assert {key for key, status in found.items() if status == "drifted"} == {"network/vpc"}


def minimal(**settings: Any) -> dict[str, Any]:
    """Return the content of a config."""
    return {"name": "demo", "region": "us-west-2", "chart": {"path": str(CHART)}, **settings}


def group(name: str, nodes: int) -> dict[str, Any]:
    """Return an instance group."""
    return {"name": name, "instance_type": "ml.m5.2xlarge", "instance_count": nodes}


# --- what is lost only with consent


def test_what_a_create_would_lose_is_refused_without_consent(user: User) -> None:
    two = minimal(deletion_protection=True, instance_groups=[group("a", 1), group("b", 2)])
    one = minimal(instance_groups=[group("a", 1)])
    with session.connect(two) as cluster:
        cluster.create()
    with session.connect(one) as cluster:
        user.mutations()
        with pytest.raises(Usage) as refused:
            cluster.create()
        assert user.mutations() == []
    assert "deletion protection is switched off" in str(refused.value)
    assert "group b: it goes, with its 2 nodes" in str(refused.value)
    assert "consent=print" in refused.value.hint
    lost: list[str] = []
    with session.connect(one) as cluster:
        cluster.create(consent=lost.extend)
        cluster.config = load(minimal(instance_groups=[group("c", 1)]), {}, {})
        cluster.resolve()
        with pytest.raises(Usage, match="removes or exposes"):  # agreed to once is not for ever
            cluster.create()
    assert any("group b" in line for line in lost)


def test_a_protection_that_came_after_the_first_look_counts(user: User, aws: Clients) -> None:
    user.has("demo")
    with session.connect(minimal(), purpose=session.DELETE) as cluster:
        aws.eks.update_cluster_config(name="demo", deletionProtection=True)
        user.mutations()
        with pytest.raises(Usage, match="is protected"):
            cluster.delete()
        assert user.mutations() == []


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ({"s3/buckets"}, "s3/buckets cannot be kept"),
        ("s3/bucket", "is a text"),
        ({"eks/cluster"}, "eks/cluster cannot be kept"),
    ],
)
def test_only_what_can_be_kept_is_accepted(user: User, keep: Any, said: str) -> None:
    user.has("demo")
    with session.connect(minimal(), purpose=session.DELETE) as cluster:
        user.mutations()
        with pytest.raises(Usage, match=said):
            cluster.delete(keep=keep)
        with pytest.raises(Usage, match="is a text"):
            cluster.delete(data="fs-0123456789abcdef0")
        assert user.mutations() == []


def test_a_purpose_allows_what_it_says(user: User) -> None:
    user.has("demo")
    user.mutations()
    for purpose in (session.LOOK, session.DELETE):
        with session.connect(minimal(), purpose=purpose) as cluster:
            assert cluster.status()
            with pytest.raises(Usage, match="not for creating"):
                cluster.create()
    with (
        session.connect(minimal(), purpose=session.LOOK) as cluster,
        pytest.raises(Usage, match="only for reading"),
    ):
        cluster.delete()
    assert user.mutations() == []


# --- what a program passes is what counts


def test_no_variable_of_the_command_line_counts(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NAME", "prod"), ("REGION", "eu-west-1"), ("STATE", str(user.folder))):
        monkeypatch.setenv(f"HYPERPOD_EKS_{name}", value)
    with session.connect(minimal(), purpose=session.LOOK) as cluster:
        assert (cluster.config.name, cluster.config.region) == ("demo", "us-west-2")
        assert cluster.manifest.store.path == Path.cwd() / "demo.hyperpod-eks.json"


@pytest.mark.parametrize("region", ["eu-west-1", None])
def test_the_region_of_account_is_that_of_the_config(
    user: User, monkeypatch: pytest.MonkeyPatch, region: str | None
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    account = boto3.Session(region_name=region)
    with (
        pytest.raises(Usage, match=f"its region is {region}, and the config's is us-west-2"),
        session.connect(minimal(), account=account),
    ):
        pass


def test_a_path_is_a_config_and_a_list_is_none(user: User) -> None:
    path = user.folder / "c.yaml"
    path.write_text(json.dumps(minimal()))
    with session.connect(path, purpose=session.LOOK) as cluster:
        assert cluster.config.name == "demo"
    with pytest.raises(Usage, match="neither"), session.connect([1]):  # type: ignore[arg-type]
        pass


def test_a_manifest_stays_where_its_lock_is(
    user: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(user.folder)
    with session.connect(minimal()) as cluster:
        monkeypatch.chdir(tmp_path)
        cluster.create()
    assert (user.folder / "demo.hyperpod-eks.json").exists()
    assert not (tmp_path / "demo.hyperpod-eks.json").exists()


def test_a_plan_adopts_nothing_for_later(user: User, aws: Clients) -> None:
    aws.s3.create_bucket(
        Bucket="team-bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    with session.connect(minimal(existing={"bucket": "team-bucket"})) as cluster:
        cluster.plan()
    assert not Path("demo.hyperpod-eks.json").exists()
    with session.connect(minimal(), purpose=session.LOOK) as cluster:
        assert cluster.resolved.bucket != "team-bucket"


def test_what_exists_is_used_again_after_a_delete(user: User, aws: Clients) -> None:
    aws.s3.create_bucket(
        Bucket="team-bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    with session.connect(minimal(existing={"bucket": "team-bucket"})) as cluster:
        for _ in range(2):
            cluster.create()
            assert cluster.manifest.adopted["s3/bucket"] == "team-bucket"
            cluster.delete()
            assert "refuse" not in {str(row.decision.action) for row in cluster.plan()}
    assert [each["Name"] for each in aws.s3.list_buckets()["Buckets"]] == ["team-bucket"]


def test_a_delete_declares_no_config(user: User, aws: Clients) -> None:
    user.has("demo")
    bucket = next(b["Name"] for b in aws.s3.list_buckets()["Buckets"])

    def configs() -> list[str]:
        found = aws.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return [each["Key"] for each in found if "/config/" in each["Key"]]

    before = configs()
    with session.connect(minimal()) as cluster:
        cluster.manifest.config["tags"] = {"of": "another run"}
        cluster.delete(keep={"s3/bucket", "s3/scripts"})
    assert configs() in (before, [])


# --- one call at a time, inside the block


def test_nothing_is_called_after_the_end(user: User) -> None:
    user.has("demo")
    with session.connect(minimal()) as cluster:
        pass
    user.mutations()
    for call in (cluster.plan, cluster.preflight, cluster.create, cluster.status, cluster.delete):
        with pytest.raises(Usage, match="closed"):
            call()
    assert user.mutations() == []


def test_the_end_stops_what_runs_and_waits_for_it(user: User) -> None:
    user.stack.sim.delays = Delays(eks_create=600)
    waits, ended = threading.Event(), []

    def report(event: Event) -> None:
        if event.key == "eks/cluster" and event.what is EventType.WAITING:
            waits.set()

    def run(cluster: session.Session) -> None:
        try:
            cluster.create()
        except Unfinished as error:
            ended.append(str(error))

    with session.connect(minimal(), report=report) as cluster:
        worker = threading.Thread(target=run, args=(cluster,))
        worker.start()
        assert waits.wait(60)
        with pytest.raises(Usage, match="another call"):
            cluster.status()
    assert ended == ["the session was closed during this call"]
    worker.join(60)
    user.stack.clock.advance(600)
    with session.connect(minimal()) as cluster:
        cluster.create()


def test_a_call_after_an_interrupted_one_begins_anew(user: User) -> None:
    """What the first one has asked is answered before the second one looks."""
    user.stack.sim.delays = Delays(eks_create=600)
    slow = Fault("eks", "DescribeCluster", kind="delay", seconds=0.3)

    def interrupt() -> None:
        until(lambda: not slow.count)
        cluster.context.interrupt(KeyboardInterrupt())

    def report(event: Event) -> None:
        if event.key == "eks/cluster" and event.what is EventType.WAITING and slow.count:
            user.stack.faults.append(slow)
            threading.Thread(target=interrupt).start()

    with session.connect(minimal(), report=report) as cluster:
        with pytest.raises(KeyboardInterrupt):
            cluster.create()
        time.sleep(2 * slow.seconds)  # the answer comes, and nobody waits for it
        assert cluster.status()
        user.stack.clock.advance(600)
        assert cluster.create()


def test_reads_that_have_not_begun_at_the_end_are_not_made(user: User) -> None:
    with session.connect(minimal()) as cluster:
        begun = cluster.context.first_snapshot
        assert begun
        assert describe(begun, "other") is None
    with pytest.raises(RuntimeError, match="after the end"):
        describe(begun, "another")


def test_a_call_cannot_end_its_own_session(user: User) -> None:
    def report(event: Event) -> None:
        if event.key == "eks/cluster":
            cluster.close()

    with (
        pytest.raises(Usage, match="its own call"),
        session.connect(minimal(), report=report) as cluster,
    ):
        cluster.create()
    with session.connect(minimal()) as cluster:  # neither lock nor claim was left
        cluster.create()


def test_an_end_that_is_interrupted_stops_the_changes(user: User) -> None:
    user.stack.sim.delays = Delays(eks_create=600)
    waits, ended = threading.Event(), list[str]()

    def report(event: Event) -> None:
        if event.key == "eks/cluster" and event.what is EventType.WAITING:
            waits.set()

    class Interrupted:
        """Stands for the lock: Ctrl-C comes while the end waits."""

        def __enter__(self) -> None:
            raise KeyboardInterrupt

        def __exit__(self, *_: object) -> None: ...

        def locked(self) -> bool:
            return True

        def release(self) -> None:
            """Let go, as the call that runs does."""

    def run() -> None:
        try:
            cluster.create()
        except Unfinished as error:
            ended.append(str(error))

    with (  # noqa: PT012  the end of the block raises
        pytest.raises(KeyboardInterrupt),
        session.connect(minimal(), report=report) as cluster,
    ):
        worker = threading.Thread(target=run)
        worker.start()
        assert waits.wait(60)
        cluster.busy = Interrupted()  # type: ignore[assignment]
    assert cluster.context.claim
    assert not cluster.context.claim.held
    with pytest.raises(Unfinished):
        cluster.context.check()
    worker.join(60)
    assert ended


# --- errors, warnings, and the program's own things


@pytest.mark.parametrize(
    "operation", ["GetCallerIdentity", "DescribeAvailabilityZones", "DescribeClusterVersions"]
)
def test_a_denied_call_is_denied_when_a_cluster_is_opened(user: User, operation: str) -> None:
    fault = Fault(".*", operation, code="AccessDenied", status=403, message="no", count=99)
    user.stack.faults.append(fault)
    with pytest.raises(Denied) as error, session.connect(minimal()):
        pass
    assert error.value.hint


@pytest.mark.parametrize("operation", ["DescribeTags", "ListRoles", "DescribeCluster"])
def test_a_denied_call_is_denied_by_a_delete(user: User, operation: str) -> None:
    user.has("demo")
    with session.connect(minimal(), purpose=session.DELETE) as cluster:
        fault = Fault(".*", operation, code="AccessDenied", status=403, message="no", count=99)
        user.stack.faults.append(fault)
        with pytest.raises(Denied):
            cluster.delete()


def test_credentials_that_are_missing_are_denied(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = boto3.Session(region_name="us-west-2")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(Denied), session.connect(minimal(), account=account):
        pass


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "AccessDenied"])
def test_a_denied_manifest_is_denied(user: User, aws: Clients, code: str) -> None:
    place = {"LocationConstraint": "us-west-2"}
    aws.s3.create_bucket(Bucket="team-state", CreateBucketConfiguration=place)
    fault = Fault("s3", "GetObject", code=code, status=403, message="no", count=99)
    user.stack.faults.append(fault)
    with (
        pytest.raises(HyperpodError),
        session.connect(minimal(), manifest="s3://team-state/demo.json"),
    ):
        pass


def test_what_a_function_of_the_program_raises_stays_as_it_is(user: User) -> None:
    mine = EndpointConnectionError(endpoint_url="https://queue.example.com")

    def report(event: Event) -> None:
        raise mine

    with (
        pytest.raises(EndpointConnectionError) as error,
        session.connect(minimal(), report=report) as cluster,
    ):
        cluster.create()
    assert error.value is mine


def test_a_config_without_a_region_takes_that_of_account(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"name": "demo", "chart": {"path": str(CHART)}}
    account = boto3.Session(region_name="eu-west-1")
    with session.connect(config, account=account, purpose=session.LOOK) as cluster:
        assert cluster.config.region == cluster.resolved.region == "eu-west-1"


def test_warnings_reach_the_program(user: User) -> None:
    heard: list[str] = []
    with session.connect(minimal(), warn=heard.append) as cluster:
        cluster.context.warn("a problem")
    assert heard == ["a problem"]


def test_a_session_of_the_program_stays_as_it_was(user: User) -> None:
    account = boto3.Session(region_name="us-west-2")
    with session.connect(minimal(), account=account, purpose=session.LOOK) as cluster:
        cluster.status()
    found = account.client("ec2").describe_vpcs()
    assert type(found) is dict
    assert hasattr(account.client("ec2"), "run_instances")


def test_kubernetes_is_whole_for_the_program() -> None:
    program = (
        "import threading; from hyperpod_eks import session;"
        "from hyperpod_eks.kube import access; access.import_whole();"
        "t = threading.Thread(target=access.warm); t.start();"
        "import kubernetes; assert kubernetes.config.load_kube_config; t.join()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_everything_that_is_public_is_there() -> None:
    assert all(hasattr(session, name) for name in session.__all__)
