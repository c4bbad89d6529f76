#!/usr/bin/env python3
"""Run the whole life of a cluster on a real AWS account, for whoever has one. Costs money.

``make e2e ACCOUNT=123456789012 REGION=us-west-2 [TIER=1] [BUDGET=5]`` creates, uses and deletes,
``make e2e-sweep ACCOUNT=... REGION=...`` removes what an interrupted run left, and
``make e2e ENDPOINT=local`` does the same on the embedded stack. docs/e2e.md has the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, NoReturn

import boto3
import yaml
from botocore.exceptions import ClientError
from e2e_recording import record

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("E2E_FOLDER") or ROOT / "e2e")  # the state of every run
TAG = "hyperpod-eks-e2e"
PERMIT = "/hyperpod-eks/e2e"  # an SSM parameter that a person sets once: this account may be used
HOURS = 3  # that a run may exist, and that BUDGET must pay for
LIMIT = 150 * 60  # seconds after which a run deletes what it has
SESSION = 4 * 3600  # seconds of the caller's sessions, where AWS gives as many
CHAINED = 3600  # of a role's session that assumes another role (IAM User Guide, "Role chaining")
RENEWED = 300  # seconds after which a session is renewed before the next command
TOOL = [sys.executable, "-m", "hyperpod_eks"]
LOCAL_ACCOUNT = "123456789012"


class Failed(Exception):
    """A step did not show what it must show."""


def refuse(why: str) -> NoReturn:
    """End before anything is written."""
    print(f"e2e: {why}", file=sys.stderr)
    sys.exit(2)


class Run:
    """One run: its name, its folder (written before the first call), and what it found."""

    def __init__(self, name: str, account: str, region: str, *, local: bool) -> None:
        self.name, self.account, self.region, self.local = name, account, region, local
        self.folder = FOLDER / name
        self.config = self.folder / "cluster.yaml"
        self.caller = f"{name}-caller"
        self.own = boto3.Session(region_name=region)
        self.env = dict(os.environ)  # of the tool: the caller's role, once there is one
        self.role = ""  # its ARN
        self.session = SESSION  # seconds
        self.renewed = 0.0
        self.expires = int(time.time()) + HOURS * 3600
        self.locks: tuple[int, ...] = ()
        self.failed: list[str] = []
        self.not_asked: list[str] = []
        self.answers: list[Any] = []
        self.end = time.monotonic() + LIMIT

    def say(self, text: str) -> None:
        """Print a line, and keep it in the run's folder."""
        line = f"{datetime.now(UTC):%H:%M:%S} {text}"
        print(line, flush=True)
        with (self.folder / "log.txt").open("a") as log:
            print(line, file=log)

    def write(self, **settings: Any) -> None:
        """Write the config of the cluster."""
        config = {
            "name": self.name,
            "region": self.region,
            "account": self.account,
            "tags": self.tags(),
            **settings,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(config, sort_keys=False))

    def tags(self) -> dict[str, str]:
        """What everything of the run is tagged with."""
        return {TAG: self.name, "expires": str(self.expires)}

    def lives(self) -> bool:
        """Take the run for this process, or say that another has it.

        The kernel frees a lock when its last process has ended, however it ends.  A command whose
        run was killed is waited for.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        own = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR)
        commands = os.open(self.folder / "commands.lock", os.O_CREAT | os.O_RDWR)
        os.set_inheritable(commands, True)
        self.locks = (own, commands)
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        try:
            fcntl.flock(commands, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"e2e: waiting for a command of {self.name} to end", flush=True)
            fcntl.flock(commands, fcntl.LOCK_EX)
        return False

    def tool(self, command: str, *more: str, codes: tuple[int, ...] = (0,)) -> Any:
        """Run a command of the product to its end, and return its document.

        Raises Failed if it ends with a code that is not in `codes`.
        """
        self.renew()
        words = [*TOOL, *command.split(), "--file", str(self.config), "--output", "json", *more]
        log = (self.folder / "commands.txt").open("a")
        print("$", *words[2:], file=log, flush=True)
        left = max(60.0, self.end - time.monotonic())
        ran = subprocess.run(
            words,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=None if command == "delete" else left,
            check=False,
            close_fds=False,  # so that it holds the lock of commands
        )
        if ran.returncode not in codes:
            wanted = " or ".join(map(str, codes))
            raise Failed(f"{command} ended with {ran.returncode} in place of {wanted}")
        return json.loads(ran.stdout or "null")

    def kill_at(self, key: str, what: str) -> None:
        """Run create, and kill it once it says `what` of the resource `key`.

        A create that ends first has nothing to kill: that is no failure.
        """
        events = self.folder / f"{key.replace('/', '-')}-{what}.events"
        events.touch()
        self.renew()
        words = [*TOOL, "create", "--file", str(self.config), "--yes", "--events", str(events)]
        with subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.env,
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,
            close_fds=False,
        ) as create:
            while create.poll() is None:
                if f'"what": "{what}", "key": "{key}"' in events.read_text():
                    os.killpg(create.pid, signal.SIGKILL)
                    break
                time.sleep(0.02)

    def create(self) -> None:
        """Create to the end; code 6 says that AWS is slow, and the same command goes on.

        Each ends before the session of its credentials does.
        """
        for _ in range(5):
            patience = str(self.session - 2 * RENEWED)
            if self.tool("create", "--yes", "--timeout", patience, codes=(0, 6))["exit_code"] == 0:
                return
        raise Failed("create is not finished after five times")

    def same(self) -> None:
        """Demand that nothing is left to change."""
        self.tool("plan", "--detailed-exitcode")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A step; its failure is noted, and the life goes on to its end, which is the deletion."""
        began = time.monotonic()
        try:
            if began > self.end:
                raise Failed(f"the limit of {LIMIT // 60} min is over")
            yield
        except (Failed, ClientError, subprocess.SubprocessError) as problem:
            self.failed.append(what)
            self.say(f"FAILED {what}: {problem}")
        else:
            self.say(f"ok     {what} ({time.monotonic() - began:.0f} s)")

    def ask(self, what: str, question: Callable[[], Any]) -> Any:
        """Ask AWS; what the embedded stack lacks is listed as not asked."""
        try:
            return question()
        except ClientError as error:
            status = error.response["ResponseMetadata"].get("HTTPStatusCode")
            if self.local and status in (404, 500, 501):
                self.not_asked.append(what)
                return None
            raise

    # --- the caller: a role with exactly what `policy` prints ------------------------------------

    def become_caller(self, without: str = "") -> None:
        """Make the role, assume it, and let the product run as it from now on."""
        iam = self.own.client("iam")
        tags = [{"Key": key, "Value": value} for key, value in self.tags().items()]
        arn = f"arn:{self.partition()}:iam::{self.account}"
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"AWS": f"{arn}:root"}, "Action": "sts:AssumeRole"}
            ],
        }
        role = iam.create_role(
            RoleName=self.caller,
            AssumeRolePolicyDocument=json.dumps(trust),
            MaxSessionDuration=SESSION,
            Tags=tags,
        )["Role"]
        for policy in self.tool("policy")["policies"]:
            text = json.dumps(policy["document"]).replace(f'"{without}"', f'"{without}Not"')
            findings = self.ask(
                "ValidatePolicy",
                lambda text=text: self.own.client("accessanalyzer").validate_policy(
                    policyDocument=text, policyType="IDENTITY_POLICY"
                )["findings"],
            )
            if wrong := [f for f in findings or () if f["findingType"] == "ERROR"]:
                raise Failed(f"{policy['name']}: {wrong[0]['findingDetails']}")
            made = iam.create_policy(
                PolicyName=f"{self.caller}-{policy['name'][-1]}", PolicyDocument=text, Tags=tags
            )
            iam.attach_role_policy(RoleName=self.caller, PolicyArn=made["Policy"]["Arn"])
        self.role = role["Arn"]
        for attempt in range(12):  # IAM tells the other services within seconds
            try:
                self.renew()
                break
            except ClientError:
                if attempt == 11:
                    raise
                time.sleep(5)
        if not self.local:
            time.sleep(15)  # the policies, too, take a moment

    def renew(self) -> None:
        """Begin another session of the caller's role, unless the last began a moment ago."""
        if not self.role or time.monotonic() - self.renewed < RENEWED:
            return
        sts, about = self.own.client("sts"), {"RoleArn": self.role, "RoleSessionName": "e2e"}
        try:
            found = sts.assume_role(**about, DurationSeconds=self.session)["Credentials"]
        except ClientError as error:
            # "exceeds the 1 hour session limit for roles assumed by role chaining"
            if self.session == CHAINED or error.response["Error"]["Code"] != "ValidationError":
                raise
            self.session = CHAINED
            found = sts.assume_role(**about, DurationSeconds=self.session)["Credentials"]
        self.renewed = time.monotonic()
        self.env.pop("AWS_PROFILE", None)
        self.env |= {
            "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
            "AWS_SESSION_TOKEN": found["SessionToken"],
        }

    def drop_caller(self) -> None:
        """Delete the caller's role and policies, if they exist."""
        iam = self.own.client("iam")
        missing = iam.exceptions.NoSuchEntityException
        for page in iam.get_paginator("list_policies").paginate(Scope="Local"):
            for policy in page["Policies"]:
                if policy["PolicyName"].startswith(f"{self.caller}-"):
                    with contextlib.suppress(missing):
                        iam.detach_role_policy(RoleName=self.caller, PolicyArn=policy["Arn"])
                    iam.delete_policy(PolicyArn=policy["Arn"])
        with contextlib.suppress(missing):  # last, for by it a sweep finds the run
            iam.delete_role(RoleName=self.caller)

    def partition(self) -> str:
        """Aws, aws-cn or aws-us-gov."""
        return boto3.Session().get_partition_for_region(self.region)

    def order(self, switch: str, body: Any) -> None:
        """Let the embedded stack do what AWS does by itself (docs/local-stack.md)."""
        if self.local:
            url = f"{os.environ['AWS_ENDPOINT_URL']}/_stack/{switch}"
            request = urllib.request.Request(url, json.dumps(body).encode())
            urllib.request.urlopen(request, timeout=10).close()

    # --- the end ---------------------------------------------------------------------------------

    def delete(self) -> None:
        """Delete the cluster, up to three times, as ourselves if the caller's role is gone."""
        for attempt in range(3):
            try:
                if (self.folder / f"{self.name}.hyperpod-eks.json").exists():
                    self.tool("delete", "--yes")
                break
            except (Failed, ValueError) as problem:
                self.say(f"delete, attempt {attempt + 1}: {problem}")
        else:
            self.failed.append("delete")
        self.env, self.role, self.renewed = dict(os.environ), "", 0.0
        self.drop_caller()

    def remains(self) -> list[str]:
        """What AWS itself says is left of the run, without the product's help."""
        found: list[str] = []
        tagged = self.ask(
            "GetResources",
            lambda: list(
                self.own.client("resourcegroupstaggingapi")
                .get_paginator("get_resources")
                .paginate(TagFilters=[{"Key": TAG, "Values": [self.name]}])
            ),
        )
        ec2, iam, logs = (self.own.client(name) for name in ("ec2", "iam", "logs"))
        mine = [{"Name": f"tag:{TAG}", "Values": [self.name]}]
        for page in tagged or ():
            # the index keeps what was deleted for a while; EC2 itself is asked below
            arns = [each["ResourceARN"] for each in page["ResourceTagMappingList"]]
            found += [arn for arn in arns if ":ec2:" not in arn]
        found += [v["VpcId"] for v in ec2.describe_vpcs(Filters=mine)["Vpcs"]]
        found += [
            s["GroupId"] for s in ec2.describe_security_groups(Filters=mine)["SecurityGroups"]
        ]
        found += [v["VolumeId"] for v in ec2.describe_volumes(Filters=mine)["Volumes"]]
        found += [a["AllocationId"] for a in ec2.describe_addresses(Filters=mine)["Addresses"]]
        gateways = ec2.describe_nat_gateways(Filter=mine)["NatGateways"]
        found += [g["NatGatewayId"] for g in gateways if g["State"] != "deleted"]
        found += [
            role["RoleName"]
            for page in iam.get_paginator("list_roles").paginate()
            for role in page["Roles"]
            if role["RoleName"].startswith(self.name)
        ]
        for prefix in (f"/aws/eks/{self.name}/", f"/aws/sagemaker/Clusters/{self.name}/"):
            kept = logs.describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]
            found += [each["logGroupName"] for each in kept]
        return sorted(set(found))

    def check_gone(self) -> None:
        """Demand that nothing is left, at once and ten minutes later."""
        with self.step("nothing remains"):
            if left := self.remains():
                raise Failed(f"left: {', '.join(left)}")
        if not self.local:
            time.sleep(600)
            with self.step("nothing came back within ten minutes"):
                if left := self.remains():
                    raise Failed(f"left: {', '.join(left)}")


