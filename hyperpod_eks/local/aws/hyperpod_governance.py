"""Task governance: a cluster's scheduler policy and the quotas of its teams, and what they are in
Kubernetes.

Members and statuses are those of the SageMaker API reference (CreateClusterSchedulerConfig,
CreateComputeQuota).  The names in Kubernetes, and what a quota's numbers become there, are those of
public reports of real clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from hyperpod_eks.local.aws import instance_types
from hyperpod_eks.local.aws.hyperpod_model import Cluster, Document
from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.wire import Refused, in_order, page
from hyperpod_eks.local.kubernetes import Cluster as Kubernetes
from hyperpod_eks.local.kubernetes.kueue import MANAGER
from hyperpod_eks.local.kubernetes.kueue_kinds import GROUP, MANAGED
from hyperpod_eks.local.kubernetes.rules import amount


class Kind(NamedTuple):
    """One of the two kinds: what its operations, members and ARNs are called."""

    name: str
    arn: str
    members: tuple[str, ...]
    words: str


POLICY = Kind(
    "ClusterSchedulerConfig",
    "cluster-scheduler-config",
    ("Description", "SchedulerConfig"),
    "Cluster scheduler config",
)
QUOTA = Kind(
    "ComputeQuota",
    "compute-quota",
    ("Description", "ComputeQuotaConfig", "ComputeQuotaTarget", "ActivationState"),
    "Compute quota",
)
_BUSY = ("Creating", "Updating", "Deleting")
_ACCELERATORS = ("nvidia.com/gpu", "aws.amazon.com/neuron")
_COHORT = "shared-pool"
_BORROWS = 50  # percent: ResourceSharingConfig, BorrowLimit


class Governance:
    """The policies and quotas of a region; deleted ones stay, as Deleted."""

    def __init__(self, region: str, cluster: Callable[[str], Cluster]) -> None:
        self._region, self._cluster = region, cluster
        self._all: dict[str, tuple[Kind, Document]] = {}
        """By id; ``Tags`` beside the API's members."""

    def _live(self, kind: Kind, cluster_arn: str) -> Iterator[Document]:
        for each, document in self._all.values():
            here = each == kind and document["ClusterArn"] == cluster_arn
            if here and document["Status"] != "Deleted":
                yield document

    # -- the API ---------------------------------------------------------------------------------

    def create(self, kind: Kind, request: Document) -> Document:
        """Begin to create; it fails later, unless the add-on runs."""
        sim, cluster = current(), self._cluster(request["ClusterArn"])
        name = request["Name"]
        for each in self._live(kind, cluster.arn):
            self._refuse_second(kind, each, request)
        id_ = "".join(sim.ids.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=12))
        arn = f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:{kind.arn}/{id_}"
        now = sim.clock.now()
        document = {
            f"{kind.name}Arn": arn,
            f"{kind.name}Id": id_,
            f"{kind.name}Version": 1,
            "Name": name,
            "ClusterArn": cluster.arn,
            "Status": "Creating",
            "CreationTime": now,
            "LastModifiedTime": now,
            **({"ActivationState": "Enabled"} if kind == QUOTA else {}),
            **_filled({m: request[m] for m in kind.members if m in request}),
            "Tags": {tag["Key"]: tag["Value"] for tag in request.get("Tags") or []},
        }
        self._all[id_] = kind, document
        sim.clock.after(sim.delays.governance, lambda: self._settle(kind, document, "Create"))
        return {f"{kind.name}Arn": arn, f"{kind.name}Id": id_}

    def _refuse_second(self, kind: Kind, other: Document, request: Document) -> None:
        """Refuse a name, a team, or a cluster's policy for the second time.

        That a cluster has one policy is from memory; ConflictException is the only fitting error of
        both operations.
        """
        if other["Name"] == request["Name"]:
            text = f"{kind.words} with name {request['Name']} already exists."
        elif kind == POLICY:
            text = f"Cluster already has the cluster scheduler config {other['Name']}."
        elif (team := request["ComputeQuotaTarget"]["TeamName"]) == _team(other):
            text = f"Compute quota for team {team} already exists."
        else:
            return
        raise Refused("ConflictException", text)

    def find(self, kind: Kind, request: Document) -> Document:
        """Return one by its id; ResourceNotFound without."""
        id_ = request[f"{kind.name}Id"]
        found = self._all.get(id_)
        if found is None or found[0] != kind:
            raise Refused("ResourceNotFound", f"{kind.words} with id {id_} not found.")
        return found[1]

    def describe(self, kind: Kind, request: Document) -> Document:
        """Answer one, at its current version."""
        document = self.find(kind, request)
        version = document[f"{kind.name}Version"]
        if request.get(f"{kind.name}Version") not in (None, version):
            raise Refused("ResourceNotFound", f"{kind.words} has no such version.")
        return document

    def summaries(self, kind: Kind, request: Document) -> Document:
        """Answer a page of those that are asked for."""
        found = [
            document
            for each, document in self._all.values()
            if each == kind
            and request.get("ClusterArn") in (None, document["ClusterArn"])
            and request.get("Status") in (None, document["Status"])
            and (request.get("NameContains") or "") in document["Name"]
        ]
        keys = {
            "Name": lambda one: one["Name"],
            "CreationTime": lambda one: one["CreationTime"],
            "Status": lambda one: one["Status"],
            "ClusterArn": lambda one: one["ClusterArn"],
        }
        rows, token = page(in_order(found, request, keys, "CreationTime"), request, limit=10)
        return {f"{kind.name}Summaries": rows, "NextToken": token}

    def update(self, kind: Kind, request: Document) -> Document:
        """Begin to change the current version, which TargetVersion names, and count it up."""
        sim, document = current(), self.find(kind, request)
        version = document[f"{kind.name}Version"]
        if document["Status"] in (*_BUSY, "Deleted", "CreateFailed"):
            text = f"{kind.words} cannot be updated while it is {document['Status']}."
            raise Refused("ConflictException", text)
        if request["TargetVersion"] != version:
            text = f"Target version {request['TargetVersion']} is not the current version {version}"
            raise Refused("ConflictException", f"{text}.")
        members = {member: request[member] for member in kind.members if member in request}
        document.update(_filled(members))
        document[f"{kind.name}Version"] = version + 1
        document["Status"] = "Updating"
        document["LastModifiedTime"] = sim.clock.now()
        sim.clock.after(sim.delays.governance, lambda: self._settle(kind, document, "Update"))
        return {
            f"{kind.name}Arn": document[f"{kind.name}Arn"],
            f"{kind.name}Version": version + 1,
        }

    def delete(self, kind: Kind, request: Document) -> None:
        """Begin to delete; the policy goes after the quotas (SageMaker developer guide)."""
        sim, document = current(), self.find(kind, request)
        if document["Status"] in ("Deleting", "Deleted"):
            return
        if document["Status"] in _BUSY:
            text = f"{kind.words} cannot be deleted while it is {document['Status']}."
            raise Refused("ConflictException", text)
        if kind == POLICY and any(self._live(QUOTA, document["ClusterArn"])):
            text = "Cluster scheduler config cannot be deleted while compute quotas exist."
            raise Refused("ConflictException", text)
        document["Status"] = "Deleting"
        sim.clock.after(sim.delays.governance, lambda: self._gone(kind, document))

    def refuse_deletion(self, cluster: Cluster) -> None:
        """Refuse to delete a cluster that is governed (developer guide, "Troubleshoot")."""
        for kind in (QUOTA, POLICY):
            for each in self._live(kind, cluster.arn):
                text = f"{kind.words} {each['Name']} exists for the cluster; delete it first."
                raise Refused("ConflictException", text)

    def tags(self, arn: str) -> dict[str, str]:
        """Return the tags, to be changed, of one; ResourceNotFound without."""
        found = self._all.get(arn.rpartition("/")[2])
        if found is None:
            raise Refused("ResourceNotFound", f"{arn} not found.")
        tags: dict[str, str] = found[1]["Tags"]
        return tags

    def inventory(self) -> Document:
        """Return all that is not Deleted, by kind and name."""
        return {
            f"{kind.name} {document['Name']}": {
                member: document[member] for member in (*kind.members, "Status", "Tags")
                if member in document
            }
            for kind, document in self._all.values()
            if document["Status"] != "Deleted"
        }  # fmt: skip

    # -- what it is in Kubernetes ----------------------------------------------------------------

    def _settle(self, kind: Kind, document: Document, what: str) -> None:
        if document["Status"] not in ("Creating", "Updating"):
            return
        text = current().failure(kind.arn, document["Name"])
        kubernetes = self._kubernetes(document)
        if not text and (kubernetes is None or not kubernetes.deployment_ready(*MANAGER)):
            text = "The HyperPod task governance add-on is not installed or not active."
        if text:
            document["Status"], document["FailureReason"] = f"{what}Failed", text
            return
        assert kubernetes
        document.pop("FailureReason", None)
        if kind == POLICY:
            self._put_policy(kubernetes, document)
        else:
            _put_team(kubernetes, document, fair=self._is_fair(document["ClusterArn"]))
        document["Status"] = f"{what}d"

    def _kubernetes(self, document: Document) -> Kubernetes | None:
        return current().clusters.get(self._cluster(document["ClusterArn"]).eks_arn)

    def _put_policy(self, kubernetes: Kubernetes, document: Document) -> None:
        classes = document["SchedulerConfig"].get("PriorityClasses") or ()
        for each in document.get("_classes", ()):
            kubernetes.drop("WorkloadPriorityClass", each)
        for each in classes:
            body = {"metadata": {"name": f"{each['Name']}-priority"}, "value": each["Weight"]}
            kubernetes.put("WorkloadPriorityClass", body)
        document["_classes"] = [f"{each['Name']}-priority" for each in classes]

        for quota in self._live(QUOTA, document["ClusterArn"]):
            if quota["Status"] in ("Created", "Updated"):
                _put_team(kubernetes, quota, fair=self._is_fair(document["ClusterArn"]))

    def _is_fair(self, cluster_arn: str) -> bool:
        """Whether idle compute is shared by weights (SchedulerConfig, FairShare)."""
        settings = [each["SchedulerConfig"] for each in self._live(POLICY, cluster_arn)]
        return not settings or settings[0]["FairShare"] == "Enabled"

    def _gone(self, kind: Kind, document: Document) -> None:
        kubernetes = self._kubernetes(document)
        if kubernetes is not None and kind == POLICY:
            for each in document.get("_classes", ()):
                kubernetes.drop("WorkloadPriorityClass", each)
        elif kubernetes is not None:
            space = namespace(_team(document))
            kubernetes.drop("LocalQueue", f"{space}-localqueue", space)
            kubernetes.drop("ClusterQueue", f"{space}-clusterqueue")
            kubernetes.drop("Namespace", space)
        document["Status"] = "Deleted"


