"""``hyperpod-eks create``: make a cluster, or what is missing of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from hyperpod_eks import engine
from hyperpod_eks.aws.transport import ca_bundle
from hyperpod_eks.cli.commands.outputs import values
from hyperpod_eks.cli.commands.preflight import before_create
from hyperpod_eks.cli.confirm import consenting
from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import Document, called
from hyperpod_eks.cli.opening import opened
from hyperpod_eks.cli.recorder import Recorder, result
from hyperpod_eks.engine.plan import new_administrator
from hyperpod_eks.events import EventType, Report
from hyperpod_eks.resolve.resolved import check_plans
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.steps.helm import prepare


def create(
    tell: Report,
    helm: str | None,
    replace_failed: bool,
    skip: tuple[str, ...],
    yes: bool = False,
    run: str = "",
    **given: Any,
) -> Document:
    """Make the cluster; the document has its outputs.

    If nothing of it existed, the manifest says from the first intent on that ``run`` created it.
    """
    story = Recorder(tell)
    with opened("create", given, story, files=True, helm=helm) as at:
        story.once = (
            "eks/cluster",
            EventType.WAITING,
            partial(prepare, at.config.chart, ca_bundle(at.context.aws.session)),
        )
        at.context.replace_failed = replace_failed
        at.context.consent = consenting(at.resolved.name, yes=yes)
        check_plans(at.resolved, at.context.aws)
        at.manifest.config = at.config.model_dump(mode="json", by_alias=True)
        warnings = at.warn()

        def warn(text: str) -> None:
            warnings.append(text)
            current_console().warn(text)

        at.context.warn = warn
        check = before_create(at.context, at.config, at.resolved, skip, current_console().warn)

        def begin(observations: list[Observation]) -> None:
            if line := new_administrator(observations, at.context):
                at.context.consent([line])
            check(observations)
            if run and _is_new(at.manifest, observations):
                at.manifest.run = run

        at.context.preflight = begin
        engine.create(at.wants, at.context)
        return result("create", at, story) | {
            "outputs": values(at.manifest),
            "warnings": warnings,
            "next": f"hyperpod-eks kubeconfig {called(at.resolved.name, {**given, 'file': None})}",
        }


def _is_new(manifest: Manifest, observations: Sequence[Observation]) -> bool:
    """Whether nothing of the cluster exists, nor may exist by the manifest; adopted is not its."""
    mine = [record for record in manifest.records.values() if record.origin == "created"]
    return all(record.state == "deleted" for record in mine) and not any(
        observation.live
        and observation.want.recorded
        and observation.want.key not in manifest.adopted
        for observation in observations
    )


def text(document: Document) -> str:
    """Write the document for people: the values that they will need."""
    outputs = document["outputs"]
    done = "is ready" if document["changed"] else "is as declared; nothing was changed"
    rows = [
        (name.replace("_", " "), " ".join(value) if isinstance(value, list) else value)
        for name, value in outputs.items()
        if value and name != "kubeconfig_command"  # AWS's own; ours knows --local and --profile
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    use = f"To use it with kubectl: {document['next']}"
    return "\n".join([f"cluster {document['cluster']['name']} {done}", *lines, use])
