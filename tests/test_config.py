"""Valid configs, and the error messages for invalid ones."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import botocore
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from moto.ec2.models.instance_types import INSTANCE_TYPES

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.aws.published import pods
from hyperpod_eks.config.addressing import subnets
from hyperpod_eks.config.load import load
from hyperpod_eks.config.model import Config
from hyperpod_eks.config.warnings import warnings
from hyperpod_eks.config.yaml import MAX_BYTES
from hyperpod_eks.errors import Denied, Usage

HEAD = "name: demo\nregion: us-west-2\n"
GROUP = "instance_groups:\n  - {name: a, instance_type: ml.m5.2xlarge, instance_count: 2, "


def refusal(tmp_path: Path, text: str | bytes, **overrides: str) -> list[str]:
    """Return the error message for an invalid config, without the folder."""
    file = tmp_path / "cluster.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Usage) as refused:
        load(str(file), overrides, {})
    return [line.removeprefix(f"{tmp_path}/") for line in str(refused.value).splitlines()]


@pytest.fixture(autouse=True)
def nobodys_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the developer's own AWS configuration."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")


def accepted(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    return load(str(file), {}, environ or {})


def cases() -> list[Any]:
    """Yield the cases of test_config_refused.txt: text after HEAD, and the whole message."""
    table = Path(__file__).with_suffix("").with_name("test_config_refused.txt").read_text()
    found = []
    for case in table.split("\n== ")[1:]:
        name, *lines = case.strip().split("\n")
        text = "\n".join(line for line in lines if not line.startswith("> "))
        answer = [line[2:] for line in lines if line.startswith("> ")]
        found.append(pytest.param(text, answer, id=name))
    return found


@pytest.mark.parametrize(("text", "answer"), cases())
def test_each_mistake_is_named_with_place_value_rule_and_fix(
    tmp_path: Path, text: str, answer: list[str]
) -> None:
    types = str(len(model.enum("sagemaker", "ClusterInstanceType")))
    settings = ", ".join(Config.model_fields)
    told = {"{types}": types, "{botocore}": botocore.__version__, "{settings}": settings}
    for placeholder, value in told.items():
        answer = [line.replace(placeholder, value) for line in answer]
    head = "#\nregion: us-west-2\n" if text.startswith("name:") else HEAD
    assert refusal(tmp_path, head + text) == answer


BRACKET = (
    "did not find expected ',' or '}' while parsing a flow mapping; check quotes, colons and"
    " indentation around here"
)
# The whole file, and the whole message.
UNREADABLE = {
    "empty": (b"", "cluster.yaml: is empty; write at least `name: demo` and `region: us-west-2`"),
    "only-comments": (
        b"# soon\n",
        "cluster.yaml: is empty; write at least `name: demo` and `region: us-west-2`",
    ),
    "list": (b"- a\n", "cluster.yaml:1:1: is not a mapping of settings; begin with `name: demo`"),
    "scalar": (b"demo", "cluster.yaml:1:1: is not a mapping of settings; begin with `name: demo`"),
    "tab": (
        b"network:\n\tcidr: x\n",
        "cluster.yaml:2:1: is indented with a tab, which YAML forbids; indent with spaces",
    ),
    "bracket": (b"tags: {a: b\nname: demo\n", f"cluster.yaml:2:5: is not YAML: {BRACKET}"),
    "binary": (b"\x00\x01\x02", "cluster.yaml: is a binary file; a YAML file is expected"),
    "latin-1": (
        b"# a\nname: caf\xe9\n",
        "cluster.yaml:2: is not UTF-8 text; save the file as UTF-8",
    ),
    "control-character": (
        b"#\nname: \x07\n",
        "cluster.yaml:2: has a control character (U+0007); remove it",
    ),
    "two-documents": (
        b"name: a\n---\nname: b\n",
        "cluster.yaml:2:1: a second document begins here; keep one document, remove the `---`",
    ),
    "undefined-alias": (
        b"name: *x\n",
        "cluster.yaml:1:7: found undefined alias; define it with & before it is used",
    ),
    "bomb": (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9))
            for n in range(7)
        ),
        "cluster.yaml:1:4: aliases expand to more than 20000 values; write them out",
    ),
    "alias-of-itself": (
        b"a: &a [*a]\n",
        "cluster.yaml:1:4: aliases expand to more than 20000 values; write them out",
    ),
    "deep": (b"a: " + b"[" * 100_000, "cluster.yaml:1: is nested deeper than 50 levels"),
    "large": (
        b"#" * (MAX_BYTES + 1),
        "cluster.yaml: is larger than 1 MiB: that is not a cluster's configuration",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "answer"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(
    tmp_path: Path, data: bytes, answer: str
) -> None:
    assert refusal(tmp_path, data) == [answer]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Usage, match=r"nowhere\.yaml: cannot be read: No such file or directory$"):
        load(str(tmp_path / "nowhere.yaml"), {}, {})
    with pytest.raises(Usage, match=r"cannot be read: Is a directory$"):
        load(str(tmp_path), {}, {})


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = dedent("""\
        name: Demo
        region: us-wst-2
        network: {cidr: 10.0.0.0/8, availability_zone_ids: [usw2-az1]}
        instance_groups:
          - {name: a, instance_type: m5.2xlarge, instance_count: -1}
          - {name: a, instance_type: ml.m5.2xlarge}
        colour: red
        """)
    places = [line.split(" ")[:2] for line in refusal(tmp_path, text)]
    assert places == [
        ["cluster.yaml:2:9:", "region:"],
        ["cluster.yaml:3:17:", "network.cidr:"],
        ["cluster.yaml:3:52:", "network.availability_zone_ids:"],
        ["cluster.yaml:5:30:", "instance_groups[0].instance_type:"],
        ["cluster.yaml:5:58:", "instance_groups[0].instance_count:"],
        ["cluster.yaml:6:5:", "instance_groups[1].instance_count:"],
        ["cluster.yaml:6:12:", "instance_groups[1].name:"],
        ["cluster.yaml:7:1:", "colour:"],
    ]


def test_without_a_file_it_is_the_minimal_cluster() -> None:
    config = load(None, {"name": "demo", "region": "us-west-2"}, {})
    (group,) = config.instance_groups
    assert group.model_dump(exclude_defaults=True) == {
        "name": "worker-group",
        "instance_type": "ml.m5.2xlarge",
        "instance_count": 2,
    }
    assert (group.threads_per_core, group.ebs_volume_size_in_gb) == (1, 500)
    assert list(config.every_addon()) == [
        "vpc-cni",
        "kube-proxy",
        "coredns",
        "eks-pod-identity-agent",
    ]
    assert config.bucket("111122223333") == "sagemaker-demo-111122223333-us-west-2"
    assert Config.model_validate_json(config.model_dump_json(by_alias=True)) == config
    assert load(config.model_dump(mode="json", by_alias=True), {}, {}) == config


def test_an_empty_list_of_restricted_groups_leaves_the_default_group() -> None:
    given = {"name": "demo", "region": "us-west-2"}
    empty: list[Any] = []
    config = load({**given, "restricted_instance_groups": empty}, {}, {})
    assert config == load(None, given, {})


def test_name_and_region_are_needed_and_every_way_to_give_them_is_named() -> None:
    with pytest.raises(Usage) as refused:
        load(None, {}, {})
    name, region = str(refused.value).splitlines()
    needed = "is missing (every cluster has one); pass"
    assert name == f"name: {needed} NAME, set HYPERPOD_EKS_NAME, or write `name:` in the file"
    assert region == f"region: {needed} --region, set AWS_REGION, or write `region:` in the file"


@pytest.mark.parametrize("setting", ["name", "region", "eks.version"])
def test_a_flag_wins_over_its_variable_over_the_file(tmp_path: Path, setting: str) -> None:
    variable = {
        "name": "HYPERPOD_EKS_NAME",
        "region": "HYPERPOD_EKS_REGION",
        "eks.version": "HYPERPOD_EKS_KUBERNETES_VERSION",
    }[setting]
    values = {
        "name": ("flag", "variable", "file"),
        "region": ("eu-west-1", "eu-west-2", "us-west-2"),
        "eks.version": ("1.31", "1.32", "1.33"),
    }[setting]
    file = tmp_path / "cluster.yaml"
    file.write_text('name: file\nregion: us-west-2\neks: {version: "1.33"}\n')

    def value(overrides: dict[str, str | None], environ: dict[str, str]) -> Any:
        found: Any = load(str(file), overrides, environ)
        for part in setting.split("."):
            found = getattr(found, part)
        return found

    assert value({setting: values[0]}, {variable: values[1]}) == values[0]
    assert value({setting: None}, {variable: values[1]}) == values[1]
    assert value({}, {variable: ""}) == values[2]


def test_a_mistake_in_a_flag_or_variable_names_it_not_the_file(tmp_path: Path) -> None:
    (line,) = refusal(tmp_path, HEAD, region="us-wst-2")
    assert line == (
        'flag --region: region: "us-wst-2" is not an AWS region that botocore knows; did you mean'
        " us-west-2?"
    )
    with pytest.raises(Usage, match=r"^variable HYPERPOD_EKS_NAME: name: \"a_b\" does not match"):
        load(None, {}, {"HYPERPOD_EKS_NAME": "a_b", "AWS_REGION": "us-west-2"})
    with pytest.raises(Usage, match=r"^variable AWS_REGION: region: .*; use us-west-2$"):
        load(None, {"name": "demo"}, {"AWS_REGION": "us-west-2a"})


def test_the_region_falls_back_to_what_boto3_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`test_aws_session` compares it with boto3."""
    aws = tmp_path / "config"
    aws.write_text("[default]\nregion = eu-west-1\n[profile my team]\nregion=eu-west-2\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(aws))
    assert load(None, {"name": "demo"}, {}).region == "eu-west-1"
    assert load(None, {"name": "demo"}, {"AWS_REGION": "eu-west-3"}).region == "eu-west-3"
    assert accepted(tmp_path, HEAD, {"AWS_REGION": "eu-west-3"}).region == "us-west-2"
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "my team")
    aws.write_text("garbage\x00[")
    with pytest.raises(Denied, match=f"Unable to parse .*{aws}"):
        load(None, {"name": "demo"}, {})


