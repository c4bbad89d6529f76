"""Converts described clusters and groups to facts, in the form of the declaration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache

from hyperpod_eks.aws.service_model import service, shape, to_config
from hyperpod_eks.documents import Json, JsonMapping, JsonObject

PLACE = to_config("OverrideVpcConfig")
IMAGE = ("ImageId", "ImageReleaseVersion")
"""Members that UpdateClusterSoftware changes."""
UNORDERED = ("OnStartDeepHealthChecks", "SecurityGroupIds", "Subnets")
"""Lists of plain values without order; instance types are ordered by preference."""
THERE, MISSING = "there", "absent"


def its(count: int, done: str = "") -> str:
    """Return words for a group's nodes, and for a change to them.

    >>> its(2), its(1, "replaced")
    ('its 2 nodes', 'its one node is replaced')
    """
    if count == 1:
        return "its one node" + (f" is {done}" if done else "")
    return f"its {count} nodes" + (f" are {done}" if done else "")


def is_image(name: str) -> bool:
    """Whether a fact is the image or its release, which UpdateClusterSoftware changes."""
    return member_of(name) in map(to_config, IMAGE)


def member_of(name: str) -> str:
    """Return the group's setting that a fact is, or is a part of.

    >>> member_of("workers.kubernetes_config.labels.team")
    'kubernetes_config'
    """
    return name.partition(".")[2].partition(".")[0]


def described(group: JsonMapping) -> JsonObject:
    """Convert a described group to the request's members (ClusterInstanceGroupSpecification)."""
    shapes = "ClusterInstanceGroupSpecification", "ClusterRestrictedInstanceGroupSpecification"
    members = {m for name in shapes for m in shape("sagemaker", name)["members"]}
    found = {k: v for k, v in group.items() if k in members}
    found["InstanceCount"] = group.get("TargetCount")
    found["MinInstanceCount"] = group.get("MinCount")
    for member in IMAGE:
        found[member] = group.get(f"Desired{member}", group.get(f"Current{member}"))
    for member in ("InstanceRequirements", "KubernetesConfig", "AutoPatchConfig"):
        if member in found:
            found[member] = _desired(found[member])
    return {k: v for k, v in found.items() if v not in EMPTY}


def _desired(config: JsonMapping) -> JsonObject:
    """Return ``DesiredX`` as ``X``, without ``CurrentX``."""
    return {
        key.removeprefix("Desired"): value
        for key, value in config.items()
        if not key.startswith("Current") and value not in ([], {})
    }


def setting_of(found: JsonMapping, member: str) -> Json:
    """Return a described cluster's setting in the form of the request."""
    value = found.get(member)
    if isinstance(value, Mapping) and (shared := value.get("SharedEnvironmentConfig")):
        return {"SharedEnvironmentConfig": _desired(shared)}
    return value


EMPTY: tuple[object, ...] = (None, "", {}, [])
"""Values by which AWS may describe an unset member, besides leaving it out."""


def leaves(member: str, value: Json, group: str = "") -> Iterator[tuple[str, Json]]:
    """Yield a member as facts, one for each value in it.

    >>> list(leaves("KubernetesConfig", {"Labels": {"Team": "x"}, "Taints": [{"Key": "k"}]}, "a"))
    [('a.kubernetes_config.labels.Team', 'x'), ('a.kubernetes_config.taints.0.key', 'k')]
    """
    name = ".".join(filter(None, [group, to_config(member)]))
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            if member == "Labels":  # their keys are the user's
                yield f"{name}.{key}", each
            else:
                yield from leaves(key, each, name)
    elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value):
            yield from leaves(str(number), each, name)
    elif value not in (None, "", []):  # {} is a value: {"Spot": {}}
        yield name, value


def align(there: Json, declared: Json, member: str = "") -> Json:
    """Return a described value in the declaration's order and spelling where these mean nothing."""
    if isinstance(there, Mapping) and isinstance(declared, Mapping):
        return {key: align(value, declared.get(key), key) for key, value in there.items()}
    if isinstance(there, datetime) and isinstance(declared, str):
        return declared if _moment(declared) == there else there.isoformat()
    if isinstance(there, str) and isinstance(declared, str) and member in enumerated():
        return declared if there.lower() == declared.lower() else there
    if not isinstance(there, list):
        return there
    asked = list(declared) if isinstance(declared, list | tuple) else []
    if any(isinstance(each, Mapping) for each in there):
        return _in_order(there, asked[: len(there)])
    as_declared = member in UNORDERED and sorted(there) == sorted(asked)
    return asked if as_declared else there


def _in_order(there: Sequence[Json], asked: Sequence[Json]) -> list[Json]:
    """Return described objects in the order of the declared ones that they match.

    AWS may leave out distinguishing members, so the fewest possible pairs contradict each other.

    >>> k, l = {"Key": "k", "Effect": "NoSchedule"}, {"Key": "l", "Effect": "NoSchedule"}
    >>> _in_order([{"Effect": "NoSchedule"}, {"Key": "k"}], [k, l])
    [{'Key': 'k'}, {'Effect': 'NoSchedule'}]
    """
    aligned = [[align(each, wanted) for each in there] for wanted in asked]
    scores = [
        [(-_unlike(each, wanted), _alike(each, wanted)) for each in row]
        for row, wanted in zip(aligned, asked, strict=True)
    ]
    pairs = _paired(scores)
    rest = [each for index, each in enumerate(there) if index not in pairs.values()]
    return [*(row[pairs[number]] for number, row in enumerate(aligned)), *rest]


def _paired(scores: Sequence[Sequence[tuple[int, int]]]) -> dict[int, int]:
    """Match rows to columns: as many as possible without contradiction, then the most similar."""
    rows: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        """Assign a column to a row and move its old row to another (Kuhn's algorithm)."""
        for column in sorted(range(len(scores[row])), key=scores[row].__getitem__, reverse=True):
            if column in tried or scores[row][column][0] < 0:
                continue
            tried.add(column)
            if column not in rows or place(rows[column], tried):
                rows[column] = row
                return True
        return False

    for row in [row for row in range(len(scores)) if not place(row, set())]:
        left = [column for column in range(len(scores[row])) if column not in rows]
        rows[max(left, key=scores[row].__getitem__)] = row
    return {row: column for column, row in rows.items()}


@cache
def enumerated() -> frozenset[str]:
    """Return the members of CreateCluster with enumerated values, whose case means nothing.

    The case of free text matters.
    """
    shapes = service("sagemaker")["shapes"]
    seen, found, left = set[str](), set[str](), ["CreateClusterRequest"]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        about = shapes[name]
        for member, ref in about.get("members", {}).items():
            left.append(ref["shape"])
            if "enum" in shapes[ref["shape"]]:
                found.add(member)
        left += [about[each]["shape"] for each in ("member", "value") if each in about]
    return frozenset(found)


def _alike(one: Json, other: Json) -> int:
    """Return the number of equal values in two descriptions."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return sum(_alike(value, other[key]) for key, value in one.items() if key in other)
    return int(one == other)


def _unlike(one: Json, other: Json) -> int:
    """Return the number of members that two descriptions both have with different values.

    >>> _unlike({"Key": "k", "Effect": "NoSchedule"}, {"Key": "l"})
    1
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return sum(_unlike(value, other[key]) for key, value in one.items() if key in other)
    return int(one != other)


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
