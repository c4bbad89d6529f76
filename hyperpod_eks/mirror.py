"""The images that a cluster's charts need, and their copies in ECR repositories of the cluster.

A copy of ``HOST/NAME`` is ``REGISTRY/CLUSTER/HOST/NAME``, with the same tag and digest: what it was
copied from can be read from its name.  Images in ECR registries of the cluster's region, such as
those of EKS's add-ons and of HyperPod's health monitoring agent, are not copied: nodes reach them
through the endpoints ecr.api and ecr.dkr (ECR User Guide, "Amazon ECR interface VPC endpoints").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain

from hyperpod_eks.aws import registry
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent, unless_refused
from hyperpod_eks.aws.registry import Image, Registry
from hyperpod_eks.aws.service_model import dns_suffix
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.transport import ca_bundle
from hyperpod_eks.config import variables
from hyperpod_eks.config.lifecycle import is_elsewhere
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.errors import Foreign, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm import chart, images
from hyperpod_eks.helm import release as helm
from hyperpod_eks.helm.program import find_helm
from hyperpod_eks.resolve.names import image_prefix
from hyperpod_eks.resources.base import References
from hyperpod_eks.resources.ecr import Repository
from hyperpod_eks.resources.helm_release import ChartRelease, Release
from hyperpod_eks.workers import for_each, gather

_ECR = re.compile(r"(?P<account>[0-9]{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.[a-z.]+")
_NAME = re.compile(r"(?=.{2,256}$)(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")
"""The name of a repository (ECR API, CreateRepository)."""


@frozen
class Names:
    """The names of copies: those of one cluster in the registry of its account and region."""

    cluster: str
    account: str
    region: str
    suffix: str
    """Of the partition's host names."""

    @classmethod
    def of(cls, aws: Aws) -> Names:
        """Return the names for the cluster that a client is for."""
        here = aws.identity
        suffix = dns_suffix(here.partition)
        return cls(aws.cluster, here.account, here.region, suffix)

    @property
    def registry(self) -> str:
        """The host of the account's registry."""
        return f"{self.account}.dkr.ecr.{self.region}.{self.suffix}"

    @property
    def prefix(self) -> str:
        """What the names of all repositories of the cluster begin with."""
        return f"{image_prefix(self.cluster)}/"

    def origin(self, text: str) -> Image | None:
        """Return the image that nodes need a copy of, also if the text names one already.

        None if they reach it.
        """
        found = registry.parse(text)
        assert found, text
        ecr = _ECR.fullmatch(found.host)
        if ecr and ecr["account"] == self.account and found.repository.startswith(self.prefix):
            name = found.repository.removeprefix(self.prefix)
            host, _, rest = name.partition("/")
            return found._replace(host=host, repository=rest) if "." in host else None
        return None if ecr and ecr["region"] == self.region else found

    def repository(self, image: Image) -> str:
        """Return the name of the repository for copies of an image.  Raises Usage."""
        name = f"{self.prefix}{image.name}"
        if not _NAME.fullmatch(name):
            raise Usage(
                f"{image.name} cannot be mirrored: ECR allows no repository with the name {name}",
                "Copy it to a repository of yours, and name that in the values of the chart.",
            )
        return name

    def renamed(self, text: str) -> tuple[str, str]:
        """Return the beginning of an image's name to replace, and what replaces it."""
        image, ours = registry.parse(text), f"{self.registry}/"
        assert image, text
        if text.startswith(f"{image.host}/{self.prefix}"):
            return f"{image.host}/", ours
        if text.startswith(f"{image.host}/"):
            return "", f"{ours}{self.prefix}"
        library = "" if text.startswith("library/") or "/" in text else "library/"
        return "", f"{ours}{self.prefix}{image.host}/{library}"


@frozen
class Chart:
    """The images of a chart, and the settings that name their copies."""

    setting: str
    """``chart``, or ``charts.NAME``."""
    images: tuple[str, ...]
    values: JsonObject
    renamed: Mapping[str, str]
    """Images that templates name as they are, without tags, each with its copy."""
    fixed: Mapping[str, str]
    """Images that neither a value nor a template names, so that copies cannot take their places;
    each with the value that switches off what uses it, if there is one."""


def copy_of(aws: Aws, text: str) -> str:
    """Return the cluster's copy of an image, if it has one and ECR says so; else the image."""
    names = Names.of(aws)
    image = names.origin(text)
    if image is None:
        return text
    name = names.repository(image)
    with unless_refused(), absent("RepositoryNotFoundException", "ImageNotFoundException"):
        aws.ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": image.tag}])
        old, new = names.renamed(text)
        return new + text.removeprefix(old)
    return text


