"""``mirror``: images of charts in ECR, and the values that name them."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from werkzeug.serving import WSGIRequestHandler, make_server

from hyperpod_eks.aws.registry import Registry
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.local import CHART, UPSTREAM
from hyperpod_eks.local.aws.ecr import digest_of
from hyperpod_eks.local.aws.sim import ACCOUNT, Fault
from hyperpod_eks.local.tls import make_pki
from tests.cli.test_mirror_ends import cut
from tests.conftest import Clients, User
from tests.proxy import proxy

REGISTRY = f"{ACCOUNT}.dkr.ecr.us-west-2.amazonaws.com"
CLOSED = """\
name: demo   # closed
region: us-west-2
network: {nat: none}
instance_groups:
- {name: cpu, instance_type: ml.m5.2xlarge, instance_count: 1}
"""
OPERATOR = "docker.io/mpioperator/mpi-operator"
FURTHER = """\
{{ define "image" }}{{ .registry }}/{{ .repository }}:{{ .tag }}{{ end }}
apiVersion: apps/v1
kind: Deployment
metadata: {name: further}
spec:
  selector: {matchLabels: {app: further}}
  template:
    metadata: {labels: {app: further}}
    spec:
      initContainers:
        - {name: fixed, image: "public.ecr.aws/docker/library/busybox:1.36"}
      containers:
        - name: one
          image: {{ include "image" .Values.image }}
          args: ["--solver-image={{ .Values.solver }}", "--v=2"]
        - {name: two, image: "{{ .Values.short }}"}
