"""The manifest's record of one resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import Sent

RecordState = Literal["intent", "created", "ready", "updating", "deleting", "deleted"]
Origin = Literal["created", "adopted"]


@frozen
class Record:
    """One resource.

    ``state`` is ``intent`` while it is unknown whether it was created, ``created`` while it was
    certainly never ready, and ``updating`` while it may have been ready before and may not be now.

    ``since`` is when its create or delete began, in seconds since the epoch.  ``token`` is the
    client token, with which AWS treats a repeated create as the same request.
    """

    kind: str
    want: Mapping[str, Any]
    state: RecordState
    since: float
    token: str
    id: str = ""
    arn: str = ""
    origin: Origin = "created"
    """``created`` by us, or ``adopted``: used as it is, never changed and never deleted."""
    past: str = ""
    """The ARNs of earlier resources with this key, separated by spaces."""
    sent: Mapping[str, Sent] | None = None
    """The facts that accepted requests have set, and whether AWS has described each since.  None
    for an intent, and in manifests of 0.1.0, where ``want`` counts as described."""

    @property
    def unsure(self) -> bool:
        """Whether its create was intended and its result is unknown."""
        return self.state == "intent"

    @property
    def was_ready(self) -> bool:
        """Whether it may have been ready, and its delete has not begun."""
        return self.state in ("ready", "updating")

    @property
    def deletes(self) -> bool:
        """Whether its deletion was begun, and may have ended."""
        return self.state in ("deleting", "deleted")

    @property
    def arns(self) -> list[str]:
        """The ARNs of earlier resources with this key, and its own."""
        return [*self.past.split(), *([self.arn] if self.arn else ())]
