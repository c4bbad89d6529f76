"""Open a cluster for a purpose: the one place that joins config, state, account and stack.

The command line and the tests use this module, and so can your own programs (docs/library.md)::

    with session.connect({"name": "demo", "region": "us-west-2"}) as cluster:
        cluster.create()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyperpod_eks import adoption, consent, engine
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.session import session as log_in
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, tag
from hyperpod_eks.config import variables
from hyperpod_eks.config.load import load
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.engine import Context
from hyperpod_eks.engine.decide import keeps_data
from hyperpod_eks.engine.plan import Planned
from hyperpod_eks.engine.plan import plan as plan_create
from hyperpod_eks.errors import Remains, Usage
from hyperpod_eks.events import Event
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm import chart as charts
from hyperpod_eks.helm.program import find_helm
from hyperpod_eks.inventory.untracked import untracked
from hyperpod_eks.resolve.names import iam_name, lineage
from hyperpod_eks.resolve.pod_roles import addon_roles, creates_roles
from hyperpod_eks.resolve.resolved import ResolvedConfig, check_plans, resolve
from hyperpod_eks.resources.addon import PodIdentity
from hyperpod_eks.resources.base import Live, Resource
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.resources.governance import ComputeQuota
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.resources.iam import Role
from hyperpod_eks.resources.s3 import OWN, claim_key, empty, own_prefix
from hyperpod_eks.resources.team_use import queues_of
from hyperpod_eks.stack import ahead, stack
from hyperpod_eks.state.claim import Claim
from hyperpod_eks.state.declared import Declarations, Newest
from hyperpod_eks.state.location import store_of
from hyperpod_eks.state.manifest import Manifest, read
from hyperpod_eks.state.objects import NO_BUCKET
from hyperpod_eks.steps.s3 import scripts_prefix
from hyperpod_eks.terminal.text import clean
from hyperpod_eks.workers import start

if TYPE_CHECKING:
    import boto3

    from hyperpod_eks.preflight.inputs import Finding

__all__ = ["CREATE", "DELETE", "LOOK", "Purpose", "Session", "connect"]


@frozen
class Purpose:
    """What a cluster is opened for, as flags."""

    compares: bool = False
    """The cluster is compared with its config, whose variable references must be valid."""
    charts: bool = False
    """The chart is rendered, so that its values must be valid."""
    adopts: bool = False
    """The resources in ``existing`` are written to the manifest on disk."""
    installs: bool = False
    """Helm may run, and created resources count against quotas."""
    deletes: bool = False
    """Only existence and ownership of resources are read, not their fields."""
    nodes: bool = False
    """Nodes and operations are shown."""
    looks_first: bool = True
    """The first observation starts while the config is resolved; not for adopt."""


LOOK = Purpose()
STATUS = Purpose(nodes=True)
PLAN = Purpose(compares=True, charts=True)
CHANGE = Purpose(compares=True)
CREATE = Purpose(compares=True, charts=True, adopts=True, installs=True)
DELETE = Purpose(deletes=True)
ADOPT = Purpose(looks_first=False)


@dataclass
class Session:
    """One cluster in one account; `connect` opens it.

    Methods raise the errors of `hyperpod_eks.errors`.  Only `create` and `delete` change anything
    in AWS, and the manifest always records what they have done.
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
    _looked: bool = field(init=False, default=False)

    @property
    def manifest(self) -> Manifest:
        """The cluster's manifest."""
        return self.context.manifest

    @property
    def aws(self) -> Aws:
        """The clients of the account."""
        return self.context.aws

    def begin(self) -> None:
        """Adopt the resources that ``existing`` names, instead of creating them.

        Raises the errors of `adoption.adopt`: NotFound, Usage and Foreign.
        """
        now, write = self.context.clock.now(), self.purpose.adopts
        used = self.purpose.compares
        adoption.adopt(self.aws, self.config, self.manifest, now, write=write, used=used)

    def resolve(self, helm: str | None = None) -> None:
        """Resolve the config in the account, and declare the stack.

        ``helm`` is the path of the helm program, by default found on PATH; a session that does not
        install with helm does not need it.  Raises Usage without a usable helm, Usage and NotFound
        for a config that does not fit the account, and Usage for an account or region that differs
        from the manifest's.
        """
        purpose = self.purpose
        keys = ["helm/release", *(f"charts/{name}" for name in self.config.charts)]
        releases = [self.manifest.records.get(key) for key in keys]
        needed = purpose.installs and not all(each and each.state == "ready" for each in releases)
        program = start(partial(find_helm, helm)) if needed else None
        self.found_helm = needed
        if purpose.looks_first:
            counting = purpose.installs and not self.manifest.complete
            snapshot = Snapshot(self.aws, counting=counting, bare=purpose.deletes)
            self.context.first_snapshot = snapshot
            control = self.manifest.records.get("eks/cluster")
            before = str(control.want.get("version", "")) if control else ""
            beside = self._questions(counting)
            self.resolved = resolve(self.aws, self.config, snapshot, beside, before)
        else:
            self.resolved = resolve(self.aws, self.config)
        same_place(self.manifest, self.resolved)
        _refuse_own_bucket(self.manifest, self.resolved)
        _refuse_others_bucket(self.aws, self.manifest)
        self.context.claim = Claim(self.aws, self.resolved.bucket, self.manifest, self.patience)
        self.aws.claimed = self.resolved.bucket
        self.context.declare = self.declare
        helm = str(program.result().binary) if program else helm
        self.resolved = as_recorded(self.manifest, self.resolved)
        if purpose.compares:
            require_known_roles(self.manifest, self.resolved)
            _refuse_new_for_existing(self.manifest, self.config)
        self.wants = stack(self.resolved, helm)

    def declare(self) -> None:
        """Keep the manifest's config in the cluster's bucket, for runs on other machines.

        Raises as `Declarations.keep`.
        """
        if self.manifest.config and not self.purpose.deletes:
            resolved = self.resolved
            account = "" if "s3/bucket" in resolved.adopted else resolved.identity.account
            kept = Declarations(self.aws, resolved.bucket, account)
            self.before = kept.keep(self.manifest, given=self.given, seen=self.seen)

    def _questions(self, counting: bool) -> list[Callable[[Snapshot], object]]:
        """Return the reads of the first observation that can start at once."""
        name = self.config.name
        theirs, region = self.manifest.adopted, self.aws.session.region_name
        roles = [
            theirs.get(f"iam/{role}-role") or iam_name(name, purpose, region)
            for role, purpose in (("cluster", "eks"), ("execution", "hyperpod"))
        ]
        found = [*ahead(theirs.get("eks/cluster") or name, name, roles)]
        if counting:
            from hyperpod_eks.preflight import account  # noqa: PLC0415  not needed later

            found += account.ahead()
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
        """Let other runs have the cluster."""
        self.context.close()

    def plan(self) -> list[Planned]:
        """Return what `create` would do with each resource; change nothing."""
        return plan_create(self.wants, self._context_of_run())[0]

    def preflight(self, skip: Sequence[str] = ()) -> list[Finding]:
        """Return the problems that would stop `create`, the worst first; change nothing."""
        from hyperpod_eks.preflight import run as preflight_run  # noqa: PLC0415  status needs none
        from hyperpod_eks.preflight.inputs import Facts  # noqa: PLC0415  the same

        observations = {each.want.key: each for each in self.status()}
        facts = Facts(self.aws, self.config, self.resolved, observations, manifest=self.manifest)
        return preflight_run.run(facts, preflight_run.known(skip))

    def create(self) -> dict[str, Live]:
        """Create missing resources and update those that differ; return all resources by key.

        Safe to repeat: it continues where an earlier call stopped.
        """
        check_plans(self.resolved, self.aws)
        self.manifest.config = self.config.document()
        return engine.create(self.wants, self._context_of_run())

    def status(self) -> list[Observation]:
        """Compare all resources with their declarations; change nothing."""
        return engine.status(self.wants, self._context_of_run())

    def delete(
        self, keep: frozenset[str] = frozenset(), data: frozenset[str] = frozenset()
    ) -> tuple[list[str], dict[str, str]]:
        """Delete all resources of this cluster, and verify that AWS no longer shows them.

        ``keep`` are keys of resources to keep.  File systems and volumes of claims are kept, with
        what they are in and with the manifest, unless their ids are in ``data``.  In an EKS cluster
        that stays, what is in a team's namespace now goes with it; what comes into it later stops
        the delete.  Returns the keys of deleted resources, and the reasons for kept ones by key.
        Raises Remains for what AWS still shows, and Usage for a protected cluster.
        """
        context = self._context_of_run()
        wants = untracked(self.aws, self.resolved, self.wants)
        consent.refuse_protected(context, self.resolved)
        every = {want.key: want for want in (*self.manifest.remembered().values(), *wants)}
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
        """Return the context for a run; only the first run uses the first snapshot."""
        if self._looked:
            self.context.first_snapshot = None
        self._looked = True
        return self.context


