"""A view of AWS at one moment: each question is asked once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import Listing
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.tags import CLUSTER, LABEL, tag
from hyperpod_eks.documents import Json
from hyperpod_eks.workers import Shared, gather

if TYPE_CHECKING:
    from botocore.client import BaseClient


class Snapshot(Shared):
    """A view of AWS at one moment, shared by all workers: each question is asked once.

    With ``counting``, kinds that the preflight counts are listed for the whole region, and ours
    are selected from that list.  With ``bare``, for a delete, kinds read which resources
    exist, who owns them and whether they hold data, but not their settings.
    """

    def __init__(self, aws: Aws, *, counting: bool = False, bare: bool = False) -> None:
        super().__init__()
        self.aws = aws
        self.counting, self.bare = counting, bare
        self.adopted = aws.adopted
        self._begun = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the first question could be asked."""
        return time.monotonic() - self._begun

    def gather(self, first: Callable[[], Any], *rest: Callable[[], Any]) -> list[Any]:
        """Make calls about one resource concurrently, as `workers.gather` does.

        If the manifest records nothing, it rarely exists: then ``first``, which raises for what
        does not exist, is made alone before the others.
        """
        if self.aws.recorded:
            return gather(first, *rest)
        return [first(), *gather(*rest)]

    def all(self, client: BaseClient, method: str, key: str, **arguments: object) -> list[Json]:
        """Return all items of a list operation, over all pages; ``key`` names the answer's list."""

        def ask() -> list[Json]:
            pages = client.get_paginator(method).paginate(**arguments)
            return [item for page in pages for item in page.get(key, ())]

        return self.once((method, key, repr(arguments)), ask)

    def ec2(self, listing: Listing, label: str) -> list[Json]:
        """Return the items of a kind with this cluster's tag and this label, or the adopted one."""
        if adopted := self.adopted.get(f"network/{label}"):
            with absent(r".*\.NotFound|.*\.Malformed|NatGatewayNotFound|NatGatewayMalformed"):
                return self.region(listing, ids=[adopted])
            return []
        found = self.signed(listing)
        return [item for item in found if tag(item.get("Tags", ()), LABEL) == label]

    def signed(self, listing: Listing) -> list[Json]:
        """Return the items of one kind with this cluster's tag."""
        ours = self.aws.cluster
        if self.counting and listing.counted:
            found = self.region(listing)
            return [item for item in found if tag(item.get("Tags", ()), CLUSTER) == ours]
        return self.region(listing, {f"tag:{CLUSTER}": [ours]})

    def inside(self, listing: Listing, vpc: str) -> list[Json]:
        """Return the items of one kind in a VPC, regardless of their owner."""
        return self.region(listing, {listing.in_vpc: [vpc]})

    def region(
        self,
        listing: Listing,
        filters: Mapping[str, Sequence[str]] | None = None,
        ids: Sequence[str] = (),
    ) -> list[Json]:
        """Return the region's items of one kind that match filters or ids, regardless of owner."""
        asked = listing.arguments(ids, filters)
        if listing.pages:
            return self.all(self.aws.ec2, listing.method, listing.member, **asked)
        ask = partial(getattr(self.aws.ec2, listing.method), **asked)
        return self.once((listing.method, repr(asked)), lambda: list(ask()[listing.member]))
