"""AWS's HyperPod Helm chart: download, digest, values, and a copy that helm can install."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from hyperpod_eks import folders
from hyperpod_eks.aws import transport
from hyperpod_eks.config.lifecycle import IN_CHECKOUT, check_chart, find_chart, unreadable
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, KnownCause, Usage
from hyperpod_eks.files import make_folder
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm.program import Helm
from hyperpod_eks.helm.release import update_dependencies

BIGGEST = 64 * 2**20
"""The largest downloaded chart in bytes; AWS's has four million."""


@frozen
class Pin:
    """A chart identified by its content: `digest` is of the folder, since archives vary."""

    url: str
    digest: str

    @property
    def commit(self) -> str:
        """The commit in its URL, as git abbreviates it."""
        return self.url.rpartition("/")[2][:7]


# Commit of 2026-06-22.  The chart's own version has always been 0.1.0.
PINNED = Pin(
    "https://codeload.github.com/aws/sagemaker-hyperpod-cli/tar.gz/"
    "011ca927123e02b35a399935bbb3ab1905fe33c7",
    "d4bef34e665877995a82614fde96124cc148f674a775e427dd24887c527255f5",
)

# What was PINNED in earlier versions: renewing it adds the old one, so that `plan` can name it.
EARLIER: tuple[Pin, ...] = ()

# The regions for which the chart has an account with the health monitoring agent's image; in others
# it silently uses the image of us-east-1, which nodes there may be unable to pull.
# Source: charts/health-monitoring-agent/templates/_helpers.tpl at the pinned commit (2026-06-22).
AGENT_REGIONS = frozenset(
    {
        *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1"),
        *("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-south-2"),
        *("ap-northeast-1", "ap-south-1"),
        *("ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4"),
    }
)

# The switches, of those in the rules below, that are on by default in the chart.
ON_BY_DEFAULT = (
    "deep-health-check.enabled",
    "health-monitoring-agent.enabled",
    "job-auto-restart.enabled",
    "nvidia-device-plugin.devicePlugin.enabled",
    "trainingOperators.enabled",
)


# --- values ---------------------------------------------------------------------------------------


def values_for(region: str, values: JsonMapping) -> JsonObject:
    """Return the user's values merged over the region, which always has to be set.

    Otherwise the chart reads the region from the nodes, and there are none yet.
    """
    ours = {"global": {"region": region}, "health-monitoring-agent": {"region": region}}
    return merge(ours, values)


def merge(under: JsonMapping, over: JsonMapping) -> JsonObject:
    """Merge values key by key, as Helm does; null stays, since it removes a default.

    >>> merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": None})
    {'a': {'b': 4, 'c': 2}, 'd': None}
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


_NAMESPACES = (
    (
        "deep-health-check.enabled",
        "aws-hyperpod",
        ("health-monitoring-agent.enabled", "job-auto-restart.enabled"),
    ),
    (
        "trainingOperators.enabled",
        "kubeflow",
        ("mlflow.enabled", "namespaced-role-and-bindings.enabled"),
    ),
)
"""The switch that creates a namespace, the namespace, and the other switches that use it."""


def check_values(region: str, values: JsonMapping) -> list[str]:
    """Return the problems of values with AWS's chart, each with its fix.

    `values` are the user's.  The rules were found by rendering the chart at the pinned commit.
    """

    def on(path: str) -> bool:
        return bool(_lookup(values, path, path in ON_BY_DEFAULT))

    problems = []
    agent = "health-monitoring-agent.enabled"
    image = _lookup(values, "health-monitoring-agent.hmaimage", "")
    chosen = _lookup(values, "health-monitoring-agent.region", region)
    if on(agent) and not image and chosen not in AGENT_REGIONS:
        problems.append(
            f"health-monitoring-agent.region is {chosen}, for which the chart has no image: name"
            " one that your nodes can pull with health-monitoring-agent.hmaimage, or set"
            f" {agent} to false"
        )
    for creator, namespace, users in _NAMESPACES:
        needy = [path for path in users if on(path)]
        if not on(creator) and needy:
            problems.append(
                f"{creator} is false, but it creates the namespace {namespace} that"
                f" {' and '.join(needy)} need: set it to true, or those to false"
            )
    if on("gpu-operator.enabled") and on("nvidia-device-plugin.devicePlugin.enabled"):
        problems.append(
            "gpu-operator.enabled is true, and it brings a device plugin of its own: set"
            " nvidia-device-plugin.devicePlugin.enabled to false"
        )
    problems += [
        f"{name}-role-and-bindings.enable is a key of older charts and does nothing:"
        f" it is {name}-role-and-bindings.enabled"
        for name in ("cluster", "namespaced", "team")
        if _lookup(values, f"{name}-role-and-bindings.enable", None) is not None
    ]
    return problems


def require_valid(region: str, values: JsonMapping) -> None:
    """Raise Usage if `check_values` finds problems."""
    if problems := check_values(region, values):
        text = "\n".join(f"chart.values: {problem}" for problem in problems)
        raise Usage(text, setting="chart.values", cause=KnownCause("chart-values"))


def _lookup(values: Json, path: str, default: object) -> Json:
    for key in path.split("."):
        if not isinstance(values, Mapping) or key not in values:
            return default
        values = values[key]
    return values


# --- identity -------------------------------------------------------------------------------------


def digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's content: the sorted paths and the files' digests.

    The same as ``find -type f | sed 's,^./,,' | LC_ALL=C sort | xargs sha256sum | sha256sum``.
    Raises Usage for a file that cannot be read, and for a name with a line break, which could
    imitate another file's line.
    """
    if fault := unreadable(folder):
        raise Usage(fault)
    files = sorted(
        (Path(root, name).relative_to(folder).as_posix().encode(), Path(root, name))
        for root, _, names in os.walk(folder, followlinks=True)
        for name in names
    )
    whole = hashlib.sha256()
    for name, file in files:
        if b"\n" in name:
            raise Usage(
                f"the chart {folder} has a file with a line break in its name:"
                f" {json.dumps(os.fsdecode(name))}",
                "Rename the file or use another chart.",
            )
        whole.update(hashlib.sha256(file.read_bytes()).hexdigest().encode() + b"  " + name + b"\n")
    return whole.hexdigest()


