"""The examples are valid, and the generated documents are up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from hyperpod_eks.config.load import load
from hyperpod_eks.config.model import Config
from hyperpod_eks.config.warnings import warnings

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
SCHEMA = json.loads((ROOT / "docs/config.schema.json").read_text())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_accepted_by_the_tool_and_by_the_schema(example: Path) -> None:
    config = load(str(example), {}, {})
    # an example cannot know the location of images
    closed = [each for each in warnings(config) if "ImagePullBackOff" not in each]
    assert closed == []
    jsonschema.validate(yaml.safe_load(example.read_text()), SCHEMA)


def test_the_minimal_example_is_the_default_cluster() -> None:
    minimal = load(str(ROOT / "examples/minimal.yaml"), {}, {})
    assert minimal == load(None, {"name": "demo", "region": "us-west-2"}, {})


def test_the_articles_cluster_is_as_it_describes_it() -> None:
    config = load(str(ROOT / "examples/article.yaml"), {}, {})
    assert config.network.cidr == "10.0.0.0/16"
    assert config.network.nat == "per-az"
    assert len(config.network.availability_zone_ids) == 2
    (group,) = config.instance_groups
    assert (group.instance_type, group.instance_count) == ("ml.m5.2xlarge", 2)
    assert group.ebs_volume_size_in_gb == 500
    assert len(config.eks.log_types) == 5


def test_the_generated_documents_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("instance_groups: [{name: a, instance_type: ml.m5.2xlarge, instance_count: -1}]", "min"),
        ("node_recovery: automatic", "enum"),
        ("nodes: 1", "additional"),
        ("tags: {a: 1}", "type"),
        ('eks: {version: "1.35.1"}', "pattern"),
    ],
)
def test_the_schema_refuses_what_the_tool_refuses(text: str, path: str) -> None:
    with pytest.raises(jsonschema.ValidationError) as refused:
        jsonschema.validate(yaml.safe_load(text), SCHEMA)
    best = jsonschema.exceptions.best_match([refused.value])
    assert str(best.validator).startswith(path) or path in str(refused.value.schema)


def test_the_schema_knows_every_setting_and_says_something_about_it() -> None:
    assert set(SCHEMA["properties"]) == set(Config.model_fields)
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    named = {n: p for s in sections for n, p in s.get("properties", {}).items()}
    assert all(setting.get("description") for setting in named.values())


def test_the_reference_names_every_setting() -> None:
    text = (ROOT / "docs/config.md").read_text()
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    assert all(f"| `{n}` |" in text for s in sections for n in s.get("properties", {}))