# --- tiers ---------------------------------------------------------------------------------------


def group(count: int = 1, **more: Any) -> dict[str, Any]:
    """The instance group of a tier 1 cluster."""
    kind = {"name": "workers", "instance_type": "ml.m5.2xlarge", "instance_count": count}
    return {**kind, **more}


def tier0(run: Run) -> None:
    """Policies, preflight, and all that costs next to nothing, ended by the lack of one right."""
    run.write(instance_groups=[group()])
    with run.step("the role has the printed policies but eks:CreateCluster"):
        run.become_caller(without="eks:CreateCluster")
    with run.step("create ends with code 3, for eks:CreateCluster is not allowed"):
        run.tool("create", "--yes", "--skip", "permissions", codes=(3,))
    with run.step("the rest is there"):
        if not (run.folder / f"{run.name}.hyperpod-eks.json").exists():
            raise Failed("create wrote no manifest")


def tier1(run: Run) -> None:
    """The life of a small cluster, killed twice."""
    run.write(instance_groups=[group()])
    with run.step("the role has exactly the printed policies"):
        run.become_caller()
    with run.step("preflight finds no error"):
        unsure = [f["says"] for f in run.tool("preflight")["findings"]]
        if any("could not be checked" in says for says in unsure):
            raise Failed("; ".join(unsure))
    with run.step("create, killed as CreateCluster is sent and as it is waited for"):
        run.kill_at("eks/cluster", "creating")
        run.kill_at("eks/cluster", "waiting")
        run.answers += record(run.own, run.name, "creating")
        run.create()
        run.answers += record(run.own, run.name, "created")
    with run.step("nothing is left to change, nodes are Ready and add-ons ACTIVE"):
        run.same()
        status = run.tool("status")
        run.same()
        if [node["ready"] for node in status["nodes"]] != [True]:
            raise Failed(f"nodes: {status['nodes']}")
        if wrong := [a for a in status["addons"] if a["status"] != "ACTIVE"]:
            raise Failed(f"add-ons: {wrong}")
    with run.step("a pod runs, and its log is there"):
        pod(run)
    changes: dict[str, dict[str, Any]] = {
        "scale to 2": {"instance_groups": [group(2)]},
        "scale to 1": {"instance_groups": [group()]},
        "add a label": {
            "instance_groups": [group(kubernetes_config={"labels": {"example.com/e2e": "1"}})]
        },
        "remove the label": {"instance_groups": [group()]},
        "log less": {"instance_groups": [group()], "eks": {"log_types": ["api"]}},
        "log everything": {"instance_groups": [group()]},
    }
    for what, settings in changes.items():
        with run.step(what):
            run.write(**settings)
            run.create()
            run.same()
    with run.step("an impossible group is refused or explained, and goes again"):
        impossible = {"name": "impossible", "instance_type": "ml.p5.48xlarge", "instance_count": 1}
        run.write(instance_groups=[group(), impossible])
        run.order("failures", {"group/impossible": "capacity"})
        patience = "5" if run.local else "300"
        told = run.tool("create", "--yes", "--timeout", patience, codes=(1, 3, 4, 6, 7))
        if "impossible" not in json.dumps([told, run.tool("status", codes=(0, 1, 5))]):
            raise Failed("nothing says why the group has no node")
        run.write(instance_groups=[group()])
        run.create()
        run.same()
    run.order("failures", {})
    with run.step("CloudTrail knows of no refused call"):
        refused_calls(run)


