"""Amazon FSx as far as Lustre goes: file systems with a life, links to S3, final backups.

OpenZFS file systems are there at once, and are described only.

The rules are those of the API reference (CreateFileSystem, CreateFileSystemLustreConfiguration,
UpdateFileSystem, DeleteFileSystem, CreateDataRepositoryAssociation), as botocore's model has them.
moto's file systems are there at once, in no subnet, and are created once more at each call.

Order failures with ``sim.failures``: ``{"file-system/NAME": "the message"}`` ends a creation in
FAILED, where NAME is the tag Name, or ``*``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import moto.fsx.urls
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import ec2_backends
from moto.fsx.models import FSxBackend, fsx_backends

from hyperpod_eks.local.aws import plugin, wire
from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.wire import Refused, page

Document = dict[str, Any]

_PORT = 988
_SERVERS = 2400
"""GiB behind one interface; a file system has more than one (FileSystem NetworkInterfaceIds)."""
_THROUGHPUT = {
    ("PERSISTENT_1", "SSD"): (50, 100, 200),
    ("PERSISTENT_1", "HDD"): (12, 40),
    ("PERSISTENT_2", "SSD"): (125, 250, 500, 1000),
}
_EFA_STEP = {125: 38400, 250: 19200, 500: 9600, 1000: 4800}
"""GiB by throughput (FSx for Lustre User Guide, "Working with EFA-enabled file systems")."""
_HDD_STEP = {12: 6000, 40: 1800}
_NETWORK = (
    "The file system cannot be created because the default security group in the subnet provided"
    " or the provided security groups do not permit Lustre LNET network traffic on port 988"
)


def _bad(text: str) -> Refused:
    return Refused("BadRequest", text)


class Backend(FSxBackend):
    """The file systems, backups and links of a region."""

    _url_module = plugin.url_module("fsx")

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.systems: dict[str, Document] = {}
        """Descriptions by id."""
        self.backups_made: dict[str, Document] = {}
        self.links: dict[str, Document] = {}
        self._tokens: dict[str, tuple[str, str]] = {}  # what was created, and its parameters
        self._asked: dict[str, float] = {}  # until when a security group's rules are unknown

    # -- file systems ----------------------------------------------------------------------------

    def create(self, request: Document) -> Document:
        """Begin a creation; the same token with the same parameters answers the same one."""
        if request["FileSystemType"] == "OPENZFS":
            return self._openzfs(request)
        if request["FileSystemType"] != "LUSTRE":
            raise NotImplementedError(f"file systems of type {request['FileSystemType']}")
        token = request.pop("ClientRequestToken", "")
        asked = json.dumps(request, sort_keys=True, default=str)
        known, parameters = self._tokens.get(token, ("", ""))
        if token and known in self.systems:
            if parameters != asked:
                raise Refused(
                    "IncompatibleParameterError",
                    "The specified client request token was used with other parameters.",
                )
            return self.systems[known]
        _check_lustre(request)
        subnet = self._network(request)
        system = self._described(request, subnet)
        id_ = system["FileSystemId"]
        self.systems[id_] = system
        if token:
            self._tokens[token] = (id_, asked)
        tags = {tag["Key"]: tag.get("Value") for tag in request.get("Tags") or ()}
        why = current().failure("file-system", tags.get("Name") or id_)
        current().clock.after(current().delays.fsx_create, partial(self._created, id_, why))
        return system

    def _openzfs(self, request: Document) -> Document:
        """Return what FSx says of an OpenZFS file system (FSx API, FileSystem), in one subnet."""
        ec2: Any = ec2_backends[ACCOUNT][self.region_name]
        if "OpenZFSConfiguration" not in request:
            raise _bad("OpenZFSConfiguration is required for this file system type.")
        subnet = ec2.get_subnet(request["SubnetIds"][0])
        id_ = f"fs-{current().ids.getrandbits(68):017x}"
        self.systems[id_] = {
            "OwnerId": ACCOUNT,
            "CreationTime": current().clock.now(),
            "FileSystemId": id_,
            "FileSystemType": "OPENZFS",
            "Lifecycle": "AVAILABLE",
            "StorageCapacity": request["StorageCapacity"],
            "StorageType": request.get("StorageType") or "SSD",
            "VpcId": subnet.vpc_id,
            "SubnetIds": request["SubnetIds"],
            "NetworkInterfaceIds": [],
            "DNSName": f"{id_}.fsx.{self.region_name}.amazonaws.com",
            "ResourceARN": f"arn:aws:fsx:{self.region_name}:{ACCOUNT}:file-system/{id_}",
            "Tags": list(request.get("Tags") or ()),
            "OpenZFSConfiguration": dict(request["OpenZFSConfiguration"]),
        }
        return self.systems[id_]

    def _created(self, id_: str, why: str) -> None:
        if (system := self.systems.get(id_)) and system["Lifecycle"] == "CREATING":
            system["Lifecycle"] = "FAILED" if why else "AVAILABLE"
            if why:
                system["FailureDetails"] = {"Message": why}

    def _network(self, request: Document) -> Any:
        """Return the subnet; refuse what EC2 does not know and groups without Lustre's port."""
        ec2: Any = ec2_backends[ACCOUNT][self.region_name]
        subnet_id, groups = request["SubnetIds"][0], request.get("SecurityGroupIds") or []
        found = {s.id: s for zone in ec2.subnets.values() for s in zone.values()}
        if subnet_id not in found:
            raise Refused("InvalidNetworkSettings", f"The subnet ID '{subnet_id}' does not exist")
        subnet = found[subnet_id]
        theirs = ec2.groups[subnet.vpc_id]
        if wrong := [group for group in groups if group not in theirs]:
            text = f"The security group '{wrong[0]}' does not exist in the subnet's VPC"
            raise Refused("InvalidNetworkSettings", text)
        chosen = groups or [g.id for g in theirs.values() if g.is_default]
        if not any(_admits(theirs[group]) for group in chosen) or self._unknown(chosen):
            raise Refused("InvalidNetworkSettings", _NETWORK)
        request["SecurityGroupIds"] = chosen
        return subnet

    def _unknown(self, groups: list[str]) -> bool:
        """Whether FSx does not see the rules of a group yet that it is asked about first."""
        sim, key = current(), ",".join(groups)
        if key not in self._asked:
            late = sim.delays.fsx_rules * sim.draw("fsx rules")
            self._asked[key] = sim.clock.elapsed() + late
        return sim.clock.elapsed() < self._asked[key]

    def _described(self, request: Document, subnet: Any) -> Document:
        sim, region = current(), self.region_name
        id_ = f"fs-{sim.ids.getrandbits(68):017x}"
        given = request.get("LustreConfiguration") or {}
        kind = given.get("DeploymentType", "SCRATCH_1")
        version = "2.15" if given.get("MetadataConfiguration") else "2.12"
        version = "2.10" if kind in ("SCRATCH_1", "SCRATCH_2", "PERSISTENT_1") else version
        mount = "fsx" if kind == "SCRATCH_1" else f"{sim.ids.getrandbits(40):08x}"[:8]
        lustre: Document = {
            "DataCompressionType": "NONE",
            "WeeklyMaintenanceStartTime": "1:05:00",
            "EfaEnabled": False,
            **given,
            "DeploymentType": kind,
            "MountName": mount,
        }
        if _has_backups(kind):
            backups = {"AutomaticBackupRetentionDays": 0, "CopyTagsToBackups": False}
            lustre = {**backups, **lustre}
        if metadata := given.get("MetadataConfiguration"):
            lustre["MetadataConfiguration"] = {"Iops": 1500, **metadata}
        ec2: Any = ec2_backends[ACCOUNT][region]
        count = 1 + (request.get("StorageCapacity") or 0) // _SERVERS
        interfaces = [
            ec2.add_service_eni(
                subnet.id,
                request["SecurityGroupIds"],
                f"Created by Amazon FSx for file system {id_}",
                "amazon-fsx",
            ).id
            for _ in range(min(count, 50))
        ]
        key = f"arn:aws:kms:{region}:{ACCOUNT}:key/aws-fsx"
        found = {
            "OwnerId": ACCOUNT,
            "CreationTime": sim.clock.now(),
            "FileSystemId": id_,
            "FileSystemType": "LUSTRE",
            "Lifecycle": "CREATING",
            "StorageCapacity": request.get("StorageCapacity"),
            "StorageType": request.get("StorageType") or "SSD",
            "VpcId": subnet.vpc_id,
            "SubnetIds": request["SubnetIds"],
            "NetworkInterfaceIds": interfaces,
            "DNSName": f"{id_}.fsx.{region}.amazonaws.com",
            "KmsKeyId": request.get("KmsKeyId") or key,
            "ResourceARN": f"arn:aws:fsx:{region}:{ACCOUNT}:file-system/{id_}",
            "Tags": list(request.get("Tags") or ()),
            "LustreConfiguration": lustre,
            "FileSystemTypeVersion": request.get("FileSystemTypeVersion") or version,
        }
        return {name: value for name, value in found.items() if value is not None}

    def find(self, id_: str) -> Document:
        """Return a file system; refuse an id that there is not."""
        if id_ not in self.systems:
            raise Refused("FileSystemNotFound", f"File system '{id_}' does not exist.")
        return self.systems[id_]

    def update(self, request: Document) -> Document:
        """Begin an update: UPDATING until it is done; the description shows the new values then."""
        system = self.find(request["FileSystemId"])
        if system["Lifecycle"] != "AVAILABLE":
            state = system["Lifecycle"]
            raise _bad(f"Cannot update a file system that is {state}: an update is in progress")
        given = request.get("LustreConfiguration") or {}
        changes = {
            name: request[name] for name in ("StorageCapacity", "FileSystemTypeVersion")
            if request.get(name) is not None
        }  # fmt: skip
        _check_update(system, changes, given)
        system["Lifecycle"] = "UPDATING"
        delay = current().delays.fsx_update
        current().clock.after(delay, partial(self._updated, system, changes, given))
        return system

    @staticmethod
    def _updated(system: Document, changes: Document, lustre: Document) -> None:
        system.update(changes)
        metadata = lustre.pop("MetadataConfiguration", None)
        system["LustreConfiguration"].update(lustre)
        if metadata:
            found = system["LustreConfiguration"].setdefault("MetadataConfiguration", {})
            found.update(metadata)
        if system["Lifecycle"] == "UPDATING":
            system["Lifecycle"] = "AVAILABLE"

    def delete(self, request: Document) -> Document:
        """Begin a deletion, with a final backup where one is asked for: without it data is gone."""
        system = self.find(request["FileSystemId"])
        id_, lustre = system["FileSystemId"], request.get("LustreConfiguration") or {}
        answer: Document = {"FileSystemId": id_, "Lifecycle": "DELETING"}
        if system["Lifecycle"] == "DELETING":
            return answer
        if lustre.get("SkipFinalBackup") is False:
            self._refuse_backup(system)
            backup = self._back_up(system, lustre.get("FinalBackupTags") or [])
            answer["LustreResponse"] = {
                "FinalBackupId": backup["BackupId"],
                "FinalBackupTags": backup["Tags"],
            }
        system["Lifecycle"] = "DELETING"
        current().clock.after(current().delays.fsx_delete, partial(self._deleted, id_))
        return answer

    def _refuse_backup(self, system: Document) -> None:
        """Scratch file systems have none, nor those that are linked (User Guide, "Backups")."""
        kind = system["LustreConfiguration"]["DeploymentType"]
        if not _has_backups(kind):
            raise _bad(f"Backups are not supported for deployment type {kind}")
        if any(one["FileSystemId"] == system["FileSystemId"] for one in self.links.values()):
            raise _bad("Backups are not supported on file systems linked to a data repository")
        if system["Lifecycle"] in ("CREATING", "FAILED"):
            raise _bad(f"Cannot take a backup of a file system that is {system['Lifecycle']}")

    def _back_up(self, system: Document, tags: list[Document]) -> Document:
        sim = current()
        id_ = f"backup-{sim.ids.getrandbits(68):017x}"
        copies = system["LustreConfiguration"].get("CopyTagsToBackups")
        backup = {
            "BackupId": id_,
            "Lifecycle": "CREATING",
            "Type": "USER_INITIATED",
            "CreationTime": sim.clock.now(),
            "KmsKeyId": system["KmsKeyId"],
            "ResourceARN": f"arn:aws:fsx:{self.region_name}:{ACCOUNT}:backup/{id_}",
            "Tags": tags or (list(system["Tags"]) if copies else []),
            "FileSystem": {**system, "LustreConfiguration": {**system["LustreConfiguration"]}},
            "OwnerId": ACCOUNT,
            "ResourceType": "FILE_SYSTEM",
        }
        self.backups_made[id_] = backup
        sim.clock.after(sim.delays.fsx_delete, partial(backup.update, {"Lifecycle": "AVAILABLE"}))
        return backup

    def _deleted(self, id_: str) -> None:
        ec2: Any = ec2_backends[ACCOUNT][self.region_name]
        for interface in self.systems.pop(id_)["NetworkInterfaceIds"]:
            ec2._drop_eni(interface)
        for link in [key for key, one in self.links.items() if one["FileSystemId"] == id_]:
            del self.links[link]

    # -- links to S3 -----------------------------------------------------------------------------

    def link(self, request: Document) -> Document:
        """Link a folder of a file system with a prefix of a bucket."""
        token = request.pop("ClientRequestToken", "")
        asked = json.dumps(request, sort_keys=True, default=str)
        known, parameters = self._tokens.get(token, ("", ""))
        if token and known in self.links:
            if parameters != asked:
                raise Refused("IncompatibleParameterError", "Other parameters for this token.")
            return self.links[known]
        system = self.find(request["FileSystemId"])
        _check_link(system, request, [
            one for one in self.links.values() if one["FileSystemId"] == request["FileSystemId"]
        ])  # fmt: skip
        sim = current()
        id_ = f"dra-{sim.ids.getrandbits(68):017x}"
        arn = f"arn:aws:fsx:{self.region_name}:{ACCOUNT}:association/"
        found: Document = {
            "AssociationId": id_,
            "ResourceARN": f"{arn}{request['FileSystemId']}/{id_}",
            "Lifecycle": "CREATING",
            "BatchImportMetaDataOnCreate": False,
            "CreationTime": sim.clock.now(),
            "Tags": [],
            **request,
        }
        self.links[id_] = found
        if token:
            self._tokens[token] = (id_, asked)
        sim.clock.after(sim.delays.fsx_update, partial(found.update, {"Lifecycle": "AVAILABLE"}))
        return found

    def find_link(self, id_: str) -> Document:
        """Return a link; refuse an id that there is not."""
        if id_ not in self.links:
            text = f"Data repository association '{id_}' does not exist."
            raise Refused("DataRepositoryAssociationNotFound", text)
        return self.links[id_]

    def unlink(self, request: Document) -> Document:
        """Begin to delete a link; the files stay unless asked otherwise."""
        link, sim = self.find_link(request["AssociationId"]), current()
        link["Lifecycle"] = "DELETING"
        sim.clock.after(sim.delays.fsx_update, partial(self.links.pop, link["AssociationId"], None))
        deletes = request.get("DeleteDataInFileSystem") or False
        return {
            "AssociationId": link["AssociationId"],
            "Lifecycle": "DELETING",
            "DeleteDataInFileSystem": deletes,
        }

    # -- tags ------------------------------------------------------------------------------------

    def tagged(self, arn: str) -> Document:
        """Return what has an ARN; its ``Tags`` are a list to be changed."""
        every = (*self.systems.values(), *self.backups_made.values(), *self.links.values())
        for one in every:
            if one["ResourceARN"] == arn:
                return one
        raise Refused("ResourceNotFound", f"The resource '{arn}' does not exist.")


