"""The chart: its values, its identity, its download and preparation."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.config.lifecycle import IN_CHECKOUT
from hyperpod_eks.errors import HyperpodError, KnownCause, Usage
from hyperpod_eks.helm import chart
from hyperpod_eks.helm.program import Helm

BINARY = Path(__file__).parents[1] / ".cache" / "helm" / "3.17.2" / "helm"
HELM = Helm(BINARY, (3, 17, 2))
NO_HELM = Helm(Path("/does/not/exist"), (3, 17, 2))  # fails if it is run
REAL = os.environ.get("HYPERPOD_CHART")


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return folder


def about(name: str, *dependencies: dict[str, str]) -> dict[str, Any]:
    described = {"apiVersion": "v2", "name": name, "version": "0.1.0"}
    return described | ({"dependencies": list(dependencies)} if dependencies else {})


def needs(name: str, repository: str = "https://charts.invalid", **more: str) -> dict[str, str]:
    switch = f"{name}.enabled"
    return {"name": name, "version": "0.1.0", "repository": repository, "condition": switch} | more


def packed(name: str) -> bytes:
    """Return a chart as an archive, like `helm package`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        content = yaml.safe_dump(about(name)).encode()
        member = tarfile.TarInfo(f"{name}/Chart.yaml")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Server:
    """An HTTP server for a folder, which records the requested paths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                server.asked.append(self.path)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        serve = partial(self._http.serve_forever, poll_interval=0.01)
        threading.Thread(target=serve, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served")
    yield server
    server.stop()


class TestValues:
    def test_the_region_is_always_set_and_the_user_has_the_last_word(self) -> None:
        values = chart.values_for("eu-west-1", {"global": {"x": 1}, "storage": {"enabled": True}})
        assert values == {
            "global": {"region": "eu-west-1", "x": 1},
            "health-monitoring-agent": {"region": "eu-west-1"},
            "storage": {"enabled": True},
        }

    @pytest.mark.parametrize(
        ("region", "values", "says"),
        [
            ("us-west-2", {}, []),
            ("ap-northeast-2", {}, ["region is ap-northeast-2, .*hmaimage"]),
            ("ap-northeast-2", {"health-monitoring-agent": {"hmaimage": "mine"}}, []),
            ("ap-northeast-2", {"health-monitoring-agent": {"enabled": False}}, []),
            ("ap-northeast-2", {"health-monitoring-agent": {"region": "ap-northeast-1"}}, []),
            (
                "us-west-2",
                {"deep-health-check": {"enabled": False}},
                ["aws-hyperpod that health-monitoring-agent.enabled and job-auto-restart.enabled"],
            ),
            (
                "us-west-2",
                {
                    "deep-health-check": {"enabled": False},
                    "health-monitoring-agent": {"enabled": False},
                },
                ["aws-hyperpod that job-auto-restart.enabled need"],
            ),
            (
                "us-west-2",
                {
                    "deep-health-check": {"enabled": False},
                    "health-monitoring-agent": {"enabled": False},
                    "job-auto-restart": {"enabled": False},
                },
                [],
            ),
            (
                "us-west-2",
                {"trainingOperators": {"enabled": False}, "mlflow": {"enabled": True}},
                ["kubeflow that mlflow.enabled need"],
            ),
            ("us-west-2", {"trainingOperators": {"enabled": False}}, []),
            ("us-west-2", {"gpu-operator": {"enabled": True}}, ["nvidia-device-plugin"]),
            (
                "us-west-2",
                {"namespaced-role-and-bindings": {"enable": True}},
                ["it is namespaced-role-and-bindings.enabled"],
            ),
        ],
    )
    def test_values_that_cannot_work_are_named(
        self, region: str, values: dict[str, Any], says: list[str]
    ) -> None:
        problems = chart.check_values(region, values)
        assert len(problems) == len(says)
        for problem, pattern in zip(problems, says, strict=True):
            assert re.search(pattern, problem)


class TestIdentity:
    def test_the_digest_is_what_the_documented_command_says(self, tmp_path: Path) -> None:
        folder = write(tmp_path, {"Chart.yaml": "x", "a/b.yaml": "y", "a-b.yaml": "", "B": "z"})
        command = "find . -type f | sed 's,^./,,' | LC_ALL=C sort | xargs sha256sum | sha256sum"
        expected = subprocess.run(command, shell=True, cwd=folder, capture_output=True, check=True)
        assert chart.digest(folder) == expected.stdout.decode().split()[0]

    def test_content_and_names_count_and_nothing_else(self, tmp_path: Path) -> None:
        one = chart.digest(write(tmp_path / "one", {"a": "1", "b": "2"}))
        assert chart.digest(write(tmp_path / "two", {"b": "2", "a": "1"})) == one
        assert chart.digest(write(tmp_path / "two", {"a": "3"})) != one
        assert chart.digest(write(tmp_path / "three", {"a": "1", "c": "2"})) != one

    def test_a_name_is_one_line(self, tmp_path: Path) -> None:
        """Otherwise the name of one file could contain the entry of another."""
        folder = write(tmp_path, {"Chart.yaml": "x", "a\n0  b": "y"})
        with pytest.raises(Usage, match=r"a line break in its name: .a.n0  b."):
            chart.digest(folder)

    def test_the_fingerprint_knows_chart_and_values(self, tmp_path: Path) -> None:
        folder = write(tmp_path, {"Chart.yaml": about("x")})
        first = chart.fingerprint(chart.content(folder), {"a": 1, "b": 2})
        assert chart.fingerprint(chart.content(folder), {"b": 2, "a": 1}) == first
        assert chart.fingerprint(chart.content(folder), {"a": 2, "b": 2}) != first
        assert chart.fingerprint(chart.content(None), {"a": 1, "b": 2}) != first
        write(folder, {"templates/x.yaml": ""})
        assert chart.fingerprint(chart.content(folder), {"a": 1, "b": 2}) != first

    @pytest.mark.skipif(REAL is None, reason="HYPERPOD_CHART names no copy of AWS's chart")
    def test_the_pin_and_the_regions_are_those_of_aws_chart(self) -> None:
        folder = chart.locate(Path(str(REAL)))
        helpers = folder / "charts/health-monitoring-agent/templates/_helpers.tpl"
        table = helpers.read_text().partition("$regionAccountMap := dict")[2].partition("-}}")[0]

        assert chart.digest(folder) == chart.PINNED.digest
        assert frozenset(re.findall(r'"([a-z]+-[a-z]+-\d)"', table)) == chart.AGENT_REGIONS


class TestStage:
    def test_the_users_folder_is_copied_and_not_touched(self, tmp_path: Path) -> None:
        checkout = write(
            tmp_path / "checkout",
            {
                f"{IN_CHECKOUT}/Chart.yaml": about("x", needs("off")),
                f"{IN_CHECKOUT}/values.yaml": {"off": {"enabled": False}},
            },
        )
        before = chart.digest(checkout)

        staged = chart.stage(checkout, tmp_path / "work", {}, NO_HELM)

        assert yaml.safe_load((staged / "Chart.yaml").read_text())["dependencies"] == []
        assert chart.digest(checkout) == before

    def test_a_folder_without_a_chart_is_a_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(Usage, match=r"chart\.path: .* is not a Helm chart"):
            chart.stage(tmp_path, tmp_path / "work", {}, NO_HELM)

    def test_a_broken_chart_yaml_is_named(self, tmp_path: Path) -> None:
        write(tmp_path / "x", {"Chart.yaml": "name: [x"})
        with pytest.raises(Usage, match=r"Chart\.yaml is not valid YAML"):
            chart.stage(tmp_path / "x", tmp_path / "work", {}, NO_HELM)

    def test_an_archive_beside_the_unpacked_chart_is_dropped(self, tmp_path: Path) -> None:
        source = write(
            tmp_path / "x",
            {
                "Chart.yaml": about("x", needs("agent"), needs("plug-in"), needs("operator")),
                "charts/agent/Chart.yaml": about("agent"),
                "charts/folder-of-another-name/Chart.yaml": about("operator"),
            },
        )
        for name in ("agent", "plug-in", "operator"):
            (source / f"charts/{name}-0.1.0.tgz").write_bytes(packed(name))

        staged = chart.stage(source, tmp_path / "work", {}, NO_HELM)

        left = sorted(path.name for path in (staged / "charts").iterdir())
        assert left == ["agent", "folder-of-another-name", "plug-in-0.1.0.tgz"]

    def test_what_is_off_and_not_there_is_left_out(self, tmp_path: Path) -> None:
        source = write(
            tmp_path / "x",
            {
                "Chart.yaml": about("x", needs("local"), needs("remote")),
                "values.yaml": {"remote": {"enabled": True}, "local": {"enabled": False}},
                "charts/local/Chart.yaml": about("local"),
            },
        )
        staged = chart.stage(source, tmp_path / "work", {"remote": {"enabled": False}}, NO_HELM)

        dependencies = yaml.safe_load((staged / "Chart.yaml").read_text())["dependencies"]
        assert [each["name"] for each in dependencies] == ["local"]

    @pytest.mark.skipif(not BINARY.exists(), reason="no helm 3.17.2 in .cache/helm")
    def test_what_is_on_and_not_there_is_fetched_also_for_a_chart_inside(
        self, tmp_path: Path, server: Server
    ) -> None:
        entries = {
            name: [about(name) | {"urls": [f"{server.url}/{name}-0.1.0.tgz"]}]
            for name in ("remote", "inner", "unwanted")
        }
        write(server.folder, {"index.yaml": {"apiVersion": "v1", "entries": entries}})
        for name in entries:
            (server.folder / f"{name}-0.1.0.tgz").write_bytes(packed(name))
        source = write(
            tmp_path / "x",
            {
                "Chart.yaml": about(
                    "x",
                    needs("remote", server.url),
                    needs("unwanted", server.url),
                    needs("local", "file://charts/local"),
                ),
                "values.yaml": {"unwanted": {"enabled": False}},
                "charts/local/Chart.yaml": about("local", needs("inner", server.url)),
            },
        )
        staged = chart.stage(source, tmp_path / "work", {}, HELM)

        served = server.folder / "remote-0.1.0.tgz"
        assert (staged / "charts/remote-0.1.0.tgz").read_bytes() == served.read_bytes()
        assert (staged / "charts/local/charts/inner-0.1.0.tgz").is_file()
        assert not any("unwanted" in path for path in server.asked)
        rendered = subprocess.run(
            [BINARY, "template", "x", staged], capture_output=True, text=True, check=False
        )
        assert (rendered.returncode, rendered.stderr) == (0, "")

    @pytest.mark.skipif(not BINARY.exists(), reason="no helm 3.17.2 in .cache/helm")
    def test_offline_it_says_what_is_missing_and_the_ways_out(self, tmp_path: Path) -> None:
        closed = Server(tmp_path)
        closed.stop()
        source = write(tmp_path / "x", {"Chart.yaml": about("x", needs("plug-in", closed.url))})
        with pytest.raises(HyperpodError) as caught:
            chart.stage(source, tmp_path / "work", {}, HELM)

        assert f"the chart needs plug-in 0.1.0 ({closed.url})" in str(caught.value)
        assert "plug-in.enabled: false" in caught.value.hint


def archive(folder: Path, add: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    """Archive a checkout like GitHub: everything in one folder, named after the commit."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, "repository-0123abc")
        if add:
            add(tar)
    return gzip.compress(buffer.getvalue())