def tier2(run: Run) -> None:
    """The examples that cost more: a closed network, Spot with Karpenter, an EKS cluster."""
    for example in ("closed-network", "spot-autoscaling"):
        settings = yaml.safe_load((ROOT / "examples" / f"{example}.yaml").read_text())
        text = json.dumps(settings).replace("111122223333", run.account)
        settings = {k: v for k, v in json.loads(text).items() if k not in ("name", "region")}
        settings.get("eks", {}).pop("access", None)  # of a role that only the example knows
        settings.pop("iam", None)
        run.write(**{k: v for k, v in settings.items() if k not in ("tags", "account")})
        with run.step(f"{example}: the role has exactly the printed policies"):
            run.become_caller()
        with run.step(f"{example}: create, and nothing is left to change"):
            run.create()
            run.answers += record(run.own, run.name, example)
            run.same()
        with run.step(f"{example}: delete"):
            run.delete()
    existing_eks(run)


def existing_eks(run: Run) -> None:
    """Nodes for an EKS cluster with the chart in it: one of ours, whose HyperPod cluster is gone.

    An EKS cluster takes one HyperPod cluster (SageMaker developer guide, "Prerequisites").
    """
    run.write(instance_groups=[group(0)])
    with run.step("existing-eks: the role has exactly the printed policies"):
        run.become_caller()
    with run.step("existing-eks: an EKS cluster without HyperPod"):
        run.create()
        sagemaker = run.own.client("sagemaker")
        sagemaker.delete_cluster(ClusterName=run.name)
        while run.name in {
            each["ClusterName"]
            for page in sagemaker.get_paginator("list_clusters").paginate()
            for each in page["ClusterSummaries"]
        }:
            time.sleep(1 if run.local else 15)
    guest = Run(f"{run.name}-guest", run.account, run.region, local=run.local)
    guest.lives()
    guest.end = run.end
    theirs = {"eks_cluster": run.name, "helm_release": "kube-system/hyperpod-dependencies"}
    guest.write(existing=theirs, instance_groups=[group()])
    try:
        with guest.step("existing-eks: the role has exactly the printed policies"):
            guest.become_caller()
        with guest.step("existing-eks: create, and nothing is left to change"):
            guest.create()
            guest.same()
    finally:
        guest.delete()
    with guest.step("existing-eks: nothing of it remains"):
        if left := guest.remains():
            raise Failed(f"left: {', '.join(left)}")
    run.failed += guest.failed
    with run.step("existing-eks: delete"):
        run.delete()