"""
VALUES = """\
image: {registry: quay.io, repository: team/operator, tag: v1}
solver: quay.io/team/solver:v1
solverImage: quay.io/team/solver:v1
short: busybox
shortImage: busybox
"""


HOSTS = {"registry-1.docker.io": "docker.io", "quay.io": "quay.io",
         "public.ecr.aws": "public.ecr.aws"}  # fmt: skip
"""The hosts of registries, and what the names of their images begin with."""


class Quiet(WSGIRequestHandler):
    """A request handler without a log."""

    def log_request(self, *_: object) -> None: ...


@pytest.fixture
def upstream(user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registries of the internet, behind a proxy: one server with a certificate for all."""
    stack: Any = user.stack
    pki = make_pki([*HOSTS])

    def registry(environ: dict[str, Any], start: Any) -> Any:
        host = HOSTS[environ["HTTP_HOST"].partition(":")[0]]
        path = environ["PATH_INFO"].replace("/v2/", f"/v2/{UPSTREAM}{host}/", 1)
        there = {"HTTP_HOST": urlsplit(stack.endpoint).netloc, "PATH_INFO": path}
        return stack._server._httpd.app({**environ, **there}, start)

    tls = pki.server_context()
    server = make_server(
        "127.0.0.1", 0, registry, threaded=True, ssl_context=tls, request_handler=Quiet
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    bundle = user.folder.parent / "ca.pem"
    bundle.write_bytes(pki.ca_pem)
    with proxy("u:p", lambda _: server.port) as one:
        monkeypatch.setenv("HTTPS_PROXY", f"http://u:p@127.0.0.1:{one.port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        yield
    server.shutdown()
    server.server_close()


def images_in(user: User) -> set[str]:
    """Return every image that a pod of the Kubernetes cluster has."""
    text = json.dumps(user.stack.inventory()["kubernetes"])
    return set(re.findall(r'"image": "([^"]+)"', text))


@pytest.mark.usefixtures("upstream")
def test_a_closed_cluster_starts_its_pods_from_ecr(user: User, aws: Clients) -> None:
    file = user.folder / "closed.yaml"
    file.write_text(CLOSED)
    chart = ("--chart", str(CHART))
    said = user.types("mirror", "-f", "closed.yaml", *chart, "--dry-run", "-o", "json")
    assert said.code == 0, said.err
    copy = f"{REGISTRY}/demo/{OPERATOR}:0.5"
    agent = "000000000000.dkr.ecr.us-west-2.amazonaws.com/hyperpod-health-monitoring-agent:local"
    rows = {row["image"]: (row["action"], row["copy"]) for row in said.document["images"]}
    assert rows == {"mpioperator/mpi-operator:0.5": ("copy", copy), agent: ("reachable", "")}
    assert (file.read_text(), user.mutations()) == (CLOSED, [])

    said = user.types("mirror", "-f", "closed.yaml", *chart)

    assert said.code == 0, said.err
    assert said.err == f"copied {OPERATOR}\n"
    (made,) = aws.ecr.describe_repositories()["repositories"]
    assert made["repositoryName"] == f"demo/{OPERATOR}"
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": False}
    tags = aws.ecr.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"]
    assert {"Key": "hyperpod-eks:cluster", "Value": "demo"} in tags
    held = aws.ecr.describe_images(repositoryName=f"demo/{OPERATOR}")["imageDetails"]
    assert len(held) == 3  # the index, and the manifest of each of its platforms
    written = file.read_text()
    assert written.startswith(CLOSED)
    values = yaml.safe_load(written)["chart"]["values"]
    image = {"repository": f"{REGISTRY}/demo/{OPERATOR}"}
    assert values == {"mpi-operator": {"mpiOperator": {"image": image}}}

    assert user.mutations() == ["ecr.CreateRepository"]
    again = user.types("mirror", "-f", "closed.yaml", *chart, "-o", "json")
    actions = {row["image"]: row["action"] for row in again.document["images"]}
    assert (again.code, actions) == (0, {copy: "present", agent: "reachable"})
    assert (file.read_text(), user.mutations()) == (written, [])

    said = user.types("validate", "-f", "closed.yaml")
    assert "ImagePullBackOff" not in said.err
    made = user.types("create", "-f", "closed.yaml", *chart, "--yes")
    assert made.code == 0, made.err
    assert {copy, agent} <= images_in(user)
    assert not any("mpioperator" in each and REGISTRY not in each for each in images_in(user))

    said = user.types("delete", "demo", "--yes", "-o", "json")
    assert said.code == 0, said.err
    (step,) = [each for each in said.document["steps"] if each["name"] == "images"]
    assert [(each["id"], each["state"]) for each in step["resources"]] == [
        (f"demo/{OPERATOR}", "gone")
    ]
    assert aws.ecr.describe_repositories()["repositories"] == []


@pytest.mark.prove
@pytest.mark.usefixtures("upstream")
def test_a_test_in_a_closed_cluster_uses_the_copy_of_its_image(user: User, aws: Clients) -> None:
    text = CLOSED + "- {name: gpu, instance_type: ml.g5.8xlarge, instance_count: 2}\n"
    (user.folder / "closed.yaml").write_text(text)
    stack: Any = user.stack
    stack.sim.set_quota("sagemaker", "ml.g5.8xlarge for cluster usage", 4)
    chart = ("-f", "closed.yaml", "--chart", str(CHART))
    said = user.types("mirror", *chart, "-o", "json")
    assert said.code == 0, said.err
    (row,) = [each for each in said.document["images"] if each["charts"] == ["test"]]
    image = "public.ecr.aws/hpc-cloud/nccl-tests:"
    assert (row["image"].partition(":")[0] + ":", row["action"]) == (image, "copied")
    assert row["copy"] == f"{REGISTRY}/demo/{row['image']}"
    assert user.types("create", *chart, "--yes").code == 0
    stack.sim.failures["kubernetes/registry"] = "timeout"  # it names the image
    found = user.types("test", "demo", "--level", "3")
    assert (found.code, f'"{row["copy"]}"' in found.out) == (11, True)
    mine = ("--accelerator-image", "mine/nccl:1")
    assert '"mine/nccl:1"' in user.types("test", "demo", "--level", "3", *mine).out
    aws.ecr.delete_repository(repositoryName=f"demo/{image[:-1]}", force=True)
    assert f'"{row["image"]}"' in user.types("test", "demo", "--level", "3").out


@pytest.mark.usefixtures("upstream")
def test_every_way_to_name_an_image_is_found_and_what_no_value_names_is_said(
    user: User, aws: Clients
) -> None:
    further = user.folder / "further"
    (further / "templates").mkdir(parents=True)
    (further / "Chart.yaml").write_text("{apiVersion: v2, name: further, version: 0.1.0}\n")
    (further / "values.yaml").write_text(VALUES)
    (further / "templates/all.yaml").write_text(FURTHER)
    (user.folder / "c.yaml").write_text(f"{CLOSED}charts:\n  further:\n    chart: ./further\n")

    said = user.types("mirror", "-f", "c.yaml", "--chart", str(CHART), "-o", "json")

    assert said.code == 0, said.err
    actions = {row["image"]: row["action"] for row in said.document["images"]}
    assert actions["quay.io/team/solver:v1"] == "copied"
    assert actions["quay.io/team/operator:v1"] == "copied"
    names = {each["repositoryName"] for each in aws.ecr.describe_repositories()["repositories"]}
    assert names == {
        f"demo/{OPERATOR}", "demo/quay.io/team/operator", "demo/quay.io/team/solver",
        "demo/docker.io/library/busybox", "demo/public.ecr.aws/docker/library/busybox",
    }  # fmt: skip
    ours = f"{REGISTRY}/demo"
    found = yaml.safe_load((user.folder / "c.yaml").read_text())["charts"]["further"]
    assert found["values"]["image"] == {"registry": f"{ours}/quay.io"}
    name = "public.ecr.aws/docker/library/busybox"
    assert found["images"] == {name: f"{ours}/{name}"}
    assert said.err.count("copied ") == 5
    (user.folder / "c.yaml").unlink()


def test_a_repository_of_others_stops_it_before_the_first_change(user: User, aws: Clients) -> None:
    aws.ecr.create_repository(repositoryName=f"demo/{OPERATOR}")
    (user.folder / "c.yaml").write_text(CLOSED)
    user.mutations()
    said = user.types("mirror", "-f", "c.yaml", "--chart", str(CHART))
    assert (said.code, user.mutations()) == (7, [])
    assert "does not belong to demo" in said.err
    assert (user.folder / "c.yaml").read_text() == CLOSED


@pytest.mark.usefixtures("upstream")
def test_the_login_is_never_shown_and_what_was_begun_continues(user: User, aws: Clients) -> None:
    (user.folder / "c.yaml").write_text(CLOSED)
    command = ("mirror", "-f", "c.yaml", "--chart", str(CHART), "-o", "json")
    user.stack.faults.append(
        Fault("ecr", "GetAuthorizationToken", "AccessDeniedException", 400, "no", 9)
    )
    said = user.types(*command)
    assert said.code == 3, said.err
    user.stack.faults.clear()
    token = aws.ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    said = user.types(*command, "--debug")
    assert said.code == 0, said.err
    everything = [said.out, said.err, *(p.read_text() for p in _files(user.folder.parent))]
    assert not any(token in each for each in everything)
    left = user.types("orphans", "--region", "us-west-2", "-o", "json").document["orphans"]
    assert [(each["kind"], each["id"]) for each in left] == [("repository", f"demo/{OPERATOR}")]


@pytest.mark.usefixtures("upstream")
def test_a_lost_answer_and_a_refusal_leave_what_the_next_run_completes(user: User) -> None:
    (user.folder / "c.yaml").write_text(CLOSED)
    command = ("mirror", "-f", "c.yaml", "--chart", str(CHART))
    user.stack.faults.append(Fault("ecr", "CreateRepository", kind="lost"))
    with cut(user.stack, 12):
        said = user.types(*command)
    assert said.code == 1, said.err
    assert (user.folder / "c.yaml").read_text() == CLOSED
    user.mutations()
    said = user.types(*command)
    assert (said.code, user.mutations()) == (0, []), said.err
    assert "values:" in (user.folder / "c.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("chart: &c {values: {}}\nexisting: *c\n", 2, ""),
        ("x: 1\n", 2, "c.yaml:6:1: x"),
        (
            "chart: {values: {mpi-operator: {mpiOperator: {image: {tag: []}}}}}\n",
            1,
            "an image that is none",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(
    user: User, text: str, code: int, words: str
) -> None:
    (user.folder / "c.yaml").write_text(CLOSED + text)
    said = user.types("mirror", "-f", "c.yaml", "--chart", str(CHART))
    assert (said.code, user.mutations()) == (code, []), said.err
    assert words in said.err
    assert (user.folder / "c.yaml").read_text() == CLOSED + text


@pytest.mark.prove
@pytest.mark.usefixtures("upstream")
def test_copies_of_another_region_are_made_anew_and_without_a_file_values_are_printed(
    user: User, aws: Clients
) -> None:
    old = REGISTRY.replace("us-west-2", "us-east-1")
    image = f"{{image: {{repository: {old}/demo/{OPERATOR}}}}}"
    config = f"{CLOSED}chart: {{values: {{mpi-operator: {{mpiOperator: {image}}}}}}}\n"
    chart = ("--chart", str(CHART))
    said = user.types("mirror", "-f", "-", *chart, "-o", "json", stdin=config)
    assert said.code == 0, said.err
    (row, _) = sorted(said.document["images"], key=lambda row: str(row["action"]))
    assert (row["action"], row["copy"]) == ("copied", f"{REGISTRY}/demo/{OPERATOR}:0.5")
    values = {"mpiOperator": {"image": {"repository": f"{REGISTRY}/demo/{OPERATOR}"}}}
    assert said.document["values"] == {"chart": {"values": {"mpi-operator": values}}}
    assert said.document["file"] is None

    said = user.types("mirror", "-f", "-", *chart, stdin=config)
    assert f"repository: {REGISTRY}/demo/{OPERATOR}" in said.out
    assert "write them to the config file" in said.out


def test_without_a_file_the_next_command_has_one_for_the_values(user: User) -> None:
    said = user.types("mirror", "demo", "--chart", str(CHART), "--dry-run", "-o", "json")
    assert said.document["next"] == "hyperpod-eks create demo --file FILE"


def neuron(user: User, image: str) -> None:
    """Write a chart with a dependency whose template names an image, as AWS's chart has it."""
    inner = user.folder / "chart/charts/plugin"
    (inner / "templates").mkdir(parents=True)
    shutil.copytree(CHART, user.folder / "chart", dirs_exist_ok=True)
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    plugin = {"name": "plugin", "version": "0.1.0", "condition": "plugin.on,plugin.enabled"}
    about["dependencies"] = [*(about.get("dependencies") or ()), plugin]
    (user.folder / "chart/Chart.yaml").write_text(json.dumps(about))
    with (user.folder / "chart/values.yaml").open("a") as file:
        file.write("\nplugin: {on: true}\n")
    (inner / "Chart.yaml").write_text("{apiVersion: v2, name: plugin, version: 0.1.0}\n")
    (inner / "templates/pod.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default}\n"
        f"spec:\n  containers:\n  - name: c\n    image: {image}\n"
    )
    (user.folder / "c.yaml").write_text(f"{CLOSED}chart: {{path: ./chart}}\n")


@pytest.mark.usefixtures("upstream")
def test_images_that_a_template_names_are_replaced(user: User) -> None:
    """AWS's chart names public.ecr.aws/neuron/neuron-device-plugin:2.19.16.0 so."""
    name = "public.ecr.aws/neuron/neuron-device-plugin"
    neuron(user, f"{name}:2.19.16.0")
    said = user.types("mirror", "-f", "c.yaml")
    assert (said.code, "warning" in said.err) == (0, False), said.err
    written = (user.folder / "c.yaml").read_text()
    chart = yaml.safe_load(written)["chart"]
    assert chart["images"] == {name: f"{REGISTRY}/demo/{name}"}
    again = user.types("mirror", "-f", "c.yaml")
    assert (again.code, again.err) == (0, ""), again.err
    assert (user.folder / "c.yaml").read_text() == written

    made = user.types("create", "-f", "c.yaml", "--yes")
    assert made.code == 0, made.err
    ours = {f"{REGISTRY}/demo/{name}:2.19.16.0", f"{REGISTRY}/demo/{OPERATOR}:0.5"}
    found = images_in(user)
    assert ours <= found
    ecr = re.compile(r"[0-9]{12}\.dkr\.ecr\.us-west-2\.amazonaws\.com/")
    assert [each for each in found if not ecr.match(each)] == []
    assert user.types("plan", "-f", "c.yaml", "--detailed-exitcode").code == 0
    assert f"/{name}" in written
    (user.folder / "c.yaml").write_text(written.replace("/demo/public", "/other/public"))
    assert user.types("plan", "-f", "c.yaml", "--detailed-exitcode").code == 5


def test_what_switches_off_an_image_that_nothing_names_is_said(user: User) -> None:
    neuron(user, '{{ printf "public.ecr.aws/%s:2.19" "neuron/plugin" }} # ecr.aws/neuron/plugin')
    said = user.types("mirror", "-f", "c.yaml", "--dry-run")
    assert said.code == 0, said.err
    assert said.err == (
        "warning: chart: no value or template of the chart names public.ecr.aws/neuron/plugin:2.19:"
        " nodes in a closed network cannot pull it; name the copy in a folder of your own with the"
        " chart\n"
    )


def test_the_embedded_registry_refuses_what_ecr_refuses(user: User, aws: Clients) -> None:
    token = aws.ecr.get_authorization_token()["authorizationData"][0]
    aws.ecr.create_repository(repositoryName="demo/a", imageTagMutability="IMMUTABLE")
    good = Registry("ecr", None, token["proxyEndpoint"], token["authorizationToken"])
    nobody = Registry("ecr", None, token["proxyEndpoint"])
    layer, kind = b"layer", "application/vnd.oci.image.manifest.v1+json"
    about = {"digest": digest_of(layer), "size": len(layer)}
    first, second = (json.dumps({"layers": [about], "n": n}).encode() for n in (1, 2))
    try:
        with pytest.raises(HyperpodError, match="401"):
            nobody.put_blob("demo/a", digest_of(layer), len(layer), iter([layer]))
        with pytest.raises(HyperpodError, match="does not exist"):
            good.put_manifest("demo/none", "v1", kind, first)
        with pytest.raises(HyperpodError, match="no layer"):
            good.put_manifest("demo/a", "v1", kind, first)
        good.put_blob("demo/a", digest_of(layer), len(layer), iter([layer]))
        good.put_manifest("demo/a", "v1", kind, first)
        good.put_manifest("demo/a", "v1", kind, first)
        with pytest.raises(HyperpodError, match="cannot be overwritten"):
            good.put_manifest("demo/a", "v1", kind, second)
        assert good.digest("demo/a", "v1") == digest_of(first)
    finally:
        good.close()
        nobody.close()
    with pytest.raises(aws.ecr.exceptions.RepositoryNotEmptyException):
        aws.ecr.delete_repository(repositoryName="demo/a")


def _files(folder: Path) -> Iterator[Path]:
    for each in folder.rglob("*"):
        if each.is_file() and each.suffix in (".log", ".json", ".jsonl", ".yaml"):
            yield each
