"""``hyperpod-eks unlock``: show who has locked a cluster, and free it from a run that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.schemas.views import Unlocked
    from hyperpod_eks.events import Report
    from hyperpod_eks.state.lease import Lease


@frozen
class Options(shared.Cluster):
    """Options of unlock."""

    yes: bool = shared.yes()


def unlock(options: Options, report: Report) -> Unlocked:
    """Free a cluster that a dead run still holds.

    Shows which run has claimed cluster NAME and which run holds the lock of a manifest in S3, and
    asks before it frees them.  A run that is still active stops before its next change.  The
    lock of a local manifest ends with its process.
    """
    from hyperpod_eks.cli.confirm import confirm
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.session import LOOK

    with opened(LOOK, options, report, write=False, files=False) as at:
        name = at.resolved.name
        held = {lease: holder for lease in _leases(at, options) if (holder := lease.holder())}
        if held:
            who = "\n".join(f"  {holder}: {lease}" for lease, holder in held.items())
            confirm(
                f"this frees the cluster {name} from the run that holds it; if that run is still"
                f" active, it stops before its next change\n{who}",
                "Continue?",
                yes=options.yes,
            )
        for lease in held:
            lease.free()
    return {
        **head("unlock"),
        "cluster": {"name": name},
        "freed": [{"lock": str(lease), "holder": holder} for lease, holder in held.items()],
    }


def _leases(at: Opened, options: Options) -> Iterator[Lease]:
    """Yield the lock of the manifest, if it is in S3, and the claim on the cluster."""
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.cli.login import login_of
    from hyperpod_eks.state.claim import lease_of

    if lock := at.manifest.store.lease():
        yield lock
    aws = Aws(login_of(options)(), at.resolved.name, {})  # the session of `at` can only read
    owner = "" if "s3/bucket" in at.resolved.adopted else at.resolved.identity.account
    yield lease_of(aws, at.resolved.bucket, owner)


def text(document: Unlocked) -> str:
    """Return the text of the document: a line for each lock."""
    name = document["cluster"]["name"]
    rows = [f"freed {each['lock']} from {each['holder']}" for each in document["freed"]]
    return "\n".join(rows) or f"no run holds the cluster {name}"


command = define(
    "unlock",
    Options,
    unlock,
    text,
    """
    hyperpod-eks unlock demo
    hyperpod-eks unlock demo --manifest s3://team-state/demo.json --yes
    """,
)
