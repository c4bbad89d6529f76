"""CloudWatch Logs: what services write, and keys, which moto takes with a new log group only."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import moto.logs.urls
from moto.core.responses import ActionResult, EmptyResult
from moto.logs.exceptions import ResourceNotFoundException
from moto.logs.models import logs_backends
from moto.logs.responses import LogsResponse

from hyperpod_eks.local.aws.sim import ACCOUNT, current

#: Lines of a stream that are kept, the newest: a week of EKS's, which writes one a minute, in 3 MB.
#: CloudWatch keeps all, but its years last years; here 30 days pass in 26 s at speed 100,000.
KEPT_LINES = 10_000
#: Streams of a group that are kept, the newest: more than the nodes of any HyperPod cluster.
KEPT_STREAMS = 10_000


def write(region: str, group: str, stream: str, lines: Iterable[str]) -> None:
    """Write lines of a service, which are to be seen within ``Delays.logs``.

    Group and stream are made when they are missing then: a service that writes its last lines
    after its end makes a group anew that was deleted with it (terraform-aws-eks, #920).
    """
    sim = current()
    stamp = int(sim.clock.now().timestamp() * 1000)
    events = [{"timestamp": stamp, "message": line} for line in lines]
    late = sim.delays.logs * sim.draw(f"log {group}")
    sim.clock.after(late, partial(_arrive, region, group, stream, events))


def _arrive(region: str, group: str, stream: str, events: list[dict[str, Any]]) -> None:
    logs = logs_backends[ACCOUNT][region]
    logs.ensure_log_group(group)
    logs.ensure_log_stream(group, stream)
    # not by the backend's own method, which refuses what seems to come from the future
    logs.groups[group].put_log_events(stream, events)
    streams = logs.groups[group].streams
    lines = streams[stream].events
    if len(lines) > KEPT_LINES * 1.1:  # not at every line
        del lines[:-KEPT_LINES]
    while len(streams) > KEPT_STREAMS:
        del streams[next(iter(streams))]


class Response(LogsResponse):
    """moto's answers, and those about keys."""

    def list_tags_for_resource(self) -> str:
        """Return the tags of a log group that exists; moto returns none for any other."""
        arn = str(self._get_param("resourceArn"))
        _, found, name = arn.partition(":log-group:")
        if found and name not in self.logs_backend.groups:
            raise ResourceNotFoundException
        return super().list_tags_for_resource()

    def associate_kms_key(self) -> ActionResult:
        """Encrypt what is written from now on with another key."""
        return self._set_key(self._get_param("kmsKeyId"))

    def disassociate_kms_key(self) -> ActionResult:
        """Encrypt it with AWS's own key again."""
        return self._set_key(None)

    def _set_key(self, arn: str | None) -> ActionResult:
        name = self._get_param("logGroupName")
        if name not in self.logs_backend.groups:
            raise ResourceNotFoundException
        self.logs_backend.groups[name].kms_key_id = arn
        return EmptyResult()


def install() -> None:
    """Swap moto's answers for ours."""
    moto.logs.urls.url_paths["{0}/$"] = Response.dispatch
