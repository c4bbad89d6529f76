"""Which store a command means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hyperpod_eks.errors import Usage
from hyperpod_eks.state.file_store import FileStore, home
from hyperpod_eks.state.store import Store

if TYPE_CHECKING:
    import boto3

ENDING = ".hyperpod-eks.json"
SCHEME = "s3://"

Login = Callable[[], "boto3.Session"]
"""Opens the session of AWS with which a manifest in S3 is read."""


def store_of(place: str | None, cluster: str, login: Login, *, state: str = "") -> Store:
    """Return the store at a place, or that of a cluster under ``state``, or in this folder.

    A place is a path or ``s3://BUCKET/KEY``; ``state`` is a folder or ``s3://BUCKET/PREFIX``.
    Raises Usage for an S3 URL that names no bucket or no key.
    """
    if not place and state:
        place = f"{state.rstrip('/')}/{cluster}{ENDING}"
    if not place or not place.startswith(SCHEME):
        return FileStore(home(Path(place or f"{cluster}{ENDING}")))
    from hyperpod_eks.aws.client import Aws  # noqa: PLC0415  a file needs no botocore
    from hyperpod_eks.state.s3_store import S3Store  # noqa: PLC0415

    bucket, _, key = place.removeprefix(SCHEME).partition("/")
    _check(place, bucket, key)
    return S3Store(Aws(login(), cluster, {}), bucket, key)


def _check(place: str, bucket: str, key: str) -> None:
    """Raise Usage for what cannot be a bucket and a key (S3 User Guide, "Bucket naming rules")."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) or not key.strip("/"):
        raise Usage(f"{place!r} is not s3://BUCKET/KEY", "Example: s3://team-state/demo.json")
    if bucket.endswith("--x-s3"):
        raise Usage(
            f"{place}: a directory bucket cannot keep a manifest",
            "Use a general purpose bucket: its objects are in more than one zone.",
        )


def stores(places: Sequence[str], login: Login) -> Sequence[Store]:
    """Return the stores at these places, or all of this folder."""
    here = sorted(map(str, Path().glob(f"*{ENDING}")))
    return [store_of(each, "", login) for each in places or here]
