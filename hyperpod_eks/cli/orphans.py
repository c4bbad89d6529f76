"""``hyperpod-eks orphans``: what carries our tags and stands in no manifest."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hyperpod_eks.aws import Aws, read_only, session
from hyperpod_eks.cli.documents import Document, head
from hyperpod_eks.cli.local import use_local
from hyperpod_eks.manifest import read
from hyperpod_eks.orphans import signed
from hyperpod_eks.report import Report


def orphans(tell: Report, local: bool, manifests: tuple[Path, ...], **given: Any) -> Document:
    """List what is signed by this tool and stands in no manifest."""
    if local:
        use_local()
    aws = Aws(session(given["region"], given["profile"]), "", {})
    read_only(aws.session)
    identity = aws.identity
    paths = manifests or tuple(sorted(Path().glob("*.hyperpod-eks.json")))
    known = {read(path).lineage for path in paths}  # one of another region knows nothing here
    left = [each for each in signed(aws) if each.lineage not in known]
    return head("orphans") | {
        "account": identity.account,
        "region": identity.region,
        "orphans": [asdict(each) for each in left],
    }


def text(document: Document) -> str:
    """Write the document for people: what there is, and how it goes."""
    rows = document["orphans"]
    if not rows:
        return f"no orphans in {document['region']} of account {document['account']}"
    names = sorted({row["cluster"] for row in rows})
    lines = [f"{row['cluster']}  {row['kind']}  {row['id']}" for row in rows]
    at = document["region"]
    hints = [f"To delete them: hyperpod-eks delete {name} --region {at}" for name in names]
    return "\n".join([*lines, *hints])
