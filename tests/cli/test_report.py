"""The page of a cluster: what is on it, what is not, and how it looks."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.report import page
from tests.browser import browser
from tests.conftest import User, at_work

EXAMPLES = Path(__file__).parents[2] / "examples"
PAPER = 794
"""Width of A4 in pixels."""
VOID = {"meta", "br", "img", "hr"}


class Parsed(HTMLParser):
    """A page as a parser reads it: its text, its elements, and the ids and addresses in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts, self.count, self.open = list[str](), Counter[str](), list[str]()
        self.ids, self.links, self.headings = list[str](), list[str](), list[str]()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        self.open += [] if tag in VOID else [tag]
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action", "xlink:href"):
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in VOID else self.open

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.texts.append(" ".join(data.split()))
            if self.open[-1] == "h2":
                self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def here(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("report")) as user:
        user.has("demo")
        yield user


@pytest.fixture(scope="module")
def written(here: User) -> Any:
    """The document of the healthy cluster."""
    before = (here.folder / "demo.hyperpod-eks.json").read_bytes()
    here.mutations()
    said = here.types("report", "demo", "--html", "healthy.html", "-o", "json")
    assert said.code == 0, said.err
    assert here.mutations() == []
    assert (here.folder / "demo.hyperpod-eks.json").read_bytes() == before
    return said.document


def test_the_page_has_every_part_and_needs_nothing_else(here: User, written: Any) -> None:
    html = (here.folder / written["file"]).read_text()
    assert html == written["html"]
    parsed = Parsed(html)
    assert parsed.headings == [
        "Findings", "Picture", "Instance groups", "Nodes", "Cost", "Resources", "Timeline",
    ]  # fmt: skip
    assert parsed.count["script"] == parsed.count["link"] == parsed.count["iframe"] == 0
    assert parsed.count["svg"] == 4  # two pictures, each in a frame
    assert len(parsed.ids) == len(set(parsed.ids))
    assert [link for link in parsed.links if not link.startswith(("#", "data:"))] == []
    assert not re.search(r"(url\(|@import)\W*(?!data:)\w+:", html)
    assert "default-src 'none'" in html
    assert "None: every resource exists and is as declared." in parsed.text
    for step in written["steps"]:
        for row in step["resources"]:
            assert row["name"] in parsed.texts
            assert not row["id"] or " ".join(row["id"].split()) in parsed.texts
    cost = written["cost"]
    for group in written["instance_groups"]:
        assert {group["name"], f"{group['current']} of {group['target']}"} <= {*parsed.texts}
        assert f"{cost['groups'][group['name']]['usd_per_month']:,.0f}" in parsed.texts
    assert cost["as_of"] in parsed.text
    assert {node["name"] for node in written["nodes"]} <= set(parsed.texts)
    (run,) = written["runs"]
    assert {"eks/cluster", "network/vpc"} <= {bar["key"] for bar in run["resources"]}
    assert all(bar["after"] + bar["seconds"] <= run["seconds"] + 0.2 for bar in run["resources"])


EVIL = "</td></style><script>alert(1)</script><img src=x onerror=a()>&lt;\u202eevil\x1b[0m"


