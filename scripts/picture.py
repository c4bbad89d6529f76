"""Take the README's pictures of the terminal: a real create, status and plan, 80 columns wide.

Needs the extra ``local``, the dependency group ``dev`` and helm.  Run: python scripts/picture.py
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import tempfile
import termios
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLUMNS, LINES = 80, 60
CHANGED = """\
name: demo
region: us-west-2
network: {nat: per-az}
eks: {log_retention_days: 90}
instance_groups:
  - {name: worker-group, instance_type: ml.m5.2xlarge, instance_count: 3}
"""
"""What the plan is about: another node, a second NAT gateway, logs that are kept longer."""
# rich's own format loads fonts from the network; these are on every machine
SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{height}" />
</clipPath>
{lines}
</defs>
<rect fill="#0c0c0c" x="1" y="1" width="{width}" height="{height}" rx="8" />
<circle cx="22" cy="20" r="6" fill="#ff5f57" />
<circle cx="42" cy="20" r="6" fill="#febc2e" />
<circle cx="62" cy="20" r="6" fill="#28c840" />
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Write create.svg, status.svg and plan.svg into docs/images."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "XDG_CACHE_HOME": folder,
            "XDG_STATE_HOME": folder,
        }
        environ.pop("CI", None)
        environ.pop("NO_COLOR", None)
        subprocess.run(["hyperpod-eks", "local", "start", "--speed", "60"], env=environ, check=True)
        try:
            running = film(
                ["create", "demo", "--local"],
                folder,
                environ,
                lambda text: "0 of 2 nodes running" in text,
            )
            save(running, "hyperpod-eks create demo --local", "create")
            shown = film(["status", "demo", "--local"], folder, environ, None)
            save(shown, "hyperpod-eks status demo --local", "status")
            (Path(folder) / "cluster.yaml").write_text(CHANGED)
            planned = film(["plan", "-f", "cluster.yaml", "--local"], folder, environ, None)
            save(planned, "hyperpod-eks plan -f cluster.yaml --local", "plan")
        finally:
            subprocess.run(["hyperpod-eks", "local", "stop"], env=environ, check=True)


def film(
    words: list[str], folder: str, environ: dict[str, str], moment: Callable[[str], bool] | None
) -> list[Text]:
    """Run a command on a terminal of its own; return the screen at a moment, or at the end.

    ``moment`` is asked with the screen's text after every piece of output; the last screen for
    which it is true counts.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    taken: list[Text] = []
    process = subprocess.Popen(
        ["hyperpod-eks", *words], cwd=folder, env=environ, stdin=theirs, stdout=theirs,
        stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux says that nobody is at the other end
            break
        if not piece:
            break
        stream.feed(piece)
        if moment is None or moment("\n".join(screen.display)):
            taken = lines(screen)
    os.close(ours)
    if process.wait() or not taken:
        raise SystemExit(
            f"{words}: exit {process.returncode}, screen:\n" + "\n".join(screen.display)
        )
    return taken


def lines(screen: pyte.Screen) -> list[Text]:
    """Copy the screen with its colours, without the empty lines at its end."""
    copied = []
    for y in range(screen.lines):
        line = Text()
        cells = (screen.buffer[y][x] for x in range(screen.columns))
        for (fg, bold), run in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            line.append("".join(cell.data for cell in run), Style(color=colour(fg), bold=bold))
        line.rstrip()
        copied.append(line)
    while copied and not copied[-1].plain:
        copied.pop()
    return copied


def colour(name: str) -> str | None:
    """Translate pyte's name of a colour into rich's."""
    if name == "default":
        return None
    if len(name) == 6 and all(digit in "0123456789abcdef" for digit in name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def save(screen: list[Text], command: str, name: str) -> None:
    """Write a picture of the command and what it showed."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.assemble(("$ ", "green"), (command, "bold")))
        for line in screen:
            console.print(line)
        svg = console.export_svg(theme=MONOKAI, code_format=SVG, unique_id="t")
    (IMAGES / f"{name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
