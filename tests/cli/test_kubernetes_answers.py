"""All commands work with a Kubernetes API server that omits every optional member."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.kubernetes.api import Answer, Api, Request
from tests.answers import partial
from tests.conftest import User

REQUESTS = {
    "nodes": "/api/v1/nodes",
    "namespaces": "/api/v1/namespaces",
    "records": "/api/v1/secrets",
    "record": "/api/v1/namespaces/kube-system/secrets/sh[.]helm[.].*",
    "deployment": "/apis/apps/v1/namespaces/kube-system/deployments/coredns",
    "pods": "/api/v1/pods",
    "workloads": "/apis/apps/v1/(deployments|daemonsets|statefulsets)",
    "role": "/apis/rbac[.]authorization[.]k8s[.]io/v1/clusterroles/.*",
}
"""Paths of our client's requests to Kubernetes."""
HOWS = ("null", "absent", "empty", "partial")
SAMPLE = (("records", "null"),)


def thin(content: Any, how: str) -> Any:
    """Return the answer with its members altered in one of the ways of ``HOWS``."""
    match how:
        case "null":
            return dict.fromkeys(content)
        case "absent":
            return {}
        case "empty":
            return {k: type(v)() for k, v in content.items()}
    return partial(content)


CASES = [
    pytest.param(
        name, how, id=f"{name}-{how}", marks=() if (name, how) in SAMPLE else pytest.mark.prove
    )
    for name in REQUESTS
    for how in HOWS
]


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_life_comes_to_its_end(
    name: str, how: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Api.answer

    def answered(self: Api, request: Request) -> Answer:
        found = answer(self, request)
        ours = request.headers.get("User-Agent", "").startswith("OpenAPI-Generator")
        hit = ours and request.method == "GET" and re.fullmatch(REQUESTS[name], request.path)
        return Answer(200, thin(found.content, how)) if hit and found.status == 200 else found

    monkeypatch.setattr(Api, "answer", answered)
    empty = user.stack.inventory()

    made = user.types("create", "demo", "--chart", str(CHART), "--timeout", "0.1")
    assert made.code in (0, 1, 6), made.err
    if made.code:  # unreadable parts are named
        assert re.search("hyperpod/nodes|helm|coredns", made.err), made.err
    assert user.types("status", "demo").code == 0
    gone = user.types("delete", "demo", "--yes")

    assert (gone.code, "nothing remains" in gone.out) == (0, True), gone.err
    assert user.stack.inventory() == empty
