"""``hyperpod-eks config``: the config that a cluster was last declared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hyperpod_eks.cli.app import Group
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.options import Output, Place
from hyperpod_eks.errors import NotFound
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import ClusterConfig
    from hyperpod_eks.documents import JsonObject
    from hyperpod_eks.events import Report


@frozen
class Options(Place, Output):
    """Options of config show."""


def show(options: Options, report: Report) -> ClusterConfig:
    """Print the config of cluster NAME.

    It is the config of the last run on any machine that could change something: from the cluster's
    bucket, else from the manifest.  References (${env:NAME}) are printed as they are; a
    folder is printed as the digest of its content, and not at all if it is part of the tool.
    Settings that have their default value are omitted; the documents (-o json, -o yaml) have them.
    """
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli import opening
    from hyperpod_eks.cli.settings import entered, settings
    from hyperpod_eks.state.declared import portable

    with settings(options, write=False, files=False, lenient=True) as (config, manifest):
        aws = entered(config, options.profile)
        kept, newest = opening.newest_config(aws, manifest, config)
        if not (newest.number or manifest.config):
            snapshot = Snapshot(aws)
            kept, newest = opening.in_adopted_bucket(snapshot, config.name) or (kept, newest)
        found = kept.read(newest) if newest.number else None
        if found is None and not manifest.config:
            raise NotFound(
                f"the config of {config.name} was not found in"
                f" s3://{kept.objects.bucket} or in {manifest.store}",
                f"To see the cluster: hyperpod-eks status {called(config.name, options)}",
            )
        return {
            **head("config show", kind="cluster-config"),
            "cluster": {"name": config.name},
            "account": aws.identity.account,
            "region": aws.identity.region,
            "source": kept.name(newest.number) if found else str(manifest.store),
            "number": newest.number,
            "saved_at": found.saved_at if found else "",
            "tool_version": found.tool_version if found else manifest.tool_version,
            "config": found.config if found else portable(manifest.config),
        }


def text(document: ClusterConfig) -> str:
    """Return the config as a config file has it, without defaults."""
    import yaml

    return str(yaml.safe_dump(_without_defaults(document["config"]), sort_keys=False)).rstrip()


def _without_defaults(config: JsonObject) -> JsonObject:
    """Return the settings that are not this version's defaults; all of an invalid config."""
    from hyperpod_eks.config.model import Config

    try:
        found = Config.model_validate(config)
    except ValueError:  # of another version
        return config
    return found.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def then(options: Options, document: ClusterConfig) -> Iterator[str]:
    """Yield the command that prints the defaults, too."""
    it = called(document["cluster"]["name"], options)
    yield f"To see the defaults, too: hyperpod-eks config show {it} -o yaml --query config"


command = Group("config", help="Print the config of cluster NAME.")
command.add_command(
    define(
        "show",
        Options,
        show,
        text,
        """
        hyperpod-eks config show demo > demo.yaml
        hyperpod-eks config show demo -o json --query config.instance_groups
        """,
        then=then,
        log=Log.IF_IT_FAILS,
    )
)
