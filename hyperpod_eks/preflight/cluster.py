"""Checks of the cluster: versions, names, roles, lifecycle scripts, chart and local folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from hyperpod_eks import files, workers
from hyperpod_eks import folders as our_folders
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.published import OLDEST_VPC_CNI, SUPPORTED_KUBERNETES, broken
from hyperpod_eks.aws.transport import ca_bundle
from hyperpod_eks.config.lifecycle import check_folder, check_lifecycle, find_chart, is_elsewhere
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import Json
from hyperpod_eks.engine.decide import FAILED_IN_USE, FINAL, IN_USE, MAY_HOLD_DATA
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.helm import chart as charts
from hyperpod_eks.helm import devices as chart_devices
from hyperpod_eks.helm.program import find_helm
from hyperpod_eks.helm.unknown_values import unknown
from hyperpod_eks.preflight.inputs import Facts, Finding
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import State
from hyperpod_eks.resources.compare import Observation, Status
from hyperpod_eks.resources.helm_release import ChartRelease


def control_plane(facts: Facts) -> Iterator[Finding]:
    """An existing EKS cluster must meet HyperPod's prerequisites.

    The source is the SageMaker developer guide, "Prerequisites for EKS orchestration".
    """
    name = facts.adopted("eks/cluster") or facts.config.name
    for found in eks.describe(facts.snapshot, name):
        version = found["version"]
        if version not in SUPPORTED_KUBERNETES:
            yield Finding(
                "kubernetes-version",
                "warning",
                f"the EKS cluster {name} runs Kubernetes {version}; HyperPod lists"
                f" {', '.join(SUPPORTED_KUBERNETES)}",
                f"aws eks update-cluster-version --name {name} --region {facts.config.region}"
                f" --kubernetes-version {SUPPORTED_KUBERNETES[-1]}",
                {"version": version},
            )
        yield from _authentication(facts, name, eks.authentication_mode(found))
        yield from _cni(facts, name)
    for text in facts.resolved.warnings if facts.resolved else ():
        yield Finding("kubernetes-version", "warning", text, "Choose with --kubernetes-version.")


def _authentication(facts: Facts, name: str, mode: str | None) -> Iterator[Finding]:
    """An adopted cluster must support access entries; an undescribed mode is no finding."""
    if mode == "CONFIG_MAP" and facts.adopted("eks/cluster"):
        yield Finding(
            "authentication-mode",
            "error",
            f"the EKS cluster {name} does not support access entries (authentication mode"
            f" {mode}), which HyperPod requires",
            f"aws eks update-cluster-config --name {name} --region {facts.config.region}"
            " --access-config authenticationMode=API_AND_CONFIG_MAP",
            {"authentication_mode": mode},
        )


def _cni(facts: Facts, name: str) -> Iterator[Finding]:
    """HyperPod requires the Amazon VPC CNI in `OLDEST_VPC_CNI` or newer."""
    with absent("ResourceNotFoundException"):
        found = facts.aws.eks.describe_addon(clusterName=name, addonName="vpc-cni")["addon"]
        version = found.get("addonVersion", "")
        numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:3])
        oldest = ".".join(map(str, OLDEST_VPC_CNI))
        if numbers and numbers < OLDEST_VPC_CNI:
            yield Finding(
                "vpc-cni",
                "error",
                f"the EKS cluster {name} has the Amazon VPC CNI {version}; HyperPod needs {oldest}",
                "Set a newer version in the config: addons.vpc-cni.version.",
                {"version": version, "oldest": oldest},
            )
        if why := broken("vpc-cni", version):
            yield Finding(
                "vpc-cni",
                "warning",
                f"the EKS cluster {name} has the Amazon VPC CNI {version}, which {why}",
                "Set another version in the config: addons.vpc-cni.version.",
                {"version": version},
            )


def one_cluster(facts: Facts) -> Iterator[Finding]:
    """An adopted EKS cluster must not orchestrate another HyperPod cluster: it can have one."""
    if not (adopted := facts.adopted("eks/cluster")):
        return
    for name, found in facts.clusters().items():
        arn = found.get("Orchestrator", {}).get("Eks", {}).get("ClusterArn", "")
        if name != facts.config.name and arn.endswith(f":cluster/{adopted}"):
            yield Finding(
                "one-cluster",
                "error",
                f"the adopted EKS cluster {adopted} already orchestrates the HyperPod cluster"
                f" {name}",
                "Adopt another EKS cluster, or let create do it.",
                {"hyperpod_cluster": name},
            )


def names(facts: Facts) -> Iterator[Finding]:
    """A resource that is not owned must not have one of the cluster's names."""
    for key, observation in facts.observations.items():
        if observation.status is Status.FOREIGN and observation.live:
            yield Finding(
                "names",
                "error",
                f"{key}: {observation.live.arn or observation.live.id} already exists and is not"
                " owned by this cluster",
                "Choose another cluster name, or remove that resource yourself.",
                {"key": key, "id": observation.live.id, "owner": observation.live.owner},
            )


