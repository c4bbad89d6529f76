"""The user's kubeconfig: an entry per cluster, as ``aws eks update-kubeconfig`` writes it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import field
from pathlib import Path

from hyperpod_eks import files
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, Locked, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import kubeconfig_text as entries
from hyperpod_eks.programs import on_path

PATIENCE = 10.0
"""Seconds to wait for another program that is writing the same file."""

ENVIRONMENT = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
"""Variables for the profile's files, if not in ``~/.aws``: kubectl may run without them."""


@frozen
class Entry:
    """The data of one EKS cluster for a kubeconfig; ``ca`` is base64."""

    name: str
    arn: str
    region: str
    endpoint: str
    ca: str
    profile: str | None = None
    local: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of the token command; paths are absolute."""


def document(entry: Entry) -> JsonObject:
    """Return a kubeconfig with only this cluster.

    Cluster, context and user are named after the ARN, as in the AWS CLI, so that its entry and ours
    are the same.  The token command is ``aws`` if it is on PATH, else this tool.
    """
    parts = {
        "clusters": {"certificate-authority-data": entry.ca, "server": entry.endpoint},
        "contexts": {"cluster": entry.arn, "user": entry.arn},
        "users": {"exec": _plugin(entry)},
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": entry.arn,
        **{key: [{"name": entry.arn, entries.LISTS[key]: part}] for key, part in parts.items()},
    }


def _plugin(entry: Entry) -> JsonObject:
    """Return the command that prints a token (client-go's ExecConfig)."""
    aws = None if entry.local else on_path("aws")
    own = on_path("hyperpod-eks")
    # without -P, Python would import a json.py from kubectl's current folder
    arguments = [] if aws or own else ["-P", "-m", "hyperpod_eks"]
    if aws:
        arguments += ["--region", entry.region, "eks", "get-token"]
        arguments += ["--cluster-name", entry.name, "--output", "json"]
    else:
        arguments += ["token", entry.name, "--region", entry.region]
        arguments += ["--local"] if entry.local else []
    plugin: JsonObject = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": aws or own or str(Path(sys.executable).absolute()),
        "args": arguments,
    }
    environ = {"AWS_PROFILE": entry.profile} if entry.profile else {}
    environ |= entry.variables
    if not aws:  # a pipeline's settings for its own commands are not for kubectl
        environ |= {"HYPERPOD_EKS_OUTPUT": "json", "HYPERPOD_EKS_EVENTS": ""}
    if environ:
        plugin["env"] = [{"name": name, "value": value} for name, value in environ.items()]
    return plugin