@pytest.mark.parametrize(
    ("name", "region", "why"),
    [
        ("Demo", "us-west-2", 'has capitals .* use "demo"$'),
        ("d" * 31, "us-west-2", r"has 31 characters \(the .* S3 takes 63\); use at most 30$"),
        ("d" * 26, "ap-southeast-1", "use at most 25$"),
    ],
)
def test_a_name_must_leave_room_in_the_buckets_name(name: str, region: str, why: str) -> None:
    with pytest.raises(Usage, match=why):
        load(None, {"name": name, "region": region}, {})
    fits = name.lower()[: 39 - len(region)]
    assert len(load(None, {"name": fits, "region": region}, {}).bucket("1" * 12)) <= 63


def test_paths_in_the_file_start_at_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/on_create.sh").write_text("#!/bin/bash\n")
    text = HEAD + "lifecycle: {path: mine}\n"
    assert accepted(tmp_path, text).lifecycle.path == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    flags = {"name": "demo", "region": "us-west-2", "lifecycle.path": "mine"}
    assert load(None, flags, {}).lifecycle.path == tmp_path / "mine"


def test_missing_folders_are_told_only_to_who_uploads_them(tmp_path: Path) -> None:
    text = HEAD + "lifecycle: {path: gone}\nchart: {path: .}\n"
    lifecycle, chart = refusal(tmp_path, text)
    assert lifecycle == (
        f"cluster.yaml:3:19: lifecycle.path: {tmp_path}/gone does not exist; choose the folder that"
        " holds on_create.sh"
    )
    assert chart == (
        f"cluster.yaml:4:15: chart.path: {tmp_path} is not a Helm chart (there is no Chart.yaml,"
        " and no helm_chart/HyperPodHelmChart); choose the folder HyperPodHelmChart, or a checkout"
        " of https://github.com/aws/sagemaker-hyperpod-cli that holds it"
    )
    (tmp_path / "helm_chart/HyperPodHelmChart").mkdir(parents=True)
    (tmp_path / "helm_chart/HyperPodHelmChart/Chart.yaml").touch()
    assert len(refusal(tmp_path, text)) == 1
    assert load(str(tmp_path / "cluster.yaml"), {}, {}, files=False).name == "demo"


