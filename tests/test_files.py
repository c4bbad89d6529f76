"""Changes to users' files: replacements, refusals, and unchanged bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpod_eks import files
from hyperpod_eks.config import yaml as config_yaml
from hyperpod_eks.errors import Usage

# --- numbers in a config ------------------------------------------------------------------------

GAP = "\0"
"""The placeholder of a count."""
COMMENTS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn", "Co"]))
NUMBERS = st.integers(0, 10_000)


@st.composite
def configs(draw: st.DrawFn) -> tuple[str, list[int], str]:
    """Generate a config in any style: its text with placeholders, counts and line ending."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    counts = draw(st.lists(NUMBERS, min_size=1, max_size=4))
    rows = [f"# {draw(COMMENTS)}", "name: demo # é 😀", "region: us-west-2"]
    style = draw(st.sampled_from(["block", "flow", "mixed"]))
    if style == "flow":
        each = [f"{{name: g{i}, instance_count:  {GAP} }}" for i in range(len(counts))]
        rows.append(f"instance_groups: [{', '.join(each)}]  # {draw(COMMENTS)}")
    else:
        rows.append("instance_groups:")
        for i in range(len(counts)):
            if style == "mixed" and i % 2:
                rows.append(f'  - {{"instance_count": {GAP}, "name": "g{i}"}}')
            else:
                tail = draw(st.sampled_from(["", "   # spring", "\t# tab"]))
                rows += [f"  -   name: g{i}", f"      instance_count:   {GAP}{tail}", ""]
    rows.append("chart: {path: 'x', values: {a: &a [1, 2], b: *a}}")
    return draw(st.sampled_from(["", "\ufeff"])) + end.join(rows), counts, end


def filled(text: str, counts: list[int]) -> bytes:
    first, *others = text.split(GAP)
    rest = (f"{count}{part}" for count, part in zip(counts, others, strict=True))
    return "".join([first, *rest]).encode()


@settings(deadline=None)
@given(configs(), st.data())
def test_only_the_counts_of_a_config_change(
    config: tuple[str, list[int], str], data: st.DataObject
) -> None:
    text, counts, end = config
    text += data.draw(st.sampled_from(["", end, f"{end}{end}"]))
    wanted = [data.draw(st.one_of(st.just(count), NUMBERS)) for count in counts]
    places: dict[config_yaml.Loc, int] = {
        ("instance_groups", i, "instance_count"): n for i, n in enumerate(wanted)
    }
    before, after = filled(text, counts), filled(text, wanted)
    assert config_yaml.with_numbers("c", before, places) == after


@pytest.mark.parametrize(
    "text",
    [
        "a: [{n: &n 2}, {n: 3}]",
        "a: [{n: &n 2}, {n: *n}]",
        "x: &n 2\na: [{n: *n}]",
        'a: [{n: !!int "2"}]',
        "a: [{n: ! 2}]",
        'a: [{n: "2"}]',
        "x: &g {n: 2}\na: [*g]",
        "x: &g [{n: 2}]\na: *g",
    ],
)
def test_a_count_that_cannot_be_changed_alone_is_refused(text: str) -> None:
    with pytest.raises(Usage, match="nothing was written"):
        config_yaml.with_numbers("c", text.encode(), {("a", 0, "n"): 3})


