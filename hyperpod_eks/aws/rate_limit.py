"""One pace for all workers: who is told to slow down slows everybody down, and nobody stops."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from hyperpod_eks.aws.errors import ErrorKind, match_error
from hyperpod_eks.documents import JsonMapping

FIRST, LARGEST = 0.05, 2.0
"""Seconds between the starts of two calls: after one refusal, and after many."""
ATTEMPTS = 12
"""How often a call is sent; after that the engine waits and looks again."""


class Pace:
    """How often one service is asked, shared by all clients and workers.

    botocore alone would let each worker back off for itself, a second and more, while the others
    go on to be refused.  Here every refusal doubles the gap between any two calls and every
    answer shortens it: additive patience, as AWS asks for ("Error retries and exponential
    backoff"), but for the account's one bucket of tokens, which all workers draw from.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.gap = 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def attach(self, client: Any) -> None:  # the stubs know no handlers that answer
        """Set the pace of a boto3 client."""
        client.meta.events.register("before-send", self.wait)
        # of all handlers the first answer counts, and those of the longer event are asked first
        name = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register_first(f"needs-retry.{name}", self.judge)

    def wait(self, sleep: Callable[[float], None] = time.sleep, **_: object) -> None:
        """Wait for this call's turn; no time at all as long as nobody was refused."""
        with self._lock:
            if not self.gap:
                return
            task = max(self._next, time.monotonic())
            self._next = task + self.gap
        sleep(max(0.0, task - time.monotonic()))

    # as much of botocore's classes as is read here
    def judge(
        self, response: tuple[Any, JsonMapping] | None, operation: Any, attempts: int, **_: object
    ) -> float | None:
        """Say in how many seconds to send a refused call again; None leaves it to botocore."""
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
