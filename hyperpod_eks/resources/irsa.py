"""IAM roles for service accounts (IRSA): the OIDC provider of an EKS cluster, and its roles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, LABEL, owner, tag
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.pod_roles import pod_roles
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    Differs,
    Fact,
    Facts,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.eks import Cluster, describe, issuer
from hyperpod_eks.resources.iam import Role
from hyperpod_eks.resources.permissions import (
    Statement,
    Statements,
    actions,
    look,
)
from hyperpod_eks.resources.tagged import Candidate, Tagged, tags_of
from hyperpod_eks.resources.trust import AUDIENCE, web_trust, web_trusted_by, web_words
from hyperpod_eks.workers import gather

CREATE = actions(
    "iam",
    "AddClientIDToOpenIDConnectProvider",
    "CreateOpenIDConnectProvider",
    "GetOpenIDConnectProvider",
    "ListOpenIDConnectProviderTags",
    "TagOpenIDConnectProvider",
)
ISSUERS = ("oidc.eks.{}.", "oidc-eks.{}.")
"""What the hosts of EKS's issuers in a region begin with; the second one is of dual-stack
(github.com/rancher/eks-operator, pull request 2284: no DescribeCluster is known to name it yet)."""


def provider_arn(cluster: JsonMapping) -> str:
    """Return the ARN of the provider of a described EKS cluster; "" while EKS names no issuer.

    >>> about = {"arn": "arn:aws:eks:us-west-2:123456789012:cluster/demo"}
    >>> provider_arn({**about, "identity": {"oidc": {"issuer": "https://oidc.eks.us-west-2.x/id/A"}}})
    'arn:aws:iam::123456789012:oidc-provider/oidc.eks.us-west-2.x/id/A'
    """
    _, partition, _, _, account, _ = cluster["arn"].split(":", 5)
    name = issuer(cluster).removeprefix("https://")
    return f"arn:{partition}:iam::{account}:oidc-provider/{name}" if name else ""


@frozen
class OidcProvider(Resource):
    """What lets IAM believe the tokens of an EKS cluster's service accounts; one per issuer.

    Its thumbprint is IAM's own business (IAM API reference, CreateOpenIDConnectProvider).  EKS does
    not delete it with the cluster, and the issuer of a new cluster is another one.
    """

    cluster: Cluster | None = None
    arn: str = ""
    """Of one that only its tags show."""
    audience: str = AUDIENCE

    kind = "iam/OidcProvider"
    step = "iam"
    schema = 2
    elective = "iam:oidc-provider"
    tag_type = "oidc-provider"
    deleted_at_once = True
    facts = ("audience",)
    attached = facts
    absence: ClassVar[Facts] = {"audience": ""}  # ClientIDList: all audiences

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the providers of the region's EKS clusters, if a role needs one."""
        if not any(one.web for one in pod_roles(resolved)):
            return
        hosts = [each.format(resolved.region) for each in ISSUERS]
        own = tuple(resolved.arn("iam", f"oidc-provider/{host}*") for host in hosts)
        yield look("iam", "ListOpenIDConnectProviders")
        yield Statement("OidcMake", CREATE, own)
        yield Statement("OidcDelete", ("iam:DeleteOpenIDConnectProvider",), own, command="delete")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> OidcProvider:
        """Declare it with the fields that a delete needs."""
        return OidcProvider(found.label, arn=found.id)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """Providers of EKS clusters of the region, unless the cluster's manifest would know it."""
        for arn in () if cluster and aws.recorded else _listed(aws):
            yield "oidc-provider", arn, partial(_tags, aws, arn)

    @property
    def takes_along(self) -> str:
        """What others may have built on it: an issuer has one, which all roles share."""
        return "although roles of others may trust it: pods that use them then get no credentials"

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by the issuer of its cluster, else by our tags."""
        arns = [self.arn]
        if self.cluster:
            arns = [provider_arn(each) for each in describe(snapshot, self.cluster.name)]
        found = [live for arn in arns if arn for live in self._described(snapshot, arn)]
        return found or (self._listed_only(snapshot, arns) if self.cluster else [])

    def _described(self, snapshot: Snapshot, arn: str) -> Iterator[Live]:
        with absent("NoSuchEntity"):
            found = snapshot.aws.iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
            there = self.audience if self.audience in found.get("ClientIDList", ()) else ""
            signed = owner(found.get("Tags", ()))
            yield Live(arn, arn, owner=signed, facts={"audience": there})

    def _listed_only(self, snapshot: Snapshot, arns: Sequence[str]) -> list[Live]:
        """Return ours that is not described as the one of the cluster, whose ARN is in ``arns``.

        Nothing needs that of an EKS cluster that somebody has deleted.  But IAM may list one that
        it does not describe yet (IAM User Guide, "Changes that I make are not always immediately
        visible"), and a cluster without an issuer may get one.
        """
        aws = snapshot.aws
        listed = snapshot.once("oidc-providers", lambda: _listed(aws))
        tags = gather(*(partial(_tags, aws, arn) for arn in listed))
        return [
            Live(arn, arn, owner=aws.lineage, state=State.BUSY, why="IAM does not describe it yet")
            if arn in arns or "" in arns
            else Live(
                arn,
                arn,
                owner=aws.lineage,
                state=State.FAILED,
                why="its EKS cluster is gone",
                holds_nothing=True,
            )
            for arn, each in zip(listed, tags, strict=True)
            if owner(each) == aws.lineage
            and (tag(each, CLUSTER), tag(each, LABEL)) == (aws.cluster, self.label)
        ]

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; IAM refuses a second one of an issuer."""
        url = self.cluster and references(self.cluster).attributes["issuer"]
        if not url:
            raise HyperpodError(
                f"{self.key}: EKS does not name the OIDC issuer of the cluster",
                "Run the same command again later.",
            )
        made = aws.iam.create_open_id_connect_provider(
            Url=url, ClientIDList=[self.audience], Tags=aws.pairs(self.label)
        )
        arn, facts = made["OpenIDConnectProviderArn"], {"audience": self.audience}
        return Live(arn, arn, owner=aws.lineage, facts=facts)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Restore the audience or our tags; audiences of others stay."""
        of = live.arn
        if live.owner is None:
            aws.iam.tag_open_id_connect_provider(
                OpenIDConnectProviderArn=of, Tags=aws.pairs(self.label)
            )
        if "audience" in differs:
            aws.iam.add_client_id_to_open_id_connect_provider(
                OpenIDConnectProviderArn=of, ClientID=self.audience
            )

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it."""
        aws.iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=live.arn)


