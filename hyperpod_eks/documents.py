"""The types of JSON documents whose members others define.

AWS, Kubernetes, Helm charts and a user's config define the members, and add some every month.  Our
types cannot list them, so a member that is read is ``Any``; values derived from members have real
types again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

Json = Any
"""A JSON value: an object, an array, a string, a number, true, false or null."""

JsonObject = dict[str, Any]
"""A JSON object to build: a request, chart values, a document of ours."""

JsonMapping = Mapping[str, Any]
"""A JSON object to read: an answer of AWS or Kubernetes, settings of a user."""

DIGEST = "sha256:"
"""How a digest in place of a text begins."""


def digest(text: str) -> str:
    """Return the digest of a text, with its prefix; a digest is its own.

    >>> digest(digest("demo")) == digest("demo")
    True
    """
    if text.startswith(DIGEST):
        return text
    return DIGEST + hashlib.sha256(text.encode()).hexdigest()
