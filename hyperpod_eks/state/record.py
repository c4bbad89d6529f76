"""What the manifest keeps of one resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import Sent


@frozen
class Record:
    """One resource.  ``state`` is intent (perhaps made), created, ready, deleting or deleted.

    ``since`` is when we set out to make it, or to delete it (seconds since the epoch); ``token``
    makes every re-send of that one birth the same request.
    """

    kind: str
    want: Mapping[str, Any]
    state: str
    since: float
    token: str
    id: str = ""
    arn: str = ""
    origin: str = "created"
    """``created`` by us, or ``adopted``: used as it is, never changed and never deleted."""
    past: str = ""
    """ARNs of those that were here before it, with blanks between them."""
    sent: Mapping[str, Sent] | None = None
    """The facts that accepted requests have set, and whether AWS has shown each since; None in
    manifests of 0.1.0, where ``want`` counts as sent and shown, and while it is an intent."""

    @property
    def unsure(self) -> bool:
        """Whether we set out to make it and do not know that we did."""
        return self.state == "intent"

    @property
    def arns(self) -> list[str]:
        """The ARNs of those before it, and its own."""
        return [*self.past.split(), *([self.arn] if self.arn else ())]