def check_references(config: Config) -> None:
    """Raise Usage for a reference to an environment variable that is not set."""
    variables.resolved(config.chart.values, "chart.values")
    for name, each in config.charts.items():
        variables.resolved(each.values, f"charts.{name}.values")
    for name, addon in config.addons.items():
        variables.resolved(addon.configuration_values, f"addons.{name}.configuration_values")
    for index, document in enumerate(config.objects):
        variables.resolved(document, f"objects[{index}]")


def as_recorded(manifest: Manifest, resolved: ResolvedConfig) -> ResolvedConfig:
    """Keep the way in which the associations of each add-on were created.

    EKS refuses a second association of a service account, and what it says is about the version
    that a new add-on would get.
    """
    addons = dict(resolved.addons)
    for name, answer in resolved.addons.items():
        separate, inline = _recorded_roles(manifest, name)
        if separate or inline:
            addons[name] = replace(answer, standalone=bool(separate))
    return replace(resolved, addons=addons)


def _recorded_roles(manifest: Manifest, addon: str) -> tuple[set[str], set[str]]:
    """Return the recorded roles of an add-on: of separate associations, and of its own ones."""
    records = {key: one for key, one in manifest.records.items() if one.state != "deleted"}
    separate = {
        str(record.want.get("role"))
        for key, record in records.items()
        if record.kind == PodIdentity.kind and key == f"addons/{addon}-{record.want.get('account')}"
    }
    own = records.get(f"addons/{addon}")
    pairs = (own.want.get("roles") or ()) if own else ()
    return separate, {str(role) for _, role in pairs}


