from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.exceptions
import pytest
from botocore.exceptions import ClientError

from hyperpod_eks.local.aws import server
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients
from tests.local.ground import role

pytestmark = pytest.mark.usefixtures("over_http")
CALLS = {
    "ec2": ("DescribeVpcs", {}),
    "iam": ("GetRole", {"RoleName": "Admin"}),
    "sts": ("GetCallerIdentity", {}),
    "s3": ("ListBuckets", {}),
    "eks": ("ListClusters", {}),
    "sagemaker": ("ListClusters", {}),
    "logs": ("DescribeLogGroups", {}),
    "service-quotas": ("ListServiceQuotas", {"ServiceCode": "vpc"}),
}


def call(aws: Clients, service: str) -> Any:
    operation, parameters = CALLS[service]
    client = getattr(aws, service.replace("-", "_"))
    methods = client.meta.method_to_api_mapping.items()
    (method,) = [method for method, name in methods if name == operation]
    return getattr(client, method)(**parameters)


@pytest.mark.parametrize("service", CALLS)
def test_an_injected_error_reads_like_the_services_own(
    stack: Stack, aws: Clients, service: str
) -> None:
    operation, _ = CALLS[service]
    text = 'a <b> & "c"'
    stack.faults.append(Fault(service, operation, "OddException", 418, text))
    with pytest.raises(ClientError) as caught:
        call(aws, service)
    response = caught.value.response
    assert response["Error"]["Code"] == "OddException"
    assert response["Error"]["Message"] == text
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 418
    call(aws, service)  # the fault is spent
    assert [(c.operation, c.status) for c in stack.calls] == [(operation, 418), (operation, 200)]


def test_a_modelled_error_is_caught_by_its_class(stack: Stack, aws: Clients) -> None:
    stack.faults.append(Fault("eks", code="ResourceNotFoundException", status=404))
    with pytest.raises(aws.eks.exceptions.ResourceNotFoundException):
        aws.eks.describe_cluster(name="x")


def test_an_error_without_a_body_is_its_status(stack: Stack, aws: Clients) -> None:
    stack.faults.append(Fault("s3", "HeadBucket", "SlowDown", 404))
    with pytest.raises(ClientError, match="404"):
        aws.s3.head_bucket(Bucket="a-bucket")


def test_clients_retry_throttling(stack: Stack, patient: Clients) -> None:
    stack.faults.append(Fault("ec2", "Describe.*", "RequestLimitExceeded", 503, count=1))
    patient.ec2.describe_vpcs()
    assert [c.status for c in stack.calls] == [503, 200]


def test_a_lost_answer_belongs_to_a_call_that_took_effect(
    stack: Stack, aws: Clients, patient: Clients
) -> None:
    stack.faults.append(Fault("ec2", "CreateVpc", kind="lost"))
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    assert len(aws.ec2.describe_vpcs()["Vpcs"]) == 2
    stack.faults.append(Fault("ec2", "CreateVpc", kind="lost"))
    patient.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    assert len(aws.ec2.describe_vpcs()["Vpcs"]) == 4  # the retry created another one


def test_a_reset_connection_belongs_to_a_call_that_did_not(stack: Stack, aws: Clients) -> None:
    stack.faults.append(Fault("ec2", "CreateVpc", kind="reset"))
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    assert [(c.operation, c.status) for c in stack.calls] == [("CreateVpc", 0)]
    assert len(aws.ec2.describe_vpcs()["Vpcs"]) == 1


def test_a_delayed_call_holds_up_nobody_else(stack: Stack, aws: Clients) -> None:
    aws.sts.get_caller_identity()
    stack.faults.append(Fault("ec2", kind="delay", seconds=1))
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(aws.ec2.describe_vpcs)
        while stack.faults[0].count:
            time.sleep(0.01)
        aws.sts.get_caller_identity()
        slow.result()
    ended = [call.operation for call in stack.calls]
    assert ended == ["GetCallerIdentity", "GetCallerIdentity", "DescribeVpcs"]


def test_a_rate_hits_its_share(stack: Stack, aws: Clients) -> None:
    stack.faults.append(Fault("sts", status=500, count=1000, rate=0.3))
    for _ in range(100):
        try:
            aws.sts.get_caller_identity()
        except ClientError:
            continue
    assert 15 <= sum(c.status == 500 for c in stack.calls) <= 45