def content(source: Path | None) -> str:
    """Return a digest of a chart's content; `source` as in `stage`.

    Nothing is downloaded, and dependencies are not read, since Chart.yaml pins their versions.
    """
    return PINNED.digest if source is None else digest(locate(source))


def fingerprint(chart: str, values: JsonMapping) -> str:
    """Return a digest of an installation: of what identifies the chart, and of its values."""
    return hashlib.sha256(f"{chart} {json.dumps(values, sort_keys=True)}".encode()).hexdigest()


# --- staging --------------------------------------------------------------------------------------


def locate(path: Path) -> Path:
    """Return the chart's folder (see `find_chart`).  Raises Usage if there is none."""
    if folder := find_chart(path):
        return folder
    raise Usage(f"chart.path: {check_chart(path)}", "Correct chart.path in the config.")


def stage(source: Path | None, into: Path, values: JsonMapping, helm: Helm) -> Path:
    """Copy a chart into the folder `into`, ready for helm to install, and return its path.

    `source` is the user's chart (see `locate`), which is never changed, or None for AWS's at the
    pinned commit.  Dependencies that it does not contain are left
    out if `values` switch them off (the `condition` of Chart.yaml), and fetched otherwise, so that
    a chart whose remote dependencies are off or vendored needs no network.  AWS's chart has three
    remote ones: cert-manager (off), nvidia-device-plugin and aws-efa-k8s-device-plugin.

    Raises Usage for a folder without a chart, HyperpodError if a dependency cannot be fetched.
    """
    chart = into / "chart"
    shutil.copytree(download(bundle=helm.bundle) if source is None else locate(source), chart)
    _complete(chart, values, helm)
    return chart


def _complete(chart: Path, values: JsonMapping, helm: Helm) -> None:
    """Remove stale archives from `chart` and its inner charts, and fetch missing dependencies."""
    about = parsed(chart / "Chart.yaml")
    effective = merge(parsed(chart / "values.yaml"), values)
    present = _drop_stale(chart / "charts")
    wanted, missing = [], []
    dependencies = about.get("dependencies") or []
    if not all(isinstance(each, dict) and "name" in each for each in dependencies):
        raise Usage(f"{chart / 'Chart.yaml'}: every dependency has to have a name")
    for dependency in dependencies:
        enabled = _enabled(dependency, effective)
        if folder := present.get(dependency["name"]):
            if enabled and folder.is_dir():
                part = effective.get(dependency.get("alias") or dependency["name"])
                shared = {"global": effective.get("global") or {}}
                _complete(folder, merge(part if isinstance(part, dict) else {}, shared), helm)
        elif enabled:
            missing.append(dependency)
        else:
            continue
        wanted.append(dependency)
    if wanted != dependencies:
        _write(chart / "Chart.yaml", about | {"dependencies": wanted})
    if missing:
        _fetch(missing, chart / "charts", helm)