def read(path: Path) -> bytes:
    """Return the content of a kubeconfig; empty if there is none.

    Raises Usage for a file that is no kubeconfig, or not UTF-8.
    """
    try:
        content = files.read(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Usage(f"cannot read the kubeconfig {path}: {error.strerror}") from error
    _changed(path, content, lambda text: str(entries.parse(text).kind))
    return content


def add(path: Path, new: JsonMapping) -> None:
    """Add the entries of a kubeconfig to a file, mode 0600; a link stays a link.

    Entries of the same name are replaced, and all other bytes stay.  Raises Usage, and Locked
    if another program keeps the file locked.
    """
    _change(path, lambda text: entries.with_entry(text, new))


def remove(path: Path, name: str, *, ours: bool = False) -> bool:
    """Remove a cluster's entries; return whether there were any.

    With ``ours``, the file is deleted if it is empty then.  Raises as `add`.
    """
    if not path.exists():
        return False
    return _change(path, lambda text: entries.without_entry(text, name), ours=ours)


def _change(path: Path, edit: Callable[[str], str], *, ours: bool = False) -> bool:
    try:
        before = read(path)
        if _changed(path, before, edit) == before:
            return False
        files.make_folder(path.resolve().parent)
        with _locked(path):
            before = read(path)
            after = _changed(path, before, edit)
            if after == before:
                return False
            if ours and entries.blank(after.removeprefix(files.BOM).decode()):
                path.unlink()
            else:
                files.replace(path, after, mode=0o600)
            return True
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = getattr(error, "strerror", None) or error
        raise Usage(f"cannot write the kubeconfig {path}: {reason}") from error


def _changed(path: Path, content: bytes, edit: Callable[[str], str]) -> bytes:
    """Return the edited content, with its byte order mark.  Raises Usage that names the file."""
    mark = files.BOM if content.startswith(files.BOM) else b""
    try:
        return mark + edit(content[len(mark) :].decode()).encode()
    except UnicodeDecodeError as error:
        raise Usage(f"{path} is not a kubeconfig: it is not UTF-8 text", _ANOTHER) from error
    except Usage as error:
        raise Usage(f"{path} is not a kubeconfig that can be changed: {error}", _ANOTHER) from error


_ANOTHER = "Correct it, or choose another file with --kubeconfig."


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a kubeconfig against kubectl and other runs, in kubectl's way: by creating PATH.lock.

    https://github.com/kubernetes/client-go/blob/master/tools/clientcmd/loader.go (lockFile).
    """
    here = path.parent.resolve() / path.name  # kubectl locks the link, not its target
    locks = sorted({place.with_name(f"{place.name}.lock") for place in (here, path.resolve())})
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as held:
        for lock in locks:
            while True:
                try:
                    os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
                    break
                except FileExistsError:
                    if time.monotonic() > deadline:
                        raise Locked(
                            f"{lock} exists: kubectl or another run is writing {path}",
                            f"If none is at work, remove it: rm {shlex.quote(str(lock))}",
                        ) from None
                    time.sleep(0.05)
            held.callback(lock.unlink, missing_ok=True)
        yield


def paths(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files that ``$KUBECONFIG`` names."""
    return [
        Path(os.path.expanduser(each))  # noqa: PTH111  Path raises without a home
        for each in environ.get("KUBECONFIG", "").split(os.pathsep)
        if each
    ]


def own_files(folder: Path, name: str, arn: str) -> tuple[Path, Path]:
    """Return the two possible paths of a cluster's own kubeconfig, beside its manifest.

    The second is used if a cluster of the same name in another region has the first.
    """
    region = arn.split(":")[3]
    return (
        folder / f"{name}.kubeconfig",
        folder / f"{name}.{region}.kubeconfig",
    )


def own_file(folder: Path, name: str, arn: str) -> Path:
    """Return the path of the cluster's own kubeconfig.  Raises Usage if the first is invalid."""
    first, second = own_files(folder, name, arn)
    there, alike = _clusters(first), arn.rpartition(":")[2]
    others = [one for one in there if one.startswith("arn:") and one.endswith(f":{alike}")]
    return second if others and arn not in there else first


def _clusters(path: Path) -> list[str]:
    return entries.names(read(path).removeprefix(files.BOM).decode())


def variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables in `ENVIRONMENT` that are set, with absolute paths."""
    return {
        name: os.path.abspath(os.path.expanduser(environ[name]))  # noqa: PTH100, PTH111  no home
        for name in ENVIRONMENT
        if environ.get(name)
    }


def choose(several: Iterable[Path], arn: str) -> Path | None:
    """Return the first file that contains the cluster, else the first file; None without files."""
    every = list(several)
    return next((path for path in every if arn in _clusters(path)), every[0] if every else None)


def forget(own: Iterable[Path], arn: str) -> list[str]:
    """Remove the cluster's entries from our own files and from those in ``$KUBECONFIG``.

    Returns the errors as text; an error does not stop the cleanup of the other files.
    """
    problems = []
    for paths_, ours in ((own, True), (paths(), False)):
        for path in paths_:
            try:
                remove(path, arn, ours=ours)
            except (HyperpodError, OSError) as error:
                problems.append(str(error))
    return problems
