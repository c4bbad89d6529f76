"""The inference operator: one word in the config, and its roles, provider and bucket with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks import session as session_of
from hyperpod_eks.aws.addon_needs import ADDON_NEEDS, INFERENCE
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.load import load
from hyperpod_eks.config.warnings import warnings
from hyperpod_eks.events import Event, EventType
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.policy.statements import LIMIT
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.resources.iam import document
from hyperpod_eks.resources.irsa import ServiceAccountRole
from tests.cli.test_operators import declared, needs
from tests.cli.test_pod_roles import allowed
from tests.cli.test_remains import HERE, signed
from tests.conftest import Clients, User
from tests.rounds import rounds

BASE: dict[str, Any] = {
    "name": "demo",
    "region": "us-west-2",
    "chart": {"path": str(CHART)},
    "instance_groups": [{"name": "a", "instance_type": "ml.m5.4xlarge", "instance_count": 1}],
}
CONFIG = BASE | {"operators": ["inference"]}
BUCKET = "hyperpod-tls-demo-123456789012-us-west-2"
PODS = "system:serviceaccount:hyperpod-inference-system:"


def write(user: User, config: Any) -> tuple[str, ...]:
    (user.folder / "c.yaml").write_text(json.dumps(config))
    return "-f", "c.yaml"


@pytest.fixture
def made(user: User, aws: Clients) -> User:
    """A cluster with the inference operator."""
    user.has("demo", *write(user, CONFIG))
    return user


def cluster(user: User) -> Any:
    """Return the EKS cluster, as EKS describes it."""
    return user.stack.inventory()["us-west-2"]["eks"]["demo"]


def providers(user: User) -> dict[str, Any]:
    """Return the OIDC providers of the account by ARN."""
    found: dict[str, Any] = user.stack.inventory()["iam"]["OpenIdProviders"]
    return found


def provider_of(aws: Clients) -> tuple[str, str]:
    """Return the issuer of the EKS cluster, and the ARN that its provider has."""
    issuer = aws.eks.describe_cluster(name="demo")["cluster"]["identity"]["oidc"]["issuer"]
    return issuer, f"arn:aws:iam::123456789012:oidc-provider/{issuer.removeprefix('https://')}"


def test_it_comes_in_one_switch_with_roles_for_its_pods_alone(made: User, aws: Clients) -> None:
    _, arn = provider_of(aws)
    assert providers(made)[arn]["ClientIDList"] == ["sts.amazonaws.com"]
    assert providers(made)[arn]["Tags"]["hyperpod-eks:cluster"] == "demo"
    addon = aws.eks.describe_addon(clusterName="demo", addonName=INFERENCE)["addon"]
    settings, host = json.loads(addon["configurationValues"]), arn.partition("oidc-provider/")[2]
    assert addon["status"] == "ACTIVE"
    assert settings["tlsCertificateS3Bucket"] == BUCKET
    hyperpod = aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
    assert settings["hyperpodClusterArn"] == hyperpod

    role = settings["executionRoleArn"].rpartition("/")[2]
    assert role.startswith("SageMakerHyperPodInference")
    assert allowed(aws, role) == ({"AmazonSageMakerHyperPodInferenceAccess"}, [])
    trust = aws.iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    account = {f"{host}:aud": "sts.amazonaws.com", f"{host}:sub": f"{PODS}hyperpod-inference-"
               "controller-manager"}  # fmt: skip
    assert (trust[0]["Principal"], trust[0]["Condition"]["StringLike"]) == (
        {"Federated": arn},
        account,
    )
    assert trust[1]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    scaling = allowed(aws, settings["keda"]["auth"]["aws"]["irsa"]["roleArn"])[1]
    assert "aps:QueryMetrics" in scaling[0]["Action"]
    balancers = allowed(aws, settings["alb"]["serviceAccount"]["roleArn"])[1]
    assert any("elasticloadbalancing:CreateLoadBalancer" in each["Action"] for each in balancers)
    assert cluster(made)["PodIdentityAssociations"].keys() == {
        "kube-system/fsx-csi-controller-sa",
    }

    made.mutations()
    with rounds(made.stack) as chain:
        said = made.types("create", "-f", "c.yaml")
    assert (said.code, made.mutations()) == (0, []), said.err
    assert len(chain) <= 4, chain
    gone = made.types("delete", "demo", "--yes")
    assert (gone.code, providers(made)) == (0, {}), gone.err
    assert "nothing remains" in gone.out
    order = made.mutations()
    assert order.index("iam.DeleteOpenIDConnectProvider") < order.index("eks.DeleteCluster")


@pytest.mark.prove
def test_an_issuer_s_provider_of_others_is_used_and_kept(user: User, aws: Clients) -> None:
    user.has("demo", *write(user, BASE))
    issuer, arn = provider_of(aws)
    aws.iam.create_open_id_connect_provider(Url=issuer, ClientIDList=["other"])

    said = user.types("create", *write(user, CONFIG))
    assert (said.code, "--client-id sts.amazonaws.com" in said.err) == (2, True), said.err
    aws.iam.add_client_id_to_open_id_connect_provider(
        OpenIDConnectProviderArn=arn, ClientID="sts.amazonaws.com"
    )
    there = providers(user)
    said = user.types("create", "-f", "c.yaml", "-o", "json")
    assert said.code == 0, said.err
    addon = aws.eks.describe_addon(clusterName="demo", addonName=INFERENCE)["addon"]
    assert addon["status"] == "ACTIVE"
    user.mutations()
    assert user.types("create", "-f", "c.yaml").code == 0
    assert user.mutations() == []
    assert user.types("delete", "demo", "--yes").code == 0
    assert providers(user) == there


def test_a_provider_of_others_that_lets_no_pods_in_stops_no_delete(
    user: User, aws: Clients
) -> None:
    user.has("demo", *write(user, BASE))
    issuer, _ = provider_of(aws)
    aws.iam.create_open_id_connect_provider(Url=issuer, ClientIDList=["other"])
    there = providers(user)
    write(user, CONFIG)
    assert user.types("plan", "-f", "c.yaml").code == 2
    assert user.types("status", "-f", "c.yaml").code == 0
    said = user.types("delete", "-f", "c.yaml", "--yes")
    assert (said.code, providers(user)) == (0, there), said.err


def test_a_provider_of_a_dual_stack_issuer_is_found_and_allowed(user: User, aws: Clients) -> None:
    host = "oidc-eks.us-west-2.api.aws"
    for number, tags in enumerate((signed("oidc-provider", lineage(HERE, "demo")), [])):
        url = f"https://{host}/id/{number}"
        aws.iam.create_open_id_connect_provider(Url=url, ClientIDList=["a"], Tags=tags)
    said = user.types("orphans")
    assert f"{host}/id/0" in said.out
    assert f"{host}/id/1" not in said.out
    write(user, CONFIG)
    allowed = user.types("policy", "-f", "c.yaml").out
    assert f"oidc-provider/{host.partition('api')[0]}*" in allowed


def test_certificates_are_kept_until_their_delete_is_asked_for(made: User, aws: Clients) -> None:
    aws.s3.put_object(Bucket=BUCKET, Key="certs/llama.pem", Body=b"x")
    gone = made.types("delete", "demo", "--yes", "-o", "json")
    assert gone.code == 0, gone.err
    (row,) = gone.document["kept_data"]
    assert (row["key"], row["holds"].partition(",")[0]) == (
        "s3/certificates",
        "certificates of endpoints",
    )
    assert made.stack.inventory()["s3"].keys() == {BUCKET}
    assert providers(made) == {}
    gone = made.types("delete", "demo", "--yes", "--delete-data")
    assert (gone.code, made.stack.inventory()["s3"]) == (0, {}), gone.err


def test_the_provider_goes_from_a_cluster_that_stays_only_with_consent(
    made: User, aws: Clients
) -> None:
    """An issuer has one: roles of others, which IAM lets trust no other one, may need it."""
    said = made.types("create", *write(made, BASE))
    assert (said.code, "--yes" in said.err) == (2, True), said.err
    assert "iam/oidc-provider: it is deleted although roles of others may trust it" in said.err
    assert providers(made)
    assert made.types("create", "-f", "c.yaml", "--yes").code == 0
    assert not providers(made)


@pytest.mark.prove
def test_a_new_cluster_does_not_ask_for_the_provider_of_the_one_before(
    user: User, aws: Clients
) -> None:
    """IAM keeps a provider of others, whose EKS cluster is gone; the new issuer is another one."""
    user.has("demo", *write(user, BASE))
    issuer, arn = provider_of(aws)
    aws.iam.create_open_id_connect_provider(Url=issuer, ClientIDList=["sts.amazonaws.com"])
    assert user.types("create", *write(user, CONFIG)).code == 0
    aws.sagemaker.delete_cluster(ClusterName="demo")
    for each in aws.eks.list_addons(clusterName="demo")["addons"]:
        aws.eks.delete_addon(clusterName="demo", addonName=each)
    aws.eks.delete_cluster(name="demo")

    said = user.types("create", "-f", "c.yaml", "--yes")
    assert said.code == 0, said.err
    assert providers(user).keys() == {arn, provider_of(aws)[1]}
    gone = user.types("delete", "demo", "--yes")
    assert (gone.code, [*providers(user)]) == (0, [arn]), gone.err


def test_what_comes_into_the_bucket_before_it_is_deleted_is_kept(made: User, aws: Clients) -> None:
    def capture(event: Event) -> None:
        """Write into the bucket after it was found empty."""
        if (event.key, event.what) == ("s3/certificates", EventType.DELETING):
            aws.s3.put_object(Bucket=BUCKET, Key="captured.jsonl", Body=b"{}")

    with session_of.connect("c.yaml", report=capture) as opened:
        removed, kept = opened.delete()
    assert "s3/certificates" not in removed
    assert "it holds data" in kept["s3/certificates"]
    assert aws.s3.get_object(Bucket=BUCKET, Key="captured.jsonl")["Body"].read() == b"{}"


def test_a_bucket_with_old_versions_alone_holds_data(made: User, aws: Clients) -> None:
    aws.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    aws.s3.put_object(Bucket=BUCKET, Key="captured.jsonl", Body=b"{}")
    aws.s3.delete_object(Bucket=BUCKET, Key="captured.jsonl")
    gone = made.types("delete", "demo", "--yes", "-o", "json")
    assert gone.code == 0, gone.err
    assert [row["key"] for row in gone.document["kept_data"]] == ["s3/certificates"]
    assert aws.s3.list_object_versions(Bucket=BUCKET)["Versions"]


def test_a_bucket_whose_objects_cannot_be_listed_counts_as_full(made: User, aws: Clients) -> None:
    aws.s3.put_object(Bucket=BUCKET, Key="captured.jsonl", Body=b"{}")
    with session_of.connect("c.yaml") as opened:
        (bucket,) = (each for each in opened.wants if each.key == "s3/certificates")
        made.stack.faults.append(Fault("s3", "ListObject.*", "AccessDenied", 403, count=9))
        (live,) = bucket.find(Snapshot(opened.aws, bare=True))
        made.stack.faults.clear()
    assert live.holds_data


@pytest.mark.prove
def test_a_provider_that_somebody_deleted_is_created_again(made: User, aws: Clients) -> None:
    _, arn = provider_of(aws)
    aws.iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    Path("demo.hyperpod-eks.json").unlink()  # it knows that the provider was there a moment ago
    assert made.types("create", "-f", "c.yaml").code == 0
    assert providers(made)[arn]["ClientIDList"] == ["sts.amazonaws.com"]


def test_a_provider_that_one_answer_of_iam_does_not_know_yet_is_not_replaced(
    made: User, aws: Clients
) -> None:
    """IAM is eventually consistent: a list may show what GetOpenIDConnectProvider does not."""
    made.mutations()
    late = Fault("iam", "GetOpenIDConnectProvider", "NoSuchEntity", 404, "not found")
    made.stack.faults.append(late)
    said = made.types("create", "-f", "c.yaml", "--yes")
    assert late.count == 0
    assert (said.code, made.mutations()) == (0, []), said.err


@pytest.mark.prove
def test_the_provider_of_a_cluster_that_somebody_deleted_is_replaced(
    made: User, aws: Clients
) -> None:
    _, before = provider_of(aws)
    aws.sagemaker.delete_cluster(ClusterName="demo")
    for each in aws.eks.list_addons(clusterName="demo")["addons"]:
        aws.eks.delete_addon(clusterName="demo", addonName=each)
    aws.eks.delete_cluster(name="demo")
    Path("demo.hyperpod-eks.json").unlink()

    said = made.types("create", "-f", "c.yaml", "--yes")
    assert said.code == 0, said.err
    _, after = provider_of(aws)
    assert before != after
    assert providers(made).keys() == {after}
    role = aws.iam.get_role(RoleName="demo-inference-scaling-us-west-2")["Role"]
    trust = role["AssumeRolePolicyDocument"]["Statement"][0]
    assert trust["Principal"] == {"Federated": after}
    made.mutations()
    assert made.types("create", "-f", "c.yaml").code == 0
    assert made.mutations() == []


def test_without_config_and_manifest_everything_is_found(made: User) -> None:
    Path("demo.hyperpod-eks.json").unlink()
    Path("c.yaml").unlink()
    gone = made.types("delete", "demo", "--region", "us-west-2", "--yes")
    assert gone.code == 0, gone.err
    found = made.stack.inventory()
    assert (providers(made), found["s3"], found["iam"]["Roles"].keys()) == ({}, {}, {"Admin"})


def test_roles_and_buckets_of_yours_take_the_place_of_ours() -> None:
    arn = "arn:aws:iam::123456789012:role/SageMakerHyperPodInference-mine"
    own = {"executionRoleArn": arn, "tlsCertificateS3Bucket": "hyperpod-tls-mine"}
    addons = {INFERENCE: {"configuration_values": own | {"keda": {"enabled": False}}}}
    addon = declared(operators=["inference"], addons=addons)[INFERENCE]
    keys = {each.key for each in addon.after}
    assert not {"s3/certificates", "iam/inference-role"} & keys
    assert "iam/inference-balancers-role" in keys
    settings = json.loads(addon.configuration)
    assert (settings["executionRoleArn"], settings["keda"]["enabled"]) == (arn, False)
    assert needs(addon) == {*ADDON_NEEDS[INFERENCE]}
    none = declared(addons={INFERENCE: {"pod_identity_associations": []}})[INFERENCE]
    assert not [each for each in none.after if isinstance(each, ServiceAccountRole)]


def test_every_policy_fits_and_a_role_with_a_path_can_be_passed() -> None:
    found = declared(operators=["inference"], iam={"path": "/ml/"})[INFERENCE]
    roles = [each for each in found.after if isinstance(each, ServiceAccountRole)]
    assert [each.path for each in roles] == ["/ml/"] * 4
    policies = [each for role in roles for each in role.policies]
    for each in policies:
        text = json.dumps(document(each.rows, "", (), each.statements), separators=(",", ":"))
        assert len(text) <= LIMIT
    passes = json.loads(policies[0].statements)
    assert passes[0]["Resource"] == [
        "arn:aws:iam::123456789012:role/ml/SageMakerHyperPodInference-*"
    ]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"executionRoleArn": "arn:aws:iam::123456789012:role/mine"}, "executionRoleArn is the"),
        ({"tlsCertificateS3Bucket": "mine"}, "tlsCertificateS3Bucket is a bucket"),
        ({}, ""),
    ],
)
def test_names_that_the_operators_policy_does_not_allow_are_a_warning(
    settings: dict[str, Any], says: str
) -> None:
    given = CONFIG | {"addons": {INFERENCE: {"configuration_values": settings}}}
    found = warnings(load(given, {}, {}, files=False))
    assert [says in text for text in found] == ([True] if says else []), found


def test_nodes_without_room_for_its_pods_are_a_warning() -> None:
    groups = [{"name": "a", "instance_type": "ml.m5.2xlarge", "instance_count": 2}]
    assert warnings(load(BASE | {"instance_groups": groups}, {}, {}, files=False)) == []
    (text,) = warnings(load(CONFIG | {"instance_groups": groups}, {}, {}, files=False))
    assert "run about 33" in text