def test_scripts_of_one_group_must_be_there_too(tmp_path: Path) -> None:
    for script in ("on_create", "on_init_complete"):
        own = f"life_cycle_config: {{{script}: mine.sh}}}}\n"
        (line,) = refusal(tmp_path, HEAD + GROUP + own)
        assert "instance_groups[0].life_cycle_config: " in line
        assert line.endswith(f"or set another entry script as life_cycle_config.{script}")
    elsewhere = "life_cycle_config: {source_s3_uri: 's3://sagemaker-x/y', on_create: mine.sh}}\n"
    assert accepted(tmp_path, HEAD + GROUP + elsewhere).name == "demo"


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + HEAD.encode())))
    assert load("-", {}, {}).name == "demo"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"name: 1")))
    with pytest.raises(
        Usage, match=r"^standard input:1:1: region.*\nstandard input:1:7: name: 1 is"
    ):
        load("-", {}, {"HOME": "/nowhere"})


def test_yaml_is_read_as_people_mean_it(tmp_path: Path) -> None:
    config = accepted(
        tmp_path,
        HEAD
        + dedent("""\
            tags: {due: 2026-12-01, größe: "1"}
            network:
            addons:
              coredns:
              vpc-cni: {configuration_values: {env: {WARM_IP_TARGET: "1"}}}
            chart: {values: {a: [1, null, 2.5, {b: true}]}}
            instance_groups:
              - &big {name: a, instance_type: ml.m5.2xlarge, instance_count: 0}
            """),
    )
    assert config.tags == {"due": "2026-12-01", "größe": "1"}
    assert config.addons["vpc-cni"].configuration_values == {"env": {"WARM_IP_TARGET": "1"}}
    assert config.chart.values == {"a": [1, None, 2.5, {"b": True}]}
    assert config.instance_groups[0].instance_count == 0


