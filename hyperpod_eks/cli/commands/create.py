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
from hyperpod_eks.cli.console import speech
from hyperpod_eks.cli.documents import Document, called
from hyperpod_eks.cli.opening import opened
from hyperpod_eks.cli.recorder import Story, result
from hyperpod_eks.engine.plan import newcomer
from hyperpod_eks.events import Report, What
from hyperpod_eks.resolve.site import check_plans
from hyperpod_eks.resources.compare import Sight
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
    story = Story(tell)
    with opened("create", given, story, files=True, helm=helm) as at:
        story.once = (
            "eks/cluster",
            What.WAITING,
            partial(prepare, at.config.chart, ca_bundle(at.world.aws.session)),
        )
        at.world.replace_failed = replace_failed
        at.world.consent = consenting(at.site.name, yes=yes)
        check_plans(at.site, at.world.aws)
        at.manifest.config = at.config.model_dump(mode="json", by_alias=True)
        warnings = at.warn()

        def warn(text: str) -> None:
            warnings.append(text)
            speech().warn(text)

        at.world.warn = warn
        check = before_create(at.world, at.config, at.site, skip, speech().warn)

        def begin(sights: list[Sight]) -> None:
            if line := newcomer(sights, at.world):
                at.world.consent([line])
            check(sights)
            if run and _is_new(at.manifest, sights):
                at.manifest.run = run

        at.world.preflight = begin
        engine.create(at.wants, at.world)
        return result("create", at, story) | {
            "outputs": values(at.manifest),
            "warnings": warnings,
            "next": f"hyperpod-eks kubeconfig {called(at.site.name, {**given, 'file': None})}",
        }


def _is_new(manifest: Manifest, sights: Sequence[Sight]) -> bool:
    """Whether nothing of the cluster exists, nor may exist by the manifest; adopted is not its."""
    mine = [record for record in manifest.records.values() if record.origin == "created"]
    return all(record.state == "deleted" for record in mine) and not any(
        sight.live and sight.want.recorded and sight.want.key not in manifest.adopted
        for sight in sights
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
