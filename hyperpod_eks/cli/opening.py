"""Open a cluster for a command: read its config and manifest, log in, and declare its stack."""

from __future__ import annotations

import copy
import os
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import VPCS
from hyperpod_eks.aws.prices import Listed, Rate
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import called
from hyperpod_eks.cli.explain import explaining
from hyperpod_eks.cli.lookup import refuse_to_guess
from hyperpod_eks.cli.options import Cluster, Lock, Place, Wait
from hyperpod_eks.cli.settings import Edit, config_of, entered, settings
from hyperpod_eks.cli.signals import stoppable
from hyperpod_eks.config import variables
from hyperpod_eks.config.model import Config
from hyperpod_eks.config.rules import get
from hyperpod_eks.config.warnings import warnings
from hyperpod_eks.consistency import check_references
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.engine import Context, words_of
from hyperpod_eks.errors import HyperpodError, NotFound, Usage
from hyperpod_eks.events import Report
from hyperpod_eks.helm import chart as charts
from hyperpod_eks.local import CHART
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.session import PLAN, Purpose, Session
from hyperpod_eks.state.declared import (
    Declarations,
    Newest,
    further_charts,
    located,
    portable,
)
from hyperpod_eks.state.manifest import Manifest, versions
from hyperpod_eks.workers import start

LOOKING = 10.0
"""Seconds for which a read-only command retries a failed call, after botocore's own retries."""


ALLOWED = "HYPERPOD_EKS_ALLOW_ENV"
"""Names the variables that a config from another machine may use."""


@dataclass(eq=False, repr=False)
class Opened(Session):
    """A session of the command line."""

    declared: bool = True
    """Whether the config is the cluster's; False for the minimal one."""
    found: JsonObject = field(default_factory=dict)
    """The config that the cluster was declared with, as it was found; {} for none."""
    unread: HyperpodError | None = None
    """Why the config in the cluster's bucket could not be read."""
    kept_in: str = ""
    """Where the config was found in the cluster's bucket, if nothing here has one."""
    run: str = ""
    """The ID of this run, if it has found no resource of the cluster."""
    listed: Future[dict[Rate, Listed]] | None = None
    """The prices of what is declared, if they are looked up beside the run."""

    def declare(self) -> None:
        """Declare the config, and record this run as the cluster's creator if no other one is."""
        super().declare()
        if self.run and self.context.claim and self.context.claim.alone:
            self.manifest.run = self.run

    def warn(self) -> list[str]:
        """Print the warnings about the config in this account, and return them."""
        resolved = self.resolved
        odd = [*warnings(self.config), *resolved.warnings, *resolved.unknown_roles.values()]
        state, store = self.config.state, self.manifest.store
        if state.startswith("s3://") and store.path is not None:
            odd.append(
                f"state: the manifest is kept in {state}, but this run uses {store}; to use that"
                f" one, set HYPERPOD_EKS_STATE={shlex.quote(state)} or pass --manifest"
            )
        for warning in odd:
            current_console().warn(warning)
        return odd

    def restore(self) -> None:
        """Make the config that the cluster had its own again, if this run has kept another one.

        What another run has declared since the manifest's is newer than that.
        """
        found = self.found if not (self.given and self.before) else located(self.before, {})
        if not found:
            return
        self.manifest.config = found
        if self.context.claim and self.context.claim.held:
            self.given, self.seen = True, None
            self.declare()
        if self.manifest.exists:
            self.manifest.save()