def survey(release: Release, names: Names, bundle: str | None) -> Chart:
    """Render a chart with its config's values, and find the values that name its images.

    Raises Usage for a chart that is not on this machine, and HyperpodError as helm does.
    """
    setting = release.setting
    if is_elsewhere(release.chart):
        raise Usage(
            f"{setting}: the chart is not on this machine",
            "Run mirror where it is, with -f FILE.",
            setting=setting,
        )
    program = find_helm(release.binary or None, bundle)
    declared = json.loads(release.values)
    values = variables.resolved(declared, f"{setting}.values")
    named = (helm.NAME, helm.NAMESPACE)
    if isinstance(release, ChartRelease):
        named = (release.label, release.namespace)
    with release.staged(program, values) as staged:

        def needed(more: JsonObject) -> list[str]:
            return images.images(
                images.rendered(
                    program,
                    staged,
                    chart.merge(values, more),
                    name=named[0],
                    namespace=named[1],
                    version=release.cluster.version,
                )
            )

        found = needed({})
        renamed = {each: names.renamed(each) for each in found if names.origin(each)}
        copies = {each: new + each.removeprefix(old) for each, (old, new) in renamed.items()}
        todo = {each: renamed[each] for each, copy in copies.items() if copy != each}
        over = images.overrides(chart.effective_values(staged, declared), todo) if todo else {}
        after = needed(over) if over else found
        reached = {*copies.values(), *(each for each in found if each not in copies)}
        fixed = {x: chart.switch_of(staged, x) for x in after if x not in reached}
        renames = {images.name_of(x): images.name_of(copies[x]) for x in fixed if x in copies}
        images.replace_fixed(staged, renames)
        left = needed(over) if renames else after
    fixed = {x: switch for x, switch in fixed.items() if x in left}
    there = {images.name_of(each) for each in left}
    written = {copy: name for name, copy in release.images}
    in_templates = {written.get(x, x): copy for x, copy in renames.items() if copy in there}
    return Chart(setting, tuple(found), over, in_templates, fixed)


def settings(charts: Iterable[Chart]) -> JsonObject:
    """Return the values of all charts as settings of the config."""
    found: JsonObject = {}
    for each in charts:
        named = {"values": each.values, "images": dict(each.renamed)}
        inner: JsonObject = {name: value for name, value in named.items() if value}
        for part in reversed(each.setting.split(".", 1)):
            inner = {part: inner} if inner else {}
        found = chart.merge(found, inner)
    return found


def copy(
    aws: Aws,
    names: Names,
    wanted: Sequence[Image],
    said: Callable[[Image], None],
    *,
    upstream: str = "",
    most: int = 4,
) -> set[Image]:
    """Create the repositories that are missing, and copy images; return those that were copied.

    ``said`` is called after each copy.  ``upstream`` is what the names of images begin with in the
    embedded registry.  Raises Foreign for a repository that this cluster does not own, before
    anything is created, and HyperpodError for an image that cannot be copied.
    """
    by_name = {names.repository(each): each.name for each in wanted}
    wants = [Repository(label, name=name) for name, label in by_name.items()]
    if missing := _missing(aws, wants):
        for want in missing:
            with absent("RepositoryAlreadyExistsException"):  # the answer to the first try was lost
                want.create(aws, References({}), "")
        _missing(aws, missing)
    bundle = ca_bundle(aws.session)
    copied: set[Image] = set()
    with ExitStack() as closed:
        target = closed.enter_context(closing(_ours(aws, names.registry, bundle)))
        origins = {
            host: closed.enter_context(closing(_origin(aws, host, bundle, upstream and target.url)))
            for host in {each.host for each in wanted}
        }

        def one(image: Image) -> None:
            above = f"{upstream}{image.host}/" if upstream else ""
            source = image._replace(repository=f"{above}{image.repository}")
            if registry.copy(source, origins[image.host], names.repository(image), target):
                copied.add(image)
                said(image)

        for_each(one, wanted, most)
    return copied


def _missing(aws: Aws, wants: Sequence[Repository]) -> list[Repository]:
    """Return the repositories that do not exist.  Raises Foreign for one that is not ours."""
    snapshot = Snapshot(aws)
    found = gather(*(partial(each.find, snapshot) for each in wants))
    for live in chain(*found):
        if live.owner != aws.lineage:
            raise Foreign(f"{live.arn} already exists and does not belong to {aws.cluster}")
    return [want for want, lives in zip(wants, found, strict=True) if not lives]


def _ours(aws: Aws, host: str, bundle: str | None) -> Registry:
    """Return an account's registry, with a login of twelve hours that stays in memory."""
    given = aws.ecr.get_authorization_token()["authorizationData"][0]
    return Registry(host, bundle, given["proxyEndpoint"], given["authorizationToken"])


def _origin(aws: Aws, host: str, bundle: str | None, instead: str) -> Registry:
    """Return the registry that has an image; an ECR of another region has the caller's login."""
    if instead:
        return Registry(host, bundle, instead)
    if ecr := _ECR.fullmatch(host):
        login = _ours(aws.elsewhere(ecr["region"]), host, bundle).login
        return Registry(host, bundle, login=login)
    return Registry(host, bundle, login=registry.docker_login(host))
