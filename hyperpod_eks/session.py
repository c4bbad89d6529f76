"""Open a cluster for a purpose: the one place that joins config, state, account and stack.

The command line and the tests use this module, and so can your own programs (docs/library.md)::

    with session.connect({"name": "demo", "region": "us-west-2"}) as cluster:
        cluster.create()
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from hyperpod_eks import adoption, consent, engine
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.session import region_of
from hyperpod_eks.aws.session import session as log_in
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.load import load
from hyperpod_eks.config.model import Config
from hyperpod_eks.consistency import (
    as_recorded,
    check_references,
    refuse_new_for_existing,
    refuse_others_bucket,
    refuse_own_bucket,
    require_known_roles,
    same_place,
)
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.engine import Context
from hyperpod_eks.engine.decide import keeps_data
from hyperpod_eks.engine.plan import Planned, new_administrator
from hyperpod_eks.engine.plan import plan as plan_create
from hyperpod_eks.errors import Remains, Unfinished, Usage
from hyperpod_eks.events import Event
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm import chart as charts
from hyperpod_eks.helm.program import find_helm
from hyperpod_eks.inventory.untracked import untracked
from hyperpod_eks.kube.access import import_whole
from hyperpod_eks.refusals import as_ours, callback
from hyperpod_eks.resolve.names import iam_name
from hyperpod_eks.resolve.resolved import ResolvedConfig, check_plans, resolve
from hyperpod_eks.resources.base import Live, Resource
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.resources.governance import ComputeQuota
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.resources.s3 import claim_key, empty, own_prefix
from hyperpod_eks.resources.team_use import queues_of
from hyperpod_eks.stack import ahead, stack
from hyperpod_eks.state.claim import Claim
from hyperpod_eks.state.declared import Declarations, Newest
from hyperpod_eks.state.location import SCHEME, place_of, store_of
from hyperpod_eks.state.manifest import Manifest, read
from hyperpod_eks.state.objects import NO_BUCKET
from hyperpod_eks.workers import start

if TYPE_CHECKING:
    import boto3

    from hyperpod_eks.preflight.inputs import Finding

P = ParamSpec("P")
T = TypeVar("T")
__all__ = ["CREATE", "DELETE", "LOOK", "Purpose", "Session", "connect"]


@frozen
class Purpose:
    """What a cluster is opened for, as flags."""

    compares: bool = False
    """The cluster is compared with its config, whose variable references must be valid."""
    charts: bool = False
    """The chart is rendered, so that its values must be valid."""
    installs: bool = False
    """Helm may run, and created resources count against quotas."""
    deletes: bool = False
    """Only existence and ownership of resources are read, not their fields."""
    nodes: bool = False
    """Nodes and operations are shown."""
    looks_first: bool = True
    """The first observation starts while the config is resolved; not for adopt."""
    reads: bool = False
    """`Session.create` and `Session.delete` are refused."""


LOOK = Purpose(reads=True)
STATUS = Purpose(nodes=True, reads=True)
PLAN = Purpose(compares=True, charts=True, reads=True)
CHANGE = Purpose(compares=True)
CREATE = Purpose(compares=True, charts=True, installs=True)
DELETE = Purpose(deletes=True)
ADOPT = Purpose(looks_first=False)


def _alone(method: Callable[Concatenate[Session, P], T]) -> Callable[Concatenate[Session, P], T]:
    """Make a method of `Session` run alone, and raise errors of this package only.

    Two calls at once would take each other's answers.  After a failed call the next one begins
    without the answers that it left behind.
    """

    @wraps(method)
    def run(session: Session, /, *given: P.args, **named: P.kwargs) -> T:
        if not session.busy.acquire(blocking=False):
            raise Usage("another call of this session is running", "Wait until it ends.")
        session.runner = threading.get_ident()
        try:
            if session.closed:
                raise Usage("this session is closed", "Call it inside its `with` block.")
            if session.failed:
                session.context.renew()
                session.failed = False
            with as_ours():
                return method(session, *given, **named)
        except BaseException:
            session.failed = True
            raise
        finally:
            session.busy.release()

    return run


@dataclass(eq=False, repr=False)
class Session:
    """One cluster in one account; `connect` opens it.

    Methods raise the errors of `hyperpod_eks.errors`.  Only `create` and `delete` change anything
    in AWS, and the manifest always records what they have done.  A session makes one call at a
    time: `plan`, `preflight`, `create`, `status` and `delete` raise Usage while another one runs,
    and after the session's end.
    """

    config: Config
    context: Context
    purpose: Purpose = LOOK
    patience: float = 0.0
    """Seconds to wait for a run that has claimed the cluster."""
    given: bool = True
    """Whether the user gave the config; else it is the one that the cluster was declared with."""
    seen: Newest | None = None
    """What the cluster's bucket had when the config was chosen; None if that is not known."""
    resolved: ResolvedConfig = field(init=False)
    wants: list[Resource] = field(init=False, default_factory=list)
    """All declared resources, in order of dependency."""
    found_helm: bool = field(init=False, default=False)
    """Whether a usable helm was found; a session that expects to install nothing looks for none."""
    before: JsonObject = field(init=False, default_factory=dict)
    """The config that this run's has replaced in the cluster's bucket; {} for none."""
    busy: threading.Lock = field(init=False, default_factory=threading.Lock)
    """Held by the method that runs, in the thread ``runner``."""
    runner: int = field(init=False, default=0)
    failed: bool = field(init=False, default=False)
    """Whether the last method has failed, and may have left calls under way."""
    closed: bool = field(init=False, default=False)
    _begun: Snapshot | None = field(init=False, default=None)
    _looked: bool = field(init=False, default=False)
    _helm: str | None = field(init=False, default=None)
    _retired: bool = field(init=False, default=False)
    _deletes: bool = field(init=False, default=False)

    @property
    def manifest(self) -> Manifest:
        """The cluster's manifest."""
        return self.context.manifest

    @property
    def aws(self) -> Aws:
        """The clients of the account."""
        return self.context.aws

    @property
    def kept_data(self) -> dict[str, str]:
        """What the last `delete` has kept because it holds data: ids, with the resources' keys."""
        return {id_: want.key for id_, (want, _) in self.context.kept_data.items()}

    def begin(self) -> None:
        """Use the resources that ``existing`` names, instead of creating them.

        Only the manifest in memory changes: what changes the cluster saves it before.  Raises the
        errors of `adoption.adopt`: NotFound, Usage and Foreign.
        """
        now, used = self.context.clock.now(), self.purpose.compares
        adoption.adopt(self.aws, self.config, self.manifest, now, used=used)

    @property
    def lacks_releases(self) -> bool:
        """Whether `create` expects to install with helm: the manifest lacks a ready release."""
        keys = ["helm/release", *(f"charts/{name}" for name in self.config.charts)]
        releases = [self.manifest.records.get(key) for key in keys]
        return not all(each and each.state == "ready" for each in releases)

    def resolve(self, helm: str | None = None) -> None:
        """Resolve the config in the account, and declare the stack.

        ``helm`` is the path of the helm program, by default found on PATH; a session that does not
        install with helm does not need it.  Raises Usage without a usable helm, Usage and NotFound
        for a config that does not fit the account, and Usage for an account or region that differs
        from the manifest's.
        """
        self._helm, purpose = helm, self.purpose
        needed = purpose.installs and self.lacks_releases
        program = start(partial(find_helm, helm)) if needed else None
        self.found_helm = needed
        if purpose.looks_first:
            counting = purpose.installs and not self.manifest.complete
            snapshot = Snapshot(self.aws, counting=counting, bare=purpose.deletes)
            if self._begun:
                self._begun.end()
            self._begun = self.context.first_snapshot = snapshot
            control = self.manifest.records.get("eks/cluster")
            before = str(control.want.get("version", "")) if control else ""
            beside = self._questions(counting)
            self.resolved = resolve(self.aws, self.config, snapshot, beside, before)
        else:
            self.resolved = resolve(self.aws, self.config)
        same_place(self.manifest, self.resolved)
        refuse_own_bucket(self.manifest, self.resolved)
        refuse_others_bucket(self.aws, self.manifest)
        self.context.claim = Claim(self.aws, self.resolved.bucket, self.manifest, self.patience)
        self.aws.claimed = self.resolved.bucket
        self.context.declare = self.declare
        helm = str(program.result().binary) if program else helm
        self.resolved = as_recorded(self.manifest, self.resolved)
        if purpose.compares:
            require_known_roles(self.manifest, self.resolved)
            refuse_new_for_existing(self.manifest, self.config)
        self.wants = stack(self.resolved, helm)

    def declare(self) -> None:
        """Keep the manifest's config in the cluster's bucket, for runs on other machines.

        Raises as `Declarations.keep`.
        """
        if self.manifest.config and not (self.purpose.deletes or self._deletes):
            resolved = self.resolved
            account = "" if "s3/bucket" in resolved.adopted else resolved.identity.account
            kept = Declarations(self.aws, resolved.bucket, account)
            self.before = kept.keep(self.manifest, given=self.given, seen=self.seen)

    def _questions(self, counting: bool) -> list[Callable[[Snapshot], object]]:
        """Return the reads of the first observation that can start at once."""
        name = self.config.name
        theirs, region = self.manifest.adopted, self.aws.region
        roles = [
            theirs.get(f"iam/{role}-role") or iam_name(name, purpose, region)
            for role, purpose in (("cluster", "eks"), ("execution", "hyperpod"))
        ]
        found = [*ahead(theirs.get("eks/cluster") or name, name, roles)]
        if counting:
            from hyperpod_eks.preflight import account  # noqa: PLC0415  not needed later

            found = [*account.ahead(), *found]  # the slowest first
        if self.purpose.nodes:
            found += [
                partial(hyperpod_api.instances, name=name),
                partial(hyperpod_api.operations, name=name),
            ]
            records = self.manifest.records.values()
            if any((x.kind, x.state) == (ComputeQuota.kind, "ready") for x in records):
                found.append(partial(queues_of, name=theirs.get("eks/cluster") or name))
        return found

    def close(self) -> None:
        """Let other runs have the cluster; a call in another thread is stopped, and waited for.

        Raises Usage in a function that a call of this session calls: the call ends with that.
        """
        self.closed = True
        try:
            if self.busy.locked():
                self.context.interrupt(Unfinished("the session was closed during this call"))
                if self.runner == threading.get_ident():
                    raise Usage("a session cannot be closed by its own call", "Raise an error.")
                with self.busy:
                    pass
        finally:
            if self._begun:
                self._begun.end()
            self.context.close()

    @_alone
    def plan(self) -> list[Planned]:
        """Return what `create` would do with each resource; change nothing."""
        context = self._context_of_run()
        return plan_create(self.wants, context)[0]

    @_alone
    def preflight(self, skip: Sequence[str] = ()) -> list[Finding]:
        """Return the problems that would stop `create`, the worst first; change nothing."""
        from hyperpod_eks.preflight import run as checks  # noqa: PLC0415  status needs none
        from hyperpod_eks.preflight.inputs import Facts  # noqa: PLC0415  the same

        context = self._context_of_run()
        seen = engine.status(self.wants, context)
        observations = {each.want.key: each for each in seen}
        facts = Facts(self.aws, self.config, self.resolved, observations, manifest=self.manifest)
        skipped = checks.known(skip)
        found = [*checks.run(facts, skipped), *checks.about_settings(facts)]
        return checks.in_order(one for one in found if one.id not in skipped)

    @_alone
    def create(self, consent: Callable[[list[str]], None] | None = None) -> dict[str, Live]:
        """Create missing resources and update those that differ; return all resources by key.

        Safe to repeat: it continues where an earlier call stopped.  ``consent`` is called with what
        the cluster would lose or expose, a line each, before that happens; it raises to refuse.
        Without it, such a create raises Usage.
        """
        if self.purpose.reads or self.purpose.deletes:
            raise Usage("this session is not for creating", "Open it with purpose=CREATE.")
        context, before = self._context_of_run(), self.context.consent
        check_plans(self.resolved, self.aws)
        self.manifest.config = self.config.document()
        context.consent = callback(consent) if consent else before
        context.preflight = self._before_first_change
        try:
            return engine.create(self.wants, context)
        finally:
            context.consent = before

    def _before_first_change(self, observations: list[Observation]) -> None:
        from hyperpod_eks.preflight.cluster import require_folders  # noqa: PLC0415  create alone

        require_folders(self.config, observations)
        if line := new_administrator(observations, self.context):
            self.context.consent([line])

    @_alone
    def status(self) -> list[Observation]:
        """Compare all resources with their declarations; change nothing."""
        context = self._context_of_run()
        return engine.status(self.wants, context)

    @_alone
    def delete(
        self, keep: Collection[str] = frozenset(), data: Collection[str] = frozenset()
    ) -> tuple[list[str], dict[str, str]]:
        """Delete all resources of this cluster, and verify that AWS no longer shows them.

        ``keep`` are keys of resources to keep: of the network, the bucket and log groups.  File
        systems and volumes of claims are kept, with what they are in and with the manifest, unless
        their ids are in ``data``.  In an EKS cluster that stays, what is in a team's namespace now
        goes with it; what comes into it later stops the delete.  Returns the keys of deleted
        resources, and the reasons for kept ones by key.  Raises Remains for what AWS still shows,
        and Usage for a protected cluster and for a key that cannot be kept.
        """
        if self.purpose.reads:
            raise Usage("this session is only for reading", "Open it with purpose=DELETE.")
        self._deletes = True
        try:
            return self._deleted(_several(keep, "keep"), _several(data, "data"))
        finally:
            self._deletes = False

    def _deleted(
        self, keep: frozenset[str], data: frozenset[str]
    ) -> tuple[list[str], dict[str, str]]:
        context = self._context_of_run()
        context.first_snapshot = None  # a program may have waited, and somebody protected it
        wants = untracked(self.aws, self.resolved, self.wants)
        every = {want.key: want for want in (*self.manifest.remembered().values(), *wants)}
        able = {key for key, want in every.items() if want.keep_group}
        if wrong := sorted(keep - able):
            raise Usage(
                f"keep: {', '.join(wrong)} cannot be kept", f"Use {', '.join(sorted(able))}."
            )
        consent.refuse_protected(context, self.resolved)
        consent.taken_from_others(every.values(), context, self.resolved)
        removed, kept = engine.delete(wants, context, keep, data)
        left = untracked(self.aws, self.resolved, self.wants)
        if remains := engine.verify_deleted(left, context, frozenset(kept), removed):
            lines = "\n".join(f"  {key}: {what}" for key, what in remains.items())
            raise Remains(f"AWS still shows:\n{lines}")
        if not keep and not keeps_data(kept.values()):
            self.retire()
        return removed, kept

    def retire(self) -> None:
        """Remove what the tool keeps of a deleted cluster: in an adopted bucket, and on disk."""
        try:
            self._leave_adopted_bucket()
        except Usage as error:
            if error.reason != NO_BUCKET:  # otherwise somebody has deleted it
                raise
        self.manifest.retire()
        self._retired = True

    def _leave_adopted_bucket(self) -> None:
        claim = self.context.claim
        if claim and "s3/bucket" in self.resolved.adopted:
            if not claim.held:
                claim.take()
            bucket, name = self.resolved.bucket, self.resolved.name
            empty(self.aws, bucket, own_prefix(name))
            claim.delete()
            empty(self.aws, bucket, claim_key(name))  # its versions, if the bucket has them

    def _context_of_run(self) -> Context:
        """Return the context for a run; only the first run uses the first snapshot.

        After a complete delete the cluster is opened anew: what ``existing`` names was forgotten.
        """
        if self._retired:
            self.begin()
            self.resolve(self._helm)
            self._retired = False
        if self._looked:
            self.context.first_snapshot = None
        self._looked = True
        return self.context