def test_the_call_log_tells_what_changed_the_account(stack: Stack, aws: Clients) -> None:
    with pytest.raises(ClientError):
        aws.ec2.create_vpc(CidrBlock="10.0.0.0/16", DryRun=True)
    stack.clock.advance(5)
    aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    aws.s3.create_bucket(
        Bucket="b-1", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    aws.s3.put_object(Bucket="b-1", Key="a/b c", Body=b"x")
    aws.s3.get_object(Bucket="b-1", Key="a/b c")
    aws.s3.put_public_access_block(
        Bucket="b-1", PublicAccessBlockConfiguration={"BlockPublicAcls": True}
    )
    aws.iam.simulate_principal_policy(PolicySourceArn="x" * 20, ActionNames=["s3:GetObject"])
    calls = [(c.service, c.operation, c.mutating) for c in stack.calls]
    assert calls == [
        ("ec2", "CreateVpc", False),  # a dry run
        ("ec2", "CreateVpc", True),
        ("s3", "CreateBucket", True),
        ("s3", "PutObject", True),
        ("s3", "GetObject", False),
        ("s3", "PutPublicAccessBlock", True),
        ("iam", "SimulatePrincipalPolicy", False),
    ]
    assert stack.calls[1].at - stack.calls[0].at == pytest.approx(5)


def test_what_the_stack_cannot_do_is_said_and_not_retried(stack: Stack, patient: Clients) -> None:
    for act in (patient.ec2.describe_ipams, patient.pricing.describe_services):
        with pytest.raises(ClientError, match="the embedded stack does not do"):
            act()
    assert [c.status for c in stack.calls] == [501, 501]


def test_what_needs_another_package_is_said_and_not_retried(
    stack: Stack, patient: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "py_partiql_parser", None)  # S3 Select's, in moto
    patient.s3.create_bucket(
        Bucket="a-bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    patient.s3.put_object(Bucket="a-bucket", Key="k", Body=b"{}")
    stack.calls.clear()
    with pytest.raises(ClientError, match=r"NotImplemented.*py_partiql_parser"):
        patient.s3.select_object_content(
            Bucket="a-bucket",
            Key="k",
            Expression="SELECT * FROM s3object",
            ExpressionType="SQL",
            InputSerialization={"JSON": {"Type": "DOCUMENT"}},
            OutputSerialization={"JSON": {}},
        )
    assert [call.status for call in stack.calls] == [501]


def test_a_function_is_not_run_in_a_container(aws: Clients) -> None:
    """moto would pull an image from the internet for it."""
    lambda_ = getattr(aws, "lambda")
    arn = role(aws, "f", "lambda.amazonaws.com")
    lambda_.create_function(
        FunctionName="f", Runtime="python3.13", Role=arn, Handler="f.f", Code={"ZipFile": b"none"}
    )
    assert lambda_.invoke(FunctionName="f", Payload=b"{}")["StatusCode"] == 200


def test_many_clients_at_once(stack: Stack, aws: Clients) -> None:
    aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")

    def work(number: int) -> None:
        aws.ec2.create_security_group(GroupName=f"g{number}", Description="g")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(80)))
    assert len(aws.ec2.describe_security_groups()["SecurityGroups"]) == 82


# -- remote control ------------------------------------------------------------------------------


def control(stack: Stack, name: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"{stack.endpoint}/_stack/{name}", data) as answer:
        return json.load(answer)


def test_the_stack_is_controlled_over_http(stack: Stack, aws: Clients) -> None:
    assert control(stack, "health")["status"] == "ok"
    aws.ec2.describe_vpcs()
    assert control(stack, "calls")[0]["operation"] == "DescribeVpcs"
    assert control(stack, "inventory") == stack.inventory()

    control(stack, "faults", [{"service": "sts", "code": "ExpiredToken", "status": 403}])
    assert control(stack, "faults")[0]["code"] == "ExpiredToken"
    with pytest.raises(ClientError, match="ExpiredToken"):
        aws.sts.get_caller_identity()

    before = control(stack, "health")["elapsed"]
    control(stack, "advance", {"seconds": 60})
    assert control(stack, "health")["elapsed"] == before + 60
    assert control(stack, "delays", {"nat_create": 7})["nat_create"] == 7
    assert stack.sim.delays.nat_create == 7
    quota = {"service": "vpc", "name": "VPCs per Region", "value": 1}
    control(stack, "quotas", [quota])
    with pytest.raises(ClientError, match="VpcLimitExceeded"):
        aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    control(stack, "denied", ["iam:*"])
    assert stack.sim.denied == {"iam:*"}
    control(stack, "failures", {"group/*": "capacity"})
    assert stack.sim.failure("group", "workers") == "capacity"
    control(stack, "reset", {})
    assert control(stack, "calls") == []