def pod(run: Run) -> None:
    """Run a pod with kubectl, if there is one, and read its log through the control plane."""
    kubeconfig = run.folder / "kubeconfig"
    words = [*TOOL, "kubeconfig", run.name, "--region", run.region, "--stdout"]
    done = subprocess.run(words, cwd=run.folder, env=run.env, capture_output=True, check=True)
    kubeconfig.write_bytes(done.stdout)
    kubectl = [os.environ.get("KUBECTL", "kubectl"), "--kubeconfig", str(kubeconfig)]
    image = "public.ecr.aws/docker/library/busybox:1.37"

    def do(*more: str) -> str:
        told = subprocess.run(
            [*kubectl, *more], env=run.env, capture_output=True, text=True, check=False
        )
        if told.returncode:
            raise Failed(f"kubectl {more[0]}: {told.stderr.strip()}")
        return told.stdout

    try:
        do("run", "e2e", f"--image={image}", "--restart=Never", "--", "echo", "hello")
    except FileNotFoundError:
        run.not_asked.append("a pod (there is no kubectl)")
        return
    do("wait", "pod/e2e", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=300s")
    if "hello" not in do("logs", "e2e"):
        raise Failed("the pod's log is not there")
    do("delete", "pod", "e2e", "--wait=false")


def refused_calls(run: Run) -> None:
    """Look for AccessDenied of the caller in CloudTrail, which is some minutes late."""
    looked = run.ask(
        "CloudTrail LookupEvents",
        lambda: list(
            run.own.client("cloudtrail")
            .get_paginator("lookup_events")
            .paginate(LookupAttributes=[{"AttributeKey": "Username", "AttributeValue": "e2e"}])
        ),
    )
    events = [json.loads(e["CloudTrailEvent"]) for page in looked or () for e in page["Events"]]
    denied = {
        event["eventName"]
        for event in events
        if run.caller in event["userIdentity"].get("arn", "")
        and "AccessDenied" in event.get("errorCode", "")
    }
    if denied:
        raise Failed(f"refused: {', '.join(sorted(denied))}")


TIERS = (tier0, tier1, tier2)


# --- guards --------------------------------------------------------------------------------------


def check(run: Run, budget: float) -> None:
    """Refuse what could meet an account by accident, cost too much, or meet another run."""
    try:
        who = run.own.client("sts").get_caller_identity()
    except Exception as problem:  # noqa: BLE001 - whatever it is, there is no account
        refuse(f"AWS does not say whose credentials these are: {problem}")
    if who["Account"] != run.account:
        refuse(f"these credentials are of account {who['Account']}, not of {run.account}")
    if who["Arn"].endswith(":root"):
        refuse("the root user may not run this; use a role")
    if os.environ.get("CI") and not run.local and os.environ.get("E2E_CI") != "1":
        refuse("this does not run in CI unless E2E_CI=1 says so")
    if run.local:
        return
    ssm = run.own.client("ssm")
    try:
        allowed = ssm.get_parameter(Name=PERMIT)["Parameter"]["Value"] == "allowed"
    except ssm.exceptions.ParameterNotFound:
        allowed = False
    if not allowed:
        refuse(
            f"the account does not say that it may be used; allow it once: aws ssm put-parameter "
            f"--region {run.region} --name {PERMIT} --type String --value allowed"
        )
    if others := names_of_runs(run.own):
        where = f"ACCOUNT={run.account} REGION={run.region}"
        refuse(f"{others[0]} is there, and one may run at a time: make e2e-sweep {where}")


def check_budget(run: Run, tier: int, budget: float) -> None:
    """Refuse a run whose plan costs more in the hours that it may take."""
    run.write(instance_groups=[group(2)])
    cost = run.tool("plan", codes=(0, 5, 7))["cost"]
    wanted = cost["usd_per_hour"] * HOURS * (1, 1, 4)[tier]
    if tier and wanted > budget:
        refuse(f"{wanted:.2f} USD may be needed, and BUDGET is {budget:.2f}")


def names_of_runs(session: boto3.Session) -> list[str]:
    """The runs of which a VPC, or the caller's role, exists."""
    found = session.client("ec2").describe_vpcs(Filters=[{"Name": "tag-key", "Values": [TAG]}])
    tags = [tag for vpc in found["Vpcs"] for tag in vpc["Tags"] if tag["Key"] == TAG]
    roles = session.client("iam").get_paginator("list_roles").paginate()
    named = [r["RoleName"] for page in roles for r in page["Roles"]]
    callers = [
        n[: -len("-caller")] for n in named if n.startswith("e2e-") and n.endswith("-caller")
    ]
    return sorted({tag["Value"] for tag in tags} | set(callers))


def expiry(session: boto3.Session, name: str) -> int:
    """When a run of another machine may be deleted, by its tags; 0 where none says."""
    ec2, iam = session.client("ec2"), session.client("iam")
    vpcs = ec2.describe_vpcs(Filters=[{"Name": f"tag:{TAG}", "Values": [name]}])["Vpcs"]
    tags: list[Any] = [tag for vpc in vpcs for tag in vpc["Tags"]]
    with contextlib.suppress(iam.exceptions.NoSuchEntityException):
        tags += iam.list_role_tags(RoleName=f"{name}-caller")["Tags"]
    return max([0, *(int(tag["Value"]) for tag in tags if tag["Key"] == "expires")])


def sweep(account: str, region: str, *, local: bool, now: bool = False) -> int:
    """Delete what every earlier run left: with its folder, else with what the tags say.

    A run that lives is left alone: one whose process has not ended, and one of another machine
    until it expires, unless ``now``.
    """
    session = boto3.Session(region_name=region)
    folders = {path.parent.name for path in FOLDER.glob("e2e-*/cluster.yaml")}
    manifests = {n for n in folders if list((FOLDER / n).glob("*.hyperpod-eks.json"))}
    failed = 0
    # what uses another run's cluster is called after it, and goes first
    for name in sorted({*names_of_runs(session), *manifests}, reverse=True):
        run = Run(name, account, region, local=local)
        if name in folders:
            settings = yaml.safe_load(run.config.read_text())
            if (settings["account"], settings["region"]) != (account, region):
                continue
        elif not now and (until := expiry(session, name)) > time.time():
            when = datetime.fromtimestamp(until, UTC)
            print(f"e2e: {name} may run elsewhere until {when:%H:%M} UTC; NOW=1 deletes it now")
            failed += 1
            continue
        if run.lives():
            print(f"e2e: {name} is running here; end it first")
            failed += 1
            continue
        if name not in folders:
            run.write()
        manifest = run.folder / f"{name}.hyperpod-eks.json"
        if not manifest.exists():
            run.tool("adopt", "--rebuild", codes=(0, 8))  # 8: only the caller is there
        run.delete()
        left = run.remains()
        failed += bool(left)
        run.say(f"{name}: {'left: ' + ', '.join(left) if left else 'nothing remains'}")
    return 1 if failed else 0


@contextmanager
def embedded() -> Iterator[None]:
    """An embedded stack of the run's own, unless the environment names one."""
    from hyperpod_eks.local import CHART  # noqa: PLC0415 - the extra may be missing

    os.environ.setdefault("HYPERPOD_EKS_CHART", str(CHART))
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://127.0.0.1:"):
        yield
        return
    os.environ["XDG_CACHE_HOME"] = str(FOLDER / "cache")  # a stack of its own
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]

    def local(*words: str) -> str:
        return subprocess.run(
            [*TOOL, "local", *words], check=True, capture_output=True, text=True
        ).stdout

    local("start", "--speed", "300")
    try:
        for line in local("env").splitlines():
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                os.environ[name] = value
        yield
    finally:
        local("stop")