def _admits(group: Any) -> bool:
    """Whether a security group lets its own members reach Lustre's port."""
    return any(
        (rule.ip_protocol in ("-1", -1) or _spans(rule))
        and (rule.cidr_ipv4 or (rule.source_group or {}).get("GroupId") == group.id)
        for rule in group.ingress_rules
    )


def _spans(rule: Any) -> bool:
    first, last = rule.from_port, rule.to_port
    return rule.ip_protocol == "tcp" and int(first) <= _PORT <= int(last)


def _has_backups(kind: str) -> bool:
    return kind.startswith("PERSISTENT")


def _check_lustre(request: Document) -> None:
    """Refuse what the API reference does not allow, one reason at a time."""
    given = request.get("LustreConfiguration") or {}
    kind, storage = given.get("DeploymentType", "SCRATCH_1"), request.get("StorageType") or "SSD"
    if len(request["SubnetIds"]) != 1:
        raise Refused("InvalidNetworkSettings", "Lustre file systems take exactly one subnet")
    for problem in chain(_storage(request, given, kind, storage), _versions(request, given, kind)):
        raise _bad(problem)


def _storage(request: Document, given: Document, kind: str, storage: str) -> Iterator[str]:
    capacity, speed = request.get("StorageCapacity"), given.get("PerUnitStorageThroughput")
    if storage == "INTELLIGENT_TIERING":
        if kind != "PERSISTENT_2" or capacity or speed:
            yield "INTELLIGENT_TIERING takes PERSISTENT_2, and neither capacity nor throughput"
        if not given.get("DataReadCacheConfiguration") or not given.get("ThroughputCapacity"):
            yield "ThroughputCapacity and DataReadCacheConfiguration are required"
        return
    if storage == "HDD" and kind != "PERSISTENT_1":
        yield f"StorageType HDD is not supported for {kind}"
    if (storage == "HDD") != ("DriveCacheType" in given):
        yield "DriveCacheType is required with StorageType HDD, and allowed with it alone"
    offered = _THROUGHPUT.get((kind, storage), ())
    if (offered and speed not in offered) or (speed and not offered):
        raise Refused(
            "InvalidPerUnitStorageThroughput",
            f"PerUnitStorageThroughput {speed} is invalid for {kind} {storage}: {offered}",
        )
    step = _step(given, kind, storage)
    if not capacity or not (
        capacity % step == 0 or (step in (2400, 3600) and capacity in (1200, 2400))
    ):
        yield f"StorageCapacity {capacity} is invalid for {kind} {storage}"


