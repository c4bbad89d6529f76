"""One rate limit per service: a throttled call slows down all workers and stops none."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from hyperpod_eks.aws.errors import ErrorKind, match_error
from hyperpod_eks.documents import JsonMapping

FIRST, LARGEST = 0.05, 2.0
"""Seconds between the starts of two calls after one refusal, and at most."""
ATTEMPTS = 12
"""How often a call is sent before it fails, and the engine waits and looks again."""


class Pace:
    """The gap between two calls to one service, shared by all clients and workers.

    With botocore alone each worker backs off by itself, for a second and more, while the others
    are still refused.  Here every refusal doubles the gap between any two calls and every answer
    shortens it: the backoff that AWS recommends ("Error retries and exponential backoff"), applied
    to all workers, because they share the account's one token bucket.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.gap = 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def attach(self, client: Any) -> None:  # the stubs lack handlers that return values
        """Apply the limit to a boto3 client."""
        client.meta.events.register("before-send", self.wait)
        # the first handler that answers wins, and handlers of the longer event name come first
        name = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register_first(f"needs-retry.{name}", self.judge)

    def wait(self, sleep: Callable[[float], None] = time.sleep, **_: object) -> None:
        """Wait for this call's turn; return at once while no call is being throttled."""
        with self._lock:
            if not self.gap:
                return
            task = max(self._next, time.monotonic())
            self._next = task + self.gap
        sleep(max(0.0, task - time.monotonic()))

    # typed only as far as botocore's classes are used here
    def judge(
        self, response: tuple[Any, JsonMapping] | None, operation: Any, attempts: int, **_: object
    ) -> float | None:
        """Return the seconds before a throttled call is resent; None leaves that to botocore."""
        if response is None:
            return None
        http, parsed = response
        about = parsed.get("Error", {})
        code, message = str(about.get("Code", "")), str(about.get("Message", ""))
        refused = (
            http.status_code >= 400
            and match_error(self.service, operation.name, code, message, http.status_code)
            is ErrorKind.THROTTLE
        )
        with self._lock:
            if not refused:
                self.gap = self.gap * 0.7 if self.gap > FIRST / 8 else 0.0
                return None
            self.gap = min(max(self.gap * 2, FIRST), LARGEST)
            if attempts >= ATTEMPTS:
                return None
            return self.gap * random.uniform(1.0, 2.0)  # noqa: S311  spreads load, guards nothing
