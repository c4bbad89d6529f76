"""A known cause of failures, as a row of a table."""

from __future__ import annotations

import re
from functools import cached_property

from hyperpod_eks.frozen import frozen


@frozen
class Cause:
    """A known cause.  ``says`` is a pattern for the text of evidence whose source matches
    ``source``: messages of AWS and of other programs, never ours.  Evidence that names the cause
    matches as well; if ``says`` is empty, nothing else does.

    ``cause`` and ``next`` may contain {cluster} (with the options for its location), {name},
    {again} (the create that continues), {region}, {eks}, {about}, {group}, the named groups of
    ``says`` and the values of `KnownCause`.  ``instead_of`` are the ids of causes that this one
    replaces.  ``also`` is a source whose evidence is always added.  A ``vague`` cause is shown only
    if no other one matches.
    """

    id: str
    says: str
    cause: str
    next: str
    source: str = ".*"
    instead_of: tuple[str, ...] = ()
    also: str = ""
    vague: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """``says``, compiled; it ignores case."""
        return re.compile(self.says, re.IGNORECASE | re.DOTALL)

    def fits(self, source: str, text: str) -> bool:
        """Whether evidence with this source and text matches this cause."""
        matches = self.says and re.fullmatch(self.source, source) and self.pattern.search(text)
        return bool(matches)