def _step(given: Document, kind: str, storage: str) -> int:
    speed = given.get("PerUnitStorageThroughput")
    if given.get("EfaEnabled"):
        return _EFA_STEP[speed or 0]
    if storage == "HDD":
        return _HDD_STEP[speed or 0]
    return 3600 if kind == "SCRATCH_1" else 2400


def _versions(request: Document, given: Document, kind: str) -> Iterator[str]:
    version, metadata = request.get("FileSystemTypeVersion"), given.get("MetadataConfiguration")
    if metadata and kind != "PERSISTENT_2":
        yield "MetadataConfiguration takes PERSISTENT_2"
    if metadata and (metadata["Mode"] == "AUTOMATIC") == ("Iops" in metadata):
        yield "Iops goes with mode USER_PROVISIONED"
    if version == "2.10" and kind == "PERSISTENT_2":
        yield "FileSystemTypeVersion 2.10 is not supported for PERSISTENT_2"
    if version == "2.12" and metadata:
        yield "FileSystemTypeVersion 2.12 is not supported with a metadata configuration"
    if given.get("EfaEnabled") and (kind != "PERSISTENT_2" or not metadata):
        yield "EfaEnabled takes PERSISTENT_2 with a metadata configuration"
    if not _has_backups(kind):
        for name in ("AutomaticBackupRetentionDays", "CopyTagsToBackups"):
            if given.get(name):
                yield f"{name} is not supported for {kind}"
        if request.get("KmsKeyId"):
            yield f"KmsKeyId is not supported for {kind}"


