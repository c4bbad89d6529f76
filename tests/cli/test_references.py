"""``${env:NAME}`` in settings: the variable's value is sent, but only the reference is stored."""

from __future__ import annotations

import base64
import gzip

import pytest

from hyperpod_eks.local import CHART
from tests.conftest import Clients, User

FILE = f"""
name: demo
region: us-west-2
chart:
  path: {CHART}
  values: {{mpi-operator: {{note: "x${{env:NOTE}}y"}}}}
addons:
  metrics-server: {{configuration_values: {{env: [{{name: API_PASSWORD, value: "${{env:API}}"}}]}}}}
"""
WORDS = ("-f", "c.yaml", "-o", "json")


@pytest.fixture
def written(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    (user.folder / "c.yaml").write_text(FILE)
    monkeypatch.setenv("NOTE", "SENT-note-1")
    monkeypatch.setenv("API", "SENT-password-1")
    return user


def kept(user: User) -> str:
    """Return the content of all files that commands left."""
    files = [path for path in user.folder.parent.rglob("*") if path.is_file()]
    return "".join(path.read_text(errors="replace") for path in files)


def release(user: User) -> str:
    """Return helm's record of the newest release, decoded: base64 of base64 of gzip."""
    (kubernetes,) = user.stack.sim.clusters.values()
    store = kubernetes._store
    with store.lock:
        found = [obj for _, obj in store.everything() if obj.get("type") == "helm.sh/release.v1"]
    coded = max(found, key=lambda obj: str(obj["metadata"]["name"]))["data"]["release"]
    return gzip.decompress(base64.b64decode(base64.b64decode(coded))).decode()


def test_the_value_is_sent_and_the_reference_kept(
    written: User, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, said = written, written.types("create", *WORDS, "--debug", "--events", "events.jsonl")
    assert said.code == 0, said.err
    shown = said.out + said.err
    sent = aws.eks.describe_addon(clusterName="demo", addonName="metrics-server")["addon"]
    assert "SENT-password-1" in sent["configurationValues"]
    assert "xSENT-note-1y" in release(user)

    def changes() -> set[str]:
        found = user.types("plan", *WORDS)
        return {x["key"] for x in found.document["resources"] if x["action"] == "change"}

    assert changes() == set()
    monkeypatch.setenv("API", "SENT-password-2")
    assert changes() == {"addons/metrics-server"}
    monkeypatch.setenv("NOTE", "SENT-note-2")
    assert changes() == {"addons/metrics-server", "helm/release"}
    said = user.types("create", *WORDS)
    assert said.code == 0, said.err
    shown += said.out + said.err
    assert changes() == set()
    assert "SENT" not in kept(user) + shown
    assert "${env:API}" in kept(user)

    # commands that send nothing need no variable
    monkeypatch.delenv("NOTE")
    monkeypatch.delenv("API")
    for words in ("status", "outputs", "delete --yes"):
        said = user.types(*words.split(), "demo", "-o", "json")
        assert said.code == 0, said.err
    assert not aws.eks.list_clusters()["clusters"]


@pytest.mark.parametrize("verb", ["create", "plan", "preflight"])
def test_a_reference_that_leads_nowhere_is_told_with_its_place(
    written: User, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API")
    said = written.types(verb, *WORDS)
    place = "addons.metrics-server.configuration_values.env[0].value"
    assert said.code == 2
    assert said.document["error"]["message"] == f"{place}: the environment variable API is not set"
    assert written.mutations() == []
    assert written.types("validate", "-f", "c.yaml").code == 0


def test_what_is_no_reference_is_told(written: User) -> None:
    (written.folder / "c.yaml").write_text(FILE.replace("${env:NOTE}", "${env:no te}"))
    said = written.types("create", *WORDS)
    place = "chart.values.mpi-operator.note"
    assert (said.code, f"{place}: is not a reference to a variable" in said.err) == (2, True)