def failed(facts: Facts) -> Iterator[Finding]:
    """A failed resource does not recover: it must be replaced, or repaired if it was adopted."""
    for key, observation in facts.observations.items():
        if observation.status is not Status.FAILED or not observation.live:
            continue
        want, id_, adopted = observation.want, observation.live.id, bool(facts.adopted(key))
        was_never_ready = facts.manifest and facts.manifest.was_never_ready(key, id_)
        fix = f"Remove the cause, then: {facts.command('create')} --replace-failed"
        cause, replaceable = FINAL.get(key), False
        if adopted:
            fix, cause = "Adopted resources are never replaced: repair it.", None
        elif facts.replace_failed or observation.live.holds_nothing:
            continue
        elif want.data and not was_never_ready:
            fix = MAY_HOLD_DATA
        elif want.inhabited and observation.live.state is State.FAILED and not was_never_ready:
            fix, cause = IN_USE, FAILED_IN_USE
        else:
            replaceable = True
        text = f"{key} has failed: {observation.live.why}"
        seen = {"key": key, "id": id_, "adopted": adopted, "replaceable": replaceable}
        yield Finding("failed", "error", text, fix, seen, cause)


ROLES = (
    ("iam/cluster-role", "eks.amazonaws.com", "AmazonEKSClusterPolicy"),
    (
        "iam/execution-role",
        "sagemaker.amazonaws.com",
        "AmazonSageMakerClusterInstanceRolePolicy",
    ),
)


def roles(facts: Facts) -> Iterator[Finding]:
    """An adopted role must trust its service and have AWS's policy: create does not change it."""
    for key, service, policy in ROLES:
        if name := facts.adopted(key):
            yield from _trust(facts, name, service)
            yield from _attached(facts, name, policy)


def _trust(facts: Facts, name: str, service: str) -> Iterator[Finding]:
    role = facts.aws.iam.get_role(RoleName=name)["Role"]
    if service not in trusted(role["AssumeRolePolicyDocument"]):
        yield Finding(
            "roles",
            "error",
            f"the adopted role {name} cannot be assumed by {service}",
            f"Let its trust policy allow sts:AssumeRole to {service}:"
            f" aws iam update-assume-role-policy --role-name {name} …",
            {"role": name, "service": service},
        )


def _attached(facts: Facts, name: str, policy: str) -> Iterator[Finding]:
    attached = facts.snapshot.all(
        facts.aws.iam, "list_attached_role_policies", "AttachedPolicies", RoleName=name
    )
    if policy not in {each["PolicyName"] for each in attached}:
        yield Finding(
            "roles",
            "warning",
            f"the adopted role {name} lacks AWS's policy {policy}",
            f"aws iam attach-role-policy --role-name {name} --policy-arn"
            f" arn:{facts.aws.identity.partition}:iam::aws:policy/{policy}",
            {"role": name, "policy": policy},
        )