def _several(names: Collection[str], argument: str) -> frozenset[str]:
    """Return names as a set.  Raises Usage for a text, which is a collection of letters."""
    if isinstance(names, str):
        raise Usage(f"{argument}: {names!r} is a text", f"Pass a set: {{{names!r}}}.")
    return frozenset(names)


@contextmanager
def connect(
    config: str | Path | JsonMapping,
    *,
    purpose: Purpose = CREATE,
    manifest: Path | str | None = None,
    profile: str | None = None,
    account: boto3.Session | None = None,
    report: Callable[[Event], None] = lambda event: None,
    warn: Callable[[str], None] = lambda text: None,
    timeout: float | None = None,
    wait: float = 0.0,
    helm: str | None = None,
) -> Iterator[Session]:
    """Open a cluster, and hold the lock of its manifest while the context is open.

    ``config`` is a file's path or its content, ``manifest`` the path or S3 URL of the manifest
    (default: ``state`` of the config, or ``NAME.hyperpod-eks.json`` in the current folder).
    ``account`` is a boto3 session that replaces ``profile`` and the AWS configuration; it must have
    the config's region.  ``helm`` is the path of the helm program.  Of the variables
    ``HYPERPOD_EKS_*`` of the command line, only ``HYPERPOD_EKS_HELM`` has an effect.  ``report`` is
    called with each event, ``warn`` with each problem that does not stop a run.  After ``timeout``
    seconds the session stops waiting for AWS; it waits ``wait`` seconds for a run that has locked
    the cluster.  The `kubernetes` package is imported whole, as the program may import it itself.
    Raises Usage, Denied, Locked and NotFound.
    """
    import_whole()
    with ExitStack() as stack:
        with as_ours():
            loaded = _loaded(config, account)
            opened = account._session if account else log_in(loaded.region, profile)
            if (region := region_of(opened)) != loaded.region:
                raise Usage(
                    f"account: its region is {region}, and the config's is {loaded.region}",
                    f"Pass boto3.Session(region_name={loaded.region!r}).",
                )
            place = str(manifest or place_of(loaded.name, loaded.state))
            if not place.startswith(SCHEME):
                place = str(Path(place).absolute())  # the program may change its folder
            store = store_of(place, loaded.name, lambda: opened)
            stack.enter_context(store.locked(wait))
            aws = Aws(opened, loaded.name, loaded.tags)
            kept = read(store, loaded.name)
            context = Context(aws, kept, callback(report), warn=callback(warn))
            if timeout:
                context.deadline = context.clock.now() + timeout
            found = Session(loaded, context, purpose, wait)
            stack.callback(found.close)
            found.begin()
            found.resolve(helm)
        yield found


def _loaded(config: str | Path | JsonMapping, account: boto3.Session | None) -> Config:
    """Read and check a config.  Only what the program passes counts, and no variable of ours."""
    if not isinstance(config, str | Path | Mapping):
        raise Usage(f"config: {type(config).__name__} is neither a path nor a mapping")
    environ = {name: x for name, x in os.environ.items() if not name.startswith("HYPERPOD_EKS_")}
    if account and account.region_name:
        environ["AWS_REGION"] = account.region_name  # of a config that names none
    loaded = load(str(config) if isinstance(config, Path) else config, {}, environ)
    check_references(loaded)
    charts.require_valid(loaded.region, loaded.chart.values)
    return loaded
