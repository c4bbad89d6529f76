"""Our API server gives the recorded answers of a real one, kube-apiserver 1.36.2.

The recording has 54 requests in order, and the real server's answers. Statuses must be equal.
Bodies must be equal, apart from the order of keys, after removing

- random values and times: uids, resource versions, times, `managedFields`, `storageVersionHash`;
- in answers about an existing Deployment, the progress of its controllers, which was recorded at
  an arbitrary time: `status` and the revision annotation.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import Cluster, Identity
from hyperpod_eks.local.tls import make_pki

RECORDING = Path(__file__).parent / "data" / "kube-apiserver-1.36.2-answers.json"
RECORDED: list[dict[str, Any]] = json.loads(RECORDING.read_text())
VOLATILE = {
    *("uid", "resourceVersion", "managedFields", "storageVersionHash", "creationTimestamp"),
    *("deletionTimestamp", "lastTransitionTime", "lastUpdateTime", "lastHeartbeatTime"),
}
DEPENDS_ON_THE_MOMENT = {"deploy apply add container", "deploy apply back", "deploy strategic"}


def replayed(url: str, ca_pem: bytes, pause: Callable[[], object]) -> dict[str, tuple[int, Any]]:
    """Send the recorded requests to a server; return status and body by name of the request."""
    context = ssl.create_default_context(cadata=ca_pem.decode())
    connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=context)
    found = {}
    for entry in RECORDED:
        method, path, *body = entry["request"]
        raw = body[0] if body and isinstance(body[0], str) else json.dumps(*body) if body else None
        content_type = entry["kw"].get("ct", "application/json")
        headers = {"Content-Type": content_type, "Authorization": "Bearer good"}
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        text = response.read().decode()
        is_json = response.headers["Content-Type"] == "application/json"
        found[entry["name"]] = (response.status, json.loads(text) if is_json else text)
        pause()
    connection.close()
    return found


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, Any]]:
    """The answers of our server."""
    pki, clock = make_pki(), Clock()
    admin = Identity("admin", ("system:masters", "system:authenticated"))
    cluster = Cluster(clock, lambda token: admin if token == "good" else None, "1.36", pki)
    # controllers react between requests; a deleted namespace is not gone yet
    found = replayed(cluster.url, pki.ca_pem, lambda: clock.advance(0.6))
    cluster.stop()
    return found


def settled(name: str, body: Any) -> Any:
    if isinstance(body, list):
        return [settled(name, item) for item in body]
    if not isinstance(body, dict):
        return body
    if name in DEPENDS_ON_THE_MOMENT and body.get("kind") == "Deployment":
        body = {k: v for k, v in body.items() if k != "status"}
        body["metadata"] = {k: v for k, v in body["metadata"].items() if k != "annotations"}
    return {k: settled(name, v) for k, v in body.items() if k not in VOLATILE}


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: entry["name"].replace(" ", "-"))
def test_answers_like_the_real_server(
    answers: dict[str, tuple[int, Any]], entry: dict[str, Any]
) -> None:
    status, body = answers[entry["name"]]
    assert status == entry["status"]
    assert settled(entry["name"], body) == settled(entry["name"], entry["body"])