def _drop_stale(charts: Path) -> dict[str | None, Path]:
    """Return the charts in a folder by name, after deleting archives of unpacked ones.

    Helm loads both and uses either one.  AWS's repository has such an archive,
    health-monitoring-agent-0.1.0.tgz, with an agent that is a year older.
    """
    present: dict[str | None, Path] = {}
    if charts.is_dir():
        for about in charts.glob("*/Chart.yaml"):
            present[parsed(about).get("name")] = about.parent
        for archive in charts.glob("*.tgz"):
            name = _name_in(archive)
            if name in present:
                archive.unlink()
            else:
                present[name] = archive
    return present


def _enabled(dependency: JsonMapping, values: JsonMapping) -> bool:
    """Whether a dependency is enabled: by the first of its conditions that is a boolean."""
    for path in (dependency.get("condition") or "").split(","):
        found = _lookup(values, path.strip(), None)
        if isinstance(found, bool):
            return found
    return True


def effective_values(chart: Path, values: JsonMapping) -> JsonObject:
    """Return a staged chart's values with those of its enabled dependencies, as Helm merges them.

    Packed dependencies are unpacked beside their archives, which helm then ignores.
    """
    merged = merge(parsed(chart / "values.yaml"), values)
    for archive in (chart / "charts").glob("*.tgz"):
        _unpack_beside(archive)
    present = {parsed(each).get("name"): each.parent for each in chart.glob("charts/*/Chart.yaml")}
    for each in parsed(chart / "Chart.yaml").get("dependencies") or ():
        folder, name = present.get(each["name"]), each.get("alias") or each["name"]
        if folder and _enabled(each, merged):
            part = merged.get(name)
            merged[name] = effective_values(folder, part if isinstance(part, dict) else {})
    return merged


def switch_of(chart: Path, text: str) -> str:
    """Return the value that switches off the dependency with a text in its templates, or ""."""
    present = {parsed(each).get("name"): each.parent for each in chart.glob("charts/*/Chart.yaml")}
    for each in parsed(chart / "Chart.yaml").get("dependencies") or ():
        folder = present.get(each["name"])
        templates = folder.glob("templates/**/*.yaml") if folder else ()
        if any(text in file.read_text(errors="replace") for file in templates):
            return str(each.get("condition") or "").partition(",")[0].strip()
    return ""


