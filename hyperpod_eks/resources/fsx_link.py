"""Links of folders of a file system with prefixes of S3 buckets (data repository associations)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, LABEL, owner, tag
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.file_systems import links
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    MINUTE,
    Differs,
    Facts,
    Identity,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.fsx import FileSystem
from hyperpod_eks.resources.permissions import (
    Conditions,
    Statement,
    Statements,
    actions,
    look,
    tagged,
)
from hyperpod_eks.resources.tagged import Tagged

STATES = {
    "AVAILABLE": State.READY,
    "CREATING": State.BUSY,
    "UPDATING": State.BUSY,
    "MISCONFIGURED": State.READY,
    "DELETING": State.LEAVING,
    "FAILED": State.FAILED,
}
"""By DataRepositoryAssociation Lifecycle."""
SERVICE = "s3.data-source.lustre.fsx.amazonaws.com"


@frozen
class Link(Resource):
    """A link: FSx imports and exports what the events of its policies name.

    It is kept as long as its file system is, and deleted before it: FSx makes no final backup of
    a linked one.  The files stay in both.
    """

    file_system: FileSystem
    path: str
    """Folder of the file system."""
    repository: str
    """``s3://BUCKET/PREFIX``."""
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    """Events: NEW, CHANGED, DELETED."""
    imports_at_once: bool
    """Whether the names of all objects are imported when the link is created."""

    kind = "fsx/Link"
    step = "storage"
    schema = 2
    tag_type = "association"
    identity = Identity.REFUSED_TWICE
    patience = 40 * MINUTE
    usual = "5 min"
    typical = 300.0
    facts = ("path", "repository", "imports", "exports")
    answers = ("path", "repository")
    absence: ClassVar[Facts] = {
        "imports": (),  # S3DataRepositoryConfiguration AutoImportPolicy
        "exports": (),  # AutoExportPolicy
    }
    immutable: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("path", "repository"), "FSx does not change it; remove the link, and declare another one"
    )

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on associations, and the service-linked role with which FSx reads the buckets.

        The caller must reach the buckets, too (FSx for Lustre User Guide, "Linking your file system
        to an S3 bucket").
        """
        buckets = sorted(
            {
                resolved.arn("s3", link.data_repository_path.removeprefix("s3://").split("/")[0])
                for each in resolved.config.storage.fsx_lustre.values()
                for link in each.s3
            }
        )
        if not buckets:
            return
        every = (resolved.arn("fsx", "association/*"), resolved.arn("fsx", "file-system/*"))
        born: Conditions = {"StringEquals": {f"aws:RequestTag/{CLUSTER}": resolved.name}}
        yield look("fsx", "DescribeDataRepositoryAssociations")
        yield Statement("LinksMake", actions("fsx", "CreateDataRepositoryAssociation"), every)
        yield Statement("FilesSign", actions("fsx", "TagResource"), every[:1], born)
        change = actions("fsx", "UpdateDataRepositoryAssociation")
        delete = actions("fsx", "DeleteDataRepositoryAssociation")
        yield Statement("LinksChange", change, every[:1], tagged(resolved))
        yield Statement("LinksDelete", delete, every[:1], tagged(resolved), "delete")
        role = (resolved.arn("iam", f"role/aws-service-role/{SERVICE}/*"),)
        linked = actions("iam", "AttachRolePolicy", "CreateServiceLinkedRole", "PutRolePolicy")
        yield Statement("LinksRole", linked, role)
        yield Statement("LinksBuckets", actions("s3", "ListBucket"), tuple(buckets))

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Link:
        """Declare it with the fields that a delete needs; its label begins with its file system."""
        name = found.label.partition(":")[0]
        files = FileSystem(name, subnet=None, security_group=None, settings={}, smallest={})
        return Link(found.label, files, "", "", (), (), imports_at_once=False)

    @property
    def part_of(self) -> Resource | None:
        """The file system."""
        return self.file_system

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags."""
        wanted = (snapshot.aws.cluster, self.label)
        return [
            self._live(each)
            for each in links(snapshot)
            if (tag(tags := each.get("Tags") or (), CLUSTER), tag(tags, LABEL)) == wanted
        ]

    def _live(self, found: JsonMapping) -> Live:
        why = (found.get("FailureDetails") or {}).get("Message") or ""
        state = found["Lifecycle"]
        policies = found.get("S3") or {}
        facts: JsonObject = {
            name: found[member]
            for name, member in (("path", "FileSystemPath"), ("repository", "DataRepositoryPath"))
            if found.get(member)
        }
        for name, member in (("imports", "AutoImportPolicy"), ("exports", "AutoExportPolicy")):
            if events := (policies.get(member) or {}).get("Events"):
                facts[name] = tuple(sorted(events))
        return Live(
            found["AssociationId"],
            found.get("ResourceARN", ""),
            owner=owner(found.get("Tags") or ()),
            state=STATES.get(state, State.BUSY),
            why=f"{why} ({state})" if why else state,
            warnings=(f"the link {found['AssociationId']} is MISCONFIGURED: {why}",)
            if state == "MISCONFIGURED"
            else (),
            facts=facts,
        )

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; idempotent by client token."""
        policies = self._policies(("imports", "exports"))
        return self._live(
            aws.fsx.create_data_repository_association(
                ClientRequestToken=token,
                FileSystemId=references(self.file_system).id,
                FileSystemPath=self.path,
                DataRepositoryPath=self.repository,
                BatchImportMetaDataOnCreate=self.imports_at_once,
                Tags=aws.pairs(self.label),
                **({"S3": policies} if policies else {}),
            )["Association"]
        )

    def _policies(self, names: Sequence[str]) -> JsonObject:
        """Return the policies that have events; FSx takes none without."""
        members = {"imports": "AutoImportPolicy", "exports": "AutoExportPolicy"}
        return {members[n]: {"Events": list(getattr(self, n))} for n in names if getattr(self, n)}

    def immutable_reason(self, name: str, differs: Differs) -> str:
        """Return why a field cannot be changed: FSx does not switch a policy off."""
        if name in ("imports", "exports") and not getattr(self, name):
            return "FSx does not switch it off; remove the link, and declare it again"
        return self.immutable.get(name, "")

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Restore its tags, or set the events that it imports and exports."""
        if live.owner is None:
            aws.fsx.tag_resource(ResourceARN=live.arn, Tags=aws.pairs(self.label))
        if policies := self._policies([name for name in differs if name != "owner"]):
            aws.fsx.update_data_repository_association(AssociationId=live.id, S3=policies)

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it; the files stay in the file system and in the bucket."""
        aws.fsx.delete_data_repository_association(
            AssociationId=live.id, DeleteDataInFileSystem=False
        )
