"""Open a cluster for a command: read its config and manifest, log in, and declare its stack."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from hyperpod_eks.aws.client import Aws, read_only
from hyperpod_eks.aws.ec2 import VPCS
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import called, which_cluster
from hyperpod_eks.cli.explain import explaining
from hyperpod_eks.cli.login import log_in, use_local
from hyperpod_eks.cli.options import Cluster, Lock, Place, Settings, Wait
from hyperpod_eks.cli.remembered import store_for
from hyperpod_eks.cli.signals import stoppable
from hyperpod_eks.config.load import load
from hyperpod_eks.config.model import Config
from hyperpod_eks.config.warnings import warnings
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.engine import Context
from hyperpod_eks.errors import NotFound, Usage
from hyperpod_eks.events import Report
from hyperpod_eks.helm import chart as charts
from hyperpod_eks.local import CHART
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.session import Purpose, Session, check_references
from hyperpod_eks.state.manifest import Manifest, read, versions
from hyperpod_eks.state.store import Store

LOOKING = 10.0
"""Seconds for which a read-only command retries a failed call, after botocore's own retries."""


@dataclass
class Opened(Session):
    """A session of the command line."""

    declared: bool = True
    """True if the config comes from a file or the manifest; False for the minimal config."""

    def warn(self) -> list[str]:
        """Print the warnings about the config in this account, and return them."""
        odd = [*warnings(self.config), *self.resolved.warnings]
        for warning in odd:
            current_console().warn(warning)
        return odd


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
    held: Store | None = None,
) -> Iterator[Opened]:
    """Read config and manifest, ask AWS for the caller and the region, and declare the stack.

    ``write``, ``files``, ``broken`` and ``held`` are those of `settings`.
    Raises Usage if the cluster exists, ``purpose`` compares it with its config, and there is none.
    """
    lenient = purpose.deletes
    with settings(options, write=write, files=files, broken=broken, lenient=lenient, held=held) as (
        loaded,
        manifest,
    ):
        if purpose.compares:
            check_references(loaded)
        config, aws = loaded, entered(loaded, options.profile, write=write)
        if broken and not declared(options, manifest) and (kept := restored(aws, manifest)):
            manifest.config = kept
            config = _remembered(options, manifest, files)
            aws = entered(config, options.profile, write=write)
        context = _context(options, aws, manifest, report, write=write)
        at = Opened(config, context, purpose, declared=declared(options, manifest))
        at.patience = options.lock_timeout if isinstance(options, Lock) else 0.0
        at.begin()
        collect = purpose.installs or purpose.deletes
        with (
            explaining(aws, config, called(config.name, options), collect=collect),
            stoppable(context.stop),
        ):
            _place(at, options, helm)
            try:
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


def _place(at: Opened, place: Place, helm: str | None) -> None:
    """Resolve the config in the account, and declare the stack."""
    if at.purpose.charts:
        charts.require_valid(at.config.region, at.config.chart.values)
    at.resolve(helm)
    if at.purpose.compares and not at.declared:
        snapshot = at.context.first_snapshot or Snapshot(at.context.aws)
        refuse_to_guess(snapshot, at.resolved, at.manifest, place)


def declared(place: Place, manifest: Manifest) -> bool:
    """Whether a file or the manifest has the cluster's config."""
    return bool(place.file or manifest.config)


def refuse_to_guess(
    snapshot: Snapshot, resolved: ResolvedConfig, manifest: Manifest, place: Place
) -> None:
    """Raise Usage if the cluster exists: the minimal config would reset its settings.

    Resources that `delete --keep` left, or that create created before EKS, are not a cluster.
    """
    if not exists(snapshot, resolved):
        return
    it = called(resolved.name, place)
    hint = (
        "Pass it with -f FILE, or its manifest with --manifest PATH.\n"
        f"To see the cluster: hyperpod-eks status {it}"
    )
    if any(each.config for each in versions(manifest.store)):
        hint += f"\nTo restore the config from a backup: hyperpod-eks adopt {it} --rebuild"
    raise Usage(
        f"cluster {resolved.name} already exists in {resolved.region} of account "
        f"{resolved.identity.account}, but its config was not found",
        hint,
    )


def exists(snapshot: Snapshot, resolved: ResolvedConfig) -> bool:
    """Whether EKS or HyperPod has a cluster of this lineage that is not being deleted."""
    lineage, control = snapshot.aws.lineage, eks.describe(snapshot, resolved.eks_name)
    if any(owner(x.get("tags") or {}) == lineage and x["status"] != "DELETING" for x in control):
        return True
    found = hyperpod_api.describe(snapshot, resolved.name)
    if not found or found["ClusterStatus"] == "Deleting":
        return False
    arn = found["ClusterArn"]
    return (
        owner(snapshot.all(snapshot.aws.sagemaker, "list_tags", "Tags", ResourceArn=arn)) == lineage
    )


def restored(aws: Aws, manifest: Manifest) -> JsonObject | None:
    """Return the config in the newest manifest backup of the existing cluster; None without one.

    An earlier cluster of this name had the same lineage and names, but AWS gave it another
    HyperPod cluster ARN and another VPC id.
    """
    snapshot, here = Snapshot(aws), (manifest.cluster, aws.identity.account, aws.identity.region)
    ids = {vpc["VpcId"] for vpc in snapshot.signed(VPCS)}
    if found := hyperpod_api.describe(snapshot, manifest.cluster):
        ids.add(found["ClusterArn"])
    for old in versions(manifest.store):
        records = [old.records.get(key) for key in ("network/vpc", "hyperpod/cluster")]
        same = any(r and r.state != "deleted" and ids & {r.id, r.arn} for r in records)
        if same and old.config and (old.cluster, old.account, old.region) == here:
            return old.config
    return None


