"""Delete some nodes of a cluster; the counts in its config follow, so that they do not come back.

The nodes go first and the count is written after that: of a run that is killed in between, the next
`create` replaces the nodes, where the other order would let HyperPod choose which nodes go.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.cli.commands.scale import counts_in_file, require_groups, set_counts
from hyperpod_eks.cli.confirm import confirm
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.lookup import described, exit_of
from hyperpod_eks.cli.opening import Opened, opened
from hyperpod_eks.config.load import load
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.session import CHANGE

if TYPE_CHECKING:
    from hyperpod_eks.cli.options import Cluster
    from hyperpod_eks.cli.schemas.views import Failed, NodeChange
    from hyperpod_eks.documents import JsonObject
    from hyperpod_eks.events import Report

BATCH = 99
"""Maximum nodes in one call (SageMaker API BatchDeleteClusterNodes, NodeIds)."""
VERB = "nodes delete"


class _Nodes(NamedTuple):
    """What AWS has."""

    targets: Mapping[str, int]
    """The number of nodes that each group is to have."""
    groups: Mapping[str, str]
    """The group of each of the chosen nodes that exists, by instance id."""
    leaving: frozenset[str]
    """Those that are being deleted already, and no longer count."""

    @property
    def staying(self) -> set[str]:
        """The chosen nodes that exist and are not being deleted."""
        return set(self.groups) - self.leaving

    def after(self, deleted: Sequence[str]) -> dict[str, int]:
        """Return the counts of the groups that these nodes leave."""
        known = [each for each in deleted if each in self.groups]
        gone = Counter(self.groups[each] for each in known if each not in self.leaving)
        touched = {self.groups[each] for each in (*known, *self.leaving)}
        return {group: max(0, self.targets[group] - gone[group]) for group in sorted(touched)}


def delete(options: Cluster, ids: Sequence[str], report: Report, *, yes: bool) -> NodeChange:
    """Delete nodes after consent, and write the counts that are left to config and file.

    Raises Usage, before anything is deleted, if the config does not allow these counts or the file
    cannot be written.
    """
    done: list[str] = []
    failed: list[Failed] = []
    with opened(CHANGE, options, report, files=False) as at:
        found = _look(at, options, ids)
        _confirm(at, options, ids, found.after(ids), yes=yes)
        _claim(at)
        found = _look(at, options, ids)
        with _to_the_end(at):
            try:
                _delete(at, options, found, ids, done, failed)
            finally:
                scaled = _follow(at, options, found.after(done))
    return {
        **head("nodes", exit_of(done, failed)),
        "cluster": {"name": at.resolved.name},
        "action": "delete",
        "done": done,
        "failed": failed,
        "scaled": scaled,
    }


def _look(at: Opened, options: Cluster, ids: Sequence[str]) -> _Nodes:
    """Read groups and nodes.  Raises NotFound without a cluster."""
    snapshot, name = Snapshot(at.context.aws), at.resolved.name
    groups = hyperpod_api.every_group(described(snapshot, name, options))
    rows = [r for r in hyperpod_api.node_rows(snapshot, name, []) if r["instance_id"] in ids]
    return _Nodes(
        {group["InstanceGroupName"]: group.get("TargetCount", 0) for group in groups},
        {row["instance_id"]: row["instance_group"] for row in rows},
        frozenset(row["instance_id"] for row in rows if row["status"] == "ShuttingDown"),
    )


def _counted(at: Opened, counts: dict[str, int]) -> tuple[JsonObject, dict[str, int]]:
    """Return the cluster's config with these counts, and those that it had.

    Raises Usage if that is no valid config, or Karpenter sets the counts.
    """
    config: JsonObject = (
        at.config.model_dump(mode="json", by_alias=True)
        if at.given
        else copy.deepcopy(at.manifest.config)
    )
    set_counts(VERB, counts, config)
    load(config, {}, os.environ, files=False)
    return config, {group.name: group.instance_count for group in at.config.groups}


def _confirm(
    at: Opened, options: Cluster, ids: Sequence[str], counts: dict[str, int], *, yes: bool
) -> None:
    """Check that the counts can be written, and ask.

    Raises Usage for a group that the config does not have: the nodes exist.
    """
    name = at.resolved.name
    require_groups(name, counts, [group.name for group in at.config.groups], Usage)
    _, before = _counted(at, counts)
    if options.file:
        counts_in_file(options, counts, VERB)
    rows = "".join(f", {group}: {before[group]} -> {n} nodes" for group, n in counts.items())
    summary = (
        f"delete of {len(ids)} node{'s' * (len(ids) > 1)} of {name}: the pods there"
        f" stop, the disks are lost{rows}"
    )
    confirm(summary, "Continue?", yes=yes)


def _claim(at: Opened) -> None:
    """Keep other runs away.  Raises Locked, also if one has declared another config meanwhile."""
    assert at.context.claim  # `opened` has set it
    at.context.claim.take()
    if not at.given:
        at.declare()


@contextmanager
def _to_the_end(at: Opened) -> Iterator[None]:
    """Let a signal wait until the counts are written."""
    at.context.running = True
    try:
        yield
    finally:
        at.context.running = False
    if at.context.stopped:
        raise at.context.stopped


def _delete(
    at: Opened,
    options: Cluster,
    found: _Nodes,
    ids: Sequence[str],
    done: list[str],
    failed: list[Failed],
) -> None:
    """Delete nodes, `BATCH` at a time.

    If the call was retried, a node may be refused because the first request, whose answer was lost,
    has deleted it: then it is gone or leaving, and was not before.
    """
    for start in range(0, len(ids), BATCH):
        answer = at.aws.sagemaker.batch_delete_cluster_nodes(
            ClusterName=at.resolved.name, NodeIds=ids[start : start + BATCH]
        )
        done += answer.get("Successful") or ()
        refused: list[Failed] = [
            {"instance_id": e["NodeId"], "code": e["Code"], "message": e.get("Message", "")}
            for e in answer.get("Failed") or ()
        ]
        gone: set[str] = set()
        if refused and answer["ResponseMetadata"].get("RetryAttempts"):
            gone = found.staying - _look(at, options, ids).staying
        done += [each["instance_id"] for each in refused if each["instance_id"] in gone]
        failed += [each for each in refused if each["instance_id"] not in gone]


def _follow(at: Opened, options: Cluster, counts: dict[str, int]) -> dict[str, list[int]]:
    """Write the counts to the file, if there is one, and to the cluster's config."""
    if not counts:
        return {}
    try:
        if options.file:
            file = counts_in_file(options, counts, VERB)
            file.write(file.after)
        at.manifest.config, before = _counted(at, counts)
        at.seen = None
        at.declare()
        at.manifest.save()
    except HyperpodError as error:
        words = " ".join(f"{group}={count}" for group, count in counts.items())
        raise HyperpodError(
            f"the nodes are being deleted, but their group's count was not written: {error}",
            f"Run: hyperpod-eks scale {called(at.resolved.name, options)} {words}",
        ) from error
    return {group: [before[group], count] for group, count in counts.items()}
