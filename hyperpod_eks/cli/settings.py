"""A command's config and manifest, read without a call to AWS, and its session of AWS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

from hyperpod_eks.aws.client import Aws, read_only
from hyperpod_eks.cli.documents import called, which_cluster
from hyperpod_eks.cli.login import log_in, use_local
from hyperpod_eks.cli.options import Lock, Place, Settings
from hyperpod_eks.cli.remembered import naming_causes, naming_local, store_for
from hyperpod_eks.config.load import load
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.errors import Usage
from hyperpod_eks.local import CHART
from hyperpod_eks.state.declared import located
from hyperpod_eks.state.manifest import Manifest, read

Edit = Callable[[JsonObject], None]
"""Changes the config that a cluster was declared with, as scale does.  Raises Usage."""


def entered(config: Config, profile: str | None, *, write: bool = False) -> Aws:
    """Open the account of a config, without a call to AWS.

    Without ``write``, every call that changes something is refused.
    """
    aws = Aws(log_in(config.region, profile), config.name, config.tags)
    if not write:
        read_only(aws.session)
    return aws


@contextmanager
def settings(
    place: Place, *, write: bool, files: bool, broken: bool = False, lenient: bool = False
) -> Iterator[tuple[Config, Manifest]]:
    """Read a command's config and manifest, without a call to AWS.

    With ``write`` the manifest is locked while the context is open.  ``files`` and ``broken`` are
    those of `config.load` and `manifest.read`.  With ``lenient``, the config in the manifest may
    be invalid.
    """
    with naming_causes(place):
        _use_account(place)
        source = place.file
        loaded = load(source, _overrides(place), os.environ, files=files) if source else None
        name, place = (loaded.name, place) if loaded else _named(place)
        store = store_for(place, name, loaded.state if loaded else "")
        again = called(name, place, file=False)
        remembered: tuple[JsonObject, Config] | None = None  # read before the lock was taken
        if not (loaded or broken):  # an invalid name must fail before a lock file is created
            before = read(store, name, again=again)
            remembered = before.config, config_of(place, before, files, lenient=lenient)
        patience = place.lock_timeout if isinstance(place, Lock) else 0.0
        with store.locked(patience) if write else nullcontext():
            manifest = read(store, name, broken=broken, again=again)
            if loaded:
                config = _on_stand_in(loaded) if place.local else loaded
            elif remembered and remembered[0] == manifest.config:
                config = remembered[1]
            else:
                config = config_of(place, manifest, files, lenient=lenient)
            with naming_local(manifest):
                yield config, manifest


def _use_account(place: Place) -> None:
    if place.local:
        use_local()
    if place.profile:
        os.environ["AWS_PROFILE"] = place.profile  # the kubeconfig's token command uses it too
        os.environ.pop("AWS_DEFAULT_PROFILE", None)  # botocore would prefer it


P = TypeVar("P", bound=Place)


def _named(place: P) -> tuple[str, P]:
    """Return the cluster's name without a config file, and ``place`` with a manifest's name."""
    name = place.name
    if name is None:
        name = os.environ.get("HYPERPOD_EKS_NAME")
    if name is None and place.manifest:
        name = read(store_for(place, "")).cluster
        place = replace(place, name=name)
    if not name:
        raise which_cluster()
    return name, place


def _overrides(place: Place) -> dict[str, str | None]:
    """Return the values of settings that have an option."""
    flags = place.settings() if isinstance(place, Settings) else {}
    return {"name": place.name, "region": place.region, **flags}


def config_of(
    place: Place,
    manifest: Manifest,
    files: bool,
    *,
    lenient: bool = False,
    edit: Edit | None = None,
) -> Config:
    """Return the manifest's config, else the minimal one, with the options of this command.

    With ``lenient``, an invalid config is reduced to the settings that delete needs: rules may
    have become stricter since the config was recorded.
    """
    config, overrides = located(manifest.config, {}), _overrides(place)
    if edit and config:
        edit(config)
    try:
        found = load(config or None, overrides, os.environ, files=files)
    except Usage:
        if not (lenient and config):
            raise
        protected = config.get("deletion_protection") is True
        least = {"region": manifest.region, "deletion_protection": protected}
        found = load(least, overrides, os.environ, files=files)
    return _on_stand_in(found) if place.local else found


def _on_stand_in(config: Config) -> Config:
    """Use the stand-in chart unless the config sets one: the embedded stack has no images."""
    if config.chart.path is not None:
        return config
    return config.model_copy(update={"chart": config.chart.model_copy(update={"path": CHART})})
