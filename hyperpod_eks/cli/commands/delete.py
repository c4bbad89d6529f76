"""``hyperpod-eks delete``: delete everything that create created, and verify it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import called, head, kept_rows
from hyperpod_eks.cli.options import flag, option
from hyperpod_eks.errors import HyperpodError, NotFound, Remains, Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.recorder import Recorder
    from hyperpod_eks.cli.schemas.runs import (
        Deleted,
        DeletePlan,
        Deletion,
        NotCreatedBy,
    )
    from hyperpod_eks.engine.decide import Decision
    from hyperpod_eks.events import Report
    from hyperpod_eks.resources.base import Live, Resource
    from hyperpod_eks.resources.compare import Observation
    from hyperpod_eks.state.manifest import Manifest


SHARED = "iam/service-linked-role"
"""Key of the resource that all clusters of an account share; delete never deletes it."""


@frozen
class Options(shared.Wait, shared.Progress, shared.Cluster):
    """Options of delete."""

    dry_run: bool = flag(
        "--dry-run", help="Show what would be deleted and what would be kept; change nothing."
    )
    yes: bool = shared.yes()
    keep: str = option(
        "--keep",
        metavar="WHAT,...",
        default="",
        show_default=False,
        help="Keep these resources: bucket, logs, network.",
    )
    delete_data: bool = flag(
        "--delete-data",
        help="Also delete file systems and volumes of claims, with a final backup if AWS supports "
        "one.",
    )
    if_created_by: str | None = option(
        "--if-created-by",
        metavar="ID",
        help="Delete the cluster only if the manifest says that create --run ID created it; "
        "otherwise exit 0.",
    )


def delete(options: Options, report: Report) -> Deleted | DeletePlan | NotCreatedBy:
    """Delete cluster NAME and verify that nothing is left.

    Deletes every resource that create created; adopted resources are kept.  So are file systems,
    with their subnet, security group, VPC and the manifest, and the EBS volumes of
    PersistentVolumeClaims, unless --delete-data is given: `create` uses the file systems again, and
    a later `delete --delete-data` deletes both.
    """
    from hyperpod_eks import engine
    from hyperpod_eks.cli.confirm import confirm_delete
    from hyperpod_eks.cli.recorder import Recorder, result
    from hyperpod_eks.consent import refuse_protected, taken_from_others
    from hyperpod_eks.engine.decide import keeps_data
    from hyperpod_eks.inventory.untracked import not_listed, untracked
    from hyperpod_eks.terminal.status import kept_words

    groups = _groups_to_keep(options.keep)
    run = options.if_created_by
    if run is not None and (theirs := _not_created_by(run, options)):
        return theirs
    recorder = Recorder(report)
    with _opened(options, recorder) as at:
        if run not in (None, at.manifest.run):  # another run has created the cluster since
            return _untouched(at.manifest, at.resolved.name, run or "")
        named = at.wants
        at.wants = untracked(at.context.aws, at.resolved, named)
        for line in not_listed(at.context.aws):
            current_console().warn(line)
        every = {want.key: want for want in (*at.manifest.remembered().values(), *at.wants)}
        keys = _kept_keys(every.values(), groups)
        asks = options.delete_data or not (options.yes or options.dry_run)
        data = engine.find_data(at.wants, at.context) if asks else {}
        consented = frozenset(data if options.delete_data else ())
        left = dict(_left(every.values(), at))
        if options.dry_run:
            _warn_of(left)
            plan = _planned(engine.plan_delete(at.wants, at.context, keys, consented))
            return {**result("delete", at, recorder), "plan": plan}
        refuse_protected(at.context, at.resolved)
        lost = [f"{data[id_][0].key} ({id_}): {_lost(data[id_])}" for id_ in consented]
        kept_keys = {want.key for id_, (want, _) in data.items() if id_ not in consented}
        rest = [want for want in every.values() if want.key not in kept_keys]
        lost += taken_from_others(rest, at.context, at.resolved)
        lost += [f"{key}, {words}" for key, words in left.items()]
        stays = [f"{want.key} ({id_})" for id_, (want, _) in data.items() if id_ not in consented]
        confirm_delete(at.resolved, [*groups, *stays], data=lost, yes=options.yes)
        if options.yes:  # nobody was asked
            _warn_of(left)
        else:  # the answer may have taken an hour: look again
            at.context.first_snapshot = None
            refuse_protected(at.context, at.resolved)
        at.context.warn = current_console().warn
        removed, kept = _removed(at, named, keys, consented)
        kept_data = kept_rows(at.context.kept_data)
        if not groups:
            _retire(at, data=keeps_data(kept.values()))
        it = called(at.resolved.name, options, file=False)
        for row in kept_data:
            again = f"to delete it: hyperpod-eks delete {it} --delete-data"
            current_console().warn(f"{kept_words(row)}; {again}")
        return {
            **result("delete", at, recorder),
            "removed": removed,
            "kept": kept,
            "kept_usd_per_hour": _cost(every.values(), kept),
            "kept_data": kept_data,
            "backups": _backups(at, {id_: data[id_] for id_ in consented}),
            "remaining": {},
        }


def _lost(one: tuple[Resource, Live]) -> str:
    want, live = one
    return want.lost_with(live)


def _left(wants: Iterable[Resource], at: Opened) -> Iterator[tuple[str, str]]:
    """Yield by key what is left outside the EKS cluster of what is in it."""
    from hyperpod_eks import engine

    for want in wants:
        if not want.leaves:
            continue
        try:
            words = engine.taken_along(want, at.context)
        except HyperpodError as error:
            words = want.leaves.format(f"perhaps; they could not be listed: {error}")
        if words:
            yield want.key, words


def _warn_of(left: Mapping[str, str]) -> None:
    for key, words in left.items():
        current_console().warn(f"{key} is deleted {words}")


def _backups(at: Opened, deleted: Mapping[str, tuple[Resource, Live]]) -> dict[str, list[str]]:
    """Return the backups that stay, by key; a failure to list them is a warning only."""
    found: dict[str, list[str]] = {}
    for id_, (want, live) in deleted.items():
        try:
            if ids := want.backups(at.context.aws, live):
                found.setdefault(want.key, []).extend(ids)
        except Exception as problem:  # noqa: BLE001  the data is deleted, whatever can be listed
            current_console().warn(f"the backups of {id_} could not be listed: {problem}")
    return found


def _removed(
    at: Opened, named: Sequence[Resource], keys: frozenset[str], consented: frozenset[str]
) -> tuple[list[str], dict[str, str]]:
    """Delete, then verify.  Raises Remains for resources that AWS still shows."""
    from hyperpod_eks import engine
    from hyperpod_eks.inventory.untracked import untracked

    removed, kept = engine.delete(at.wants, at.context, keys, consented)
    left = untracked(at.context.aws, at.resolved, named)
    if remains := engine.verify_deleted(left, at.context, frozenset(kept), removed):
        lines = "\n".join(f"  {key}: {what}" for key, what in remains.items())
        raise Remains(f"AWS still shows:\n{lines}")
    return removed, kept


def _retire(at: Opened, *, data: bool) -> None:
    """Remove the manifest, its backups, and the cluster's entries in kubeconfigs.

    The manifest stays if ``data`` is kept.
    """
    from hyperpod_eks.kube.kubeconfig import forget, own_files

    arn = at.resolved.arn("eks", f"cluster/{at.resolved.eks_name}")  # the manifest has the name
    if not data:
        at.retire()
    for problem in forget(own_files(at.manifest.store.folder, at.resolved.name, arn), arn):
        current_console().warn(
            f"the cluster's entry could not be removed from a kubeconfig: {problem}"
        )


@contextmanager
def _opened(options: Options, recorder: Recorder) -> Iterator[Opened]:
    """Open the cluster; if its config file cannot be used, hint at a delete without the file."""
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.session import DELETE

    with ExitStack() as stack:
        try:
            at = stack.enter_context(
                opened(DELETE, options, recorder, write=not options.dry_run, files=False)
            )
        except (NotFound, Usage) as error:  # what ``existing`` names may be gone
            if options.file and (not error.hint or error.setting.startswith("existing")):
                it = called(options.name or _name_in(options.file), options, file=False)
                without = f"To delete it without the file: hyperpod-eks delete {it}"
                error.hint = "\n".join(filter(None, (error.hint, without)))
            raise
        yield at


def _name_in(file: str) -> str:
    """Return the name in an invalid config, "NAME" without one."""
    from hyperpod_eks.config import yaml as config_yaml

    with suppress(Usage):
        name = "" if file == "-" else config_yaml.read(file).value.get("name")
        return name if isinstance(name, str) and name else "NAME"
    return "NAME"


def _not_created_by(run: str, options: Options) -> NotCreatedBy | None:
    """Return the document of a skipped delete; None if ``run`` created the cluster."""
    if not run:
        raise Usage(
            "--if-created-by: the ID is empty", "Pass the ID that you passed to create --run."
        )
    if options.file:
        from hyperpod_eks.cli.settings import settings

        with settings(options, write=False, files=False) as (config, manifest):
            name = config.name
    else:
        from hyperpod_eks.cli.remembered import remembered

        manifest = remembered(replace(options, region=None), absent=True)
        name = manifest.cluster
    return None if manifest.run == run else _untouched(manifest, name, run)


def _untouched(manifest: Manifest, name: str, run: str) -> NotCreatedBy:
    """Return the document of a delete that deletes nothing, from the manifest alone."""
    arns = [record.arn for record in manifest.records.values() if record.arn]
    return {
        **head("delete", kind="result"),
        "changed": False,
        "cluster": {"name": name},
        "account": manifest.account,
        "region": manifest.region,
        "partition": arns[0].split(":")[1] if arns else "",
        "steps": [],
        "removed": [],
        "kept": {},
        "kept_usd_per_hour": 0.0,
        "kept_data": [],
        "backups": {},
        "remaining": {},
        "not_created_by": run,
        "error": None,
    }


def _cost(wants: Iterable[Resource], kept: Container[str]) -> float:
    """Return USD per hour of the kept resources; unknown prices count as 0."""
    from hyperpod_eks.aws.prices import usd_per_hour

    mine = [want for want in wants if want.keep_group and want.key in kept]
    items = [item for want in mine for item in want.prices(extended=False)]
    return round(sum(item.count * (usd_per_hour(item, {}) or 0.0) for item in items), 3) or 0.0


def _groups_to_keep(keep: str) -> list[str]:
    """Parse --keep.  Raises Usage for an unknown group."""
    from hyperpod_eks.stack import kinds

    groups = [group for group in keep.replace(" ", "").split(",") if group]
    known = sorted({kind.keep_group for kind in kinds()} - {""})
    for group in groups:
        if group not in known:
            raise Usage(f"--keep: invalid value {group!r}; use {', '.join(known)}")
    return groups


def _kept_keys(wants: Iterable[Resource], groups: Container[str]) -> frozenset[str]:
    """Return the keys that --keep covers; kinds without a keep_group are never kept."""
    return frozenset(want.key for want in wants if want.keep_group and want.keep_group in groups)


def _planned(decided: list[tuple[Observation, Decision]]) -> list[Deletion]:
    from hyperpod_eks.engine.decide import Action

    return [
        {
            "key": observation.want.key,
            "id": ", ".join({x.id: x for x in (observation.live, *observation.duplicates) if x}),
            "action": "keep" if decision.action is Action.KEEP else "delete",
            "why": decision.why or _if_left(observation),
        }
        for observation, decision in decided
    ]


def _if_left(observation: Observation) -> str:
    """Return what a dry run cannot know of leftovers, or what of them stays; "" for others."""
    want, live = observation.want, observation.live
    if not (want.is_leftover and live):
        return ""
    if stays := live.attributes.get("stays"):
        return f"what {stays} is kept"
    return "" if want.written_on else "if it still exists by then"


def text(document: Deleted | DeletePlan | NotCreatedBy) -> str:
    """Return the text of the document: what was, or would be, deleted and kept."""
    if "plan" in document:
        return _dry_run(document)
    if "not_created_by" in document:
        name, run = document["cluster"]["name"], document["not_created_by"]
        return f"cluster {name} was not created by run {run}: nothing was deleted"
    shared = SHARED in document["kept"]
    kept = [f"kept {key}: {why}" for key, why in document["kept"].items() if key != SHARED]
    if cost := document["kept_usd_per_hour"]:
        kept.append(f"the kept NAT gateways and addresses still cost {cost:.2f} USD per hour")
    for key, ids in document["backups"].items():
        kept.append(f"the backups of {key} stay: {', '.join(ids)}")
    gone = len(document["removed"])
    first = f"{gone} resources deleted" if gone else "already gone"
    rest = "nothing else remains" if kept else "nothing remains"
    rest += " but the service-linked role, which all clusters share" if shared else ""
    return "\n".join([*kept, f"cluster {document['cluster']['name']}: {first}; {rest}"])


def _dry_run(document: DeletePlan) -> str:
    rows = document["plan"]
    if not rows:
        return f"cluster {document['cluster']['name']}: nothing to delete"
    width = max(len(row["key"]) for row in rows)
    lines = []
    for row in rows:
        why = f" ({row['why']})" if row["why"] else ""
        lines.append(f"{row['action']:<6} {row['key']:<{width}} {row['id']}{why}".rstrip())
    counts = Counter(row["action"] for row in rows)
    words = ", ".join(f"{counts[action]} to {action}" for action in ("delete", "keep"))
    lines.append(f"cluster {document['cluster']['name']}: {words}")
    if counts["delete"]:
        lines.append(
            "What AWS services and Kubernetes leave behind (network interfaces, load balancers, log"
            " groups) is deleted, too; what that will be is known only then."
        )
    return "\n".join(lines)


command = define(
    "delete",
    Options,
    delete,
    text,
    """
    hyperpod-eks delete demo                       asks for the name
    hyperpod-eks delete demo --dry-run             shows what would be deleted
    hyperpod-eks delete demo --yes --keep bucket,logs
    hyperpod-eks delete demo --yes --delete-data   file systems and volumes, too
    hyperpod-eks delete demo --yes --if-created-by "$run"
    """,
    log=lambda options: Log.IF_IT_FAILS if options.dry_run else Log.KEPT,
)
