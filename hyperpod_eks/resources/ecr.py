"""Amazon ECR repositories of mirrored images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.names import image_prefix
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Differs, Live, References, Resource
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import Statement, Statements, actions, forgotten, tagged
from hyperpod_eks.resources.tagged import Candidate, Tagged


@frozen
class Repository(Resource):
    """A repository with copies of one image of another registry; its label is that image's name.

    ``mirror`` creates it, and no config declares it, so that ``delete`` and ``orphans`` find it by
    its tags.  Its tags of images are immutable: a copy stays what it was copied from.
    """

    name: str

    kind = "images/Repository"
    step = "images"
    schema: ClassVar[int] = 2
    elective = "ecr"
    tag_type = "repository"
    deleted_at_once = True

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Deletion of the repositories of this cluster, where its network has no way out."""
        if resolved.config.network.nat == "none":
            own = (resolved.arn("ecr", f"repository/{image_prefix(resolved.name)}/*"),)
            yield forgotten("ecr", "DescribeRepositories", "ListTagsForResource")
            delete = actions("ecr", "DeleteRepository")
            yield Statement("ImagesDelete", delete, own, tagged(resolved), "delete")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Repository:
        """Declare it by its name."""
        return Repository(found.label, name=found.id)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """Repositories with names like ours."""
        prefix = re.escape(image_prefix(cluster)) if cluster else "[^/]+"
        for page in aws.ecr.get_paginator("describe_repositories").paginate():
            for each in page["repositories"]:
                # the second part is the host of a registry
                if re.match(rf"{prefix}/[^/]+\.[^/]+/", each["repositoryName"]):
                    yield "repository", each["repositoryName"], partial(_tags, aws, each)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name."""
        ecr = snapshot.aws.ecr
        with absent("RepositoryNotFoundException", "AccessDenied.*"):
            (found,) = ecr.describe_repositories(repositoryNames=[self.name])["repositories"]
            return [self._live(found, owner(_tags(snapshot.aws, found)))]
        return []

    def _live(self, found: JsonMapping, who: str | None) -> Live:
        about = {"uri": found["repositoryUri"]}
        return Live(self.name, found["repositoryArn"], who, attributes=about)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; its name is unique in the registry."""
        made = aws.ecr.create_repository(
            repositoryName=self.name,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": False},
            tags=aws.pairs(self.label),
        )["repository"]
        return self._live(made, aws.lineage)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Restore its tags."""
        aws.ecr.tag_resource(resourceArn=live.arn, tags=aws.pairs(self.label))

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it with its images, which are copies."""
        aws.ecr.delete_repository(repositoryName=self.name, force=True)


def _tags(aws: Aws, found: JsonMapping) -> Sequence[Mapping[str, str]]:
    with absent("RepositoryNotFoundException", "AccessDenied.*"):
        arn = found["repositoryArn"]
        tags: Sequence[Mapping[str, str]] = aws.ecr.list_tags_for_resource(resourceArn=arn)["tags"]
        return tags
    return ()
