"""``hyperpod-eks export``: write the cluster for Terraform or CloudFormation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli.app import Group
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Output, Place, option
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpod_eks.cli.schemas.views import Export
    from hyperpod_eks.events import Report
    from hyperpod_eks.state.manifest import Manifest


@frozen
class Options(Place, Output):
    """Options of export."""

    folder: Path | None = option(
        "--dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Folder for the files.  [default: ./NAME-terraform or ./NAME-cloudformation]",
    )


def terraform(options: Options, report: Report) -> Export:
    """Write cluster NAME as Terraform configuration.

    Writes import blocks and resources for everything in the manifest, and names what it leaves
    out.  Does not call AWS.  `hyperpod-eks explain leaving` says how
    to import it.
    """
    from hyperpod_eks.export import terraform as exports

    manifest = _remembered(options)
    texts, exported = exports.files(manifest)
    imported = {key: [each.type for each in blocks] for key, blocks in exported.blocks.items()}
    folder = _write(options.folder, f"{manifest.cluster}-terraform", texts)
    next_ = f"terraform -chdir={folder} init && terraform -chdir={folder} plan"
    return _document("terraform", manifest, folder, texts, imported, exported.left_out, next_)


def cloudformation(options: Options, report: Report) -> Export:
    """Write cluster NAME as a CloudFormation template.

    Writes a template and the list of resources to import into its stack, and names what it leaves
    out.  Does not call AWS.  `hyperpod-eks explain leaving` says how
    to import it.
    """
    from hyperpod_eks.export import cloudformation as exports

    manifest = _remembered(options)
    texts, exported = exports.files(manifest)
    imported = {key: [each.type for each in blocks] for key, blocks in exported.blocks.items()}
    name = f"{manifest.cluster}-cloudformation"
    folder = _write(options.folder, name, texts)
    next_ = (
        f"aws cloudformation create-change-set --region {manifest.region}"
        f" --stack-name {manifest.cluster}-hyperpod --change-set-name import"
        f" --change-set-type IMPORT --capabilities CAPABILITY_NAMED_IAM"
        f" --template-body file://{folder}/template.json"
        f" --resources-to-import file://{folder}/resources-to-import.json"
    )
    return _document("cloudformation", manifest, folder, texts, imported, exported.left_out, next_)


def _remembered(options: Options) -> Manifest:
    from hyperpod_eks import stack  # noqa: F401  imports every kind
    from hyperpod_eks.cli.remembered import remembered

    found = remembered(options)
    found.remembered()  # raises Usage for a kind of a newer version
    return found


def _write(given: Path | None, name: str, texts: Mapping[str, str]) -> Path:
    """Write the files, none of which may exist with another content; return their folder."""
    from hyperpod_eks import files

    folder = given or Path(name)
    contents = {folder / each: text.encode() for each, text in texts.items()}
    for path, content in contents.items():
        if path.exists() and files.read(path) != content:
            raise Usage(
                f"{path} exists and differs; nothing was written",
                "Choose another folder with --dir, or delete the file.",
            )
    files.make_folder(folder)
    for path, content in contents.items():
        files.replace(path, content, mode=0o600)  # as the manifest: settings may be secrets
    return folder


def _document(
    language: str,
    manifest: Manifest,
    folder: Path,
    texts: Mapping[str, str],
    resources: dict[str, list[str]],
    left_out: dict[str, str],
    next_: str,
) -> Export:
    return {
        **head(f"export {language}", kind="export"),
        "cluster": {"name": manifest.cluster},
        "folder": str(folder),
        "files": sorted(texts),
        "resources": resources,
        "left_out": left_out,
        "next": next_,
    }


def text(document: Export) -> str:
    """Return what was written, what was left out, and the command to run next."""
    names = ", ".join(document["files"])
    number = sum(map(len, document["resources"].values()))
    lines = [f"wrote {names} to {document['folder']}: {number} resources to import"]
    if left_out := document["left_out"]:
        width = max(map(len, left_out))
        lines += ["", "left out:", *(f"  {key:<{width}}  {why}" for key, why in left_out.items())]
    return "\n".join([*lines, "", f"next: {document['next']}"])


command = Group("export", help="Write the cluster for another tool, to leave this one.")
for each in (
    define("terraform", Options, terraform, text, "hyperpod-eks export terraform demo"),
    define(
        "cloudformation", Options, cloudformation, text, "hyperpod-eks export cloudformation demo"
    ),
):
    command.add_command(each)