def access(facts: Facts) -> Iterator[Finding]:
    """Roles of people must exist: EKS refuses others, minutes after create has begun."""
    here = f":iam::{facts.aws.identity.account}:role/"
    listed = dict.fromkeys(facts.config.people, "teams")
    listed |= {entry.principal_arn: "eks.access" for entry in facts.config.eks.access}
    for arn, setting in listed.items():
        if here not in arn:
            continue
        name, there = arn.rpartition("/")[2], ""
        with absent("NoSuchEntity"):
            there = facts.aws.iam.get_role(RoleName=name)["Role"]["Arn"]
        if there != arn:
            yield Finding(
                "access",
                "error",
                f"{setting}: role {arn} does not exist"
                + (f"; did you mean {there}?" if there else ""),
                "Use the ARN that `aws iam get-role` prints, including the path.",
                {"principal": arn, "there": there, "setting": setting},
            )


def trusted(document: Json) -> set[str]:
    """Return the services that a trust policy allows."""
    statements = document.get("Statement", []) if isinstance(document, Mapping) else []
    found: set[str] = set()
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        service = principal.get("Service", []) if isinstance(principal, Mapping) else []
        if statement.get("Effect") == "Allow":
            found |= {service} if isinstance(service, str) else set(service)
    return found


NO_FOLDER = (
    "lifecycle.path: the folder is not on this machine, and the bucket has no scripts",
    "Pass the folder with --lifecycle FOLDER.",
)
NO_CHART = (
    "chart.path: the chart is not on this machine, and no release of it is installed",
    "Pass the chart with --chart PATH.",
)


def _no_further_charts(
    config: Config, observations: Iterable[Observation]
) -> Iterator[tuple[str, str, str]]:
    """Yield setting, fault and fix of each chart that is neither here nor installed."""
    seen = list(observations)
    for name, each in config.charts.items():
        if is_elsewhere(each.chart) and not _there(seen, f"charts/{name}"):
            setting = f"charts.{name}.chart"
            text = "the chart is not on this machine, and no release of it is installed"
            fix = f"Pass a config with -f FILE in which {setting} is a folder of this machine."
            yield setting, f"{setting}: {text}", fix


def _there(observations: Iterable[Observation], key: str) -> bool:
    return any(each.live for each in observations if each.want.key == key)


def require_folders(config: Config, observations: Sequence[Observation]) -> None:
    """Raise Usage for a folder that create would upload or install, and is not on this machine."""
    if is_elsewhere(config.lifecycle.path) and not _there(observations, "s3/scripts"):
        raise Usage(*NO_FOLDER, setting="lifecycle.path")
    if is_elsewhere(config.chart.path or "") and not _there(observations, "helm/release"):
        raise Usage(*NO_CHART, setting="chart.path")
    for setting, text, fix in _no_further_charts(config, observations):
        raise Usage(text, fix, setting=setting)


def lifecycle(facts: Facts) -> Iterator[Finding]:
    """Lifecycle scripts must be valid: on a node they would fail twenty minutes later."""
    section = facts.config.lifecycle
    if is_elsewhere(section.path):
        if not _there(facts.observations.values(), "s3/scripts"):
            yield Finding("lifecycle", "error", *NO_FOLDER)
        return
    errors, warnings = check_lifecycle(section.path, section.on_create)
    for text in errors:
        yield Finding("lifecycle", "error", text, "Correct the folder that lifecycle.path names.")
    for text in warnings:
        yield Finding("lifecycle", "warning", text, "See `hyperpod-eks explain config`, lifecycle.")


def chart(facts: Facts) -> Iterator[Finding]:
    """Folders of charts must be charts, and chart.values must be consistent."""
    section = facts.config.chart
    if is_elsewhere(section.path or ""):
        if not _there(facts.observations.values(), "helm/release"):
            yield Finding("chart", "error", *NO_CHART)
    elif section.path is not None:
        try:
            charts.locate(section.path)
        except Usage as error:
            yield Finding("chart", "error", str(error), error.hint)
    for setting, text, fix in _no_further_charts(facts.config, facts.observations.values()):
        yield Finding("chart", "error", text, fix, {"setting": setting})
    for name, each in facts.config.charts.items():
        if each.folder and not is_elsewhere(each.chart) and (text := check_folder(each.folder)):
            setting = f"charts.{name}.chart"
            fix = f"Correct {setting} in the config."
            yield Finding("chart", "error", f"{setting}: {text}", fix, {"setting": setting})
    if section.path is not None and not is_elsewhere(section.path):
        yield from _unknown_values(facts, section.path)
    for text in charts.check_values(facts.config.region, section.values):
        yield Finding("chart-values", "error", text, "Correct chart.values in the config.")
    types = [kind for group in facts.config.groups for kind in group.instance_types]
    for text in chart_devices.unlisted(types, section.path):
        yield Finding(
            "chart-values",
            "warning",
            text,
            "Add the type to that template in a copy of the chart, and set it as chart.path.",
        )


