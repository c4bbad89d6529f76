"""Draw the README's picture of a cluster: what examples/teams.yaml would create.

Needs the extra ``local`` and the dependency group ``dev``.  Run: make docs
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write docs/images/diagram.svg, on an embedded stack of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "XDG_CACHE_HOME": folder, "XDG_STATE_HOME": folder}

        def tool(*words: str) -> bytes:
            command = [sys.executable, "-m", "hyperpod_eks", *words]
            return subprocess.run(
                command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE
            ).stdout

        tool("local", "start", "-q")
        try:
            drawn = tool("diagram", "-f", "examples/teams.yaml", "--local")
        finally:
            tool("local", "stop", "-q")
    (ROOT / "docs" / "images" / "diagram.svg").write_bytes(drawn)


if __name__ == "__main__":
    main()