@contextmanager
def opened(
    purpose: Purpose,
    options: Cluster,
    report: Report,
    *,
    write: bool = True,
    files: bool,
    helm: str | None = None,
    broken: bool = False,
    edit: Edit | None = None,
) -> Iterator[Opened]:
    """Read config and manifest, ask AWS for the caller and the region, and declare the stack.

    ``write``, ``files`` and ``broken`` are those of `settings`.  ``edit`` changes the config of a
    cluster that exists.
    Raises Usage if the cluster exists, ``purpose`` compares it with its config, and there is none.
    """
    with settings(options, write=write, files=files, broken=broken, lenient=purpose.deletes) as (
        loaded,
        manifest,
    ):
        source = _Source(options, files, edit, broken=broken)
        config = source.edited(loaded, manifest)
        if purpose.compares:
            refuse_variables(options, manifest, manifest.config)
            check_references(config)
        aws = entered(config, options.profile, write=write)
        context = _context(options, aws, manifest, report, write=write)
        found, given = copy.deepcopy(manifest.config), bool(options.file)
        at = Opened(config, context, purpose, given=given, declared=given or bool(found))
        at.found = found
        at.patience = options.lock_timeout if isinstance(options, Lock) else 0.0
        if not given and not (found and purpose.deletes):  # a delete compares nothing
            source.newest = start(partial(newest_config, aws, manifest, config))
        at.begin()
        collect = purpose.installs or purpose.deletes
        with (
            explaining(aws, config, called(config.name, options), collect=collect),
            stoppable(context.stop),
        ):
            try:
                _place(at, options, source, helm)
                yield at
            finally:
                at.close()


def _context(
    options: Cluster, aws: Aws, manifest: Manifest, report: Report, *, write: bool
) -> Context:
    """Return the context of a run; its deadline is ``--timeout``, or `LOOKING` if read-only."""
    context = Context(aws, manifest, report, parallelism=options.parallelism)
    asked = options.timeout if isinstance(options, Wait) else None
    if seconds := asked or (None if write else LOOKING):
        context.deadline = context.clock.now() + seconds
    return context


@dataclass(eq=False, repr=False)
class _Source:
    """Where a command's config comes from, if no file has it."""

    place: Place
    files: bool
    edit: Edit | None
    broken: bool
    newest: Future[tuple[Declarations, Newest]] | None = None
    """The newest config in the cluster's bucket; None if the user gave one."""
    failed: HyperpodError | None = None
    """Why the config of this folder cannot be used; the newest one may be valid."""

    def edited(self, config: Config, manifest: Manifest) -> Config:
        """Return the config of the manifest with the change of this command."""
        if not self.edit or self.place.file or not manifest.config:
            return config
        try:
            return config_of(self.place, manifest, self.files, edit=self.edit)
        except (NotFound, Usage) as error:
            self.failed = error
            return config


def _place(at: Opened, place: Place, source: _Source, helm: str | None) -> None:
    """Resolve the config in the account, and declare the stack.

    While the config that is remembered here is resolved, the bucket is asked for a newer one.
    """
    try:
        if not source.failed:
            _resolve(at, helm)
    except HyperpodError as error:
        source.failed = error
    if source.newest and (_take_newest(at, source) or _take_backup(at, source)):
        at.context.first_snapshot = None
        at.begin()
        _resolve(at, helm)
    elif source.failed:
        raise source.failed
    if at.purpose.compares and not at.declared:
        snapshot = at.context.first_snapshot or Snapshot(at.context.aws)
        try:
            refuse_to_guess(snapshot, at.resolved, place, at.unread)
        except Usage:
            _refuse_overtaken(at, source)
            raise
        _refuse_claimed(at, source)
    _forget_creator(at)


def _forget_creator(at: Opened) -> None:
    """Forget which run created the cluster if another one of its name was created since."""
    record, snapshot = at.manifest.records.get("hyperpod/cluster"), at.context.first_snapshot
    if at.manifest.run and record and record.arn and snapshot:
        found = hyperpod_api.describe(snapshot, at.config.name)  # the first look has asked
        if found and found["ClusterArn"] != record.arn:
            at.manifest.run = ""


def _resolve(at: Opened, helm: str | None) -> None:
    if at.purpose.charts:
        charts.require_valid(at.config.region, at.config.chart.values)
    at.resolve(helm)


def newest_config(aws: Aws, manifest: Manifest, config: Config) -> tuple[Declarations, Newest]:
    """Ask the cluster's bucket for its newest config.  Raises Denied."""
    theirs = manifest.adopted.get("s3/bucket") or config.existing.bucket
    account = manifest.account or aws.identity.account  # known before AWS says so
    found = Declarations(aws, theirs or config.bucket(account), "" if theirs else account)
    return found, found.look()


