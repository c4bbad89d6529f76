"""The images of a chart: which it needs, and the values that name others in their place."""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hyperpod_eks.aws import transport
from hyperpod_eks.aws.registry import parse
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.helm.program import Helm
from hyperpod_eks.helm.runner import client_with, finish

_NAMES_IMAGE = re.compile("(?i)image|registry|repository|repo$|hub$")
"""Keys of values that may be a part of an image's name."""
_ARGUMENT = re.compile(r"-{1,2}[\w-]*image[\w-]*=(\S+)")
"""An argument by which a program learns which image it is to start."""


def rendered(
    helm: Helm, chart: Path, values: JsonMapping, *, name: str, namespace: str, version: str
) -> list[JsonMapping]:
    """Return a chart's objects as ``helm template`` renders them for a version of Kubernetes.

    Raises HyperpodError with helm's message.
    """
    import yaml  # noqa: PLC0415

    command = ["template", name, str(chart), "--namespace", namespace, "--values", "-"]
    command += ["--kube-version", version] if version else []
    with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as home:
        client = client_with(helm, Path(home), None, transport.environment(helm.bundle))
        text: bytes = finish(client._command.run(command, yaml.safe_dump(dict(values)).encode()))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return [each for each in yaml.load_all(text, loader) if isinstance(each, Mapping)]
    except yaml.YAMLError as error:
        raise HyperpodError(f"helm template {name}: the output is not YAML: {error}") from error


def images(documents: Sequence[JsonMapping]) -> list[str]:
    """Return the images that objects name: of containers, in arguments, in variables, in settings.

    Raises HyperpodError for a container with an image that is none.

    >>> images([{"spec": {"containers": [{"image": "a/b:1", "args": ["--image=c/d:2"]}]}}])
    ['a/b:1', 'c/d:2']
    """
    found = (
        text
        for each in documents
        if each.get("kind") != "CustomResourceDefinition"
        for text in _named(each, "")
        if parse(text)
    )
    return list(dict.fromkeys(found))


def _named(value: Json, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        parts = [value.get(each) for each in ("repository", "image", "version")]
        if all(isinstance(each, str) and each for each in parts):  # NVIDIA's ClusterPolicy
            repository, image, version = map(str, parts)
            yield f"{repository}/{image}{'@' if version.startswith('sha256:') else ':'}{version}"
            return
        if str(value.get("name")).upper().endswith("IMAGE") and isinstance(value.get("value"), str):
            yield value["value"]
        for name, each in value.items():
            yield from _named(each, str(name))
    elif isinstance(value, list):
        for each in value:
            given = each.get("image") if isinstance(each, Mapping) else None
            if key.lower().endswith("containers") and given and not parse(str(given)):
                raise HyperpodError(
                    f"the chart gives a container an image that is none: {given!r}",
                    "Correct the values of the chart.",
                )
            yield from _named(each, key)
    elif isinstance(value, str):
        if key.lower().endswith("image"):
            yield value
        elif key in ("args", "command") and (argument := _ARGUMENT.fullmatch(value)):
            yield argument[1]


def overrides(values: JsonMapping, renamed: Mapping[str, tuple[str, str]]) -> JsonObject:
    """Return the values that make a chart name other images.

    ``values`` are all that the chart uses (`chart.effective_values`).  ``renamed`` has for each
    image the beginning of its name that is replaced, and what replaces it.  A value is replaced if
    it is an image's name or a beginning of it (``nvcr.io``, ``nvcr.io/nvidia``), whichever way the
    chart joins them.  Whether that was all, only another `rendered` can tell.

    >>> values = {"image": {"registry": "nvcr.io", "name": "plugin"}, "other": "nvcr.io"}
    >>> overrides(values, {"nvcr.io/plugin:1": ("", "ecr/")})
    {'image': {'registry': 'ecr/nvcr.io'}}
    """

    def replaced(text: str, key: str) -> str:
        for image, (old, new) in renamed.items():
            if text.startswith("-") and text.endswith(f"={image}"):
                return text.removesuffix(image) + new + image.removeprefix(old)
            begins = image == text or (
                image.startswith(text) and image[len(text) : len(text) + 1] in ("/", ":", "@")
            )
            if begins and text.startswith(old) and _NAMES_IMAGE.search(key):
                return new + text.removeprefix(old)
        return text

    return _changed(values, replaced, "") or {}


def _changed(value: Json, replaced: Callable[[str, str], str], key: str) -> Json:
    """Return the changed part of values, a list as a whole; None without a change."""
    if isinstance(value, Mapping):
        inner = {name: _changed(each, replaced, str(name)) for name, each in value.items()}
        return {name: each for name, each in inner.items() if each is not None} or None
    if isinstance(value, list):
        listed = [_changed(each, replaced, key) for each in value]
        if all(each is None for each in listed):
            return None
        return [_whole(old, new) for old, new in zip(value, listed, strict=True)]
    if isinstance(value, str) and value and (new := replaced(value, key)) != value:
        return new
    return None


def _whole(old: Json, new: Json) -> Json:
    """Return an item of a list with its changes: Helm does not merge lists."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{name: _whole(old.get(name), each) for name, each in new.items()}}
    return old if new is None else new


def name_of(image: str) -> str:
    """Return an image's name without its tag and digest.

    >>> name_of("localhost:5000/a/b:1@sha256:0")
    'localhost:5000/a/b'
    """
    whole = image.partition("@")[0]
    folder, slash, last = whole.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


def replace_fixed(chart: Path, copies: Mapping[str, str]) -> None:
    """Let the templates of a staged chart name other images, where they name one as it is.

    ``copies`` has names without tags, and what takes their place.  Packed dependencies are
    unpacked in place of their archives.
    """
    if not copies:
        return
    for archive in chart.glob("**/charts/*.tgz"):
        with tarfile.open(archive) as tar:
            tar.extractall(archive.parent, filter="data")
        archive.unlink()
    names = "|".join(map(re.escape, sorted(copies, key=len, reverse=True)))
    # a tag or digest follows, or a template with it; else the end of the value
    named = re.compile(rf"(?<![\w./:@-])({names})(?=[:@][\w{{]|[\"']?[ \t]*$)", re.MULTILINE)
    for file in chart.glob("**/templates/**/*"):
        if file.is_file() and not file.is_symlink():
            before = file.read_bytes()
            text = before.decode(errors="surrogateescape")
            after = named.sub(lambda found: copies[found[1]], text)
            if after != text:
                file.write_bytes(after.encode(errors="surrogateescape"))
