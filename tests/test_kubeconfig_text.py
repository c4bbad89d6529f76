"""Edits of a kubeconfig's text: adding and removing entries changes no byte of others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpod_eks.errors import Usage
from hyperpod_eks.kube.kubeconfig import Entry, document
from hyperpod_eks.kube.kubeconfig_text import LISTS, blank, names, with_entry, without_entry

ARN = "arn:aws:eks:us-west-2:123456789012:cluster/demo"
NEW = document(Entry("demo", ARN, "us-west-2", "https://x.invalid", "Q0E="))

WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn", "Co"]), max_size=8)
VALUES = st.sampled_from(
    ["0123", "2026-11-28T22:00:00Z", "'{.x}'", '"büro"', "1_000", "yes", "!!str 1", "~", "1e3"]
)

KEYS = [*LISTS, "current-context", "apiVersion", "x"]


@st.composite
def kubeconfigs(draw: st.DrawFn) -> str:
    """Generate a kubeconfig in any style, with entries of others."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    inner = draw(st.sampled_from(["", "  "]))  # kubectl does not indent lists, other tools do
    rows = ["z: &x [1, a]", "y: *x"]
    for key in draw(st.permutations(KEYS)):
        if draw(st.booleans()):
            rows.append(f"# {draw(WORDS)}")
        if key not in LISTS:
            rows.append(f"{key}: {draw(VALUES)} # {draw(WORDS)}")
            continue
        style = draw(st.sampled_from(["block", "flow", "null", "empty", "absent", "nothing"]))
        kind, count = LISTS[key], draw(st.integers(1, 3))
        if style == "flow":
            items = ", ".join(f"{{name: o{i}, {kind}: {{a: 'x'}}}}" for i in range(count))
            rows.append(f"{key}: [{items}]  # {draw(WORDS)}")
        elif style in ("null", "empty", "nothing"):
            word = {"null": "null", "empty": "[]", "nothing": ""}[style]
            rows.append(f"{key}: {word} # {draw(WORDS)}")
        elif style == "block":
            rows.append(f"{key}:")
            for i in range(count):
                rows.append(f"{inner}- {kind}:  # {draw(WORDS)}")
                rows += [f"{inner}    a: {draw(VALUES)}", f"{inner}  name: o{i}"]
                if draw(st.booleans()):
                    rows += [f"{inner}  cert: |", f"{inner}    abc", f"{inner}    def"]
                if draw(st.booleans()):
                    rows += ["", f"{inner}# {draw(WORDS)}"]
    # a line end after a block scalar's last word belongs to it: such files are refused
    last = ["", end, f"{end}{end}", f"{end}# last"][rows[-1].endswith("def") :]
    return end.join(rows) + draw(st.sampled_from(last))


def loaded(text: str) -> Any:
    return yaml.load(text, yaml.BaseLoader)


def keeps(before: str, after: str) -> None:
    """Check that all lines of others are unchanged and in order.

    For an empty list, a list in one line and the current context, which must change, only the rest
    of the line is compared.
    """
    rest = iter(after.splitlines(keepends=True))
    for line in before.splitlines(keepends=True):
        key, _, value = line.partition(":")
        if key == "current-context" or (key in LISTS and value.split("#")[0].strip(" []nul") == ""):
            comment = line.partition("#")[2]
            assert any(each.startswith(key) and comment in each for each in rest), line
        elif key in LISTS and "[" in value:
            head, _, tail = line.partition("]")
            assert any(each.startswith(head) and f"]{tail}" in each for each in rest), line
        else:
            assert any(each.startswith(line) for each in rest), line


@settings(deadline=None, max_examples=60)
@given(kubeconfigs())
def test_others_bytes_stay(before: str) -> None:
    after = with_entry(before, NEW)
    keeps(before, after)
    there = loaded(after)
    for key in LISTS:
        assert there[key][-1] == NEW[key][0]
    assert there["current-context"] == ARN
    for key, value in loaded(before).items():
        if key in LISTS:
            assert there[key][:-1] == (value if isinstance(value, list) else [])
        elif key != "current-context":
            assert there[key] == value
    assert with_entry(after, NEW) == after
    again = without_entry(after, ARN)
    keeps(before, again)
    assert names(again) == names(before)
    assert ARN not in again


@pytest.mark.parametrize("text", ["", "# mine\n", "---\n", "{}", '{"clusters": []}', "clusters:"])
def test_an_empty_one_is_filled(text: str) -> None:
    after = with_entry(text, NEW)
    assert {**loaded(after), "preferences": {}} == NEW
    assert blank(without_entry(after, ARN)) is ("#" not in text)


def test_json_stays_json() -> None:
    text = '{"kind": "Config",\n\t"clusters": [{"name": "o", "cluster": {}}], "users": null}\n'
    after = with_entry(text, NEW)
    assert [each["name"] for each in json.loads(after)["clusters"]] == ["o", ARN]
    assert json.loads(without_entry(after, ARN))["clusters"] == [{"name": "o", "cluster": {}}]


def test_an_entry_is_replaced_in_place_and_a_namespace_stays() -> None:
    other = "- name: z\n  cluster: {server: x}\n"
    text = with_entry(f"clusters:\n- name: a\n{other}", NEW)
    text = text.replace("    user: arn", "    namespace: mine  # mine\n    user: arn")
    moved = {**NEW, "clusters": [{"name": ARN, "cluster": {"server": "https://new.invalid"}}]}
    after = with_entry(text, moved)
    assert [each["name"] for each in loaded(after)["clusters"]] == ["a", "z", ARN]
    assert loaded(after)["clusters"][2] == moved["clusters"][0]
    assert "namespace: mine  # mine" in after


@pytest.mark.parametrize(
    "text",
    [
        "users: &u []\nx: *u",
        "current-context: &c old\nx: *c",
        f"users:\n- &u\n  name: {ARN}\n  user: {{}}\nx: *u",
        "clusters:\n- name: a\n  cert: |\n    no line end",
    ],
)
def test_what_others_refer_to_is_not_changed(text: str) -> None:
    with pytest.raises(Usage, match="without changing what others wrote"):
        with_entry(text, NEW)


@pytest.mark.parametrize(
    "text",
    ["[]", "clusters: 3", "clusters: [{}]", "a: [", "a: 1\n---\nb: 2", "a: *b", "[" * 5000],
)
def test_what_is_no_kubeconfig_is_refused(text: str) -> None:
    with pytest.raises(Usage):
        with_entry(text, NEW)
    with pytest.raises(Usage):
        without_entry(text, ARN)
