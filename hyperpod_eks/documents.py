"""The types of JSON documents, whose members somebody else defines.

AWS, Kubernetes, Helm charts and a user's configuration decide which members a document has, and
they add some every month.  No type of ours can list them, so a member is ``Any`` once it is read;
what the code concludes from one has a real type again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Any
"""A JSON value: an object, an array, a string, a number, true, false or null."""

JsonObject = dict[str, Any]
"""A JSON object that is being built: a request, chart values, a document of ours."""

JsonMapping = Mapping[str, Any]
"""A JSON object that is only read: an answer of AWS or Kubernetes, settings of a user."""