def add_member(kind: bytes, name: str, link: str, tar: tarfile.TarFile) -> None:
    member = tarfile.TarInfo(f"repository-0123abc/{name}")
    member.type, member.linkname = kind, link
    tar.addfile(member)


class TestDownload:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "cache" / "hyperpod-eks" / "chart"

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        files = {"Chart.yaml": about("x"), "templates/x.yaml": "kind: ConfigMap\n" * 5000}
        write(tmp_path / "checkout", {f"{IN_CHECKOUT}/{k}": v for k, v in files.items()})
        return write(tmp_path / "checkout", {"README.md": "not the chart"})

    def pin(self, server: Server, checkout: Path) -> chart.Pin:
        return chart.Pin(f"{server.url}/a.tar.gz", chart.digest(checkout / IN_CHECKOUT))

    def test_it_is_downloaded_once(self, server: Server, checkout: Path, cache: Path) -> None:
        (server.folder / "a.tar.gz").write_bytes(archive(checkout))
        pin = self.pin(server, checkout)

        folder = chart.download(pin)

        assert chart.digest(folder) == pin.digest
        assert [path.parent for path in cache.iterdir()] == [folder.parent]
        assert chart.download(pin) == folder
        assert server.asked == ["/a.tar.gz"]

    def test_a_damaged_cache_is_replaced(self, server: Server, checkout: Path) -> None:
        (server.folder / "a.tar.gz").write_bytes(archive(checkout))
        pin = self.pin(server, checkout)
        (chart.download(pin) / "Chart.yaml").write_text("damaged")

        assert chart.digest(chart.download(pin)) == pin.digest

    def test_another_content_than_recorded_is_refused(
        self, server: Server, checkout: Path, cache: Path
    ) -> None:
        pin = self.pin(server, checkout)
        write(checkout, {f"{IN_CHECKOUT}/templates/more.yaml": "kind: Secret"})
        (server.folder / "a.tar.gz").write_bytes(archive(checkout))

        with pytest.raises(HyperpodError, match="is not the chart .* expected " + pin.digest):
            chart.download(pin)
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.99])
    def test_a_broken_download_leaves_nothing(
        self, server: Server, checkout: Path, cache: Path, keep: float
    ) -> None:
        whole = archive(checkout)
        (server.folder / "a.tar.gz").write_bytes(whole[: int(len(whole) * keep)])

        with pytest.raises(HyperpodError, match="cannot be downloaded from") as caught:
            chart.download(self.pin(server, checkout))
        assert "--chart" in caught.value.hint
        assert caught.value.cause == KnownCause("chart-not-fetched")
        assert list(cache.iterdir()) == []

    def test_what_follows_the_chart_is_bounded(
        self, server: Server, checkout: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = gzip.decompress(archive(checkout))
        monkeypatch.setattr(chart, "BIGGEST", 1 << 20)
        (server.folder / "a.tar.gz").write_bytes(gzip.compress(whole + bytes(2 << 20)))

        with pytest.raises(HyperpodError, match="more than 1048576 bytes follow it"):
            chart.download(self.pin(server, checkout))
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("gone", ["server", "file"])
    def test_nobody_there(
        self, server: Server, checkout: Path, cache: Path, gone: str, tmp_path: Path
    ) -> None:
        if gone == "server":
            (tmp_path / "other").mkdir()
            server = Server(tmp_path / "other")
            server.stop()

        with pytest.raises(HyperpodError, match="cannot be downloaded from http://127"):
            chart.download(self.pin(server, checkout))
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize(
        ("kind", "name", "link"),
        [
            (tarfile.SYMTYPE, "templates/link", "/etc/passwd"),
            (tarfile.LNKTYPE, "templates/link", "repository-0123abc/README.md"),
            (tarfile.FIFOTYPE, "templates/pipe", ""),
            (tarfile.REGTYPE, "templates/../../../../escaped", ""),
        ],
    )
    def test_only_plain_files_inside_the_chart_are_unpacked(
        self, server: Server, checkout: Path, cache: Path, kind: bytes, name: str, link: str
    ) -> None:
        add = partial(add_member, kind, f"{IN_CHECKOUT}/{name}", link)
        (server.folder / "a.tar.gz").write_bytes(archive(checkout, add))

        with pytest.raises(HyperpodError, match="has no place in a chart"):
            chart.download(self.pin(server, checkout))
        assert list(cache.iterdir()) == []
        assert not list(cache.parents[1].rglob("escaped"))
