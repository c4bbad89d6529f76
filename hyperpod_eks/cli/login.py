"""The AWS account of a command: the user's session, or the embedded stack."""

from __future__ import annotations

import os
from collections.abc import Callable
from getpass import getpass
from typing import TYPE_CHECKING

from hyperpod_eks.aws.session import session
from hyperpod_eks.cli.console import current_console

if TYPE_CHECKING:
    from botocore.session import Session

    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.cli.options import Account


def log_in(region: str | None, profile: str | None) -> Session:
    """Return a session; if it needs an MFA code, ask for it on a line of its own."""

    def ask(words: str) -> str:
        current_console().aside()
        return getpass(words)

    return session(region, profile, ask)


def login_of(account: Account) -> Callable[[], Session]:
    """Return what opens the session that the options name."""

    def login() -> Session:
        if account.local:
            use_local()
        return log_in(account.region, account.profile)

    return login


def use_local() -> None:
    """Point this process and its child processes at the embedded stack."""
    from hyperpod_eks.local import daemon  # noqa: PLC0415  the extra may be missing

    for name, value in daemon.ensure().environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def reading(account: Account, name: str = "", region: str | None = None) -> Aws:
    """Open an account read-only: every call that changes something is refused.

    ``region`` is used if no option sets one.
    """
    from hyperpod_eks.aws.client import Aws, read_only  # noqa: PLC0415  token does not need it

    if account.local:
        use_local()
    aws = Aws(log_in(account.region or region, account.profile), name, {})
    read_only(aws.session)
    return aws
