"""Whether config, manifest and account fit together: what a session checks before it begins."""

from __future__ import annotations

from dataclasses import replace

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.tags import CLUSTER, tag
from hyperpod_eks.config import variables
from hyperpod_eks.config.model import Config
from hyperpod_eks.errors import Usage
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.resolve.pod_roles import addon_roles, creates_roles
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import PodIdentity
from hyperpod_eks.resources.iam import Role
from hyperpod_eks.resources.s3 import OWN
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.steps.s3 import scripts_prefix
from hyperpod_eks.terminal.text import clean


def check_references(config: Config) -> None:
    """Raise Usage for a reference to an environment variable that is not set."""
    variables.resolved(config.chart.values, "chart.values")
    for name, each in config.charts.items():
        variables.resolved(each.values, f"charts.{name}.values")
    for name, addon in config.addons.items():
        variables.resolved(addon.configuration_values, f"addons.{name}.configuration_values")
    for index, document in enumerate(config.objects):
        variables.resolved(document, f"objects[{index}]")


def as_recorded(manifest: Manifest, resolved: ResolvedConfig) -> ResolvedConfig:
    """Keep the way in which the associations of each add-on were created.

    EKS refuses a second association of a service account, and what it says is about the version
    that a new add-on would get.
    """
    addons = dict(resolved.addons)
    for name, answer in resolved.addons.items():
        separate, inline = _recorded_roles(manifest, name)
        if separate or inline:
            addons[name] = replace(answer, standalone=bool(separate))
    return replace(resolved, addons=addons)


def _recorded_roles(manifest: Manifest, addon: str) -> tuple[set[str], set[str]]:
    """Return the recorded roles of an add-on: of separate associations, and of its own ones."""
    records = {key: one for key, one in manifest.records.items() if one.state != "deleted"}
    separate = {
        str(record.want.get("role"))
        for key, record in records.items()
        if record.kind == PodIdentity.kind and key == f"addons/{addon}-{record.want.get('account')}"
    }
    own = records.get(f"addons/{addon}")
    pairs = (own.want.get("roles") or ()) if own else ()
    return separate, {str(role) for _, role in pairs}


def require_known_roles(manifest: Manifest, resolved: ResolvedConfig) -> None:
    """Raise Usage for an add-on that has roles of ours, if EKS no longer says that it needs them.

    Its roles would be deleted as if they were no longer declared.
    """
    ours = {record.arn for record in manifest.records.values() if record.kind == Role.kind}
    for name, addon in resolved.config.asked_addons().items():
        decided = not creates_roles(name, addon) or any(addon_roles(resolved, name))
        separate, inline = _recorded_roles(manifest, name)
        if decided or not ours & (separate | inline):
            continue
        answer = resolved.addons.get(name)
        why = (answer and answer.unknown) or "EKS no longer says that it needs any"
        raise Usage(
            f"addons.{name}: which roles its pods need is not known ({why}), and the ones that they"
            " have are not deleted",
            f"Run the command again once EKS answers, or set addons.{name}"
            ".pod_identity_associations: roles of yours, or [] for none.",
            setting=f"addons.{name}.pod_identity_associations",
        )


def refuse_new_for_existing(manifest: Manifest, config: Config) -> None:
    """Raise Usage for a new file system under the name of an existing one."""
    for name, one in config.storage.fsx_lustre.items():
        known = manifest.adopted.get(f"storage/{name}")
        if known and not one.file_system_id:
            setting = f"storage.fsx_lustre.{name}"
            raise Usage(
                f"{setting}: the existing file system {known} is used under this name",
                f"Choose another name for a new one, or set file_system_id: {known}.",
                setting=setting,
            )


def same_place(manifest: Manifest, resolved: ResolvedConfig) -> None:
    """Record account, region and lineage in the manifest; raise Usage if it has other ones."""
    here = (resolved.identity.account, resolved.region)
    if manifest.account and (manifest.account, manifest.region) != here:
        raise Usage(
            f"{manifest.store} belongs to account {manifest.account}, region {manifest.region}; "
            f"this command is in account {here[0]}, region {here[1]}",
            "Use the right --profile and --region (--local for the embedded stack), or another"
            " --manifest.",
        )
    manifest.account, manifest.region = here
    manifest.lineage = lineage(resolved.identity, resolved.name)


def refuse_own_bucket(manifest: Manifest, resolved: ResolvedConfig) -> None:
    """Raise Usage for a manifest in S3 where create or delete would delete it.

    The cluster's bucket is deleted with its objects; in an adopted one, the scripts' prefix is
    made equal to their folder.
    """
    bucket = f"s3://{resolved.bucket}/"
    adopted = "s3/bucket" in resolved.adopted
    scripts = scripts_prefix(resolved).removesuffix(f"{resolved.name}/")  # of all clusters
    taken = (f"{bucket}{scripts}", f"{bucket}{OWN}") if adopted else (bucket,)
    if str(manifest.store).startswith(taken):
        raise Usage(
            f"the manifest {manifest.store} is among the objects of the cluster {resolved.name},"
            " and would be deleted with them",
            "Choose another bucket or prefix with `state` or --manifest; to move it, copy the"
            " object there first.",
            setting="state",
        )


def refuse_others_bucket(aws: Aws, manifest: Manifest) -> None:
    """Raise Usage for a manifest in the bucket of another cluster, whose delete would delete it.

    All of them begin with ``sagemaker-`` and have the tags of their cluster.
    """
    bucket = str(manifest.store).removeprefix("s3://").partition("/")[0]
    if manifest.store.path or not bucket.startswith("sagemaker-"):
        return
    with absent("NoSuchTagSet", "NoSuchBucket", "AccessDenied"):  # then it is none, or not ours
        other = tag(aws.s3.get_bucket_tagging(Bucket=bucket)["TagSet"], CLUSTER)
        if other is not None:
            raise Usage(
                f"{bucket} is the bucket of the cluster {clean(other)}: its delete would delete the"
                f" manifest {manifest.store}",
                "Choose another bucket with `state` or --manifest; to move it, copy the object"
                " there first.",
                setting="state",
            )