def _take_newest(at: Opened, source: _Source) -> bool:
    """Use the newest config in the cluster's bucket; return whether it is another one.

    Raises Usage for one that cannot be used, and NotFound for one without the group that the
    command changes, if the command compares the cluster with its config.
    """
    try:
        return _newest(at, source)
    except (NotFound, Usage) as error:
        if at.purpose.compares:
            raise
        if source.failed:
            raise source.failed from None
        at.unread = error
    except Exception as error:
        if source.failed:
            raise source.failed from None
        if not (at.declared or isinstance(error, HyperpodError)):
            raise
        at.unread = error if isinstance(error, HyperpodError) else HyperpodError(words_of(error))
    if at.declared or not at.purpose.compares:
        current_console().warn(f"{at.unread} {at.unread.hint}".rstrip())
    return False


def _newest(at: Opened, source: _Source) -> bool:
    """Do the work of `_take_newest`.  Raises what the bucket answers."""
    assert source.newest
    kept, newest = source.newest.result()
    if not (newest.number or at.declared or source.failed):
        snapshot = at.context.first_snapshot or Snapshot(at.aws)
        kept, newest = in_adopted_bucket(snapshot, at.config.name) or (kept, newest)
    at.seen = newest
    if newest.mark in ("", at.manifest.config_version):
        at.manifest.config_version = newest.mark  # the bucket may have been emptied since
        return False
    declared = kept.read(newest)
    same = bool(at.found) and portable(at.found, declared.config) == declared.config
    if not same:
        if at.purpose.compares:
            refuse_variables(source.place, at.manifest, declared.config, at.found)
        _use(at, source, declared.config, kept.name(newest.number))
        if at.declared:
            current_console().warn(
                f"another run has declared a config of {at.config.name} at {declared.saved_at},"
                f" which is used instead of the one in {at.manifest.store}"
            )
        else:
            at.kept_in = kept.name(newest.number)
        at.declared = True
    at.manifest.config_version = newest.mark
    return not same


def current(place: Cluster, aws: Aws, manifest: Manifest, config: Config, report: Report) -> Config:
    """Return the config that the cluster was declared with, or ``config`` without one.

    For a command that resolves it in its own way; what AWS refuses is left to that.  Raises Usage
    for a config that cannot be used.
    """
    if place.file:
        return config
    context = _context(place, aws, manifest, report, write=False)
    declared = bool(manifest.config)
    at = Opened(config, context, PLAN, given=False, declared=declared)
    at.found = copy.deepcopy(manifest.config)
    source = _Source(place, files=False, edit=None, broken=False)
    source.newest = start(partial(newest_config, aws, manifest, config))
    try:
        if not _take_newest(at, source):
            _take_backup(at, source)
    except Usage:
        raise
    except Exception:  # noqa: BLE001  each check says what it may not see
        return config
    return at.config


def in_adopted_bucket(snapshot: Snapshot, name: str) -> tuple[Declarations, Newest] | None:
    """Ask the bucket from which the nodes get their scripts, if it is not the cluster's own."""
    found = hyperpod_api.describe(snapshot, name)
    for group in hyperpod_api.every_group(found) if found else ():
        uri = str((group.get("LifeCycleConfig") or {}).get("SourceS3Uri") or "")
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if prefix.rstrip("/") == f"hyperpod-eks/{name}" and bucket:
            kept = Declarations(snapshot.aws, bucket)
            return kept, kept.look()
    return None


def _take_backup(at: Opened, source: _Source) -> bool:
    """Use the config in the newest backup of the manifest; return whether there is one."""
    wanted = source.broken or at.purpose.compares
    if source.failed or at.declared or not wanted:
        return False
    if not (kept := restored(at.aws, at.manifest)):
        return False
    refuse_variables(source.place, at.manifest, kept, kept)
    _use(at, source, kept, f"the backup of {at.manifest.store}")
    at.declared = True
    current_console().warn(
        f"the config of {at.config.name} was found in a backup of {at.manifest.store} alone"
    )
    return True


