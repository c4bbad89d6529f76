"""``hyperpod-eks local``: an AWS account on this machine, to try everything out."""

from __future__ import annotations

import dataclasses
import os
import shlex
from typing import TYPE_CHECKING

from hyperpod_eks.cli.documents import Document, head
from hyperpod_eks.errors import NotFound
from hyperpod_eks.events import Report

if TYPE_CHECKING:
    from hyperpod_eks.local.daemon import Running


def start(tell: Report, speed: float | None, port: int) -> Document:
    """Start the stack unless it runs: ``hyperpod-eks/local/v1``."""
    from hyperpod_eks.local import daemon  # noqa: PLC0415  the extra may be missing

    return _document("start", daemon.ensure(speed, port))


def prepare(
    tell: Report, file: str, name: str | None, region: str | None, helm: str | None
) -> Document:
    """Create in the stack what a config expects to exist; the stack is started if none runs."""
    from hyperpod_eks.aws import session as aws_session  # noqa: PLC0415  loads boto3
    from hyperpod_eks.cli.prepare import prepare as create  # noqa: PLC0415  the same
    from hyperpod_eks.config.load import load  # noqa: PLC0415  not for --help
    from hyperpod_eks.local import daemon  # noqa: PLC0415  the extra may be missing

    config = load(file, {"name": name, "region": region}, os.environ)
    running = daemon.ensure()
    use_local()
    created = create(running, aws_session.session(config.region, None), config, helm)
    return _document("prepare", running) | {"created": created}


def status(tell: Report) -> Document:
    """Look at the stack.  Raises NotFound when none runs."""
    return _document("status", _running())


def stop(tell: Report) -> Document:
    """End the stack, if one runs."""
    from hyperpod_eks.local import daemon  # noqa: PLC0415  the extra may be missing

    return _document("stop", None, stopped=daemon.stop())


def environment() -> str:
    """Return shell lines that point AWS clients at the stack.  Raises NotFound when none runs."""
    return "\n".join(
        f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"
        for name, value in _running().environ.items()
    )


def _running() -> Running:
    from hyperpod_eks.local import daemon  # noqa: PLC0415  the extra may be missing

    running = daemon.find()
    if running is None:
        raise NotFound("no embedded stack is running", "Start one: hyperpod-eks local start")
    return running


def _document(command: str, running: Running | None, *, stopped: bool = False) -> Document:
    return head(f"local {command}", kind="local") | {
        "stopped": stopped,
        "stack": dataclasses.asdict(running) if running else None,
    }


def text(document: Document) -> str:
    """Write the document for people."""
    if (created := document.get("created")) is not None:
        return "\n".join(f"created {each}" for each in created) or "nothing is missing"
    if stack := document["stack"]:
        return (
            f"the embedded stack answers at {stack['endpoint']}, {stack['speed']:g} times as fast"
            f" as AWS (process {stack['pid']})\n"
            'To point AWS clients at it: eval "$(hyperpod-eks local env)"'
        )
    return (
        "the embedded stack has ended" if document["stopped"] else "no embedded stack was running"
    )


def use_local() -> None:
    """Point this process, and what it starts, at the embedded stack."""
    from hyperpod_eks.local import daemon  # noqa: PLC0415  the extra may be missing

    for name, value in daemon.ensure().environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