def require_known_roles(manifest: Manifest, resolved: ResolvedConfig) -> None:
    """Raise Usage for an add-on that has roles of ours, if EKS no longer says that it needs them.

    Its roles would be deleted as if they were no longer declared.
    """
    ours = {record.arn for record in manifest.records.values() if record.kind == Role.kind}
    for name, addon in resolved.config.asked_addons().items():
        decided = not creates_roles(name, addon) or any(addon_roles(resolved, name))
        separate, inline = _recorded_roles(manifest, name)
        if decided or not ours & (separate | inline):
            continue
        answer = resolved.addons.get(name)
        why = (answer and answer.unknown) or "EKS no longer says that it needs any"
        raise Usage(
            f"addons.{name}: which roles its pods need is not known ({why}), and the ones that they"
            " have are not deleted",
            f"Run the command again once EKS answers, or set addons.{name}"
            ".pod_identity_associations: roles of yours, or [] for none.",
            setting=f"addons.{name}.pod_identity_associations",
        )


def _refuse_new_for_existing(manifest: Manifest, config: Config) -> None:
    """Raise Usage for a new file system under the name of an existing one."""
    for name, one in config.storage.fsx_lustre.items():
        known = manifest.adopted.get(f"storage/{name}")
        if known and not one.file_system_id:
            setting = f"storage.fsx_lustre.{name}"
            raise Usage(
                f"{setting}: the existing file system {known} is used under this name",
                f"Choose another name for a new one, or set file_system_id: {known}.",
                setting=setting,
            )