VALUES = {"chart": {"values": {"a": {"image": {"repository": "r/x"}}, "b": {"t": "q: z"}}}}
BLOCK = """\
chart:
  values:
    a:
      image:
        repository: r/x
    b:
      t: 'q: z'
"""
COMMENTED = """\
chart:
  # why
  values:
    a: {image: {tag: 1}}  # here
    z: 1
n: d
"""
COMMENTED_AFTER = """\
chart:
  # why
  values:
    b:
      t: 'q: z'
    a: {image: {"repository": "r/x", tag: 1}}  # here
    z: 1
n: d
"""
NULL = "chart:\n    path: p   # x\n    values:\nn: d\n"
FLOW = '{"a": {"image": {"repository": "r/x"}}, "b": {"t": "q: z"}}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("n: d # c", f"n: d # c\n{BLOCK}"),
        ("n: d\r\n", "n: d\r\n" + BLOCK.replace("\n", "\r\n")),
        (COMMENTED, COMMENTED_AFTER),
        (NULL, NULL.replace("values:", f"values: {FLOW}")),
        (
            "{n: d, chart: {values: {}}}",
            '{n: d, chart: {values: {"b": {"t": "q: z"}, "a": {"image": {"repository": "r/x"}}}}}',
        ),
        (
            "chart: {values: {a: {image: {repository: 'old'}}, b: {t: \"q: z\"}}}",
            'chart: {values: {a: {image: {repository: "r/x"}}, b: {t: "q: z"}}}',
        ),
    ],
)
def test_values_are_written_beside_what_a_config_has(before: str, after: str) -> None:
    for bom in (b"", b"\xef\xbb\xbf"):
        changed = config_yaml.with_values("c", bom + before.encode(), VALUES)
        whole = config_yaml.parse("c", after.encode()).value
        assert config_yaml.parse("c", changed).value == whole
        assert config_yaml.with_values("c", changed, VALUES) == changed
        if not before.startswith("{"):  # the order in a flow mapping is not promised
            assert changed == bom + after.encode()


@pytest.mark.parametrize(
    "text",
    [
        "x: &v {z: 1}\nchart: {values: *v}",
        "x: &v\n  z: 1\nchart:\n  values: *v\n",
        "n: d\n...\n",
        "chart: {values: {b: {t: [1, 2]}}}",
    ],
)
def test_values_that_would_change_more_are_refused(text: str) -> None:
    with pytest.raises(Usage, match="nothing was written"):
        config_yaml.with_values("c", text.encode(), VALUES)


# --- replacing a file -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.binary(), st.binary())
def test_a_file_is_replaced_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes
) -> None:
    folder = tmp_path_factory.mktemp("f")
    file = folder / "file"
    file.write_bytes(before)
    files.replace(file, after)
    assert files.read(file) == after
    assert list(folder.iterdir()) == [file]


def test_links_stay_and_permissions_too(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    real, link = folder / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to("there/real")
    files.replace(link, b"new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    files.replace(link, b"secret", mode=0o600)
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    hanging = tmp_path / "hanging"
    hanging.symlink_to("there/none")
    files.replace(hanging, b"made")
    assert (folder / "none").read_text() == "made"


def test_what_is_no_file_of_ones_own_is_refused(tmp_path: Path) -> None:
    pipe, circle, fixed = tmp_path / "pipe", tmp_path / "circle", tmp_path / "fixed"
    os.mkfifo(pipe)
    circle.symlink_to(circle)
    fixed.write_text("mine")
    fixed.chmod(0o444)
    for path, says in (
        (pipe, "is a pipe"),
        (Path("/dev/null"), "is a device"),
        (tmp_path, "is a folder"),
        (fixed, "is read-only"),
    ):
        with pytest.raises(Usage, match=says):
            files.replace(path, b"x")
        if path != fixed:
            with pytest.raises(Usage, match=says):
                files.read(path)
    with pytest.raises(OSError, match="symbolic links"):
        files.replace(circle, b"x")
    assert fixed.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "circle", "fixed"}


def test_a_pipe_without_a_name_is_refused_as_one() -> None:
    ends = os.pipe()
    with pytest.raises(Usage, match="is a pipe, not a regular file"):
        files.replace(Path(f"/dev/fd/{ends[1]}"), b"x")
    for each in ends:
        os.close(each)


def test_a_folder_that_was_deleted_under_us_is_the_systems_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "gone").mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    for call in (files.read, lambda path: files.replace(path, b"x")):
        with pytest.raises(FileNotFoundError):
            call(Path("demo.json"))


def test_what_cannot_be_read_again_replaces_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("7")
    with pytest.raises(ValueError, match="invalid literal"):
        files.replace(file, b"seven", parse=int)
    assert file.read_text() == "7"


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "file"
    victim.write_text("theirs")
    (tmp_path / ".file.tmp").symlink_to(victim)
    files.replace(file, b"ours")
    assert (victim.read_text(), file.read_text()) == ("theirs", "ours")
