"""Prices come from the AWS Price List where it answers, else from the dated table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.aws import price_list, prices
from hyperpod_eks.aws.client import Identity
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws import pricing
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from tests.conftest import User, at_work, new_aws, until

TODAY = datetime.now(UTC).date()


@pytest.fixture(scope="module")
def reader(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user who creates nothing."""
    with at_work(one_stack, tmp_path_factory.mktemp("prices")) as user:
        config = "name: demo\nregion: us-west-2\ninstance_groups:\n- {name: a, "
        config += "instance_type: ml.m5.2xlarge, instance_count: 4}\n- {name: b, "
        config += "instance_type: ml.c5.large, instance_count: 1, ebs_volume_size_in_gb: null}\n"
        (user.folder / "demo.yaml").write_text(config)
        yield user


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hyperpod-eks" / "prices-us-west-2.json"


def asked(user: User) -> int:
    """Return the number of questions to the Price List since the last time."""
    found = sum(call.service == "pricing" for call in user.stack.calls)
    user.stack.calls.clear()
    return found


def cost(user: User) -> Any:
    said = user.types("plan", "-f", "demo.yaml", "--chart", str(CHART), "-o", "json")
    assert (said.code, said.err) == (0, ""), said.err
    return said.document["cost"]


@pytest.fixture
def dearer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let AWS have raised a price since the table was read, and have one that it lacks."""
    monkeypatch.setitem(pricing._NODES, "ml.m5.2xlarge", 2.0)
    monkeypatch.setitem(pricing._NODES, "ml.c5.large", 0.5)


@pytest.mark.usefixtures("dearer")
def test_the_price_list_counts_and_is_asked_once_a_week(reader: User, cache: Path) -> None:
    asked(reader)
    first = cost(reader)
    assert asked(reader) == 7
    assert first["complete"]
    assert (first["region"], first["as_of"]) == ("us-west-2", TODAY.isoformat())
    assert {item["source"] for item in first["items"]} == {"price-list"}
    assert first["groups"]["b"] == {
        "usd_per_hour": 0.5,
        "usd_per_month": 365.0,
        "complete": True,
    }
    assert first["groups"]["a"]["usd_per_hour"] == pytest.approx(
        8.0 + 4 * 500 * 0.14 / 730, abs=0.01
    )
    assert first["usd_per_month"] == pytest.approx(730 * first["usd_per_hour"], rel=0.01)

    assert (cost(reader), asked(reader)) == (first, 0)
    old = (TODAY - timedelta(days=8)).isoformat()
    cache.write_text(cache.read_text().replace(TODAY.isoformat(), old))
    assert (cost(reader), asked(reader)) == (first, 7)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("pricing", ".*", "AccessDeniedException", 400, "not authorized", count=99),
        Fault("pricing", ".*", "InternalErrorException", 500, count=99),
        Fault("pricing", ".*", kind="delay", seconds=0.3, count=99),
    ],
    ids=["denied", "broken", "late"],
)
def test_without_an_answer_the_table_counts(
    reader: User, cache: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no warning: the date of the table is shown."""
    monkeypatch.setattr(price_list, "PATIENCE", 0.05)
    asked(reader)
    reader.stack.faults[:] = [fault]
    found = cost(reader)
    until(lambda: sum(call.service == "pricing" for call in reader.stack.calls) == 7)
    reader.stack.faults.clear()
    reader.stack.calls.clear()
    assert (found["region"], found["as_of"]) == ("us-east-1", prices.READ.isoformat())
    assert (found["unknown"], found["complete"]) == (["ml.c5.large"], False)
    assert {item["source"] for item in found["items"]} == {"table", None}
    assert json.loads(cache.read_text())["prices"] == {}

    assert (cost(reader), asked(reader)) == (found, 0), "asked again within the hour"
    kept = json.loads(cache.read_text())
    cache.write_text(json.dumps(kept | {"failed": kept["failed"] - price_list.PAUSE}))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    assert (cost(reader)["as_of"], asked(reader)) == (TODAY.isoformat(), 7)


@pytest.mark.parametrize(
    "left",
    [
        "",
        "{",
        "[]",
        pytest.param("[" * 100_000, id="deep"),
        '{"of": 1}',
        '{"of": "elsewhere", "failed": 0, "prices": {"k": {"usd": 9.0, "read": "2999-01-01"}}}',
    ],
)
def test_what_is_no_file_of_remembered_prices_is_replaced(
    reader: User, cache: Path, left: str
) -> None:
    """The last one has the prices of another endpoint, such as the embedded stack's."""
    cache.parent.mkdir()
    cache.write_text(left)
    asked(reader)
    assert cost(reader)["as_of"] == TODAY.isoformat()
    assert asked(reader) == 7
    assert json.loads(cache.read_text())["prices"]


def test_a_remembered_value_that_is_no_price_costs_a_question(reader: User, cache: Path) -> None:
    first, kept = cost(reader), json.loads(cache.read_text())
    spoilt: list[dict[str, Any]] = [{"failed": 10**400}]
    values: list[tuple[str, Any]] = [
        ("usd", 10**400),
        ("usd", float("nan")),
        ("usd", "9"),
        ("read", "2999-01-01"),
    ]
    for name, value in values:
        rows = {key: row | {name: value} for key, row in kept["prices"].items()}
        spoilt.append({"prices": rows})
    for each in spoilt:
        cache.write_text(json.dumps(kept | each))
        asked(reader)
        assert (cost(reader), asked(reader)) == (first, 7), each


