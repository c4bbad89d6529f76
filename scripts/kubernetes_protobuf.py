#!/usr/bin/env python3
"""Write hyperpod_eks/local/kubernetes/protobuf.json: the field numbers of the types in types.json.

The source are the tags of Kubernetes' Go types, in clones of its repositories `api` and
`apimachinery` (bare ones will do). Numbers never change, so any later tag adds fields only:
``scripts/kubernetes_protobuf.py API APIMACHINERY v0.36.3``.

A type is a mapping of numbers to field names. "*" before a name marks a pointer, of which an empty
value is told from none; "+" marks a type whose fields stand in the same JSON object.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

from kubernetes_types import TARGET

STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r'^\t([^/`]*)`json:"(\w*),?([\w,]*)"[^`]*protobuf:"\w+,(\d+),', re.MULTILINE)


def sources(repository: str, tag: str) -> Iterator[tuple[str, str]]:
    """The prefix of a package's type names, and the text of its types.go."""
    listed = ["git", "-C", repository, "ls-tree", "-r", "--name-only", tag]
    for path in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split():
        if re.search(r"/v\d/types\.go$", path):
            shown = ["git", "-C", repository, "show", f"{tag}:{path}"]
            text = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
            yield ".".join(path.split("/")[-3:-1]), text


def main() -> None:
    """Write the file from the clones and the tag that the command line names."""
    *repositories, tag = sys.argv[1:]
    layouts: dict[str, dict[str, str]] = {}
    for repository in repositories:
        for package, text in sources(repository, tag):
            for name, body in STRUCT.findall(text):
                fields = layouts.setdefault(f"{package}.{name}", {})
                for declared, json_name, options, number in FIELD.findall(body):
                    kind = declared.split()[-1]
                    if options == "inline":
                        fields[number] = f"+{package}.{kind}"
                    else:
                        fields[number] = "*" * kind.startswith("*") + json_name
    types = json.loads(TARGET.read_text())["types"]
    kept = {name for name in types if name in layouts}
    kept |= {
        below[1:] for name in kept for below in layouts[name].values() if below.startswith("+")
    }
    lines = [f"{json.dumps(name)}: {json.dumps(layouts[name])}" for name in sorted(kept)]
    TARGET.with_name("protobuf.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for name in sorted(set(types) - kept):
        print(f"no field numbers of {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
