"""``hyperpod-eks delete``: take everything away that create made, and prove it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from hyperpod_eks import engine
from hyperpod_eks.aws.client import Snapshot, owner
from hyperpod_eks.cli.commands.outputs import remembered
from hyperpod_eks.cli.confirm import confirm_delete
from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import Document, called, head
from hyperpod_eks.cli.opening import Opened, opened, settings
from hyperpod_eks.cli.recorder import Recorder, result
from hyperpod_eks.config import yaml as config_yaml
from hyperpod_eks.engine.decide import Action, Decision
from hyperpod_eks.errors import Remains, Usage
from hyperpod_eks.events import Report
from hyperpod_eks.inventory.untracked import untracked
from hyperpod_eks.kube.kubeconfig import forget, own_files
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.stack import kinds


def delete(
    tell: Report, yes: bool, keep: str, dry_run: bool, if_created_by: str | None, **given: Any
) -> Document:
    """Take everything away that is ours, then ask AWS again; with ``dry_run``, only tell.

    With ``if_created_by`` only if that run of create made the cluster, as the manifest says; else
    nothing is done and AWS is not asked.
    """
    kinds = _groups_to_keep(keep)
    if if_created_by is not None and (theirs := _not_created_by(if_created_by, given)):
        return theirs
    story = Recorder(tell)
    with _opened(given, story, write=not dry_run) as at:
        if if_created_by not in (None, at.manifest.run):  # another run was faster
            return _untouched(at.resolved.name, if_created_by or "")
        named = at.wants
        at.wants = untracked(at.context.aws, at.resolved, named)
        every = [*at.manifest.remembered().values(), *at.wants]
        keys = _kept_keys(every, kinds)
        if dry_run:
            return result("delete", at, story) | {
                "plan": _planned(engine.plan_delete(at.wants, at.context, keys))
            }
        if at.config.deletion_protection or _protected(at):
            raise Usage(
                f"deletion_protection: the cluster {at.resolved.name} is protected",
                "Set deletion_protection: false in the config, run create --yes, then delete.",
            )
        confirm_delete(at.resolved, kinds, yes=yes)
        removed, kept = engine.delete(at.wants, at.context, keys)
        left = untracked(at.context.aws, at.resolved, named)
        remains = engine.verify_deleted(left, at.context, frozenset(kept), removed)
        if remains:
            lines = "\n".join(f"  {key}: {what}" for key, what in remains.items())
            raise Remains(f"AWS still shows:\n{lines}")
        if not kinds:
            at.manifest.retire()
            arn = at.resolved.arn("eks", f"cluster/{at.resolved.eks_name}")
            for problem in forget(own_files(at.manifest.path, at.resolved.name, arn), arn):
                current_console().warn(
                    f"the cluster's entry could not be removed from a kubeconfig: {problem}"
                )
        return result("delete", at, story) | {
            "removed": removed,
            "kept": kept,
            "kept_usd_per_hour": _cost({want.key: want for want in every}.values(), kept),
            "remaining": remains,
        }


@contextmanager
def _opened(given: Mapping[str, Any], story: Recorder, *, write: bool) -> Iterator[Opened]:
    """Open the cluster; if its file is wrong, say how to delete it without one."""
    with ExitStack() as stack:
        try:
            at = stack.enter_context(opened("delete", given, story, write=write, files=False))
        except Usage as error:
            if given["file"] and not error.hint:
                it = called(given["name"] or _name_in(given["file"]), {**given, "file": None})
                error.hint = f"To delete it without the file: hyperpod-eks delete {it}"
            raise
        yield at


def _name_in(file: str) -> str:
    """Return the name in a config that is wrong, if there is one."""
    with suppress(Usage):
        name = "" if file == "-" else config_yaml.read(file).value.get("name")
        return name if isinstance(name, str) and name else "NAME"
    return "NAME"


def _not_created_by(run: str, given: Mapping[str, Any]) -> Document | None:
    """Return the document of a delete that has nothing to do; None if the run made the cluster."""
    if not run:
        raise Usage("--if-created-by: the run is empty", "Give the ID that create --run got.")
    if given["file"]:
        with settings(given, write=False, files=False) as (config, manifest):
            name = config.name
    else:
        manifest = remembered(given["name"], None, given["manifest"], absent=True)
        name = manifest.cluster
    return None if manifest.run == run else _untouched(name, run)


def _untouched(name: str, run: str) -> Document:
    return head("delete", kind="result") | {
        "changed": False,
        "cluster": {"name": name},
        "steps": [],
        "removed": [],
        "kept": {},
        "kept_usd_per_hour": 0.0,
        "remaining": {},
        "not_created_by": run,
        "error": None,
    }


def _cost(wants: Iterable[Resource], kept: Container[str]) -> float:
    """Price what is kept by the hour, as far as its price is known."""
    items = [item for want in wants if want.key in kept for item in want.prices("")]
    return round(sum((item.count * (item.each or 0.0) for item in items), 0.0), 3)


def _protected(at: Opened) -> bool:
    """Whether EKS protects a cluster of ours: config and manifest may be lost, and it goes last."""
    found = eks.describe(
        at.context.first_snapshot or Snapshot(at.context.aws), at.resolved.eks_name
    )
    return not at.resolved.eks_is_theirs and any(
        each.get("deletionProtection") and owner(each.get("tags", {})) == at.context.aws.lineage
        for each in found
    )


def _groups_to_keep(keep: str) -> list[str]:
    """Read --keep.  Raises Usage for a word that it does not know."""
    groups = [group for group in keep.replace(" ", "").split(",") if group]
    known = sorted({kind.keep_group for kind in kinds()} - {""})
    for group in groups:
        if group not in known:
            raise Usage(f"--keep: {group!r} is none of {', '.join(known)}")
    return groups


def _kept_keys(wants: Iterable[Resource], groups: Container[str]) -> frozenset[str]:
    """Spell out what --keep means: interfaces that services leave are never kept."""
    return frozenset(want.key for want in wants if want.keep_group and want.keep_group in groups)


def _planned(decided: list[tuple[Observation, Decision]]) -> list[dict[str, str]]:
    return [
        {
            "key": observation.want.key,
            "id": observation.live.id if observation.live else "",
            "action": "keep" if decision.action is Action.KEEP else "delete",
            "why": decision.why,
        }
        for observation, decision in decided
    ]


def text(document: Document) -> str:
    """Write the document for people: what is gone and what stays, or would."""
    if "plan" in document:
        return _dry_run(document)
    if "not_created_by" in document:
        name, run = document["cluster"]["name"], document["not_created_by"]
        return f"cluster {name} was not created by run {run}: nothing was deleted"
    # a role that the whole account shares was never the cluster's
    shared = any("shared by" in why for why in document["kept"].values())
    kept = [f"kept {k}: {why}" for k, why in document["kept"].items() if "shared by" not in why]
    if cost := document["kept_usd_per_hour"]:
        kept.append(f"the kept NAT gateways and addresses still cost {cost:.2f} USD per hour")
    gone = len(document["removed"])
    first = f"{gone} resources deleted" if gone else "already gone"
    rest = "nothing else remains" if kept else "nothing remains"
    rest += " but the service-linked role, which all clusters share" if shared else ""
    return "\n".join([*kept, f"cluster {document['cluster']['name']}: {first}; {rest}"])


def _dry_run(document: Document) -> str:
    rows = document["plan"]
    if not rows:
        return f"cluster {document['cluster']['name']}: nothing is there to delete"
    width = max(len(row["key"]) for row in rows)
    lines = []
    for row in rows:
        why = f" ({row['why']})" if row["why"] else ""
        lines.append(f"{row['action']:<6} {row['key']:<{width}} {row['id']}{why}".rstrip())
    return "\n".join(lines)
