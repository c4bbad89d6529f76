"""What preflight and create say of what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from hyperpod_eks import adoption as existing
from hyperpod_eks import engine, workers
from hyperpod_eks.aws.client import Aws, Snapshot
from hyperpod_eks.cli import opening
from hyperpod_eks.cli.documents import Document, head
from hyperpod_eks.cli.opening import (
    check_references,
    declared,
    entered,
    refuse_to_guess,
    same_place,
    settings,
)
from hyperpod_eks.config.model import Config
from hyperpod_eks.engine import Context
from hyperpod_eks.errors import Exit, Foreign, HyperpodError, NotFound, Usage
from hyperpod_eks.events import Report
from hyperpod_eks.preflight import account
from hyperpod_eks.preflight import run as checks
from hyperpod_eks.preflight.cluster import chart_download
from hyperpod_eks.preflight.inputs import Facts, Finding
from hyperpod_eks.resolve.resolved import ResolvedConfig, resolve
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.stack import stack
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.terminal.text import clean


def preflight(tell: Report, skip: tuple[str, ...], helm: str | None, **given: Any) -> Document:
    """Find everything at once that would make create fail; change nothing."""
    skipped = checks.known(skip)
    with settings(given, write=False, files=False) as (config, manifest):
        check_references(config)
        aws = entered(config, given["profile"])
        snapshot, resolved, found = _site(aws, config, manifest)
        observations: list[Observation] = []
        if resolved is not None:
            context = Context(aws, manifest, tell, parallelism=given["parallelism"])
            context.first_snapshot, context.deadline = (
                snapshot,
                context.clock.now() + opening.LOOKING,
            )
            try:
                observations = engine.status(stack(resolved, helm), context)
            except HyperpodError as error:
                text = f"what exists cannot be seen: {error}"
                found.append(Finding("permissions", "error", text, error.hint))
        if resolved is not None and observations and not declared(given, manifest):
            refuse_to_guess(snapshot, resolved, manifest, given)
        facts = Facts(
            aws,
            config,
            resolved,
            {s.want.key: s for s in observations},
            helm,
            manifest.path,
            snapshot,
        )
        found += checks.run(facts, skipped) + checks.about_settings(facts)
        found = checks.in_order(one for one in found if one.id not in skipped)
    return document(facts, found, skipped)


def _site(
    aws: Aws, config: Config, manifest: Manifest
) -> tuple[Snapshot, ResolvedConfig | None, list[Finding]]:
    """Place the config and what exists in the account, or say why it does not fit there."""
    resolved: ResolvedConfig | None = None
    found: list[Finding] = []
    aws.adopted = manifest.adopted
    try:
        aws.adopted = existing.adopt(aws, config, manifest, 0.0, write=False)
        snapshot = Snapshot(aws, counting=True)
        resolved = resolve(aws, config, snapshot)
        same_place(manifest, resolved)
    except (Foreign, NotFound, Usage) as error:
        snapshot, found = Snapshot(aws, counting=True), [checks.misfit(error)]
    return snapshot, resolved, found


def document(facts: Facts, found: list[Finding], skipped: Collection[str]) -> Document:
    """Write hyperpod-eks/preflight/v1."""
    blocked = any(one.severity == "error" for one in found)
    identity = facts.aws.identity
    return head("preflight", Exit.DENIED if blocked else Exit.OK) | {
        "cluster": {"name": facts.config.name},
        "account": identity.account,
        "region": identity.region,
        "caller": identity.arn,
        "checks": [each for each in checks.IDS if each not in skipped],
        "skipped": sorted(skipped),
        "findings": [asdict(one) for one in found],
    }


def text(document: Document) -> str:
    """Write the document for people: each finding, and what to do about it."""
    where = f"{document['cluster']['name']} in {document['region']}"
    lines = [f"cluster {where}, account {document['account']}, as {document['caller']}"]
    for one in document["findings"]:
        first, *more = map(clean, one["says"].splitlines())
        lines.append(f"{one['severity']:<8} {one['id']}: {first}")
        lines += [f"         {text}" for text in (*more, one["fix"])]
    count = len(document["checks"])
    kinds = [one["severity"] for one in document["findings"]]
    many = [f"{kinds.count(k)} {k}{'s' * (kinds.count(k) > 1)}" for k in dict.fromkeys(kinds)]
    return "\n".join([*lines, f"{count} checks: {', '.join(many) or 'nothing stands in the way'}"])


def before_create(
    context: Context,
    config: Config,
    resolved: ResolvedConfig,
    skip: Collection[str],
    warn: Callable[[str], None],
) -> Callable[[list[Observation]], None]:
    """Return what create asks before its first change; it raises Blocked when it must not begin.

    Where something is surely to be made, the questions are asked beside the first look.
    """
    skipped = checks.known(skip) | checks.AT_LOADING
    facts = Facts(
        context.aws,
        config,
        resolved,
        manifest=context.manifest.path,
        first_snapshot=context.first_snapshot,
    )
    if not context.manifest.complete:
        account.begin(facts, skipped)
        if "chart-download" not in skipped:
            workers.start_all([partial(list, chart_download(facts))])

    def ask(observations: list[Observation]) -> None:
        seen = replace(
            facts, observations={observation.want.key: observation for observation in observations}
        )
        found = checks.run(seen, skipped)
        told = {"kubernetes-version"} if resolved.warnings else set()
        for one in found:
            if one.severity == "warning" and one.id not in told:
                warn(f"{one.id}: {one.says}")
        if errors := [one for one in found if one.severity == "error"]:
            raise checks.Blocked(errors)

    return ask
