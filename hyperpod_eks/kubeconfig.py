"""The user's kubeconfig: an entry for the cluster, as ``aws eks update-kubeconfig`` writes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hyperpod_eks import files
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.programs import on_path

LISTS = {"clusters": "cluster", "contexts": "context", "users": "user"}


@frozen
class Entry:
    """What a kubeconfig needs to know of one EKS cluster; ``ca`` is base64."""

    name: str
    arn: str
    region: str
    endpoint: str
    ca: str
    profile: str | None = None
    local: bool = False


def document(entry: Entry) -> dict[str, Any]:
    """Return a kubeconfig with this cluster alone.

    Cluster, context and user are called after the ARN, as the AWS CLI does, so that its entry and
    ours are one.  The token comes from ``aws`` where it is on PATH, else from this tool.
    """
    aws = None if entry.local else on_path("aws")
    own = on_path("hyperpod-eks")
    command = aws or own or str(Path(sys.executable).absolute())
    # -P: without it Python runs a json.py of the folder that kubectl is called in
    arguments = [] if aws or own else ["-P", "-m", "hyperpod_eks"]
    if aws:
        arguments += ["--region", entry.region, "eks", "get-token"]
        arguments += ["--cluster-name", entry.name, "--output", "json"]
    else:
        arguments += ["token", entry.name, "--region", entry.region]
        arguments += ["--local"] if entry.local else []
    user: dict[str, Any] = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": command,
        "args": arguments,
    }
    environ = {"AWS_PROFILE": entry.profile} if entry.profile else {}
    if not aws:  # what a pipeline sets for its own commands is not meant for kubectl
        environ |= {"HYPERPOD_EKS_OUTPUT": "json", "HYPERPOD_EKS_EVENTS": ""}
    if environ:
        user["env"] = [{"name": name, "value": value} for name, value in environ.items()]
    parts = {
        "clusters": {"certificate-authority-data": entry.ca, "server": entry.endpoint},
        "contexts": {"cluster": entry.arn, "user": entry.arn},
        "users": {"exec": user},
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": entry.arn,
        **{key: [{"name": entry.arn, LISTS[key]: part}] for key, part in parts.items()},
    }


def merged(there: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Put the entries of one kubeconfig into another; those of the same name are replaced in place.

    >>> old = {"clusters": [{"name": "a"}, {"name": "b"}], "x": 1}
    >>> merged(old, {"clusters": [{"name": "a", "cluster": {}}], "current-context": "a"})
    {'clusters': [{'name': 'a', 'cluster': {}}, {'name': 'b'}], 'x': 1, 'current-context': 'a'}
    """
    result = dict(there)
    for key, value in new.items():
        if key in LISTS:
            by_name = {each["name"]: each for each in there.get(key) or ()}
            result[key] = list((by_name | {each["name"]: each for each in value}).values())
        elif key == "current-context" or key not in result:
            result[key] = value
    return result


def without(there: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Take a cluster, its context and its user out of a kubeconfig."""
    result = dict(there)
    for key in LISTS:
        if key in there:
            result[key] = [each for each in there[key] or () if each["name"] != name]
    if result.get("current-context") == name:
        result["current-context"] = ""
    return result


def read(path: Path) -> dict[str, Any]:
    """Read a kubeconfig; an absent one is empty.  Raises Usage when it is none."""
    try:
        found = yaml.safe_load(path.read_text())
        found = {} if found is None else found
        for key in LISTS:
            for each in found.get(key) or ():
                each["name"]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Usage(f"cannot read the kubeconfig {path}: {error.strerror}") from error
    except (yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        raise Usage(
            f"{path} is no kubeconfig: {str(error).splitlines()[0]}",
            "Correct it, or name another file with --kubeconfig.",
        ) from error
    return dict(found)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a kubeconfig, mode 0600; a link stays one."""
    target = path.resolve()
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(target, yaml.safe_dump(content, sort_keys=False).encode(), mode=0o600)
    except OSError as error:
        raise Usage(f"cannot write the kubeconfig {path}: {error.strerror}") from error


def paths(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files that ``$KUBECONFIG`` names."""
    return [
        Path(each).expanduser() for each in environ.get("KUBECONFIG", "").split(os.pathsep) if each
    ]


def own_file(manifest: Path) -> Path:
    """Return where a cluster's own kubeconfig is: beside its manifest."""
    return manifest.with_name(f"{manifest.name.partition('.')[0]}.kubeconfig")


def choose(several: Iterable[Path], arn: str) -> Path | None:
    """Return the file that has the cluster already, else the first; None of none."""
    every = list(several)
    for path in every:
        if any(each["name"] == arn for each in read(path).get("clusters") or ()):
            return path
    return every[0] if every else None


def forget(own: Path, arn: str) -> list[Path]:
    """Remove our own file, and the cluster's entry from what ``$KUBECONFIG`` names.

    Returns the files that were changed.
    """
    changed = []
    if own.exists():
        own.unlink()
        changed.append(own)
    for path in paths():
        there = read(path)
        if (left := without(there, arn)) != there:
            write(path, left)
            changed.append(path)
    return changed
