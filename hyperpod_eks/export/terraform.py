"""A manifest as Terraform configuration: import blocks, resources, and their providers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hyperpod_eks.documents import Json
from hyperpod_eks.export import documents, hcl
from hyperpod_eks.export.hcl import Nested, Raw
from hyperpod_eks.export.recorded import Exported, Ref, common_tags, export, names
from hyperpod_eks.export.terraform_rows import ROWS, Block, Tags
from hyperpod_eks.state.manifest import Manifest

PROVIDERS = {
    "aws": {"source": "hashicorp/aws", "version": ">= 5.100"},
    "awscc": {"source": "hashicorp/awscc", "version": ">= 1.40"},
    "helm": {"source": "hashicorp/helm", "version": ">= 3.0"},
}
TAGS = "local.hyperpod_eks_tags"


def files(manifest: Manifest) -> tuple[dict[str, str], Exported[Block]]:
    """Return the text of each file by its name, and what is in them."""
    exported = export(manifest, ROWS, documents.LEFT_OUT)
    main = {key: f"{blocks[0].type}.{_name(key)}" for key, blocks in exported.blocks.items()}
    addresses = names(main, main.__getitem__, "_")
    texts: dict[str, list[str]] = {}
    for key, blocks in exported.blocks.items():
        for each in blocks:
            provider = each.type.partition("_")[0]
            text = _text(each, addresses[key].partition(".")[2], _Spelling(addresses))
            texts.setdefault(provider, []).append(text)
    found = {"providers.tf": _providers(manifest, texts)}
    for provider, several in texts.items():
        found[FILES[provider]] = "\n\n".join(several) + "\n"
    return found, exported


FILES = {"aws": "main.tf", "awscc": "hyperpod.tf", "helm": "helm.tf"}
"""The file of each provider's resources."""


def _name(key: str) -> str:
    """Return a name of Terraform's for a key: its label."""
    label = re.sub(r"[^A-Za-z0-9_-]", "_", key.partition("/")[2]).replace("-", "_")
    return label if re.match(r"[A-Za-z_]", label) else f"_{label}"


class _Spelling(NamedTuple):
    """How references are written."""

    addresses: Mapping[str, str]
    """By key."""

    def __call__(self, value: Json) -> Json:
        """Return a value with references as expressions, and tags with those that all have."""
        if isinstance(value, Ref):
            known = self.addresses.get(value.key)
            return Raw(f"{known}.{value.attribute}") if known else value.value
        if isinstance(value, Tags):
            return hcl.call("merge", Raw(TAGS), dict(value.own))
        if isinstance(value, Nested):
            return Nested({name: self(each) for name, each in value.items()})
        if isinstance(value, dict):
            return {name: self(each) for name, each in value.items()}
        return [self(each) for each in value] if isinstance(value, list) else value


def _text(block: Block, name: str, spelling: _Spelling) -> str:
    name = f"{name}{_name(f'/{block.suffix}')}" if block.suffix else name
    address = Raw(f"{block.type}.{name}")
    body = {argument: spelling(value) for argument, value in block.body.items()}
    return "\n\n".join(
        [
            hcl.block("import", {"to": address, "id": block.id}),
            hcl.block(f'resource "{block.type}" "{name}"', body),
        ]
    )


def _providers(manifest: Manifest, used: Mapping[str, object]) -> str:
    """Return the providers, and the tags that all resources have."""
    wanted = {name: dict(about) for name, about in PROVIDERS.items() if name in used}
    blocks = [
        hcl.block(
            "terraform",
            {"required_version": ">= 1.5", "required_providers": Nested(wanted)},
        )
    ]
    region = {"region": manifest.region}
    blocks += [hcl.block(f'provider "{name}"', region) for name in wanted if name != "helm"]
    if "helm" in wanted:
        blocks += list(_helm(manifest))
    kept = {TAGS.partition(".")[2]: common_tags(manifest)}
    return "\n\n".join([*blocks, hcl.block("locals", kept)]) + "\n"


def _helm(manifest: Manifest) -> Iterator[str]:
    """Yield how helm reaches the cluster."""
    cluster = manifest.records["eks/cluster"].id
    yield hcl.block('data "aws_eks_cluster" "helm"', {"name": cluster})
    token = ["eks", "get-token", "--region", manifest.region, "--cluster-name", cluster]
    data = "data.aws_eks_cluster.helm"
    authority = Raw(f"base64decode({data}.certificate_authority[0].data)")
    access = {
        "host": Raw(f"{data}.endpoint"),
        "cluster_ca_certificate": authority,
        "exec": {
            "api_version": "client.authentication.k8s.io/v1beta1",
            "command": "aws",
            "args": token,
        },
    }
    yield hcl.block('provider "helm"', {"kubernetes": access})