def _use(at: Opened, source: _Source, config: JsonObject, name: str) -> None:
    """Take a config that was found as the cluster's.  Raises Usage for an invalid one."""
    known = {
        "lifecycle.path": [get(at.found, "lifecycle", "path")],
        "chart.path": [get(at.found, "chart", "path"), str(CHART)],
        **further_charts(at.found),
    }
    at.manifest.config = located(config, known)
    at.found = copy.deepcopy(at.manifest.config)
    try:
        at.config = config_of(source.place, at.manifest, source.files, edit=source.edit)
        if at.purpose.compares:
            check_references(at.config)
    except Usage as error:
        it = called(at.config.name, source.place)
        raise Usage(
            f"{name} is not valid for this version of hyperpod-eks:\n{error}",
            f"Pass the config with -f FILE.  To delete the cluster: hyperpod-eks delete {it}",
        ) from error
    at.aws.user_tags = dict(at.config.tags)


def _refuse_overtaken(at: Opened, source: _Source) -> None:
    """Raise Locked if a run that began at the same time has declared a config meanwhile."""
    if source.newest and not source.newest.exception():
        kept, newest = source.newest.result()
        if kept.look().mark != newest.mark:
            raise kept.declared_meanwhile()


def _refuse_claimed(at: Opened, source: _Source) -> None:
    """Raise Usage if another run holds the claim on a cluster whose config nobody knows yet."""
    if not source.newest or source.newest.exception():
        return
    kept, newest = source.newest.result()
    if newest.claimed and (holder := kept.holder()):
        raise Usage(
            f"{holder} is at work on the cluster {at.config.name}, and has not declared its config",
            "Wait until it ends, or pass the config with -f FILE.",
        )


def refuse_variables(
    place: Place, manifest: Manifest, config: JsonMapping, known: JsonMapping | None = None
) -> None:
    """Raise Usage for variables of this machine that only a config from elsewhere names.

    Whoever can write it would get their values. ``known`` is the config in the manifest, which
    agrees to its variables if the manifest is a file of this machine.
    """
    if place.file:
        return
    here = variables.named(config if known is None else known) if manifest.store.path else set()
    allowed = re.split(r"[,\s]+", os.environ.get(ALLOWED, ""))
    if names := ",".join(sorted(variables.named(config) - here - {*allowed})):
        it = called(manifest.cluster, place)
        raise Usage(
            f"the config of {manifest.cluster} was kept by another machine, and would send it the"
            f" values of environment variables of this one: {names}",
            f"To see the config: hyperpod-eks config show {it}\n"
            f"To allow it: export {ALLOWED}={names}\nOr pass the config with -f FILE.",
        )


def declared(place: Place, manifest: Manifest) -> bool:
    """Whether a file or the manifest has the cluster's config."""
    return bool(place.file or manifest.config)


def restored(aws: Aws, manifest: Manifest) -> JsonObject | None:
    """Return the config in the newest manifest backup of the existing cluster; None without one.

    An earlier cluster of this name had the same lineage and names, but AWS gave it another
    HyperPod cluster ARN and another VPC id.
    """
    here = (manifest.cluster, aws.identity.account, aws.identity.region)
    ids: set[str] | None = None
    for old in versions(manifest.store):
        if not (old.config and (old.cluster, old.account, old.region) == here):
            continue
        ids = _ids(aws, manifest.cluster) if ids is None else ids  # asked once, also for none
        records = [old.records.get(key) for key in ("network/vpc", "hyperpod/cluster")]
        if any(r and r.state != "deleted" and ids & {r.id, r.arn} for r in records):
            return old.config
    return None


def _ids(aws: Aws, cluster: str) -> set[str]:
    """Return the ids of the cluster's VPCs, and the ARN of the HyperPod cluster."""
    snapshot = Snapshot(aws)
    ids = {vpc["VpcId"] for vpc in snapshot.signed(VPCS)}
    if found := hyperpod_api.describe(snapshot, cluster):
        ids.add(found["ClusterArn"])
    return ids
