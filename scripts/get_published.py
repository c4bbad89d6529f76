#!/usr/bin/env python3
"""Clone what the tests compare with: public repositories, each at the commit that they name.

    scripts/get_published.py FOLDER && HYPERPOD_PUBLISHED=FOLDER make test

What is there already is left alone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.published import COMMITS


def main() -> None:
    """Fetch one commit of each repository into ``FOLDER/OWNER/NAME``."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for repository, commit in COMMITS.items():
        clone = Path(sys.argv[1], repository)
        git = ["git", "-C", str(clone)]
        if subprocess.run([*git, "cat-file", "-e", commit], capture_output=True).returncode == 0:  # noqa: PLW1510
            continue
        clone.mkdir(parents=True, exist_ok=True)
        subprocess.run([*git, "init", "--quiet"], check=True)
        place = f"https://github.com/{repository}"
        subprocess.run([*git, "fetch", "--quiet", "--depth", "1", place, commit], check=True)


if __name__ == "__main__":
    main()
