"""Reading and validation of a config file: every mistake with its line."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from hyperpod_eks.aws.redaction import learn_settings
from hyperpod_eks.aws.session import configured_region
from hyperpod_eks.config import cross_checks as checks
from hyperpod_eks.config.chart_checks import chart_folders
from hyperpod_eks.config.lifecycle import (
    check_chart,
    check_folder,
    check_lifecycle,
    find_chart,
    is_elsewhere,
    unreadable,
)
from hyperpod_eks.config.model import Config
from hyperpod_eks.config.objects import in_place
from hyperpod_eks.config.rules import Finding, explain, get, rebuild
from hyperpod_eks.config.section import SETTINGS
from hyperpod_eks.config.yaml import Document, Loc, Mark, dotted, read
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import Usage


def load(
    path: str | JsonMapping | None,
    overrides: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    files: bool = True,
) -> Config:
    """Read, complete and check the configuration.

    `path` is a YAML file, ``-`` for standard input, None for the minimal cluster, or an earlier
    result of ``Config.model_dump(mode="json", by_alias=True)``. `overrides` are the values of flags
    by dotted setting (see `SETTINGS`); None is a flag that was not given. The order of precedence
    is flag, variable, file, default; for the region, ``AWS_REGION`` and boto3's configuration come
    last. Relative paths in the file start at the file's folder. With `files`, which only commands
    that upload need, the lifecycle folder and the chart are checked as well.

    Raises `Usage` with one line per mistake: place, setting, value, rule and fix.
    """
    if isinstance(path, str):
        document = read(path)
    else:
        document = Document("", copy.deepcopy(dict(path or {})))
    origins = _complete(document, path, overrides, environ)
    config, findings = _checked(document, files=files)
    lines = _lines(document, origins, findings)
    learn_settings(document.value.get("addons"))
    learn_settings(get(document.value, "chart", "values"))
    learn_settings(document.value.get("charts"))
    if lines:
        raise Usage("\n".join(line for _, line in sorted(lines, key=_order)))
    return config


def _checked(document: Document, *, files: bool) -> tuple[Config, list[Finding]]:
    """Validate each setting, then check the rules across them, with defaults for wrong types."""
    try:
        config = Config.model_validate(document.value)
        findings = [*checks.idle(config)]
    except ValidationError as errors:
        found = errors.errors(include_url=False)
        findings = [explain(Config, error, document) for error in found]
        failed = {error["loc"] for error in found if error["type"] != "refused"}
        config = rebuild(Config, document.value, failed)
    wrong = {finding.loc for finding in findings}
    findings += [
        one for one in checks.across(config) if not any(one.loc[: len(loc)] == loc for loc in wrong)
    ]
    if files:
        findings += _files(config, {loc[0] for loc in wrong})
    return config, findings


def _lines(
    document: Document, origins: Mapping[Loc, str], findings: Iterable[Finding]
) -> list[tuple[Mark | None, str]]:
    """Return a line with its place for each mistake; unreadable values have one already."""
    unread = {(mark.line, mark.column) for mark, _ in document.problems}
    return [
        *(
            _line(document, origins, finding)
            for finding in findings
            if not ((at := document.values.get(finding.loc)) and (at.line, at.column) in unread)
        ),
        *((mark, f"{_at(document, mark)}{text}") for mark, text in document.problems),
    ]


def _complete(
    document: Document,
    path: str | JsonMapping | None,
    overrides: Mapping[str, str | None],
    environ: Mapping[str, str],
) -> dict[Loc, str]:
    """Put flags and variables into the document; return the origin of each of these values."""
    origins: dict[Loc, str] = {}
    folder = Path(path).parent if isinstance(path, str) else Path()  # for "-" too
    _beside(document, folder)
    if "objects" in document.value:
        document.value["objects"] = in_place(document.value["objects"], folder)
    for key in SETTINGS:
        value, origin = _given(key, overrides, environ)
        if value is None:
            continue
        if key.endswith(".path"):
            value = str(_expanded(value).absolute())
        if _put(
            document.value, key.split("."), value
        ):  # else its section is reported as no mapping
            origins[tuple(key.split("."))] = origin
    if document.value.get("region") is None:
        region = environ.get("AWS_REGION")
        region, origin = (region, "variable AWS_REGION") if region else configured_region()
        if region:
            document.value["region"] = region
            origins[("region",)] = origin
    return origins


def _put(data: JsonObject, keys: list[str], value: str) -> bool:
    """Set a value in nested mappings; return False if one of them is not a mapping."""
    *above, last = keys
    for key in above:
        data[key] = {} if data.get(key) is None else data[key]
        data = data[key]
    if isinstance(data, dict):
        data[last] = value
        return True
    return False


def _beside(document: Document, folder: Path) -> None:
    """Make the paths in a file absolute, relative to its folder."""
    for section in ("chart", "lifecycle"):
        given = get(document.value, section, "path")
        if isinstance(given, str) and not is_elsewhere(given):
            document.value[section]["path"] = str((folder / _expanded(given)).absolute())
    for each in chart_folders(document.value).values():
        if not is_elsewhere(each["chart"]):
            each["chart"] = str((folder / _expanded(each["chart"])).absolute())


def _given(
    key: str, overrides: Mapping[str, str | None], environ: Mapping[str, str]
) -> tuple[str | None, str]:
    """Return a setting's value from its flag or variable, or None, and that origin."""
    flag, variable = SETTINGS[key]
    kind = "flag" if flag.startswith("-") else "argument"
    if (value := overrides.get(key)) is not None:
        return value, f"{kind} {flag}"
    return environ.get(variable) or None, f"variable {variable}"


