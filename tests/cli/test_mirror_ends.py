"""A mirror that ends at any call: the next one completes it, and nothing half is called done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hyperpod_eks import mirror
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.registry import Image, parse
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.local import UPSTREAM
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients, User, new_aws

IMAGES = [image for name in ("mpioperator/mpi-operator:0.5", "quay.io/team/one:v1")
          if (image := parse(name))]  # fmt: skip


class Cut:
    """A WSGI application that lets the first requests to ECR through, and refuses all others.

    The state that it leaves is that of a process that was killed there.  With ``lost``, the first
    request that it refuses takes effect all the same.
    """

    def __init__(self, application: Any, first: int, *, lost: bool) -> None:
        self.application, self.first, self.lost = application, first, lost
        self.asked = 0

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if not (environ["PATH_INFO"].startswith("/v2/") or "CreateRepository" in target):
            passed: Iterable[bytes] = self.application(environ, start)
            return passed
        self.asked += 1
        if self.asked <= self.first:
            through: Iterable[bytes] = self.application(environ, start)
            return through
        if self.lost and self.asked == self.first + 1:
            list(self.application(environ, lambda *_: None))
        said = json.dumps({"__type": "AccessDeniedException", "message": "cut"}).encode()
        kind = "application/x-amz-json-1.1" if target else "application/json"
        status = "400 Bad Request" if target else "403 Forbidden"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(said)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [said]


@contextmanager
def cut(stack: Stack, first: int, *, lost: bool = False) -> Iterator[Cut]:
    server: Any = stack._server._httpd
    whole = server.app
    server.app = one = Cut(whole, first, lost=lost)
    try:
        yield one
    finally:
        server.app = whole


def copied(aws: Aws, done: list[Image]) -> None:
    mirror.copy(aws, mirror.Names.of(aws), IMAGES, done.append, upstream=UPSTREAM, most=1)


def digests(ecr: Any) -> dict[str, set[str]]:
    """Return the digests of all images by repository and tag; without a tag by repository."""
    found: dict[str, set[str]] = {}
    for one in ecr.describe_repositories()["repositories"]:
        name = one["repositoryName"]
        for each in ecr.describe_images(repositoryName=name)["imageDetails"]:
            for tag in each.get("imageTags") or [""]:
                found.setdefault(f"{name}:{tag}", set()).add(each["imageDigest"])
    return found


def emptied(ecr: Any) -> None:
    for one in ecr.describe_repositories()["repositories"]:
        ecr.delete_repository(repositoryName=one["repositoryName"], force=True)


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.prove)])
def test_a_mirror_that_ends_at_any_call_is_completed_by_the_next(
    user: User, aws: Clients, step: int
) -> None:
    client = new_aws()
    client.lineage = "the-lineage"
    with cut(user.stack, 10**6) as counted:
        copied(client, [])
    whole = digests(aws.ecr)
    assert len([name for name in whole if not name.endswith(":")]) == len(IMAGES)
    assert counted.asked > 30

    for first in range(0, counted.asked, step):
        for lost in (False, True):
            emptied(aws.ecr)
            done: list[Image] = []
            with cut(user.stack, first, lost=lost), suppress(HyperpodError, ClientError):
                copied(client, done)
                assert False, first  # noqa: B011, PT015  it was refused
            now = digests(aws.ecr)
            tags = {name: them for name, them in now.items() if not name.endswith(":")}
            assert tags.items() <= whole.items(), (first, lost)  # no tag before all of its layers
            assert {f"demo/{each.name}:{each.tag}" for each in done} <= tags.keys()
            copied(client, [])
            assert digests(aws.ecr) == whole, (first, lost)
