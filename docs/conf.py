"""The documentation site: README, docs/ and the code of the examples, built by Sphinx.

`make site` builds it in .cache/site/html.  A link that leads nowhere and a page that is in no list
of contents end the build.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.parsers import Parser

ROOT = Path(__file__).parents[1]
CONTENTS = {
    "Use": ["commands", "config", "../examples/README", "teams", "task-governance", "inference",
            "monitoring", "pipelines", "library", "leaving"],
    "If something fails": ["troubleshooting", "exit-codes", "crash-safety", "change"],
    "Before you decide": ["iam", "comparison", "performance", "local-stack"],
    "Develop": ["architecture", "e2e", "../CONTRIBUTING", "../CHANGELOG"],
}  # fmt: skip
"""The pages by caption, in docs/ or relative to it."""
EXAMPLES = ["*", "jobs/*", "workloads/*", "ci/*"]

project = "hyperpod-eks"
extensions = ["myst_parser"]
root_doc = "README"
source_suffix = {".md": "markdown", ".yaml": "code", ".yml": "code"}
include_patterns = ["*.md", "docs/*.md", "examples/**"]
myst_heading_anchors = 4  # as GitHub derives them
nitpicky = True
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False


class Code(Parser):
    """A file of examples/ as a page: its path is the title."""

    supported = ("code",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Add the title and the code to the page."""
        path = Path(document["source"]).relative_to(ROOT / "examples")
        section = nodes.section(ids=["code"], names=["code"])
        section += nodes.title(text=str(path))
        section += nodes.literal_block(inputstring, inputstring, language="yaml")
        document += section


def contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Add to a page the list of contents that it does not need where files are listed anyway."""
    if name == "README":
        for caption, pages in CONTENTS.items():
            source[0] += listed(caption, [f"docs/{each}" for each in pages])
    if name == "examples/README":
        source[0] += listed("Examples", EXAMPLES)


def listed(caption: str, pages: list[str]) -> str:
    """Return the directive that lists pages under a caption."""
    options = f":hidden:\n:glob:\n:caption: {caption}"
    return "\n\n```{toctree}\n" + "\n".join([options, "", *pages]) + "\n```\n"


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.add_source_parser(Code)
    app.connect("source-read", contents)