def _check_update(system: Document, changes: Document, given: Document) -> None:
    lustre = system["LustreConfiguration"]
    kind, storage = lustre["DeploymentType"], system["StorageType"]
    if (capacity := changes.get("StorageCapacity")) is not None:
        step = _step({**lustre, **given}, kind, storage)
        if kind == "SCRATCH_1" or capacity <= system["StorageCapacity"] or capacity % step:
            raise _bad(f"StorageCapacity cannot be changed to {capacity}")
    version = changes.get("FileSystemTypeVersion")
    if version is not None and float(version) <= float(system["FileSystemTypeVersion"]):
        raise _bad("The version must be newer than the file system's")
    speed = given.get("PerUnitStorageThroughput")
    if speed and speed not in _THROUGHPUT.get((kind, storage), ()):
        raise _bad(f"PerUnitStorageThroughput cannot be changed to {speed}")
    metadata = given.get("MetadataConfiguration")
    if metadata and "MetadataConfiguration" not in lustre:
        raise _bad("The file system has no metadata configuration")
    if metadata and metadata.get("Iops", 10**9) < lustre["MetadataConfiguration"]["Iops"]:
        raise _bad("Metadata IOPS cannot be decreased")


def _check_link(system: Document, request: Document, others: list[Document]) -> None:
    lustre, state = system["LustreConfiguration"], system["Lifecycle"]
    if state != "AVAILABLE":
        raise _bad(f"The file system is {state}")
    if lustre["DeploymentType"] == "SCRATCH_1" or system["FileSystemTypeVersion"] == "2.10":
        raise Refused("UnsupportedOperation", "Links need Lustre 2.12 or newer, not SCRATCH_1")
    if lustre.get("AutomaticBackupRetentionDays"):
        raise _bad("A file system with automatic backups cannot be linked")
    if len(others) >= 8:
        raise Refused("ServiceLimitExceeded", "A file system has at most 8 links")
    path = request.get("FileSystemPath") or "/"
    for one in others:
        theirs = one.get("FileSystemPath") or "/"
        first, second = sorted((path.rstrip("/") + "/", theirs.rstrip("/") + "/"), key=len)
        if second.startswith(first) or one["DataRepositoryPath"] == request["DataRepositoryPath"]:
            raise _bad(f"{path} overlaps the link {one['AssociationId']}")


