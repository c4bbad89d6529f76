"""A headless browser, by the Chrome DevTools Protocol over a pipe: no port, and no driver.

Sources: Chrome DevTools Protocol (Emulation, Log, Network, Page, Runtime), and Chromium's switch
``--remote-debugging-pipe``: messages of JSON that end with a zero byte, on descriptors 3 and 4.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
FAULTS = (Path(__file__).parent / "faults.js").read_text()
"""A function that returns what is wrong with a page: overlaps, cut text, poor contrast."""


class Browser:
    """A browser that opens pages from files, without scripts."""

    def __init__(self, read: FileIO, write: FileIO) -> None:
        self._in, self._out = read, write
        self._numbers, self._rest, self._events = count(1), b"", list[Any]()
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        found = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._ask(f"{domain}.enable")
        self._ask("Emulation.setScriptExecutionDisabled", value=True)

    _session = ""

    def _ask(self, method: str, **about: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": about}
        message |= {"sessionId": self._session} if self._session else {}
        self._out.write(json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != number:
            self._events.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _message(self) -> Any:
        while b"\0" not in self._rest:
            more = self._in.read(1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def faults(
        self, page: Path, width: int, *, dark: bool = False, paper: bool = False
    ) -> list[str]:
        """Open a page in a window of a width, or as it is printed; return what is wrong with it."""
        self._events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask(
            "Emulation.setEmulatedMedia", media="print" if paper else "screen", features=[scheme]
        )
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self._ask("Page.navigate", url=page.as_uri())
        while not any(each.get("method") == "Page.loadEventFired" for each in self._events):
            self._events.append(self._message())
        found: list[str] = self.evaluate(f"({FAULTS})({width})")
        for event in self._events:
            about = event.get("params", {})
            if event.get("method") == "Network.requestWillBeSent":
                url = about["request"]["url"]
                inside = url in (page.as_uri(), "about:blank") or url.startswith("data:")
                found += [] if inside else [f"request: {url}"]
            elif event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                found.append(f"console: {about}")
        return found

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        said = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"]["value"]


def program() -> str:
    """Return the path of a browser; skip the test without one."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not found:
        pytest.skip("no Chromium on PATH: apt-get install chromium")
    return found


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with a new profile in a folder; end it afterwards."""
    found = program()
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (theirs_in, theirs_out)]
    null = os.open(os.devnull, os.O_WRONLY)
    process = os.posix_spawn(
        found,
        [found, *SWITCHES, f"--user-data-dir={folder}"],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, each, number)
            for each, number in ((null, 1), (null, 2), (high[0], 3), (high[1], 4))
        ],
    )
    for each in (theirs_in, theirs_out, null, *high):
        os.close(each)
    try:
        with os.fdopen(ours_in, "rb", 0) as read, os.fdopen(ours_out, "wb", 0) as write:
            yield Browser(read, write)
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
