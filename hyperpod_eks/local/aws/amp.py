"""Amazon Managed Service for Prometheus: workspaces with a life.

The operations are those of the API reference (CreateWorkspace, DescribeWorkspace, ListWorkspaces,
DeleteWorkspace).  moto's workspaces are ACTIVE at once, and are created once more at each call.
Metrics are not kept.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import moto.amp.urls
from moto.amp.models import PrometheusServiceBackend, amp_backends
from moto.core.responses import ActionResult

from hyperpod_eks.local.aws import plugin, wire
from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.wire import Refused, new_uuid, page

Document = dict[str, Any]

_MOST = 25
"""Workspaces of a region (Amazon Managed Service for Prometheus User Guide, "Service quotas")."""


class Backend(PrometheusServiceBackend):
    """The workspaces of a region."""

    _url_module = plugin.url_module("amp")

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.found: dict[str, Document] = {}
        """Descriptions by id."""
        self._tokens: dict[str, tuple[str, str]] = {}  # what was created, and its parameters

    def create(self, request: Document) -> Document:
        """Begin a creation; the same token with the same parameters answers the same one."""
        token, sim = request.pop("clientToken", ""), current()
        asked = json.dumps(request, sort_keys=True)
        known, parameters = self._tokens.get(token, ("", ""))
        if token and known in self.found:
            if parameters != asked:
                text = "The client token was used with other parameters."
                raise Refused("ConflictException", text)
            return self.found[known]
        if len(self.found) >= _MOST:
            text = "Workspaces per region per account exceeded."
            raise Refused("ServiceQuotaExceededException", text)
        id_, region = f"ws-{new_uuid(sim.ids)}", self.region_name
        self.found[id_] = {
            **request,
            "workspaceId": id_,
            "arn": f"arn:aws:aps:{region}:{ACCOUNT}:workspace/{id_}",
            "status": {"statusCode": "CREATING"},
            "prometheusEndpoint": f"https://aps-workspaces.{region}.amazonaws.com/workspaces/{id_}/",
            "createdAt": sim.clock.now(),
            "tags": dict(request.get("tags") or {}),
        }
        self._tokens[token] = (id_, asked)
        sim.clock.after(sim.delays.amp, partial(self._created, id_))
        return self.found[id_]

    def _created(self, id_: str) -> None:
        if (one := self.found.get(id_)) and one["status"]["statusCode"] == "CREATING":
            one["status"] = {"statusCode": "ACTIVE"}

    def get(self, id_: str) -> Document:
        """Return a workspace."""
        if id_ not in self.found:
            raise Refused("ResourceNotFoundException", f"Workspace not found: {id_}")
        return self.found[id_]

    def remove(self, id_: str) -> None:
        """Begin a deletion; a workspace that is being created is in conflict with it."""
        one, sim = self.get(id_), current()
        if one["status"]["statusCode"] == "CREATING":
            raise Refused("ConflictException", f"Workspace {id_} is being created.")
        one["status"] = {"statusCode": "DELETING"}
        sim.clock.after(sim.delays.amp, partial(self.found.pop, id_, None))

    def tagged(self, arn: str) -> dict[str, str]:
        """Return the tags of a workspace, which may be changed."""
        tags: dict[str, str] = self.get(arn.rpartition("/")[2])["tags"]
        return tags


class Response(wire.Tagging):
    """The service's answers, one method for each operation."""

    def __init__(self) -> None:
        super().__init__(service_name="amp")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> Backend:
        """The workspaces of the request's region."""
        return of_region(self.region)

    def create_workspace(self) -> ActionResult:
        """Answer CREATING, without the endpoint."""
        found = self.backend.create(self.request())
        members = ("workspaceId", "arn", "status", "tags", "kmsKeyArn")
        return ActionResult({name: found[name] for name in members if name in found})

    def describe_workspace(self) -> ActionResult:
        """Answer the workspace."""
        return ActionResult({"workspace": self.backend.get(self.request()["workspaceId"])})

    def list_workspaces(self) -> ActionResult:
        """Answer summaries, which have no endpoint."""
        start = self.request().get("alias") or ""
        rows = [
            {name: value for name, value in one.items() if name != "prometheusEndpoint"}
            for one in self.backend.found.values()
            if str(one.get("alias") or "").startswith(start)
        ]
        found, token = page(rows, self.request())
        return ActionResult({"workspaces": found, "nextToken": token})

    def delete_workspace(self) -> ActionResult:
        """Answer nothing."""
        self.backend.remove(self.request()["workspaceId"])
        return ActionResult({})


def of_region(region: str) -> Backend:
    """Return the service of a region."""
    found: Any = amp_backends[ACCOUNT][region]
    assert isinstance(found, Backend)
    return found


def install() -> None:
    """Swap moto's classes for ours."""
    plugin.backend(amp_backends, Backend)
    moto.amp.urls.url_paths.clear()
    plugin.routes(moto.amp.urls, "amp", Response.dispatch)


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return every workspace, without times."""
    return {
        id_: {name: value for name, value in one.items() if name != "createdAt"}
        for id_, one in of_region(region).found.items()
    }
