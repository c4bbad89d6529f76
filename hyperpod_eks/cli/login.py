"""Opening the user's AWS session at a terminal."""

from __future__ import annotations

from getpass import getpass
from typing import TYPE_CHECKING

from hyperpod_eks.aws.session import session
from hyperpod_eks.cli.console import current_console

if TYPE_CHECKING:
    import boto3


def log_in(region: str | None, profile: str | None) -> boto3.Session:
    """Open the session; an MFA code is asked for on a line of its own."""

    def ask(words: str) -> str:
        current_console().aside()
        return getpass(words)

    return session(region, profile, ask)