def _expanded(text: str) -> Path:
    """Replace ~ by the home folder; leave that of an unknown user as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _files(config: Config, wrong: Container[object]) -> Iterator[Finding]:
    """Check the folders that the settings name, except in sections that are `wrong` already."""
    if "lifecycle" not in wrong and not is_elsewhere(config.lifecycle.path):
        errors, _ = check_lifecycle(config.lifecycle.path, config.lifecycle.on_create)
        yield from (Finding(("lifecycle", "path"), text) for text in errors)
        if not errors and "instance_groups" not in wrong:
            yield from _scripts(config)
    chart = config.chart.path
    if chart and is_elsewhere(chart):
        chart = None
    if (
        "chart" not in wrong
        and chart
        and (text := check_chart(chart) or unreadable(find_chart(chart) or chart))
    ):
        yield Finding(("chart", "path"), text)
    for name, each in config.charts.items() if "charts" not in wrong else ():
        if (
            each.folder
            and not is_elsewhere(each.chart)
            and (text := check_folder(each.folder) or unreadable(each.folder))
        ):
            yield Finding(("charts", name, "chart"), text)


def _scripts(config: Config) -> list[Finding]:
    """Check the scripts that groups name, up to the first that fails."""
    for index, group in enumerate(config.instance_groups):
        own = group.life_cycle_config
        for setting in ("on_create", "on_init_complete") if not get(own, "source_s3_uri") else ():
            if isinstance(name := get(own, setting), str):
                named = f"life_cycle_config.{setting}"
                errors, _ = check_lifecycle(config.lifecycle.path, name, setting=named)
                if errors:
                    loc = ("instance_groups", index, "life_cycle_config")
                    return [Finding(loc, text, True) for text in errors]
    return []


def _line(
    document: Document, origins: Mapping[Loc, str], finding: Finding
) -> tuple[Mark | None, str]:
    """Return the place of a mistake in the file, and the line to print."""
    text = f"{dotted(finding.loc)}: {finding.text}"
    if origin := origins.get(finding.loc):
        return None, f"{origin}: {text}"
    mark = document.place(finding.loc, key=finding.at_key) if document.name else None
    return mark, f"{_at(document, mark)}{text}"


def _at(document: Document, mark: Mark | None) -> str:
    return f"{document.name}:{mark.line}:{mark.column}: " if mark else ""


def _order(line: tuple[Mark | None, str]) -> tuple[int, int]:
    mark, _ = line
    return (mark.line, mark.column) if mark else (0, 0)
