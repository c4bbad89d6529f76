"""How the address block of the VPC is divided, and which blocks are allowed."""

from __future__ import annotations

import ipaddress

from hyperpod_eks.frozen import frozen

# Addresses that a node uses in its subnet, by prefix of its instance type: one for each network
# interface and pod. Amazon SageMaker AI Developer Guide and the HyperPod workshops, 2026-10; types
# that are not listed use few.
ADDRESSES = (
    ("ml.p5", 81),
    ("ml.p6", 81),
    ("ml.p4d", 51),
    ("ml.trn1", 57),
    ("ml.trn2", 65),
    ("ml.", 15),
)

# Ranges that no VPC can use, or that AWS reserves (VPC User Guide, "VPC CIDR blocks").
_RESERVED = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "198.19.255.0/24", "224.0.0.0/3")


@frozen
class ZoneSubnets:
    """The two subnets of one availability zone, as CIDR blocks."""

    zone: str
    private: str
    public: str


def subnets(cidr: str, zones: tuple[str, ...]) -> tuple[ZoneSubnets, ...]:
    """Divide `cidr` among availability `zones`: big private blocks, one small public one each.

    The block is cut into 2, 4 or 8 equal parts, one more than zones; each zone gets a part for its
    private subnet, and the last part holds the public ones (/24 where there is room, for a NAT
    gateway and load balancers). A zone added at the end moves no other subnet as long as the number
    of parts stays: up to three zones, and from four to seven.

    Raises `ValueError` when public subnets would get smaller than /28, the least that AWS takes.

    >>> subnets("10.0.0.0/16", ("usw2-az1", "usw2-az2"))[1]
    ZoneSubnets(zone='usw2-az2', private='10.0.64.0/18', public='10.0.193.0/24')
    """
    parts = list(ipaddress.IPv4Network(cidr).subnets(prefixlen_diff=len(zones).bit_length()))
    size = max(24, parts[-1].prefixlen + (len(zones) - 1).bit_length())
    if size > 28:
        raise ValueError(
            f'"{cidr}" is too small for {len(zones)} zones (each needs a private and a public'
            " subnet of /28 or more); choose a larger block, like 10.0.0.0/16"
        )
    public = parts[-1].subnets(new_prefix=size)
    return tuple(
        ZoneSubnets(zone, str(private), str(small))
        for zone, private, small in zip(zones, parts, public, strict=False)
    )


def cidr_fault(cidr: str) -> str:
    """Return why `cidr` cannot be the VPC's block, as the rest of ``<cidr> …``; "" when it can."""
    try:
        block = ipaddress.IPv4Network(cidr, strict=False)
    except ValueError:
        return "is not an IPv4 block (address/length); choose one like 10.0.0.0/16"
    if "/" not in cidr or not 16 <= block.prefixlen <= 24:
        return "is not of a size that can be divided (/16 to /24); choose one like 10.0.0.0/16"
    if str(block) != cidr:
        return f"is not where such a block begins (host bits are set); set {block}"
    text = reserved(block)
    return f"{text}; choose one like 10.0.0.0/16" if text else ""


def reserved(block: ipaddress.IPv4Network) -> str:
    """Return why a block is in a reserved range, or ""."""
    for each in _RESERVED:
        if block.overlaps(ipaddress.IPv4Network(each)):
            return f"is in {each} (a reserved range)"
    return ""