@contextmanager
def cluster(place: Place, *, write: bool = False) -> Iterator[tuple[Snapshot, str]]:
    """Open a cluster by its name: declare nothing, and do not write the manifest."""
    with settings(place, write=False, files=False) as (config, manifest):
        aws = entered(config, place.profile, write=write)
        aws.adopted = manifest.adopted
        yield Snapshot(aws), config.name


def described(snapshot: Snapshot, name: str, place: Place) -> JsonMapping:
    """Describe the HyperPod cluster.  Raises NotFound if it does not exist."""
    found = hyperpod_api.describe(snapshot, name)
    if found is None:
        where = snapshot.aws.session.region_name
        raise NotFound(
            f"HyperPod cluster {name} does not exist in {where}",
            f"Create it: hyperpod-eks create {called(name, place)}",
        )
    return found


def described_node(snapshot: Snapshot, name: str, id_: str, place: Place) -> JsonMapping:
    """Describe one node.  Raises NotFound if it does not exist."""
    with absent("ResourceNotFound", "ValidationException"):
        found = snapshot.aws.sagemaker.describe_cluster_node(ClusterName=name, NodeId=id_)
        return found["NodeDetails"]
    raise NotFound(
        f"the cluster {name} has no node {id_}",
        f"To list them: hyperpod-eks nodes {called(name, place)}",
    )


def instance(text: str) -> str:
    """Return a node's instance id, given that id or its Kubernetes name.  Raises Usage for others.

    >>> instance("hyperpod-i-0123456789abcdef0")
    'i-0123456789abcdef0'
    """
    id_ = text.removeprefix("hyperpod-")
    if not re.fullmatch(r"i-[0-9a-f]{8,17}", id_):
        raise Usage(
            f"invalid node {text!r}",
            "Pass its instance id (i-…) or its Kubernetes node name (hyperpod-i-…).",
        )
    return id_


def entered(config: Config, profile: str | None, *, write: bool = False) -> Aws:
    """Open the account of a config, without a call to AWS.

    Without ``write``, every call that changes something is refused.
    """
    aws = Aws(log_in(config.region, profile), config.name, config.tags)
    if not write:
        read_only(aws.session)
    return aws


@contextmanager
def settings(
    place: Place,
    *,
    write: bool,
    files: bool,
    broken: bool = False,
    lenient: bool = False,
    held: Store | None = None,
) -> Iterator[tuple[Config, Manifest]]:
    """Read a command's config and manifest, without a call to AWS.

    With ``write`` the manifest is locked while the context is open, unless it is ``held``: in a
    store that the caller has locked.  ``files`` and ``broken`` are those of `config.load` and
    `manifest.read`.  With ``lenient``, the config in the manifest may be invalid.
    """
    _use_account(place)
    source = place.file
    loaded = load(source, _overrides(place), os.environ, files=files) if source else None
    name, place = (loaded.name, place) if loaded else _named(place)
    store = held or store_for(place, name, loaded.state if loaded else "")
    again = called(name, place, file=False)
    if not (loaded or broken):  # an invalid name must fail before a lock file is created
        _remembered(place, read(store, name, again=again), files=False, lenient=lenient)
    patience = place.lock_timeout if isinstance(place, Lock) else 0.0
    with store.locked(patience) if write and not held else nullcontext():
        manifest = read(store, name, broken=broken, again=again)
        config = loaded or _remembered(place, manifest, files, lenient=lenient)
        yield _on_stand_in(config) if place.local else config, manifest


def _use_account(place: Place) -> None:
    if place.local:
        use_local()
    if place.profile:
        os.environ["AWS_PROFILE"] = place.profile  # the kubeconfig's token command uses it too
        os.environ.pop("AWS_DEFAULT_PROFILE", None)  # botocore would prefer it


P = TypeVar("P", bound=Place)


def _named(place: P) -> tuple[str, P]:
    """Return the cluster's name without a config file, and ``place`` with a manifest's name."""
    name = place.name
    if name is None:
        name = os.environ.get("HYPERPOD_EKS_NAME")
    if name is None and place.manifest:
        name = read(store_for(place, "")).cluster
        place = replace(place, name=name)
    if not name:
        raise which_cluster()
    return name, place


def _overrides(place: Place) -> dict[str, str | None]:
    """Return the values of settings that have an option."""
    flags = place.settings() if isinstance(place, Settings) else {}
    return {"name": place.name, "region": place.region, **flags}


def _remembered(place: Place, manifest: Manifest, files: bool, *, lenient: bool = False) -> Config:
    """Return the manifest's config, else the minimal one, with the options of this command.

    With ``lenient``, an invalid config is reduced to the settings that delete needs: rules may
    have become stricter since the config was recorded.
    """
    config, overrides = manifest.config, _overrides(place)
    try:
        return load(config or None, overrides, os.environ, files=files)
    except Usage:
        if not (lenient and config):
            raise
    protected = config.get("deletion_protection") is True
    least = {"region": manifest.region, "deletion_protection": protected}
    return load(least, overrides, os.environ, files=files)


def _on_stand_in(config: Config) -> Config:
    """Use the stand-in chart unless the config sets one: the embedded stack has no images."""
    if config.chart.path is not None:
        return config
    return config.model_copy(update={"chart": config.chart.model_copy(update={"path": CHART})})