def same_place(manifest: Manifest, resolved: ResolvedConfig) -> None:
    """Record account, region and lineage in the manifest; raise Usage if it has other ones."""
    here = (resolved.identity.account, resolved.region)
    if manifest.account and (manifest.account, manifest.region) != here:
        raise Usage(
            f"{manifest.store} belongs to account {manifest.account}, region {manifest.region}; "
            f"these credentials lead to account {here[0]}, region {here[1]}",
            "Use the right profile and region, or another manifest (--manifest).",
        )
    manifest.account, manifest.region = here
    manifest.lineage = lineage(resolved.identity, resolved.name)


def _refuse_own_bucket(manifest: Manifest, resolved: ResolvedConfig) -> None:
    """Raise Usage for a manifest in S3 where create or delete would delete it.

    The cluster's bucket is deleted with its objects; in an adopted one, the scripts' prefix is
    made equal to their folder.
    """
    bucket = f"s3://{resolved.bucket}/"
    adopted = "s3/bucket" in resolved.adopted
    scripts = scripts_prefix(resolved).removesuffix(f"{resolved.name}/")  # of all clusters
    taken = (f"{bucket}{scripts}", f"{bucket}{OWN}") if adopted else (bucket,)
    if str(manifest.store).startswith(taken):
        raise Usage(
            f"the manifest {manifest.store} is among the objects of the cluster {resolved.name},"
            " and would be deleted with them",
            "Choose another bucket or prefix with `state` or --manifest; to move it, copy the"
            " object there first.",
            setting="state",
        )


def _refuse_others_bucket(aws: Aws, manifest: Manifest) -> None:
    """Raise Usage for a manifest in the bucket of another cluster, whose delete would delete it.

    All of them begin with ``sagemaker-`` and have the tags of their cluster.
    """
    bucket = str(manifest.store).removeprefix("s3://").partition("/")[0]
    if manifest.store.path or not bucket.startswith("sagemaker-"):
        return
    with absent("NoSuchTagSet", "NoSuchBucket", "AccessDenied"):  # then it is none, or not ours
        other = tag(aws.s3.get_bucket_tagging(Bucket=bucket)["TagSet"], CLUSTER)
        if other is not None:
            raise Usage(
                f"{bucket} is the bucket of the cluster {clean(other)}: its delete would delete the"
                f" manifest {manifest.store}",
                "Choose another bucket with `state` or --manifest; to move it, copy the object"
                " there first.",
                setting="state",
            )


@contextmanager
def connect(
    config: str | JsonMapping,
    *,
    purpose: Purpose = CREATE,
    manifest: Path | str | None = None,
    profile: str | None = None,
    account: boto3.Session | None = None,
    report: Callable[[Event], None] = lambda event: None,
    timeout: float | None = None,
) -> Iterator[Session]:
    """Open a cluster, and hold the lock of its manifest while the context is open.

    ``config`` is a file's path or its content, ``manifest`` the path or S3 URL of the manifest
    (default ``./NAME.hyperpod-eks.json``).  ``account`` is a boto3 session that replaces
    ``profile`` and the AWS configuration.  ``report`` is called with each event; after ``timeout``
    seconds the session stops waiting for AWS.  Raises Usage, Denied, Locked and NotFound.
    """
    loaded = load(config, {}, os.environ)
    check_references(loaded)
    charts.require_valid(loaded.region, loaded.chart.values)
    opened = account or log_in(loaded.region, profile)
    place = str(manifest) if manifest else None
    store = store_of(place, loaded.name, lambda: opened, state=loaded.state)
    with store.locked():
        aws = Aws(opened, loaded.name, loaded.tags)
        context = Context(aws, read(store, loaded.name), report)
        if timeout:
            context.deadline = context.clock.now() + timeout
        found = Session(loaded, context, purpose)
        found.begin()
        found.resolve()
        try:
            yield found
        finally:
            found.close()