def chart_download(facts: Facts) -> Iterator[Finding]:
    """Charts must be downloadable; create needs them only after EKS, so download them now.

    AWS's chart is not downloaded again if it is cached, and a release that matches needs none.
    """
    yield from _aws_chart_download(facts)
    wants = [
        each.want
        for each in facts.observations.values()
        if isinstance(each.want, ChartRelease)
        and each.want.remote
        and each.status in (Status.ABSENT, Status.DRIFTED)
    ]
    for each in workers.gather(*(partial(_pull, facts, want) for want in wants)):
        yield from each


def _pull(facts: Facts, want: ChartRelease) -> list[Finding]:
    """Download a further chart, and forget it."""
    try:
        program = find_helm(facts.helm, ca_bundle(facts.aws.session))
    except Usage:  # a finding of its own
        return []
    try:
        want.check_download(program)
    except HyperpodError as error:
        seen = {"setting": error.setting}
        return [Finding("chart-download", "error", str(error), error.hint, seen, error.cause)]
    return []


def _aws_chart_download(facts: Facts) -> Iterator[Finding]:
    release = facts.observations.get("helm/release")
    if facts.config.chart.path is not None or (release and release.status is Status.MATCHES):
        return
    try:
        download = partial(charts.download, bundle=ca_bundle(facts.aws.session))
        folder = facts.snapshot.once("chart-download", download)
        yield from _unknown_values(facts, folder)
    except HyperpodError as error:
        cause = getattr(error.__cause__, "cause", None) or error.cause  # a proxy, if it is one
        yield Finding("chart-download", "error", str(error), error.hint, cause=cause)


def _unknown_values(facts: Facts, path: Path) -> Iterator[Finding]:
    """Values that the chart does not know have no effect, and Helm says nothing."""
    folder = find_chart(path)
    for name in unknown(folder, facts.config.chart.values) if folder else ():
        text = f"chart.values: {name} is not in the chart's values.yaml, and so has no effect"
        fix = "Correct its name, or remove it."
        yield Finding("chart-values", "warning", text, fix, {"setting": f"chart.values.{name}"})


def helm(facts: Facts) -> Iterator[Finding]:
    """The helm program must exist and be new enough; without one, it is downloaded."""
    try:
        find_helm(facts.helm, ca_bundle(facts.aws.session))
    except Usage as error:
        yield Finding("helm", "error", str(error), error.hint, cause=error.cause)


MANIFEST = 1 << 18
"""Size of a large manifest in bytes."""


def folders(facts: Facts) -> Iterator[Finding]:
    """The folders of the manifest, downloads and logs must be writable and have room."""
    ours = [
        ("downloads", our_folders.cache(), "Set XDG_CACHE_HOME or TMPDIR to another folder."),
        ("logs", our_folders.state(), "Set XDG_STATE_HOME or TMPDIR to another folder."),
    ]
    for what, folder, fix in ours:
        try:
            files.make_folder(folder)
            files.try_writing(folder / "file", 1)
        except OSError as error:
            yield _unwritable(what, folder, error.strerror, fix)
    if facts.manifest and (path := facts.manifest.store.path):
        try:
            files.try_writing(path, MANIFEST)
        except OSError as error:
            fix = "Choose another path with --manifest."
            yield _unwritable("the manifest", path.parent, error.strerror, fix)
        except Usage as error:
            yield Finding("folders", "error", str(error), error.hint)


def _unwritable(what: str, folder: Path, why: str | None, fix: str) -> Finding:
    where = str(folder.absolute())
    text = f"{what} cannot be written in {where}: {why}"
    return Finding("folders", "error", text, fix, {"folder": where})
