"""The claim of a run on a cluster: it keeps runs with other manifests away, on any machine.

It is a `Lease` in the cluster's bucket.  The bucket is created before everything else and deleted
after it; of two runs that create it at the same moment, the one whose object S3 accepts goes on.
"""

from __future__ import annotations

import time
from contextlib import suppress

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.errors import HyperpodError, Locked
from hyperpod_eks.resources.s3 import claim_key
from hyperpod_eks.state.lease import Lease
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.state.objects import NO_BUCKET, PATIENCE, PAUSE, Objects


def lease_of(aws: Aws, bucket: str, account: str, manifest: str = "") -> Lease:
    """Return the lease of a cluster's claim; nobody here holds it.

    ``account`` owns the bucket, if given: an adopted one may be another account's.  ``manifest``
    is its `Store.identity`.
    """
    objects = Objects(aws, bucket, f"the cluster {aws.cluster}", account)
    return Lease(objects, claim_key(aws.cluster), manifest)


class Claim:
    """The claim of this run: taken before its first change, checked before each other one."""

    def __init__(self, aws: Aws, bucket: str, manifest: Manifest, patience: float = 0) -> None:
        self.manifest, self.patience = manifest, patience
        self.alone = False
        """What `take` returned: this run has seen all that other runs have done."""
        itself = Aws(aws.session, aws.cluster, {})  # its own writes are checked by nobody
        owner = "" if "s3/bucket" in manifest.adopted else aws.identity.account
        self._lease = lease_of(itself, bucket, owner, manifest.store.identity)

    @property
    def held(self) -> bool:
        """Whether this run has taken it."""
        return self._lease.held

    def take(self, *, new: bool = False) -> bool:
        """Take it; return whether no other run has held it since the last one of this manifest.

        Otherwise what was read of the cluster before may be out of date.  A run with this very
        manifest, not a copy of it, is over: this one holds the manifest's lock.  In a ``new``
        bucket nobody is expected to have claimed.  Raises Locked after ``patience`` seconds, naming
        the holder, and Usage and Denied as `Objects.get`.
        """
        before = self.manifest.claim
        last = "" if new else self._look(before)
        self.manifest.claim = self._lease.run  # first: whoever has the manifest may go on at once
        self.manifest.save()
        while not self.held:
            try:
                self._lease.hold()
            except Locked:
                last = self._look(before)  # another run was first, and may have ended since
        self.alone = last in ("", before)
        return self.alone

    def _look(self, ended: str) -> str:
        """Wait until it is free; a bucket that was just created may not be visible everywhere."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._lease.look(self.patience, ended=ended)
            except HyperpodError as error:
                if error.reason != NO_BUCKET or time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE)

    def check(self) -> None:
        """Make sure that it is still ours, if it was taken.  Raises Locked."""
        self._lease.check()

    def delete(self) -> None:
        """Delete it: the bucket goes next, or the cluster was all that used it."""
        self._lease.delete()

    def release(self) -> None:
        """Let other runs have it; without an answer they wait until it ends by itself."""
        with suppress(Exception):
            self._lease.release()