def test_tools_made_for_moto_reset_it_in_their_way(stack: Stack, aws: Clients) -> None:
    aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    request = urllib.request.Request(f"{stack.endpoint}/moto-api/reset", data=b"", method="POST")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert stack.calls == []
    assert [vpc["IsDefault"] for vpc in aws.ec2.describe_vpcs()["Vpcs"]] == [True]


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("nonsense", None, "no such page"),
        ("nonsense", {}, "no such page"),
        ("delays", {"eks_craete": 1}, "no such delay"),
        ("faults", [{"service": "ec2", "kind": "explode"}], "no such kind"),
        ("faults", [{"servise": "ec2"}], "servise"),
        ("failures", ["group/*"], "items"),
        ("quotas", [{"service": "vpc", "name": "Moons", "value": 1}], "Moons"),
    ],
)
def test_a_wrong_order_is_refused_with_its_reason(
    stack: Stack, name: str, body: object, said: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        control(stack, name, body)
    assert caught.value.code == 400
    assert said in json.load(caught.value)["error"]
    caught.value.close()


def test_nothing_listens_beyond_this_machine(stack: Stack) -> None:
    assert stack.endpoint.startswith("http://127.0.0.1:")
    assert any(thread.name == "local-aws" for thread in threading.enumerate())


# --- what no AWS client sends ---------------------------------------------------------------------


def raw(stack: Stack, request: str) -> str:
    """Send text to the endpoint; return the first line of the answer, "" without one."""
    host, port = stack.endpoint.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        return connection.recv(4096).decode(errors="replace").partition("\r\n")[0]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Host: 127.0.0.1\nOrigin: https://evil.example", 403),
        ("Host: evil.example", 403),
        ("Host: 127.0.0.1.evil.example:80", 403),
        ("Host: localhost:80\nContent-Length: abc", 400),
        ("Host: localhost\nContent-Length: -1", 400),
        ("Host: localhost\nContent-Length: 99999999999999999999", 400),
        ("Host: localhost\nContent-Length: 9999999999999", 413),
        ("Host: [::1]:80\nContent-Length: 0", 200),
    ],
)
def test_requests_of_web_pages_and_broken_ones_are_refused(
    stack: Stack, head: str, status: int
) -> None:
    said = raw(stack, f"POST /_stack/reset HTTP/1.1\n{head}\n\n")
    assert said.split(" ")[1] == str(status), said


def test_a_connection_that_is_left_open_is_closed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._Handler, "timeout", 0.1)
    assert raw(stack, "POST / HTTP/1.1\nHost: localhost\n") == ""
    said = raw(stack, "POST / HTTP/1.1\nHost: localhost\nContent-Length: 9\n\nabc")
    assert said == "HTTP/1.1 408 Request Timeout"


def test_a_connection_serves_one_request_after_the_other(stack: Stack) -> None:
    """The connection ends when a request is refused unread."""
    host, port = stack.endpoint.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    used = []
    for body, origin in (("", {}), ("{}", {}), ("{}", {"Origin": "https://evil.example"})):
        connection.request("POST", "/_stack/reset", body, origin)
        used.append(connection.sock)
        answer = connection.getresponse()
        assert answer.status == (403 if origin else 200)
        assert answer.will_close == bool(origin)
        answer.read()
    assert len(set(used)) == 1
    connection.close()


def test_the_call_log_is_bounded(
    stack: Stack, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST", 20)
    aws.s3.create_bucket(
        Bucket="a-bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    aws.s3.put_object(Bucket="a-bucket", Key="k", Body=b"x" * (1 << 20))
    assert len(stack.calls[-1].request) < 2 * server.LONGEST
    assert aws.s3.get_object(Bucket="a-bucket", Key="k")["ContentLength"] == 1 << 20
    for _ in range(30):
        aws.sts.get_caller_identity()
    assert len(stack.calls) <= 20


def test_time_goes_forward(stack: Stack) -> None:
    for seconds in ("NaN", "-1e300", "Infinity"):
        body = f'{{"seconds": {seconds}}}'.encode()
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{stack.endpoint}/_stack/advance", body)
