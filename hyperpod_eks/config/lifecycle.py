"""Checks of the lifecycle scripts and of the chart folder before an upload."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from hyperpod_eks.folders import packaged
from hyperpod_eks.terminal.text import shortened

# Bytes. Every node downloads the lifecycle folder; a slow download ends in a timeout, and HyperPod
# replaces the node again and again.
LARGE = 10 << 20

# A call or a source of a script by a path relative to the folder: what may precede it, the ways to
# write "this folder", and the path.
_CALL = re.compile(
    r"""(?:^|[;&|(`!]|\$\(|(?<![\w/.])\.\s+
          |\b(?:if|then|else|do|while|until|bash|sh|source|exec|sudo|python3?|nohup)\s+)
        \s*["']?(?:\./|\$\{?(?:SCRIPT_DIR|DIR|HERE|script_dir|here)\}?/|\$\(dirname\ "?\$0"?\)/)?
        (?P<file>[A-Za-z0-9_][A-Za-z0-9_./-]*\.(?:sh|py))\b""",
    re.VERBOSE,
)
_OLD = "/etc/eks/containerd/containerd-config.toml"  # on Amazon Linux 2 only
_NEW = "/etc/containerd/config.toml"  # on Amazon Linux 2023


ELSEWHERE = "sha256:"
"""A path that begins so is the digest of a folder on another machine."""


def is_elsewhere(path: object) -> bool:
    """Whether a path of a config is a digest: its folder is not on this machine."""
    return str(path).startswith(ELSEWHERE)


def packaged_lifecycle() -> Path:
    """Return the folder of the lifecycle scripts that the tool includes."""
    return packaged("_lifecycle", "lifecycle")


def check_lifecycle(
    path: Path, entry: str, setting: str = "lifecycle.on_create"
) -> tuple[list[str], list[str]]:
    """Check a lifecycle folder whose entry script is `entry`, which `setting` names.

    Returns errors, which would fail on the node twenty minutes later, and warnings.  HyperPod
    copies the folder to the node and runs the entry script; if it fails, HyperPod reports only
    "Lifecycle scripts did not run successfully".
    """
    if fault := _name_fault(path) or _folder_fault(path, entry):
        return [fault], []
    try:
        files = lifecycle_files(path)
        scripts = {name: f.read_bytes() for name, f in files.items() if name.endswith(".sh")}
        if entry in files:
            scripts[entry] = files[entry].read_bytes()
        size = sum(f.stat().st_size for f in files.values())
        errors, warnings = _left_out(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        where, why = getattr(error, "filename", None), getattr(error, "strerror", None)
        return [f"{where or path}: {why or error}; change its permissions"], []
    if errors:
        return errors, warnings
    if entry not in files:
        there = ", ".join(list(files)[:5]) or "nothing"
        text = f"{path} has no {entry} (it holds {there}); put it there, or set another entry"
        return [f"{text} script as {setting}"], []
    errors = [*_scripts(path, scripts, files), *_shebang(path / entry, scripts[entry])]
    if size > LARGE:
        warnings.append(
            f"lifecycle.path: {path} holds {size >> 20} MiB, which every node downloads before it"
            " starts; keep large files elsewhere"
        )
    return errors, warnings


def _scripts(path: Path, scripts: Mapping[str, bytes], files: Container[str]) -> Iterator[str]:
    for name, raw in scripts.items():
        yield from _script(path / name, raw, name)
        yield from _missing(path, name, raw, files)


def _folder_fault(path: Path, entry: str) -> str:
    if path.is_dir():
        return ""
    what = "is a file, not a folder" if path.exists() else "does not exist"
    return f"{path} {what}; choose the folder that holds {entry}"


def _missing(folder: Path, name: str, raw: bytes, files: Container[str]) -> Iterator[str]:
    """Yield the files that a script calls and that the folder does not contain."""
    for file in sorted(_called(raw)):
        if file not in files and str(Path(name).parent / file) not in files:
            yield (
                f"{folder / name} calls {file}, which is not in the folder; add it, for this folder"
                " is all that the nodes get"
            )


def lifecycle_files(folder: Path) -> dict[str, Path]:
    """Return the files of a lifecycle folder that are uploaded, by their path in the folder.

    Every node may read the bucket, so hidden files (``.env``, ``.git``) and targets of links
    outside the folder are left out.  Raises OSError.
    """
    root = folder.resolve()
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if not _hidden(path, folder) and path.resolve().is_relative_to(root) and path.is_file()
    }


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _left_out(folder: Path) -> tuple[list[str], list[str]]:
    """Return the faults of links and names in a folder, and a warning about hidden files."""
    errors, hidden, root = [], [], folder.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if _hidden(path, folder):
            if not _hidden(path.parent, folder):
                hidden.append(str(name))
        elif path.is_symlink() and not path.resolve().is_relative_to(root):
            errors.append(f"{path} is a link that leads outside the folder; put a copy there")
        elif path.is_symlink() and path.is_dir():
            errors.append(f"{path} is a link to a folder, which is not followed; put a copy there")
        elif not (path.is_file() or path.is_dir()):
            errors.append(f"{path} is no file, or a link to nothing; remove it")
        elif len(os.fsencode(name)) > LONGEST_NAME:
            errors.append(
                f"{folder}: the name {str(name)[:60]}… is longer than a key of S3; shorten it"
            )
        elif not str(name).isprintable():  # S3 and the nodes' shell need printable names
            errors.append(f"{folder}: the name {str(name)!r} cannot be printed; rename it")
    if not hidden:
        return errors, []
    several = f"{', '.join(hidden[:5])}{', ...' if len(hidden) > 5 else ''}"
    warning = f"lifecycle.path: {folder}: hidden files are not uploaded: {several}"
    return errors, [f"{warning}; rename what the nodes need, without the dot"]


LONGEST_NAME = 940
"""Bytes: S3's keys have 1,024 (Amazon S3 User Guide, "Naming objects"), our prefix among them."""

IN_CHECKOUT = "helm_chart/HyperPodHelmChart"
"""Where AWS's repository has the chart."""


def find_chart(path: Path) -> Path | None:
    """Find the chart: ``path`` itself, or its place in a checkout of AWS's repository."""
    folders = (path, path / IN_CHECKOUT)
    return next((folder for folder in folders if (folder / "Chart.yaml").is_file()), None)


def _name_fault(path: Path) -> str:
    """Return why a path cannot be read (too long, a NUL, no permission), or ""."""
    try:
        path.stat()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        shown = shortened(repr(str(path)), 200)
        return f"{shown} cannot be read ({getattr(error, 'strerror', error)}); choose another"
    return ""


def check_chart(path: Path) -> str:
    """Return the fault of a chart folder, or ""."""
    if fault := _name_fault(path):
        return fault
    if find_chart(path):
        return ""
    return (
        f"{path} is not a Helm chart (there is no Chart.yaml, and no {IN_CHECKOUT}); choose"
        " the folder HyperPodHelmChart, or a checkout of"
        " https://github.com/aws/sagemaker-hyperpod-cli that holds it"
    )


def check_folder(path: Path) -> str:
    """Return the fault of a further chart's folder, or ""."""
    if fault := _name_fault(path):
        return fault
    if (path / "Chart.yaml").is_file():
        return ""
    return (
        f"{path} is not a Helm chart (there is no Chart.yaml); choose its folder, or set repository"
        " (https://…) for the name of a chart there, or write oci://REGISTRY/CHART"
    )


def unreadable(folder: Path) -> str:
    """Return the fault of the first file in a chart's folder that cannot be read, or ""."""
    for root, _, names in os.walk(folder, followlinks=True):
        for path in (Path(root, name) for name in names):
            if not (path.is_file() and os.access(path, os.R_OK)):
                return f"{path} is not a file that can be read; remove or repair it"
    return ""


def _script(path: Path, raw: bytes, name: str) -> Iterator[str]:
    if not raw.strip():
        yield f"{path} is empty; write the script or remove the file"
    if b"\r" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\r")) + 1
        yield (
            f"{path}:{line} ends in CR LF, which bash takes for a command; convert"
            f" it with `sed -i 's/\\r$//' {name}`"
        )
    text = raw.decode("utf-8", "replace")
    for number, code in _code(text):
        tested = re.search(rf"-[ef]\s+[\"']?{re.escape(_OLD)}", text)
        if _OLD in code and _NEW not in text and not tested:
            yield (
                f"{path}:{number} uses {_OLD}, which Amazon Linux 2023 nodes do not"
                f" have; use {_NEW} there, or test with `[ -f … ]` first"
            )
            break


def _shebang(path: Path, raw: bytes) -> Iterator[str]:
    if raw.strip() and not raw.startswith(b"#!"):
        first = raw.splitlines()[0].decode("utf-8", "replace")[:40]
        yield (f"{path}:1 is {first!r}, not a #! line; begin the script with #!/bin/bash")


def _called(raw: bytes) -> set[str]:
    """Return the scripts that a shell script calls by a name relative to its folder."""
    text = raw.decode("utf-8", "replace")
    return {m["file"].removeprefix("./") for _, code in _code(text) for m in _CALL.finditer(code)}


def _code(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a shell script that are not comments, numbered from 1."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("#"):
            yield number, line
