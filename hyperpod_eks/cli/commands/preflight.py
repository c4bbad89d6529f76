"""``hyperpod-eks preflight``: find every problem that would stop create."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.errors import Exit, Foreign, HyperpodError, NotFound, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.terminal.text import clean

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.schemas.runs import Preflight
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.events import Report
    from hyperpod_eks.preflight.inputs import Facts, Finding
    from hyperpod_eks.resolve.resolved import ResolvedConfig
    from hyperpod_eks.resources.compare import Observation
    from hyperpod_eks.state.manifest import Manifest


@frozen
class Options(shared.Settings, shared.Cluster):
    """Options of preflight."""

    skip: tuple[str, ...] = shared.skip()
    helm: str | None = shared.helm()


def preflight(options: Options, report: Report) -> Preflight:
    """Find every problem that would stop create.

    Changes nothing.  Exits 3 if a check reports an error, 0 if there are only warnings or infos.
    create starts with the same checks.
    """
    from hyperpod_eks.cli import lookup, opening
    from hyperpod_eks.cli.settings import entered, settings
    from hyperpod_eks.consistency import check_references
    from hyperpod_eks.preflight import run as checks
    from hyperpod_eks.preflight.inputs import Facts, Finding

    skipped = checks.known(options.skip)
    with settings(options, write=False, files=False) as (declared, manifest):
        opening.refuse_variables(options, manifest, manifest.config)
        check_references(declared)
        aws = entered(declared, options.profile)
        config = opening.current(options, aws, manifest, declared, report)
        snapshot, resolved, found = _site(aws, config, manifest)
        observations: list[Observation] = []
        if resolved is not None:
            try:
                observations = _observed(resolved, snapshot, manifest, options, report)
            except HyperpodError as error:
                text = f"what exists cannot be seen: {error}"
                found.append(Finding("permissions", "error", text, error.hint))
            if observations and not opening.declared(options, manifest):
                lookup.refuse_to_guess(snapshot, resolved, options)
        by_key = {observation.want.key: observation for observation in observations}
        facts = Facts(
            aws,
            config,
            resolved,
            by_key,
            options.helm,
            manifest,
            snapshot,
            called=called(config.name, options),
        )
        found += checks.run(facts, skipped) + checks.about_settings(facts)
        found = checks.in_order(one for one in found if one.id not in skipped)
    return _document(facts, found, skipped)


def _observed(
    resolved: ResolvedConfig,
    snapshot: Snapshot,
    manifest: Manifest,
    options: Options,
    report: Report,
) -> list[Observation]:
    """Observe the resources of the stack."""
    from hyperpod_eks import engine
    from hyperpod_eks.cli.opening import LOOKING
    from hyperpod_eks.stack import stack

    context = engine.Context(snapshot.aws, manifest, report, parallelism=options.parallelism)
    context.first_snapshot = snapshot
    context.deadline = context.clock.now() + LOOKING
    return engine.status(stack(resolved, options.helm), context)


def _site(
    aws: Aws, config: Config, manifest: Manifest
) -> tuple[Snapshot, ResolvedConfig | None, list[Finding]]:
    """Resolve the config in the account; return a finding instead if that fails."""
    from hyperpod_eks import adoption as existing
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.consistency import same_place
    from hyperpod_eks.preflight import run as checks
    from hyperpod_eks.resolve.resolved import resolve

    resolved: ResolvedConfig | None = None
    found: list[Finding] = []
    aws.adopted = manifest.adopted
    try:
        existing.adopt(aws, config, manifest, 0.0, used=True)
        snapshot = Snapshot(aws, counting=True)
        resolved = resolve(aws, config, snapshot)
        same_place(manifest, resolved)
    except (Foreign, NotFound, Usage) as error:
        snapshot, found = Snapshot(aws, counting=True), [checks.misfit(error)]
    return snapshot, resolved, found


def _document(facts: Facts, found: list[Finding], skipped: Collection[str]) -> Preflight:
    """Return the document, hyperpod-eks/preflight/v1."""
    from hyperpod_eks.preflight import run as checks

    blocked = any(one.severity == "error" for one in found)
    identity = facts.aws.identity
    return {
        **head("preflight", Exit.DENIED if blocked else Exit.OK),
        "cluster": {"name": facts.config.name},
        "account": identity.account,
        "region": identity.region,
        "caller": identity.arn,
        "checks": [each for each in checks.IDS if each not in skipped],
        "skipped": sorted(skipped),
        "findings": [
            {
                "id": one.id,
                "severity": one.severity,
                "says": one.says,
                "fix": one.fix,
                "seen": dict(one.seen),
            }
            for one in found
        ],
    }


def text(document: Preflight) -> str:
    """Return the text of the document: each finding, and what to do about it."""
    where = f"{document['cluster']['name']} in {document['region']}"
    lines = [f"cluster {where}, account {document['account']}, as {document['caller']}"]
    for one in document["findings"]:
        first, *more = map(clean, one["says"].splitlines())
        lines.append(f"{one['severity']:<8} {one['id']}: {first}")
        lines += [f"         {text}" for text in (*more, one["fix"])]
    count = len(document["checks"])
    kinds = [one["severity"] for one in document["findings"]]
    many = [f"{kinds.count(k)} {k}{'s' * (kinds.count(k) > 1)}" for k in dict.fromkeys(kinds)]
    return "\n".join([*lines, f"{count} checks: {', '.join(many) or 'no problems found'}"])


command = define(
    "preflight",
    Options,
    preflight,
    text,
    """
    hyperpod-eks preflight -f cluster.yaml
    hyperpod-eks preflight demo --skip quota-instances -o json
    """,
    log=Log.IF_IT_FAILS,
)
