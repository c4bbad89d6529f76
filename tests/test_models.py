"""What is kept of botocore's models: what the tool calls, unchanged, in a cache that may go."""

from __future__ import annotations

import ast
import json
import os
import re
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError

import hyperpod_eks
from hyperpod_eks.aws.models import OPERATIONS, loader, reduced

PACKAGE = Path(hyperpod_eks.__file__).parent
WHOLE = loader(whole=True)
OTHERS = (
    *("amp", "ecr", "efs", "elb", "elbv2", "fsx", "pricing", "service-quotas", "sts"),
    *("sso", "sso-oidc", "signin"),
)
"""The other services that the tool or a login calls, read whole."""


def fresh() -> Any:
    """Return a reader that has read nothing yet."""
    return loader.__wrapped__()


def model(service: str) -> Any:
    """Return a whole model."""
    return WHOLE.load_service_model(service, "service-2")


def methods(service: str) -> set[str]:
    """Return the names of the methods of a service's client."""
    return {xform_name(name) for name in model(service)["operations"]}


def words() -> Iterator[str]:
    """Yield the attributes and the texts in the package, without the embedded stack."""
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(PACKAGE / "local"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute):
                    yield node.attr
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


@pytest.fixture(scope="module")
def called() -> frozenset[str]:
    """Return what the package may call: its words, and those of `governance`, which composes."""
    governed = ("cluster_scheduler_config", "compute_quota")
    composed = {
        f"{verb}_{noun}{'s' * (verb == 'list')}"
        for verb, noun in product(("create", "delete", "describe", "list", "update"), governed)
    }
    by_botocore = {"create_session"}  # for directory buckets
    return frozenset({*words(), *composed, *by_botocore})


@pytest.mark.parametrize("service", OPERATIONS)
def test_what_is_kept_exists_and_is_called(service: str, called: frozenset[str]) -> None:
    assert model(service)["operations"].keys() >= OPERATIONS[service]
    assert {xform_name(name) for name in OPERATIONS[service]} <= called


def test_what_is_called_is_kept(called: frozenset[str]) -> None:
    kept = {service: {xform_name(each) for each in OPERATIONS[service]} for service in OPERATIONS}
    whole: set[str] = set().union(*map(methods, OTHERS))
    for service in OPERATIONS:
        elsewhere = whole.union(*(kept[each] for each in OPERATIONS if each != service))
        assert called & methods(service) - elsewhere <= kept[service]
        assert attributes(service) & methods(service) <= kept[service]


