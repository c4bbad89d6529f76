"""Read the manifest of a cluster, for commands that do not call AWS."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hyperpod_eks.aws.session import NO_CREDENTIALS
from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import called, which_cluster
from hyperpod_eks.cli.login import login_of
from hyperpod_eks.cli.options import Account, Place
from hyperpod_eks.errors import Denied, HyperpodError, NotFound, Usage
from hyperpod_eks.state.location import store_of, stores
from hyperpod_eks.state.manifest import Manifest, read
from hyperpod_eks.state.store import Store


@contextmanager
def naming_causes(place: Place) -> Iterator[None]:
    """Set ``causes``, as `explaining` does, on an error that names its cause; ask AWS nothing."""
    try:
        yield
    except HyperpodError as error:
        if error.cause and not hasattr(error, "causes"):
            from hyperpod_eks.diagnosis import diagnose as explain  # noqa: PLC0415  only for errors

            name = place.name or os.environ.get("HYPERPOD_EKS_NAME") or "NAME"
            cluster = called(name, place)
            names = {"cluster": cluster, "name": name, "again": f"hyperpod-eks create {cluster}"}
            names |= {"eks": name, "region": place.region or "REGION"}
            causes = explain.diagnose(explain.of_error(error, str(error)), names)
            error.causes = causes  # type: ignore[attr-defined]  # Console reads it
        raise


@contextmanager
def naming_local(manifest: Manifest) -> Iterator[None]:
    """Say in an error without credentials that the manifest is of the embedded stack, if it is."""
    try:
        yield
    except Denied as error:
        from hyperpod_eks.local.aws.sim import ACCOUNT  # noqa: PLC0415  only for errors

        if error.reason == NO_CREDENTIALS and manifest.account == ACCOUNT:
            error.hint = (
                f"{manifest.store} belongs to account {ACCOUNT}, that of the embedded stack. To run"
                f" the command there: {current_console().again} --local"
            )
        raise


def store_for(place: Place, name: str, state: str = "") -> Store:
    """Return where the manifest of a cluster is; ``state`` is what its config file says.

    Raises Usage for an S3 URL that cannot be one.
    """
    return store_of(place.manifest, name, login_of(place), state=state or default_state())


def known_stores(places: Sequence[str], account: Account) -> Sequence[Store]:
    """Return where the manifests of known clusters are: the given places, or all by default.

    Raises as `store_for`, and as `Objects.get` for a bucket that cannot be read.
    """
    return stores(places, login_of(account), state=default_state())


def default_state() -> str:
    """Return where manifests are kept if neither option nor config says so; "" for this folder."""
    return os.environ.get("HYPERPOD_EKS_STATE", "")


def remembered(place: Place, *, absent: bool = False) -> Manifest:
    """Read the manifest of the cluster that an argument, a config file or a path names.

    Raises NotFound if the manifest does not exist, unless it may be ``absent``; raises Usage
    without a cluster, and for a region other than the manifest's.
    """
    name, state = _named(place)
    if not (name or place.manifest):
        raise which_cluster()
    store = store_for(place, name, state)
    it = called(name or "NAME", place)
    with naming_causes(place):
        found = read(store, name, again=it)
    if not (found.exists or absent):
        raise NotFound(
            f"manifest {store} does not exist",
            f"To create the cluster: hyperpod-eks create {it}\n"
            f"To rebuild the manifest of an existing one: hyperpod-eks adopt {it} --rebuild",
        )
    if place.region and found.region and found.region != place.region:
        raise Usage(
            f"{store} belongs to region {found.region}, not to {place.region}",
            "Omit --region, or choose another manifest (--manifest).",
        )
    return found


def _named(place: Place) -> tuple[str, str]:
    """Return the name, "" without one, and ``state`` of the config file."""
    if place.file:
        from hyperpod_eks.config.load import load  # noqa: PLC0415  pydantic and botocore's model

        config = load(place.file, {"name": place.name}, os.environ, files=False)
        return config.name, config.state
    return place.name or os.environ.get("HYPERPOD_EKS_NAME") or "", ""