def _listed(aws: Aws) -> list[str]:
    """Return the ARNs of the providers of EKS clusters of the region."""
    found = aws.iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    hosts = tuple(each.format(aws.identity.region) for each in ISSUERS)
    arns = [each["Arn"] for each in found]
    return [arn for arn in arns if arn.partition(":oidc-provider/")[2].startswith(hosts)]


def _tags(aws: Aws, arn: str) -> list[JsonObject]:
    ask = aws.iam.list_open_id_connect_provider_tags
    return [*tags_of(ask, "Tags", OpenIDConnectProviderArn=arn)]


@frozen
class ServiceAccountRole(Role):
    """A role for the pods of a service account, which present a token of their cluster.

    ``trusts`` is the account as the token has it, ``system:serviceaccount:NAMESPACE:NAME``, or a
    pattern of several.
    """

    provider: OidcProvider = field(kw_only=True)
    services: tuple[str, ...] = field(default=(), kw_only=True)
    """The services that may assume it too."""

    kind = "iam/ServiceAccountRole"
    schema = 2
    tag_type = ""

    @property
    def reason(self) -> str:
        """The service account whose pods use it."""
        *_, namespace, name = self.trusts.split(":")
        return f"for the pods of the service account {namespace}/{name}"

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """None beyond those of `Role`."""
        return ()

    def create_requires(self) -> Iterator[Resource]:
        """The provider, which the trust policy names."""
        yield self.provider

    def _trusted_by(self, document: object) -> str | None:
        return web_trusted_by(document)

    def _trust(self, references: References) -> JsonObject:
        return web_trust(self.trusts, references(self.provider).arn, self.services)

    def expected(self, name: str, references: References) -> Fact:
        """The account, the provider and the services; other facts as of every role."""
        if name == "trusts":
            return web_words(self.trusts, references(self.provider).arn, self.services)
        return super().expected(name, references)