def live(run: Run, tier: int, budget: float, *, keep: bool) -> int:
    """Check, live, delete, look, record."""
    check(run, budget)
    run.lives()
    check_budget(run, tier, budget)
    run.say(f"{run.name}: tier {tier} in account {run.account}, {run.region}")
    run.order("enforce", True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("e2e: terminated"))
    began = time.time()
    try:
        for number in range(tier + 1):
            TIERS[number](run)
            if number < tier or not keep:
                with run.step(f"delete tier {number}"):
                    run.delete()
                    if "delete" in run.failed:
                        raise Failed("it did not end with 0 in three attempts")
    finally:
        if not keep:
            run.delete()
    if not keep:
        run.check_gone()
    source = "embedded stack" if run.local else "AWS"
    about = {"source": source, "date": f"{datetime.now(UTC):%Y-%m-%d}", "tier": tier}
    target = run.folder / "recording.json"
    target.write_text(json.dumps({**about, "answers": run.answers}, indent=1) + "\n")
    for what in sorted(set(run.not_asked)):
        run.say(f"not asked: {what}")
    run.say(f"{len(run.failed)} steps failed; {time.time() - began:.0f} s; recorded in {target}")
    return 1 if run.failed else 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "sweep"))
    parser.add_argument("--account", default="")
    parser.add_argument("--region", default="")
    parser.add_argument("--tier", type=int, default=0, choices=(0, 1, 2))
    parser.add_argument("--budget", type=float, default=5.0, help="USD")
    parser.add_argument("--keep", action="store_true", help="delete nothing of the last tier")
    parser.add_argument("--now", action="store_true", help="sweep what has not expired, too")
    parser.add_argument("--endpoint", default="", choices=("", "local"))
    given = parser.parse_args()
    local = given.endpoint == "local"
    account = given.account or LOCAL_ACCOUNT * local
    region = given.region or "us-west-2" * local
    if not (len(account) == 12 and account.isdigit() and region):
        refuse(
            f"name the account and the region to use: make e2e{'-sweep' * (given.what == 'sweep')} "
            "ACCOUNT=123456789012 REGION=us-west-2"
        )

    def go() -> int:
        if given.what == "sweep":
            return sweep(account, region, local=local, now=given.now)
        name = f"e2e-{datetime.now(UTC):%m%d%H%M}-{secrets.token_hex(2)}"
        run = Run(name, account, region, local=local)
        return live(run, given.tier, given.budget, keep=given.keep)

    if local:
        with embedded():
            return go()
    return go()


if __name__ == "__main__":
    sys.exit(main())