def namespace(team: str) -> str:
    """Return the namespace of a team."""
    return f"hyperpod-ns-{team}"


def _team(document: Document) -> str:
    return str(document["ComputeQuotaTarget"]["TeamName"])


def _filled(members: Document) -> Document:
    """Return members with the defaults of the API reference."""
    filled = dict(members)
    if (scheduler := members.get("SchedulerConfig")) is not None:
        filled["SchedulerConfig"] = {"FairShare": "Enabled", **scheduler}
    if (config := members.get("ComputeQuotaConfig")) is not None:
        sharing = config.get("ResourceSharingConfig") or {"Strategy": "LendAndBorrow"}
        if sharing["Strategy"] == "LendAndBorrow" and "AbsoluteBorrowLimits" not in sharing:
            sharing = {"BorrowLimit": _BORROWS, **sharing}
        filled["ComputeQuotaConfig"] = {
            "PreemptTeamTasks": "LowerPriority",
            **config,
            "ResourceSharingConfig": sharing,
        }
    if target := members.get("ComputeQuotaTarget"):
        filled["ComputeQuotaTarget"] = {"FairShareWeight": 0, **target}
    return filled


def _put_team(kubernetes: Kubernetes, document: Document, *, fair: bool) -> None:
    """Write the team's namespace, queues and flavors.

    What a team lends is taken back when its own tasks need it (developer guide, "Task governance
    for model deployment"); that their priority does not matter then is a guess.
    """
    space, config = namespace(_team(document)), document["ComputeQuotaConfig"]
    marks = {
        **MANAGED,
        "sagemaker.amazonaws.com/quota-allocation-id": document["ComputeQuotaId"],
        "sagemaker.amazonaws.com/activate-quota": document.get("ActivationState") or "Enabled",
    }
    kubernetes.put("Namespace", {"metadata": {"name": space, "labels": marks}})
    queue = f"{space}-clusterqueue"
    amounts = [(each, _amounts(each)) for each in config.get("ComputeQuotaResources") or ()]
    for each, _ in amounts:
        name = each["InstanceType"]
        selected = {"nodeLabels": {"node.kubernetes.io/instance-type": name}}
        kubernetes.put("ResourceFlavor", {"metadata": {"name": name}, "spec": selected})
    covered = list(dict.fromkeys(name for _, found in amounts for name in found))
    flavors = [
        {
            "name": each["InstanceType"],
            "resources": [_resource(name, found.get(name, Decimal(0)), config) for name in covered],
        }
        for each, found in amounts
    ]
    disabled = document.get("ActivationState") == "Disabled"
    weight = str(document["ComputeQuotaTarget"]["FairShareWeight"])
    spec = {
        "cohortName" if kubernetes.serves(GROUP, "v1beta2") else "cohort": _COHORT,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}},
        "preemption": {
            "withinClusterQueue": config["PreemptTeamTasks"],
            "reclaimWithinCohort": "Any",
        },
        "resourceGroups": [{"coveredResources": covered, "flavors": flavors}] if flavors else [],
        "stopPolicy": "Hold" if disabled else "None",
        **({"fairSharing": {"weight": weight}} if fair else {}),
    }
    kubernetes.put("ClusterQueue", {"metadata": {"name": queue}, "spec": spec})
    local = {"metadata": {"name": f"{space}-localqueue"}, "spec": {"clusterQueue": queue}}
    kubernetes.put("LocalQueue", local, space)


