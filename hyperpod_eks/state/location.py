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
    from botocore.session import Session

ENDING = ".hyperpod-eks.json"
SCHEME = "s3://"

Login = Callable[[], "Session"]
"""Opens the session of AWS with which a manifest in S3 is read."""


def store_of(place: str | None, cluster: str, login: Login, *, state: str = "") -> Store:
    """Return the store at a place, or that of a cluster under ``state``, or in this folder.

    A place is a path or ``s3://BUCKET/KEY``; ``state`` is a folder or ``s3://BUCKET/PREFIX``.
    Raises Usage for an S3 URL that names no bucket or no key.
    """
    if not place and state:
        place = place_of(cluster, state)
    if not place or not place.startswith(SCHEME):
        return FileStore(home(Path(place or place_of(cluster))))
    from hyperpod_eks.aws.client import Aws  # noqa: PLC0415  a file needs no botocore
    from hyperpod_eks.state.s3_store import S3Store  # noqa: PLC0415

    return S3Store(Aws(login(), cluster, {}), *_split(place))


def place_of(cluster: str, state: str = "") -> str:
    """Return the place of a cluster's manifest under ``state``, or in this folder."""
    return f"{state.rstrip('/')}/{cluster}{ENDING}" if state else f"{cluster}{ENDING}"


def _split(place: str) -> tuple[str, str]:
    """Return bucket and key.  Raises Usage for what cannot be one (S3 User Guide, "Bucket naming
    rules").
    """
    bucket, _, key = place.removeprefix(SCHEME).partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) or not key.strip("/"):
        raise Usage(f"{place!r} is not s3://BUCKET/KEY", "Example: s3://team-state/demo.json")
    if bucket.endswith("--x-s3"):
        raise Usage(
            f"{place}: a directory bucket cannot keep a manifest",
            "Use a general purpose bucket: its objects are in more than one zone.",
        )
    return bucket, key


def stores(places: Sequence[str], login: Login, *, state: str = "") -> Sequence[Store]:
    """Return the stores at these places, or all under ``state``, or all of this folder.

    Raises as `store_of`, and as `Objects.get`.
    """
    if state.startswith(SCHEME) and not places:
        places = _in_bucket(state, login)
    elif not places:
        places = sorted(map(str, Path(state).glob(f"*{ENDING}")))
    return [store_of(each, "", login) for each in places]


def _in_bucket(state: str, login: Login) -> list[str]:
    """Return the places of the manifests right under ``s3://BUCKET/PREFIX``."""
    from hyperpod_eks.aws.client import Aws  # noqa: PLC0415  a folder needs no botocore
    from hyperpod_eks.state.objects import Objects  # noqa: PLC0415

    bucket, first = _split(place_of("*", state))
    objects = Objects(Aws(login(), "", {}), bucket)
    keys = objects.list(first.removesuffix(f"*{ENDING}"), delimiter="/")
    return [f"{SCHEME}{bucket}/{key}" for key in keys if key.endswith(ENDING)]
