"""What the simulated account knows besides moto: time, delays, faults, quotas, identities."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from hyperpod_eks.local.aws.echo import Echo
from hyperpod_eks.local.clock import Clock

if TYPE_CHECKING:
    from hyperpod_eks.local.kubernetes import Cluster
    from hyperpod_eks.local.kubernetes import Delays as KubernetesDelays
    from hyperpod_eks.local.tls import Pki

ACCOUNT = "123456789012"
#: The credentials of the local account; they open nothing anywhere else.
ACCESS_KEY = "ASIALOCALSTACK000000"
SECRET_KEY = "local"
#: Who those credentials are: a session of a role whose path its session ARN does not show.
ADMIN_PATH = "/team/"
ADMIN_ROLE = "Admin"
ADMIN_SESSION = "local"
ADMIN_ARN = f"arn:aws:iam::{ACCOUNT}:role{ADMIN_PATH}{ADMIN_ROLE}"

#: Kinds of EC2 whose next id can be chosen (``Sim.next_ids``), as their ids begin.
ID_KINDS = ("vpc", "subnet", "rtb", "sg", "nat")

_READS = re.compile(
    r"(Describe|Filter|List|Get|Head|Search|Simulate|Decode|AssumeRole|StartLiveTail)\w*"
)


def is_read(operation: str) -> bool:
    """Say whether an operation, by its name, changes nothing in the account."""
    return _READS.fullmatch(operation) is not None


@dataclass(frozen=True)
class Delays:
    """Simulated seconds that each transition takes; the defaults take no time at all.

    Some are limits: how much of it each thing takes is drawn (`Sim.draw`).  ``eni_left`` is no time
    but a share.
    """

    iam: float = 0.0  # until other services see a new role
    unseen: float = 0.0  # limit: until calls of EC2 and IAM see what was created
    nat_create: float = 0.0
    nat_delete: float = 0.0
    eni_linger: float = 0.0  # a service's network interfaces outlive what used them
    eni_left: float = 0.0  # share of HyperPod's that stay, free for their owner to delete
    endpoint_create: float = 0.0
    endpoint_delete: float = 0.0
    amp: float = 0.0  # until a workspace is created, and until it is deleted
    fsx_rules: float = 0.0  # limit: until FSx sees a security group's rules
    fsx_create: float = 0.0
    fsx_update: float = 0.0
    fsx_delete: float = 0.0
    eks_create: float = 0.0
    eks_update: float = 0.0
    eks_delete: float = 0.0
    addon: float = 0.0
    addon_check: float = 0.0  # until EKS sees that a DEGRADED add-on has all its replicas
    access_entry: float = 0.0  # until Kubernetes honours a new access entry
    logs: float = 0.0  # limit: until what EKS and HyperPod log is in CloudWatch
    hyperpod_create: float = 0.0  # cluster-level resources, before any node
    hyperpod_provision: float = 0.0  # from a node's request to its lifecycle script
    hyperpod_spread: float = 0.0  # limit: nodes of a Continuous cluster take so much longer
    hyperpod_lifecycle: float = 0.0
    hyperpod_software: float = 0.0  # UpdateClusterSoftware, per batch
    hyperpod_terminate: float = 0.0
    hyperpod_delete: float = 0.0
    governance: float = 0.0  # a scheduler policy's or a quota's create, update or delete
    deep_health: float = 0.0
    node_ready: float = 0.0
    pod_start: float = 0.0
    pod_run: float = 0.0  # of a pod that ends by itself, such as a Job's
    controller: float = 0.0  # reaction of Kubernetes' own controllers
    namespace: float = 0.0  # from a namespace's deletion until its content goes

    @classmethod
    def instant(cls) -> Delays:
        """Everything happens at once."""
        return cls()

    @classmethod
    def real(cls) -> Delays:
        """What AWS commonly takes: medians of public create and destroy logs, and its moods.

        HyperPod has the first node after 15 minutes and the last one after 30: "may take ~30 mins"
        (scripts/lib/hyperpod.sh of amazon-vpc-cni-k8s).  EKS looks at a DEGRADED add-on every 15
        minutes (aws-ia/terraform-aws-eks-blueprints, #642).  An id is not known everywhere for some
        seconds (EC2 API, "Eventual consistency"; IAM User Guide, "Changes that I make are not
        always immediately visible").  EKS writes its last logs after its deletion
        (terraform-aws-eks, #920).  Interfaces of HyperPod may stay ``available`` for good (public
        reports of users who deleted them by hand).
        """
        return cls(
            iam=8,
            unseen=5,
            nat_create=105,
            nat_delete=58,
            eni_linger=60,
            eni_left=0.25,
            endpoint_create=6,
            endpoint_delete=6,
            amp=20,
            fsx_rules=10,
            fsx_create=600,
            fsx_update=300,
            fsx_delete=300,
            eks_create=620,
            eks_update=300,
            eks_delete=205,
            addon=40,
            addon_check=900,
            access_entry=8,
            logs=45,
            hyperpod_create=240,
            hyperpod_provision=540,
            hyperpod_spread=900,
            hyperpod_lifecycle=90,
            hyperpod_software=900,
            hyperpod_terminate=180,
            hyperpod_delete=750,
            governance=20,
            deep_health=3600,
            node_ready=30,
            pod_start=10,
            pod_run=30,
            controller=1,
            namespace=5,
        )


@dataclass
class Fault:
    """Something that goes wrong with matching calls, ``count`` times.

    ``service`` and ``operation`` are regular expressions over the whole name
    (``ec2``, ``Create.*``). By ``kind``:

    - ``error``: the call is not carried out; it answers ``status``, ``code`` and ``message`` in
      the service's own error format;
    - ``lost``: the call takes effect and its answer is lost, the connection closes;
    - ``reset``: the connection closes, the call is not carried out;
    - ``delay``: the call is carried out ``seconds`` real seconds later;
    - ``lag``: what a call of EC2 or IAM creates stays unseen by describes, for ``reads`` of them
      and for ``seconds`` simulated seconds (eventual consistency).

    Of the calls that match, a share of ``rate`` is hit.
    """

    service: str
    operation: str = ".*"
    code: str = "ThrottlingException"
    status: int = 400
    message: str = "Rate exceeded"
    count: int = 1
    rate: float = 1.0
    kind: Literal["error", "lost", "reset", "delay", "lag"] = "error"
    seconds: float = 0.0
    reads: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("error", "lost", "reset", "delay", "lag"):
            raise ValueError(f"no such kind of fault: {self.kind}")

    def matches(self, service: str, operation: str) -> bool:
        """Say whether the call is one of those that this fault is about."""
        return (
            self.count > 0
            and re.fullmatch(self.service, service) is not None
            and re.fullmatch(self.operation, operation) is not None
        )


@dataclass(frozen=True)
class Call:
    """One call that reached the endpoint; ``status`` 0 says that it was not carried out.

    ``request`` is the path and the body of a call that changes something, as text.
    """

    service: str
    operation: str
    status: int
    mutating: bool
    at: float
    request: str = ""


@dataclass
class Unseen:
    """A new resource that describes leave out, for ``reads`` of them and until ``until``.

    ``refused`` says that changes do not know it either.
    """

    store: str
    key: str
    reads: int
    until: float
    refused: bool = False

    @property
    def is_unseen(self) -> bool:
        """Whether it is still hidden."""
        return self.reads > 0 or self.until > current().clock.elapsed()


@dataclass
class Sim:
    """The account's own state, beside the moto backends."""

    clock: Clock
    delays: Delays = field(default_factory=Delays)
    region: str = "us-west-2"
    faults: list[Fault] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    #: The Kubernetes endpoints of live EKS clusters, by cluster ARN.
    clusters: dict[str, Cluster] = field(default_factory=dict)
    #: Whether Kubernetes endpoints are called as EKS calls them, so that a proxy must be asked.
    host_names: bool = False
    #: The ports of those that are, by host name.
    hosts: dict[str, int] = field(default_factory=dict)
    #: Quotas that a test changed, by service code and quota name.
    quotas: dict[tuple[str, str], float] = field(default_factory=dict)
    #: Actions that SimulatePrincipalPolicy answers with implicitDeny.
    denied: set[str] = field(default_factory=set)
    next_ids: dict[str, str] = field(default_factory=dict)  # by kind: ``vpc``, ``subnet``...
    #: Zone names in which an interface endpoint service (``ec2messages``) is offered, where that is
    #: not every zone; none at all for a service that the region does not have.
    endpoint_zones: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Actions that SimulatePrincipalPolicy takes with no other (patterns, as in ``denied``).
    apart: set[str] = field(default_factory=set)
    #: Whether IAM users and sessions of roles may do only what their policies allow; the default
    #: credentials may all.
    enforce: bool = False
    #: How describes differ from what was sent, if they shall.
    echo: Echo | None = None
    #: What was created under a fault of kind ``lag`` and is not to be seen yet.
    unseen: list[Unseen] = field(default_factory=list)
    roles_at: dict[str, float] = field(default_factory=dict)
    #: What fails inside EKS and HyperPod: "group/NAME", "cluster/NAME", "addon/NAME" (NAME may be
    #: *) or "kubernetes/SWITCH" to how it fails, which the modules hyperpod_nodes, eks, eks_addons
    #: and kubernetes.failures list.
    failures: dict[str, str] = field(default_factory=dict)
    #: What AWS's moods are drawn from.
    seed: int = 0
    #: How often each kind of mood was asked for since the reset.
    draws: Counter[str] = field(default_factory=Counter)
    #: Draws the ids of EKS and HyperPod: the same in every run.
    ids: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311  no secrets
    _random: random.Random = field(
        default_factory=lambda: random.Random(0)  # noqa: S311  it picks faults, not secrets
    )

    @cached_property
    def pki(self) -> Pki:
        """The certificate authority of every Kubernetes endpoint, made when first needed."""
        from hyperpod_eks.local.tls import make_pki  # noqa: PLC0415  cryptography is slow to load

        return make_pki(("127.0.0.1", "localhost", f"*.{self.eks_domain}"))

    @property
    def eks_domain(self) -> str:
        """What the names of EKS's endpoints end in (EKS User Guide, "Cluster API server endpoint").

        Those of other regions keep their addresses.
        """
        return f"gr7.{self.region}.eks.amazonaws.com"

    @property
    def kubernetes_delays(self) -> KubernetesDelays:
        """The part of the delays that a Kubernetes endpoint takes care of itself."""
        from hyperpod_eks.local.kubernetes import Delays as Part  # noqa: PLC0415  not for EC2 alone

        table = self.delays
        return Part(table.pod_start, table.controller, table.namespace, table.pod_run)

    def fault(self, service: str, operation: str, *, lag: bool = False) -> Fault | None:
        """Take the first fault that hits this call, using up one of its count.

        Those of kind ``lag`` are asked for by the services, the others by the server.
        """
        for fault in self.faults:
            fits = (fault.kind == "lag") is lag and fault.matches(service, operation)
            if fits and self._random.random() < fault.rate:
                fault.count -= 1
                return fault
        return None

    def draw(self, what: str) -> float:
        """Draw how the next thing called ``what`` fares, from 0 to 1.

        The seed, the name and how often it was drawn decide it: what else the account does in the
        meantime does not, so a run that is repeated up to some call finds AWS in the same mood.
        """
        self.draws[what] += 1
        return random.Random(f"{self.seed} {what} {self.draws[what]}").random()  # noqa: S311  no secret

    def failure(self, kind: str, name: str) -> str:
        """Return how a thing shall fail, or an empty string: ``failure("group", "workers")``."""
        return self.failures.get(f"{kind}/{name}") or self.failures.get(f"{kind}/*") or ""

    def role_created(self, arn: str) -> None:
        """Start the delay after which other services see the role."""
        self.roles_at[arn] = self.clock.elapsed()

    def role_deleted(self, arn: str) -> None:
        """Forget the role."""
        self.roles_at.pop(arn, None)

    def role_visible(self, arn: str) -> bool:
        """Say whether a role exists and has spread to the services that would assume it."""
        if arn == ADMIN_ARN:  # was there before the stack
            return True
        at = self.roles_at.get(arn)
        return at is not None and self.clock.elapsed() - at >= self.delays.iam

    def quota(self, service: str, name: str) -> float:
        """Return a limit of the account, as ``quota("vpc", "VPCs per Region")``; else KeyError."""
        if (changed := self.quotas.get((service, name))) is not None:
            return changed
        from hyperpod_eks.local.aws.quotas import limits  # noqa: PLC0415  it imports this module

        return limits()[service][name]

    def set_quota(self, service: str, name: str, value: float) -> None:
        """Change one limit until the next reset; KeyError when there is no such quota."""
        self.quota(service, name)
        self.quotas[service, name] = value

    def stop_kubernetes(self, arn: str) -> None:
        """Stop the Kubernetes endpoint of an EKS cluster, if there is one."""
        if (cluster := self.clusters.pop(arn, None)) is not None:
            cluster.stop()

    def reset(self) -> None:
        """Forget everything but the delays."""
        self.clock.restart()
        for arn in list(self.clusters):
            self.stop_kubernetes(arn)
        self.roles_at.clear()
        self.quotas.clear()
        self.denied.clear()
        self.apart.clear()
        self.endpoint_zones.clear()
        self.next_ids.clear()
        self.enforce = self.host_names = False
        self.hosts.clear()
        self.echo = None
        self.failures.clear()
        self.unseen.clear()
        self.seed = 0
        self.draws.clear()
        self.faults.clear()
        self.calls.clear()
        self._random.seed(0)
        self.ids.seed(0)


def principal_of(access_key: str) -> str:
    """Return the ARN of the IAM role or user behind an access key, as EKS access entries name it.

    A session counts as its role, path included. A key that nobody was given counts as the
    default credentials.
    """
    from moto.iam.models import iam_backends  # noqa: PLC0415  moto is slow to load
    from moto.sts.models import sts_backends  # noqa: PLC0415

    if session := sts_backends[ACCOUNT]["aws"].get_assumed_role_from_access_key(access_key):
        return str(session.role_arn)
    if user := iam_backends[ACCOUNT]["aws"].get_user_from_access_key_id(access_key):
        return str(user.arn)
    return ADMIN_ARN


_current: list[Sim] = []


def current() -> Sim:
    """Return the state of the one stack that lives in this process."""
    if not _current:
        raise RuntimeError("no embedded stack is running in this process")
    return _current[-1]


def use(sim: Sim | None) -> None:
    """Make ``sim`` the current state, or none; RuntimeError when another one is.

    moto keeps its backends in module globals, so there can be only one at a time.
    """
    if sim is not None and _current:
        raise RuntimeError("this process has an embedded stack already; stop that one first")
    _current[:] = [] if sim is None else [sim]


def delays_from(changes: dict[str, float], base: Delays) -> Delays:
    """Return ``base`` with some transitions changed; ValueError names one that does not exist."""
    known = {f.name for f in fields(Delays)}
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"no such delay: {', '.join(unknown)}; choose from {sorted(known)}")
    return replace(base, **{name: float(seconds) for name, seconds in changes.items()})
