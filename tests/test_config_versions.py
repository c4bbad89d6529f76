"""The choice of the Kubernetes version, and its warnings and errors."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from hyperpod_eks.aws.published import SUPPORTED_KUBERNETES, choose_version
from hyperpod_eks.errors import Usage

TODAY = date(2026, 11, 23)


def version(number: str, status: str, standard: str = "", extended: str = "") -> dict[str, Any]:
    """Return one entry of DescribeClusterVersions."""
    found: dict[str, Any] = {"clusterVersion": number, "versionStatus": status}
    for key, day in (
        ("endOfStandardSupportDate", standard),
        ("endOfExtendedSupportDate", extended),
    ):
        if day:
            found[key] = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return found


OFFERED = [
    version("1.36", "STANDARD_SUPPORT", "2027-07-01"),
    version("1.35", "STANDARD_SUPPORT", "2027-03-27"),
    version("1.34", "STANDARD_SUPPORT", "2026-12-02", "2027-12-02"),
    version("1.32", "EXTENDED_SUPPORT", "2026-03-23", "2027-03-23"),
    version("1.31", "EXTENDED_SUPPORT", "2025-11-26", "2026-11-26"),
    version("1.30", "UNSUPPORTED", "2025-07-23", "2026-07-23"),
]


def choose(wanted: str | None = None, untested: bool = False) -> tuple[str, list[str]]:
    return choose_version(OFFERED, wanted, untested, TODAY)


def test_the_highest_that_both_support_is_chosen_without_a_word() -> None:
    assert choose() == ("1.35", [])


def test_untested_versions_are_chosen_only_if_allowed() -> None:
    with pytest.raises(Usage, match=r"HyperPod does not list Kubernetes 1\.36") as refused:
        choose("1.36")
    assert refused.value.hint == (
        "Choose one of 1.31, 1.32, 1.34, 1.35, or set eks.allow_untested_version: true."
    )
    assert choose("1.36", untested=True) == (
        "1.36",
        ["HyperPod does not list Kubernetes 1.36; it was allowed nevertheless"],
    )
    assert choose(untested=True)[0] == "1.36"


@pytest.mark.parametrize(
    ("wanted", "why"),
    [("1.30", "EKS no longer creates"), ("1.99", "EKS does not offer")],
)
def test_what_eks_does_not_create_is_refused(wanted: str, why: str) -> None:
    with pytest.raises(Usage, match=f"eks.version: {why} Kubernetes {wanted} clusters"):
        choose(wanted, untested=True)


def test_extended_support_is_told_with_its_price() -> None:
    until = "is in extended support until 2027-03-23: 0.60 USD per hour, not 0.10"
    assert choose("1.32") == ("1.32", [f"Kubernetes 1.32 {until}"])
    assert choose("1.31")[1][1] == (
        "EKS upgrades Kubernetes 1.31 clusters by itself after 2026-11-26"
    )


def test_a_near_end_of_standard_support_is_told() -> None:
    (warning,) = choose("1.34")[1]
    assert warning == (
        "standard support of Kubernetes 1.34 ends on 2026-12-02; extended support then costs 0.60"
        " USD per hour, not 0.10"
    )


def test_versions_are_ordered_as_numbers() -> None:
    offered = [version("1.9", "STANDARD_SUPPORT"), version("1.10", "STANDARD_SUPPORT")]
    assert choose_version(offered, None, True, TODAY)[0] == "1.10"


def test_the_older_spelling_of_the_status_is_understood() -> None:
    offered = [{"clusterVersion": "1.33", "status": "unsupported"}]
    with pytest.raises(Usage, match="no longer creates"):
        choose_version(offered, "1.33", today=TODAY)


def test_without_a_common_version_the_highest_in_extended_support_or_nothing() -> None:
    assert choose_version(OFFERED[3:], None, today=TODAY)[0] == "1.32"
    with pytest.raises(Usage, match=r"both EKS \(1\.36\) and HyperPod \(1\.30, "):
        choose_version(OFFERED[:1], None, today=TODAY)


def test_the_list_is_in_order() -> None:
    assert list(SUPPORTED_KUBERNETES) == sorted(SUPPORTED_KUBERNETES, key=lambda v: int(v[2:]))