def _unpack_beside(archive: Path) -> None:
    """Write Chart.yaml and values.yaml of a packed chart, and of charts in it, to a folder."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.name not in ("Chart.yaml", "values.yaml") or ".." in path.parts:
                continue
            if content := tar.extractfile(member):
                target = archive.parent / path.relative_to("/" if path.is_absolute() else "")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())


def _fetch(dependencies: list[JsonObject], charts: Path, helm: Helm) -> None:
    """Let helm download only these dependencies, not all in Chart.yaml, into `charts`."""
    with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as folder:
        asking = Path(folder) / "asking"
        asking.mkdir()
        about = {"apiVersion": "v2", "name": "asking", "version": "0.0.0"}
        _write(asking / "Chart.yaml", about | {"dependencies": dependencies})
        try:
            update_dependencies(helm, asking)
        except HyperpodError as error:
            raise _unfetched(dependencies, error) from error
        charts.mkdir(exist_ok=True)
        for archive in (asking / "charts").glob("*.tgz"):
            shutil.copy(archive, charts)


def _unfetched(dependencies: list[JsonObject], error: HyperpodError) -> HyperpodError:
    names = [
        f"{each['name']} {each.get('version')} ({each.get('repository')})" for each in dependencies
    ]
    switches = [f"{each['condition']}: false" for each in dependencies if each.get("condition")]
    return HyperpodError(
        f"the chart needs {', '.join(names)}, which cannot be fetched: {error}",
        "Run it where these addresses can be reached; or put those charts into the folder"
        " charts/ of a copy of the chart and name it in the config instead; or disable them,"
        f" with the values: {'; '.join(switches) or 'see Chart.yaml'}.",
        cause=KnownCause("chart-not-fetched"),
    )


def parsed(file: Path) -> JsonObject:
    """Return a YAML file of a chart.  Raises HyperpodError for one that is none."""
    import yaml  # noqa: PLC0415  not needed by --help

    if not file.is_file():
        return {}
    try:
        document = yaml.load(file.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise Usage(f"{file} is not valid YAML: {error}") from error
    if not isinstance(document or {}, dict):
        raise Usage(f"{file} is not a YAML mapping")
    return document or {}


def _write(file: Path, document: JsonMapping) -> None:
    import yaml  # noqa: PLC0415

    file.write_text(yaml.safe_dump(dict(document), sort_keys=False))


def _name_in(archive: Path) -> str:
    """Return the name of a packed chart: the top folder of its archive."""
    try:
        with tarfile.open(archive) as tar:
            return (tar.next() or tarfile.TarInfo("?")).name.split("/")[0]
    except tarfile.TarError as error:
        raise Usage(f"{archive} is no packed chart: {error}") from error


# --- download -------------------------------------------------------------------------------------


def download(pin: Pin | None = None, bundle: str | None = None) -> Path:
    """Return the folder of a pinned chart; download it if the cache lacks it or has it damaged.

    ``bundle`` is the result of `transport.ca_bundle`.
    Raises HyperpodError if the download fails or differs from the pin, and Usage if the cache
    folder is not writable.
    """
    pin = pin or PINNED
    name = pin.digest[:16]
    folder = folders.cached(f"chart/{name}")
    if folder.is_dir() and digest(folder) == pin.digest:
        return folder
    folder = folders.cache() / "chart" / name
    try:
        make_folder(folder.parent)
        draft = tempfile.TemporaryDirectory(dir=folder.parent, prefix=".")
    except OSError as error:
        raise Usage(
            f"cannot write the chart to {folder.parent}: {error.strerror}",
            "Set XDG_CACHE_HOME or TMPDIR to a writable folder.",
        ) from error
    with draft as parts:
        part = Path(parts) / "chart"
        _download(pin.url, part, bundle)
        _check(part, pin)
        if folder.exists():  # damaged, or downloaded by another run
            folder.rename(Path(parts) / "old")
        part.rename(folder)
    return folder


def _check(chart: Path, pin: Pin) -> None:
    """Raise HyperpodError for a chart that differs from the pin."""
    if (found := digest(chart)) != pin.digest:
        raise HyperpodError(
            f"{pin.url} is not the chart that this version was tested with:"
            f" digest {found}, expected {pin.digest}",
            "The download was discarded. Check for a proxy that changes downloads, or pass a"
            " trusted chart with --chart.",
        )


def _download(url: str, into: Path, bundle: str | None) -> None:
    """Unpack the chart from a repository's archive during the download."""
    try:
        with (
            transport.download(url, bundle) as answer,
            gzip.open(answer) as content,
            tarfile.open(fileobj=content, mode="r|") as tar,
        ):
            _unpack(tar, into)
            _read_to_the_end(content)
    # a broken stream raises any of these
    except (HyperpodError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
        if isinstance(error, Usage):
            raise
        again = "Run the same command again."
        hint = error.hint if isinstance(error, transport.Unreachable) else again
        raise HyperpodError(
            f"AWS's HyperPod chart cannot be downloaded from {url}: {error}",
            f"{hint} Or get the chart in another"
            " way and pass it with --chart: a checkout of"
            " https://github.com/aws/sagemaker-hyperpod-cli will do.",
            cause=KnownCause("chart-not-fetched"),
        ) from error


def _read_to_the_end(content: gzip.GzipFile) -> None:
    """Read the rest of the stream: gzip detects a broken end, tarfile does not."""
    size = 0
    while block := content.read(2**16):
        size += len(block)
        if size > BIGGEST:
            raise tarfile.TarError(f"more than {BIGGEST} bytes follow it")


def _unpack(tar: tarfile.TarFile, into: Path) -> None:
    """Write the chart's files; raise TarError for anything but regular files in its folder."""
    size = 0
    for member, path, content in _members(tar):
        size += member.size
        if ".." in path.parts or content is None or size > BIGGEST:
            raise tarfile.TarError(f"{member.name} has no place in a chart")
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.read())
    if not size:
        raise tarfile.TarError(f"there is no {IN_CHECKOUT} in it")


def _members(
    tar: tarfile.TarFile,
) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath, IO[bytes] | None]]:
    """Yield member, path in the chart and content of all but folders below the chart's folder."""
    for member in tar:
        # the first part is the repository and its commit
        path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
        if path.is_relative_to(IN_CHECKOUT) and not member.isdir():
            content = tar.extractfile(member) if member.isreg() else None
            yield member, path.relative_to(IN_CHECKOUT), content