def test_a_configuration_cannot_be_changed() -> None:
    config = load(None, {"name": "demo", "region": "us-west-2"}, {})
    with pytest.raises(ValueError, match="frozen"):
        setattr(config, "name", "other")  # noqa: B010  mypy would refuse an assignment


def test_what_is_probably_not_meant_is_a_warning(tmp_path: Path) -> None:
    text = "name: demo\nregion: eu-south-1\nnetwork: {cidr: 10.0.0.0/20}\n" + GROUP.replace(
        "ml.m5.2xlarge, instance_count: 2, ", "ml.p5.48xlarge, instance_count: 16}"
    )
    region, network = warnings(accepted(tmp_path, text))
    assert region == (
        "region: eu-south-1 is not among the regions that AWS listed for HyperPod in October 2026"
    )
    assert network == (
        "network.cidr: 16 ml.p5.48xlarge of a take about 1296 addresses (81 each), and a private"
        " subnet of 10.0.0.0/20 has 1019"
    )
    assert warnings(load(None, {"name": "demo", "region": "us-west-2"}, {})) == []


@pytest.mark.parametrize(
    ("version", "more", "says"),
    [
        ("1.30", "", None),
        ("1.29", ", allow_untested_version: true", None),  # the user knows
        ("1.40", "", "create refuses it without eks.allow_untested_version: true"),
        ("1.40", ", allow_untested_version: true", "it was allowed nevertheless"),
    ],
)
def test_a_kubernetes_version_of_days_to_come_is_possible(
    tmp_path: Path, version: str, more: str, says: str | None
) -> None:
    text = f'name: demo\nregion: us-west-2\neks: {{version: "{version}"{more}}}\n'
    newer = f"eks.version: {version} is newer than 1.35, the newest that AWS listed for HyperPod"
    found = warnings(accepted(tmp_path, text))
    assert found == ([f"{newer} in October 2026; {says}"] if says else [])


@pytest.mark.parametrize(("others", "warned"), [(0, True), (1, False)])
def test_a_check_that_needs_an_operator_needs_a_node_for_it(
    tmp_path: Path, others: int, warned: bool
) -> None:
    text = "name: demo\nregion: us-west-2\n" + GROUP.replace(
        "ml.m5.2xlarge, instance_count: 2, ",
        "ml.p5.48xlarge, instance_count: 2,"
        " on_start_deep_health_checks: [MultiNodeTrainingValidation]}",
    )
    text += f"\n  - {{name: b, instance_type: ml.m5.2xlarge, instance_count: {others}}}\n"
    found = warnings(accepted(tmp_path, text))
    assert any("the check may never" in line for line in found) is warned


def fits(cidr: str, zones: tuple[str, ...]) -> bool:
    """Whether the block can be divided; the table above has the message if not."""
    try:
        return bool(subnets(cidr, zones))
    except ValueError:
        return False


@given(length=st.integers(16, 24), count=st.integers(1, 6))
def test_subnets_divide_the_network_without_overlap(length: int, count: int) -> None:
    cidr, zones = f"10.0.0.0/{length}", tuple(f"z{n}" for n in range(count))
    if length + 2 * count.bit_length() > 27 and not fits(cidr, zones):
        return
    plan = subnets(cidr, zones)
    assert [one.zone for one in plan] == list(zones)
    blocks = [ipaddress.IPv4Network(b) for one in plan for b in (one.private, one.public)]
    assert all(block.subnet_of(ipaddress.IPv4Network(cidr)) for block in blocks)
    assert not any(a.overlaps(b) for n, a in enumerate(blocks) for b in blocks[:n])
    assert all(block.prefixlen <= 28 for block in blocks)
    private = ipaddress.IPv4Network(plan[0].private)
    assert private.num_addresses * (count + 1) * 2 > 2 ** (32 - length)