class Response(wire.Response):
    """FSx's answers."""

    invalid = "BadRequest"

    def __init__(self) -> None:
        super().__init__(service_name="fsx")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> Backend:
        """FSx of the request's region."""
        return of_region(self.region)

    def create_file_system(self) -> ActionResult:
        """Answer the file system."""
        return ActionResult({"FileSystem": self.backend.create(self.request())})

    def describe_file_systems(self) -> ActionResult:
        """Answer the file systems of the region, or those asked for."""
        request = self.request()
        ids = request.get("FileSystemIds") or list(self.backend.systems)
        rows, token = page([self.backend.find(id_) for id_ in ids], request)
        return ActionResult({"FileSystems": rows, "NextToken": token})

    def update_file_system(self) -> ActionResult:
        """Answer the file system."""
        return ActionResult({"FileSystem": self.backend.update(self.request())})

    def delete_file_system(self) -> ActionResult:
        """Answer the deletion, and the final backup."""
        return ActionResult(self.backend.delete(self.request()))

    def create_backup(self) -> ActionResult:
        """Answer a backup that the user asked for."""
        request = self.request()
        system = self.backend.find(request["FileSystemId"])
        self.backend._refuse_backup(system)
        return ActionResult({"Backup": self.backend._back_up(system, request.get("Tags") or [])})

    def describe_backups(self) -> ActionResult:
        """Answer backups, of which those of one file system can be asked for."""
        request = self.request()
        wanted = {each["Name"]: each["Values"] for each in request.get("Filters") or ()}
        ids = request.get("BackupIds")
        found = [
            backup
            for id_, backup in self.backend.backups_made.items()
            if (not ids or id_ in ids)
            and backup["FileSystem"]["FileSystemId"]
            in wanted.get("file-system-id", [backup["FileSystem"]["FileSystemId"]])
        ]
        rows, token = page(found, request)
        return ActionResult({"Backups": rows, "NextToken": token})

    def delete_backup(self) -> ActionResult:
        """Answer the deletion."""
        id_ = self.request()["BackupId"]
        if self.backend.backups_made.pop(id_, None) is None:
            raise Refused("BackupNotFound", f"Backup '{id_}' does not exist.")
        return ActionResult({"BackupId": id_, "Lifecycle": "DELETED"})

    def create_data_repository_association(self) -> ActionResult:
        """Answer the link."""
        return ActionResult({"Association": self.backend.link(self.request())})

    def describe_data_repository_associations(self) -> ActionResult:
        """Answer links, of which those of one file system can be asked for."""
        request = self.request()
        wanted = {each["Name"]: each["Values"] for each in request.get("Filters") or ()}
        ids = request.get("AssociationIds") or list(self.backend.links)
        found = [
            link
            for link in map(self.backend.find_link, ids)
            if link["FileSystemId"] in wanted.get("file-system-id", [link["FileSystemId"]])
        ]
        rows, token = page(found, request)
        return ActionResult({"Associations": rows, "NextToken": token})

    def update_data_repository_association(self) -> ActionResult:
        """Answer the link, with the policies of import and export that were sent."""
        request = self.request()
        link = self.backend.find_link(request["AssociationId"])
        link["S3"] = {**link.get("S3", {}), **(request.get("S3") or {})}
        return ActionResult({"Association": link})

    def delete_data_repository_association(self) -> ActionResult:
        """Answer the deletion."""
        return ActionResult(self.backend.unlink(self.request()))

    def list_tags_for_resource(self) -> ActionResult:
        """Answer a page of tags."""
        request = self.request()
        rows, token = page(self.backend.tagged(request["ResourceARN"])["Tags"], request)
        return ActionResult({"Tags": rows, "NextToken": token})

    def tag_resource(self) -> ActionResult:
        """Add tags, or give them other values."""
        request = self.request()
        one = self.backend.tagged(request["ResourceARN"])
        keys = {tag["Key"] for tag in request["Tags"]}
        one["Tags"] = [tag for tag in one["Tags"] if tag["Key"] not in keys] + request["Tags"]
        return EmptyResult()

    def untag_resource(self) -> ActionResult:
        """Take tags away."""
        request = self.request()
        one = self.backend.tagged(request["ResourceARN"])
        one["Tags"] = [tag for tag in one["Tags"] if tag["Key"] not in request["TagKeys"]]
        return EmptyResult()


def of_region(region: str) -> Backend:
    """Return FSx of a region."""
    found: Any = fsx_backends[ACCOUNT][region]
    assert isinstance(found, Backend)
    return found


def install() -> None:
    """Swap moto's classes for ours."""
    plugin.backend(fsx_backends, Backend)
    moto.fsx.urls.url_paths["{0}/$"] = Response.dispatch


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return every file system, backup and link, without times."""
    backend = of_region(region)

    def plain(one: Document) -> Document:
        return {
            key: value for key, value in one.items() if key not in ("CreationTime", "FileSystem")
        }

    return {
        "FileSystems": {id_: plain(one) for id_, one in backend.systems.items()},
        "Backups": {
            id_: {**plain(one), "Of": one["FileSystem"]["FileSystemId"]}
            for id_, one in backend.backups_made.items()
        },
        "Associations": {id_: plain(one) for id_, one in backend.links.items()},
    }