def marked(value: Any) -> Any:
    """Return a document with hostile words at the end of each text."""
    if isinstance(value, dict):
        return {key: marked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [marked(each) for each in value]
    return f"{value}{EVIL}" if value and isinstance(value, str) else value


def test_words_of_others_are_text(written: Any) -> None:
    usual, hostile = (
        Parsed(page.page(page.template(), each, "<svg></svg>", "<svg></svg>"))
        for each in (written, marked(written))
    )
    assert hostile.count == usual.count
    assert hostile.text.count("<script>alert(1)</script>") > 100
    assert not re.search("[\u202e\x1b]", hostile.text)


def test_what_is_wrong_comes_with_what_to_do(here: User) -> None:
    (here.folder / "more.yaml").write_text(
        "name: demo\nregion: us-west-2\neks: {log_retention_days: 90}\nnetwork: {nat: per-az}\n"
    )
    said = here.types("report", "-f", "more.yaml", "--html", "-")
    parsed = Parsed(said.out)
    assert (said.code, said.err) == (0, "")
    assert "Resources that do not exist: 4" in parsed.texts
    assert "hyperpod-eks create demo --file more.yaml" in parsed.texts
    assert "eks/log-group: retention: 30 → 90" in parsed.texts
    assert "hyperpod-eks plan demo --file more.yaml" in parsed.texts


def test_a_plan_is_shown_before_the_cluster_exists(here: User) -> None:
    (here.folder / "new.yaml").write_text("name: new\nregion: us-west-2\n")
    (here.folder / "None-report.html").write_text("theirs")
    here.mutations()
    said = here.types("report", "-f", "new.yaml", "-o", "json")
    assert (said.code, said.err, here.mutations()) == (0, "", [])
    (group,) = said.document["instance_groups"]
    assert (group["name"], group["status"], group["target"]) == ("worker-group", "to create", 2)
    parsed = Parsed((here.folder / "new-report.html").read_text())
    assert "Does not exist" in parsed.text
    assert {"worker-group", "to create", "ml.m5.2xlarge"} <= set(parsed.texts)
    assert "Nodes" not in parsed.headings
    assert "Timeline" not in parsed.headings
    assert here.types("report", "none").code == 8


@pytest.mark.parametrize(
    ("place", "rule"),
    [
        ("theirs.html", "is not a report of hyperpod-eks"),
        ("none/report.html", "does not exist"),
        ("pipe", "is a pipe"),
        (".", "is a folder"),
    ],
)
def test_other_files_are_kept(here: User, place: str, rule: str) -> None:
    (here.folder / "theirs.html").write_text("<h1>theirs</h1>")
    if not (here.folder / "pipe").exists():
        os.mkfifo(here.folder / "pipe")
    here.stack.calls.clear()
    said = here.types("report", "demo", "--html", place)
    assert (said.code, said.out, list(here.stack.calls)) == (2, "", [])
    assert rule in said.err
    assert (here.folder / "theirs.html").read_text() == "<h1>theirs</h1>"


def test_a_report_replaces_an_older_one(here: User, written: Any) -> None:
    assert here.types("report", "demo", "--html", written["file"]).out == "wrote healthy.html\n"


def test_without_the_extra_it_says_how_to_install_it(
    here: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    said = here.types("report", "demo")
    assert (said.code, said.out) == (2, "")
    assert "pip install '.[report]'" in said.err


@pytest.mark.prove
def test_the_manifest_may_be_in_s3(here: User, clients: Any) -> None:
    where = "s3://reports-state/demo.json"
    clients.s3.create_bucket(
        Bucket="reports-state", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    manifest = (here.folder / "demo.hyperpod-eks.json").read_bytes()
    clients.s3.put_object(Bucket="reports-state", Key="demo.json", Body=manifest)
    said = here.types("report", "demo", "--manifest", where, "--html", "-", "-o", "json")
    assert said.code == 0, said.err
    assert said.document["runs"]


@pytest.mark.sample("demo")
@pytest.mark.parametrize(
    "name", ["demo", "minimal", "p5-training-plans", "closed-network", "teams", "storage"]
)
def test_a_browser_shows_it_whole(here: User, name: str, tmp_path: Path) -> None:
    """On a phone, a desk and paper: nothing is cut, overlaps, is loaded or illegible."""
    words = ["demo"] if name == "demo" else ["-f", str(EXAMPLES / f"{name}.yaml")]
    if name != "demo":
        words = ["other", *words]
        here.types("local", "prepare", *words[1:])
    made = tmp_path / "page.html"
    said = here.types("report", *words, "--html", str(made))
    assert said.code == 0, said.err
    with browser(tmp_path / "profile") as opened:
        for width in (320, 1280):
            for dark in (False, True):
                assert opened.faults(made, width, dark=dark) == []
        assert opened.faults(made, PAPER, dark=True, paper=True) == []


@pytest.mark.prove
def test_the_cause_of_a_failed_create_is_a_finding(user: User, tmp_path: Path) -> None:
    user.stack.sim.failures["group/worker-group"] = "capacity"
    assert user.types("create", "demo", "--chart", str(CHART), "--timeout", "3").code == 6
    said = user.types("report", "demo", "-o", "json")
    assert said.code == 0, said.err
    first = said.document["findings"][0]
    assert first["id"] == "no-capacity"
    parsed = Parsed(said.document["html"])
    assert {first["what"], f"Next: {first['next']}.", *first["seen"]} <= set(parsed.texts)
    with browser(tmp_path / "profile") as opened:
        assert opened.faults(user.folder / said.document["file"], 320) == []


@pytest.mark.prove
def test_what_a_delete_has_kept_is_shown_with_its_cost(user: User) -> None:
    config = "name: demo\nregion: us-west-2\nstorage: {fsx_lustre: {data: {}}}\n"
    (user.folder / "c.yaml").write_text(config)
    user.makes("demo", "-f", "c.yaml")
    assert user.types("delete", "demo", "--yes").code == 0
    said = user.types("report", "demo", "-o", "json")
    assert said.code == 0, said.err
    document = said.document
    assert [item["what"].split(",")[0] for item in document["cost"]["items"]] == ["FSx for Lustre"]
    assert [each["id"] for each in document["findings"]] == ["deleted"]
    parsed = Parsed(document["html"])
    assert "Instance groups" not in parsed.headings
    assert {"FSx for Lustre", "Zone usw2-az1"} <= set(parsed.texts)
    assert "Regional services" not in parsed.texts