def test_a_zone_added_later_moves_no_subnet() -> None:
    three = subnets("10.0.0.0/16", ("a", "b", "c"))
    assert subnets("10.0.0.0/16", ("a", "b")) == three[:2]
    assert [(one.private, one.public) for one in three] == [
        ("10.0.0.0/18", "10.0.192.0/24"),
        ("10.0.64.0/18", "10.0.193.0/24"),
        ("10.0.128.0/18", "10.0.194.0/24"),
    ]


def test_importing_and_the_minimal_cluster_load_no_heavy_package() -> None:
    code = (
        "import json, sys; import hyperpod_eks.config.model, hyperpod_eks.aws.service_model;"
        "import hyperpod_eks.terminal.progress;"
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] in"
        " ('boto3', 'botocore', 'kubernetes', 'rich', 'pyhelm3', 'moto', 'jsonschema')]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(out.stdout) == []


def of_our_own(text: str) -> list[str]:
    """Return the warnings about a config with these lines, a name and a region."""
    given = {"name": "demo", "region": "us-west-2"} | yaml.safe_load(text)
    return warnings(load(given, {}, {}))


OURS = '{Effect: Allow, Principal: "*", Action: "*", Resource: "*", Condition: {StringEquals: %s}}'
IN_CONDITION = ['{"aws:PrincipalAccount": "1"}', '{"aws:PrincipalOrgID": "o"}']


@pytest.mark.parametrize("condition", [*IN_CONDITION, '{"aws:ResourceAccount": "1"}'])
def test_an_endpoint_policy_that_locks_out_images_is_warned_of(condition: str) -> None:
    policy = f"network: {{endpoint_policy: {{Statement: [{OURS % condition}]}}}}"
    (one,) = of_our_own(policy)
    assert "image layers of ECR, packages of Amazon Linux 2023, updates of SSM Agent" in one
    opened = '{Effect: Allow, Principal: "*", Action: "s3:Get*", Resource: "arn:aws:s3:::*"}'
    assert of_our_own(policy.replace("}}]", f"}}}}, {opened}]")) == []
    some = opened.replace(":::*", ":::prod-us-west-2-starport-layer-bucket/*")
    (one,) = of_our_own(policy.replace("}}]", f"}}}}, {some}]"))
    assert "image layers" not in one
    assert of_our_own(f"network: {{endpoint_policy: {{Statement: {opened}}}}}") == []


def test_public_images_without_a_way_out_are_warned_of() -> None:
    (one,) = of_our_own("network: {nat: none}")
    assert "ImagePullBackOff" in one
    values = "chart: {values: {trainingOperators: {image: mine}}}"
    assert of_our_own(f"network: {{nat: none}}\n{values}") == []


def test_few_small_nodes_are_warned_of() -> None:
    group = "instance_groups: [{name: g, instance_type: %s, instance_count: %s}]"
    (one,) = of_our_own(group % ("ml.m5.2xlarge", 1))
    assert "about 14 pods" in one
    for kind, count in (("ml.m5.2xlarge", 2), ("ml.m5.4xlarge", 1), ("ml.t3.medium", 0)):
        assert of_our_own(group % (kind, count)) == []


def test_the_room_for_pods_is_that_of_one_interface() -> None:
    """Compare our table with moto's data about EC2 instance types."""
    for kind in model.enum("sagemaker", "CreateCluster.InstanceGroups.InstanceType"):
        known = INSTANCE_TYPES.get(kind.removeprefix("ml."))
        if known:
            room = known["NetworkInfo"]["Ipv4AddressesPerInterface"] - 1
            assert (pods(kind) or 29) == min(room, 29), kind


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"region": "us-gov-west-1"}, "partition aws-us-gov, where AWS does not offer HyperPod"),
        ({"region": "cn-north-1"}, "partition aws-cn, where AWS does not offer HyperPod"),
        ({"name": "sg-demo"}, 'begins with "sg-" (EC2 takes no such name of a security group'),
        ({"name": "sg"}, 'is "sg" or begins with "sg-"'),
    ],
)
def test_what_aws_would_refuse_later_is_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(Usage) as refused:
        load({"name": "demo", "region": "us-west-2"} | settings, {}, {})
    assert words in str(refused.value)
