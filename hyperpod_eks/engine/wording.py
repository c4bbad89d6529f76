"""Messages about errors, resources that are not owned, and differences."""

from __future__ import annotations

from collections.abc import Sequence

from hyperpod_eks.aws.errors import ErrorKind, renewal
from hyperpod_eks.errors import Capacity, Denied, Foreign, HyperpodError, KnownCause, Remains
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.terminal.text import shortened

LONGEST_WORDS = 2000
"""The longest AWS message shown, in characters; an encoded authorization message has 1,000."""


def words_of(error: Exception) -> str:
    """Return AWS's message without the text that botocore adds."""
    response, words = getattr(error, "response", None), str(error)
    if isinstance(response, dict) and response.get("Error", {}).get("Message"):
        words = f"{response['Error']['Message']} ({response['Error'].get('Code', '')})"
    return words if isinstance(error, HyperpodError) else shortened(words, LONGEST_WORDS)


def explained(
    want: Resource, verb: str, error: Exception, kind: ErrorKind | None, words: str
) -> Exception:
    """Return the error that the command ends with after a failed call."""
    doing = {"look": "looking at", "create": "creating", "settle": "updating", "delete": "deleting"}
    message = f"{doing[verb]} {want.key}: {words}"
    again = "Nothing is lost: run the same command again."
    match kind:
        case ErrorKind.EXPIRED:
            return Denied(message, renewal(message))
        case ErrorKind.DENIED:
            from hyperpod_eks.policy.authorization import cure  # noqa: PLC0415  only for errors

            advice = cure(error) or "Allow the action for your identity."
            return Denied(message, f"{advice}\n{again}")
        case ErrorKind.CAPACITY:
            return Capacity(message, f"Request more under Service Quotas, or free some. {again}")
        case ErrorKind.DEPENDENCY:
            return Remains(message)
        case None if isinstance(error, HyperpodError):
            return error
        case None if not hasattr(error, "response"):
            error.add_note(f"while {doing[verb]} {want.key}")
            return error
    return HyperpodError(message, again)


def owner_of(observation: Observation) -> str:
    """Return the owner of a foreign resource, as far as AWS shows it."""
    owner = observation.live.owner if observation.live else None
    if observation.live and "whose" in observation.live.attributes:
        return str(observation.live.attributes["whose"])
    if owner:
        return f"another cluster of hyperpod-eks (lineage {owner})"
    return "an unknown owner (no hyperpod-eks tags)"


def not_owned(observations: Sequence[Observation]) -> Foreign:
    """Return the error for resources that have our names and are not owned."""
    lines = [
        f"{s.want.key}: {s.live.arn or s.live.id} already exists and belongs to {owner_of(s)}"
        for s in observations
        if s.live
    ]
    who = owner_of(observations[0]).partition(" (")[0]
    return Foreign("\n".join(lines), cause=KnownCause("name-taken", {"who": who}))


def unproven(observation: Observation) -> list[str]:
    """Return a line for each fact that AWS describes differently from what was sent."""
    key, lines = observation.want.key, []
    for name, (is_, declared) in observation.unproven.items():
        if declared is None:
            line = f"{key}: AWS accepted the removal of {name} but still returns {is_!r}"
        else:
            line = (
                f"{key}: AWS accepted {name} {declared!r} but returns {is_!r}; it is sent again "
                "when the config changes"
            )
        lines.append(line)
    return lines


def unchanged(observation: Observation) -> HyperpodError:
    """Return the error for differences that AWS cannot change."""
    differs = "; ".join(
        f"{k} is {a!r}, declared {b!r}" for k, (a, b) in observation.differs.items()
    )
    return HyperpodError(
        f"{observation.want.key}: {differs}",
        "AWS cannot change this in place. Set it back in the config, or delete the cluster and"
        " create it again.",
    )


def kept_duplicates(observation: Observation) -> str:
    """Return the warning about duplicates that are kept, with what uses them."""
    assert observation.live
    rows = []
    for duplicate in observation.duplicates:
        used_by = [each.partition(":")[0] for each in duplicate.attributes.get("tenants", ())]
        more = f" and {len(used_by) - 3} more" if len(used_by) > 3 else ""
        rows.append(f"{duplicate.id} ({', '.join(used_by[:3])}{more})" if used_by else duplicate.id)
    return (
        f"{observation.want.key}: {'; '.join(rows)} was created by another run, and the cluster "
        f"uses {observation.live.id}. It is kept, and AWS bills it: delete it by hand when no "
        "other run is active; `delete` of this cluster deletes both"
    )


def impossible(drifted: Sequence[Observation], gone: Sequence[Resource]) -> list[str]:
    """Return the changes and deletions that AWS cannot make, a line each, with the reason."""
    reasons = [
        f"{s.want.key}: {name} is {is_!r}, declared {declared!r}: {reason}"
        for s in drifted
        for name, (is_, declared) in s.differs.items()
        if (reason := s.want.immutable_reason(name, s.differs))
    ]
    return reasons + [
        f"{want.key} is no longer declared: {want.cannot_delete}"
        for want in gone
        if want.cannot_delete
    ]
