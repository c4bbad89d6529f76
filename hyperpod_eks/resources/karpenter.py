"""HyperpodNodeClasses: the instance groups from which HyperPod's Karpenter takes nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from hyperpod_eks.documents import DIGEST, JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.resources.base import Live, Resource
from hyperpod_eks.resources.hyperpod.diff import its
from hyperpod_eks.resources.kubernetes import Object


@frozen
class NodeClass(Object):
    """A HyperpodNodeClass; ``deleted_before`` is the HyperPod cluster.

    "If you start with more than 0 nodes, Karpenter will scale them down to 0" (SageMaker developer
    guide, "Create a NodeClass").
    """

    kind = "hyperpod/NodeClass"
    step = "kubernetes"

    def _live(self, found: JsonMapping, lineage: str) -> Live:
        live = super()._live(found, lineage)
        groups = kube.part(found, "spec").get("instanceGroups")
        return replace(live, attributes={**live.attributes, "groups": groups or []})

    def let_go(self, live: Live) -> tuple[Resource, Resource] | None:
        """The cluster, and the class without the groups that are no longer declared.

        A class that names a group without a cluster's is not Ready, and nothing scales (SageMaker
        developer guide, "Create a NodeClass").  It names one group at least.
        """
        if self.deleted_before is None or self.document.startswith(DIGEST):
            return None
        document = json.loads(self.document)
        declared, known = document["spec"]["instanceGroups"], live.attributes.get("groups", ())
        left = [name for name in known if name in declared]
        if not left or left == known:
            return None
        document["spec"] = {**document["spec"], "instanceGroups": left}
        text = json.dumps(document, sort_keys=True)
        return self.deleted_before, replace(self, document=text, deleted_before=None, after=())

    def takes(self, live: Live | None, lives: Mapping[str, Live]) -> Iterator[str]:
        """Yield the nodes of the groups that it does not have yet."""
        cluster = lives.get(self.deleted_before.key) if self.deleted_before else None
        hidden = live and not live.id and live.attributes.get("served", True)
        if cluster is None or hidden or self.document.startswith(DIGEST):
            return
        known = live.attributes.get("groups", ()) if live else ()
        for name in json.loads(self.document)["spec"]["instanceGroups"]:
            count = cluster.attributes["described"].get(name, {}).get("CurrentCount", 0)
            if count and name not in known:
                lost = its(count, "removed")
                yield f"instance group {name}: {lost}, because Karpenter begins with none"