def attributes(service: str) -> set[str]:
    """Return what the package calls as ``aws.SERVICE.METHOD``: other services may have it too."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(PACKAGE / "local"):
            text = path.read_text()
            found.update(re.findall(rf"\baws\.{service}(?:_once)?\.([a-z0-9_]+)", text))
    return found


@pytest.mark.parametrize("service", OPERATIONS)
def test_what_is_kept_is_botocores(service: str) -> None:
    whole, small = model(service), reduced(model(service), OPERATIONS[service])
    assert small.keys() == whole.keys()
    for part in ("operations", "shapes"):
        for name, kept in small[part].items():
            assert kept == undocumented(whole[part][name])
    assert small["operations"].keys() == OPERATIONS[service]
    assert {name for part in ("operations", "shapes") for name in shapes(small[part])} == (
        small["shapes"].keys()
    )


def undocumented(value: Any) -> Any:
    """Return a part of a model without its texts; a member may be called documentation."""
    if isinstance(value, dict):
        return {
            key: undocumented(each)
            for key, each in value.items()
            if not (key == "documentation" and isinstance(each, str))
        }
    return [undocumented(each) for each in value] if isinstance(value, list) else value


def shapes(value: Any) -> Iterator[str]:
    """Yield the names of shapes that a part of a model refers to."""
    if isinstance(value, dict):
        yield from [value["shape"]] if isinstance(value.get("shape"), str) else []
        value = value.values()
    if not isinstance(value, str | int | float | None):
        for each in value:
            yield from shapes(each)


REGIONS = ("us-east-1", "us-west-2", "cn-north-1", "us-gov-west-1", "eusc-de-east-1", "xx-new-1")


@pytest.mark.parametrize("region", REGIONS)
def test_endpoints_are_botocores(region: str) -> None:
    def places(reader: Any) -> dict[Any, Any]:
        session = botocore.session.Session()
        session.set_credentials("AKIA", "secret")
        session.register_component("data_loader", reader)
        variants = (Config(), Config(use_fips_endpoint=True), Config(use_dualstack_endpoint=True))
        found: dict[Any, Any] = {}
        for service, number in product((*OPERATIONS, *OTHERS), range(len(variants))):
            try:
                client: Any = session.create_client(
                    service, region_name=region, config=variants[number]
                )
            except (BotoCoreError, ValueError) as error:
                found[service, number] = str(error)
                continue
            signer = client._request_signer
            found[service, number] = (
                *(client.meta.endpoint_url, client.meta.partition, client.meta.region_name),
                *(signer.region_name, signer.signing_name, signer.signature_version),
            )
        return found

    assert places(fresh()) == places(WHOLE)


def test_what_is_kept_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = fresh().load_service_model("eks", "service-2")
    (kept,) = (tmp_path / "hyperpod-eks/models").iterdir()
    assert kept.name.startswith("eks-")
    kept.write_bytes(kept.read_bytes().replace(b'"ListAddons"', b'"ListMarks"'))
    again = fresh().load_service_model("eks", "service-2")
    assert "ListAddons" in first["operations"]
    assert "ListMarks" in again["operations"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b'{"of": 1}', b'{"of": [], "model": {}}', b"\xff\x00"]
)
def test_what_cannot_be_read_is_written_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = fresh().load_service_model("eks", "service-2")
    (kept,) = (tmp_path / "hyperpod-eks/models").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(content)
    assert fresh().load_service_model("eks", "service-2") == first
    assert kept.read_bytes() == whole


def test_what_others_may_have_written_is_written_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = fresh().load_service_model("eks", "service-2")
    (kept,) = (tmp_path / "hyperpod-eks/models").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b'"ListAddons"', b'"ListMarks"'))
    kept.chmod(0o666)
    assert fresh().load_service_model("eks", "service-2") == first
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [{"metadata": {}}, {"operations": {"CreateVpc": {"input": {"shape": "Lost"}}}, "shapes": {}}],
)
def test_a_model_of_another_form_is_read_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: dict[str, Any]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = tmp_path / "data/ec2/2016-11-15"
    own.mkdir(parents=True)
    (own / "service-2.json").write_text(json.dumps(content))
    reader = fresh()
    reader.search_paths.insert(0, str(tmp_path / "data"))
    assert reader.load_service_model("ec2", "service-2") == content
    assert not (tmp_path / "cache").exists()


def test_a_path_that_is_no_text_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = tmp_path / os.fsdecode(b"h\xff") / "eks/2017-11-01"
    own.mkdir(parents=True)
    (own / "service-2.json").write_text(json.dumps(model("eks")))
    readers = [fresh(), fresh()]
    for reader in readers:
        reader.search_paths.insert(0, str(own.parents[1]))
        assert "ListAddons" in reader.load_service_model("eks", "service-2")["operations"]


def test_another_botocore_is_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = fresh().load_service_model("eks", "service-2")
    (kept,) = (tmp_path / "hyperpod-eks/models").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b'"ListAddons"', b'"ListMarks"'))
    monkeypatch.setattr("botocore.__version__", "99.0")
    assert fresh().load_service_model("eks", "service-2") == before


def test_copies_of_an_installation_that_may_be_gone_are_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copies = tmp_path / "hyperpod-eks/models"
    copies.mkdir(parents=True)
    for name, days in (("ec2-old.json", 91), ("ec2-new.json", 89)):
        (copies / name).write_text("{}")
        os.utime(copies / name, times=(time.time() - days * 86400,) * 2)
    fresh().load_service_model("eks", "service-2")
    assert sorted(each.name.partition("-")[0] for each in copies.iterdir()) == ["ec2", "eks"]
    assert (copies / "ec2-new.json").exists()


def test_a_cache_that_cannot_be_written_costs_time_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "hyperpod-eks").mkdir()
    (tmp_path / "hyperpod-eks/models").write_text("a file")
    assert "ListAddons" in fresh().load_service_model("eks", "service-2")["operations"]
    assert (tmp_path / "hyperpod-eks/models").read_text() == "a file"