def _amounts(asked: Document) -> dict[str, Decimal]:
    """Return what a quota is in Kubernetes: nominal vCPUs, memory and devices of the type.

    A count is whole instances; what is not given of the others follows its share of an instance
    (SageMaker developer guide, "Resource allocation").
    """
    whole = {
        name: amount(quantity) or Decimal(0)
        for name, quantity in instance_types.capacity(asked["InstanceType"]).items()
        if name != "pods"
    }
    if asked.get("Count") is not None:
        return {name: quantity * asked["Count"] for name, quantity in whole.items()}
    given: dict[str, Decimal] = {}
    for name in _ACCELERATORS:
        if name in whole and asked.get("Accelerators") is not None:
            given[name] = Decimal(asked["Accelerators"])
    if asked.get("VCpu") is not None:
        given["cpu"] = Decimal(str(asked["VCpu"]))
    if asked.get("MemoryInGiB") is not None:
        given["memory"] = Decimal(str(asked["MemoryInGiB"])) * 2**30
    shares = [quantity / whole[name] for name, quantity in given.items() if whole.get(name)]
    share = shares[0] if shares else Decimal(0)
    return {name: given.get(name, quantity * share) for name, quantity in whole.items()}


def _resource(name: str, nominal: Decimal, config: Document) -> dict[str, Any]:
    """Return a flavor's resource: what the team has, may borrow and lends."""
    sharing = config["ResourceSharingConfig"]
    found: dict[str, Any] = {"name": name, "nominalQuota": _text(nominal)}
    borrows = sharing["Strategy"] == "LendAndBorrow"
    percent = Decimal(sharing.get("BorrowLimit", _BORROWS)) / 100 if borrows else Decimal(0)
    found["borrowingLimit"] = _text(nominal * percent)
    if sharing["Strategy"] == "DontLend":
        found["lendingLimit"] = "0"
    return found


def _text(quantity: Decimal) -> str:
    return f"{quantity.normalize():f}"