NAT = "NatGateway-Hours"


def listed(*rows: tuple[str, str, str, str], currency: str = "USD") -> list[Any]:
    """Return products, given usage type, unit, beginning of the range and price."""
    return [
        {
            "product": {"attributes": {"usagetype": usage}},
            "terms": {
                "OnDemand": {
                    "a": {
                        "priceDimensions": {
                            "b": {
                                "unit": unit,
                                "beginRange": begin,
                                "pricePerUnit": {currency: usd},
                            }
                        }
                    }
                }
            },
        }
        for usage, unit, begin, usd in rows
    ]


@pytest.mark.parametrize(
    ("products", "usd"),
    [
        (listed((NAT, "Hrs", "0", "0.045")), 0.045),
        (listed((f"USE1-{NAT}", "Hours", "0", "0.045")), 0.045),
        (listed(("USE1-RegionalNatGateway-Hours", "Hrs", "0", "0.045")), None),
        (
            listed((f"X-{NAT}", "Hrs", "0", "0.1"), (NAT, "Hrs", "0", "0")),
            0.1,
        ),
        (
            listed((NAT, "Hrs", "0", "1"), (f"X-{NAT}", "Hrs", "0", "2")),
            None,
        ),
        (listed((NAT, "GB", "0", "0.045")), None),
        (listed((NAT, "Hrs", "100", "0.045")), None),
        (listed((NAT, "Hrs", "0", "0.3"), currency="CNY"), None),
        (listed((NAT, "Hrs", "0", "dear")), None),
        ([{"product": None}, {}, *listed((NAT, "Hrs", "0", "0.045"))], 0.045),
        ([], None),
    ],
)
def test_one_product_and_one_price_is_a_price(products: list[Any], usd: float | None) -> None:
    assert price_list._usd(products, prices.NAT_GATEWAY) == usd


def test_where_no_endpoint_has_usd_nothing_is_asked(reader: User, cache: Path) -> None:
    """AWS China's list is in CNY, and GovCloud has no endpoint (botocore's endpoints)."""
    aws = new_aws()
    for partition, region in (("aws-cn", "cn-north-1"), ("aws-us-gov", "us-gov-west-1")):
        asked(reader)
        who = Identity("", "123456789012", partition, region)
        assert price_list.look_up(aws, who, [prices.NAT_GATEWAY]) == {}
        assert asked(reader) == 0


def test_a_failed_run_says_how_to_go_on_and_how_to_undo_it(user: User) -> None:
    user.stack.faults.append(Fault("ec2", "CreateVpc", "UnauthorizedOperation", 403, "no"))
    said = user.types("create", "demo", "--chart", str(CHART))
    assert said.code == 3
    lines = said.err.splitlines()
    assert f"To continue:          hyperpod-eks create demo --chart {CHART}" in lines
    assert "To delete it instead: hyperpod-eks delete demo" in lines
    user.stack.faults.append(Fault("ec2", ".*", "UnauthorizedOperation", 403, count=99))
    seen = user.types("status", "demo")
    assert (seen.code, "To continue" in seen.err) == (3, False)


def test_a_create_that_has_not_begun_offers_no_delete(user: User) -> None:
    text = "name: demo\ninstance_groups:\n- {name: w, instance_type: ml.p5.48xlarge, "
    (user.folder / "demo.yaml").write_text(f"{text}instance_count: 200}}\n")
    said = user.types("create", "-f", "demo.yaml", "--chart", str(CHART))
    assert (said.code, user.mutations()) == (3, [])
    assert "Nothing was changed." in said.err
    assert f"To continue: hyperpod-eks create -f demo.yaml --chart {CHART}" in said.err
    assert "hyperpod-eks delete" not in said.err


def test_create_says_what_it_costs_and_what_to_type_next(user: User) -> None:
    said = user.types("create", "demo", "--chart", str(CHART))
    *_, price, use, test, see, delete = said.err.splitlines()
    assert price.startswith("about 1.26 USD per hour, 92")
    assert use == "To use it with kubectl:   hyperpod-eks kubeconfig demo"
    assert test == "To test whether it works: hyperpod-eks test demo"
    assert see == "To see its state:         hyperpod-eks status demo"
    assert delete == "To delete it:             hyperpod-eks delete demo"
    again = user.types("create", "demo")
    assert "USD" not in again.err
    assert again.err.splitlines()[-1] == delete
    assert user.types("create", "demo", "-q").err == ""
    assert delete not in user.types("create", "demo", "-o", "json").err
    assert user.types("status", "demo").err.split() == use.split()
    config = "name: demo\nregion: us-west-2\neks: {log_retention_days: 90}\n"
    (user.folder / "demo.yaml").write_text(config)
    assert user.types("status", "-f", "demo.yaml").err.splitlines() == [
        "To see what create would change: hyperpod-eks plan demo --file demo.yaml"
    ]
