"""Random invalid input causes no bug, no traceback and no damaged file; `make prove` has all seeds.

A failure names its seed, which reproduces the input.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from hyperpod_eks.cli.commands.outputs import values
from hyperpod_eks.config.load import load
from hyperpod_eks.errors import Denied, Usage
from hyperpod_eks.local import CHART
from hyperpod_eks.state import manifest
from hyperpod_eks.state.file_store import FileStore
from tests import published
from tests.commands import EVERY
from tests.conftest import Said, User

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("**/*.yaml"))
ODD: list[Any] = [
    None, True, "", " ", "\x00", "\x1b[2J", "\ud800", "${x}", "~nobody/x", "/dev/null", "a" * 5000,
    -1, 0, 1 << 70, 1.5, float("nan"), float("inf"), "9" * 5000, "us-west-2a", "..", [],
    {}, [[]], {"": None}, {"a": {"b": ["c"]}}, "arn:aws:iam::1:role/x", "2026-01-01", "no", "é✓🚀",
]  # fmt: skip
WRITTEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document, including the document itself."""
    yield here
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from places(inner, (*here, key))


def mutant(document: Any, dice: random.Random) -> Any:
    """Return a copy with one to three values replaced, removed, renamed or duplicated."""
    found = copy.deepcopy(document)
    for _ in range(dice.randint(1, 3)):
        spots = [place for place in places(found) if place]
        if not spots:
            return found
        place = dice.choice(spots)
        around = found
        for key in place[:-1]:
            around = around[key]
        match dice.randrange(4):
            case 0:
                del around[place[-1]]
            case 1 if isinstance(around, dict):
                around[dice.choice(["", "x", "nam e", "\x1b", "a" * 300])] = around[place[-1]]
            case 2:
                around[place[-1]] = [around[place[-1]]]
            case _:
                around[place[-1]] = copy.deepcopy(dice.choice(ODD))
    return found


def garbled(content: bytes, dice: random.Random) -> bytes:
    """Return the bytes cut, mixed with others, or repeated."""
    at = int(dice.random() * (len(content) + 1))
    chance = dice.randbytes(9)
    noise = dice.choice([b"\x00", b"\xff\xfe", b"<", b"{", b"\x1b[2J", b"&x;", chance, b"\n\n"])
    match dice.randrange(4):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + noise + content[at:]
        case 2:
            return noise * 1000
        case _:
            return content[at:] + content[:at]


def configs(folder: Path, seeds: range) -> None:
    parsed = [yaml.safe_load(path.read_text()) for path in EXAMPLES]
    for seed in seeds:
        dice = random.Random(seed)
        if dice.random() < 0.3:
            given: Any = str(folder / "c.yaml")
            text = garbled(dice.choice(EXAMPLES).read_bytes(), dice)
            Path(given).write_bytes(text)
        else:
            given = mutant(dice.choice(parsed), dice)
        try:
            load(given, {}, {}, files=True)
        except (Usage, Denied):
            pass
        except BaseException as error:
            raise AssertionError(f"config of seed {seed}: {given!r}"[:2000]) from error


def manifests(folder: Path, document: dict[str, Any], seeds: range) -> None:
    path = folder / "demo.hyperpod-eks.json"
    for seed in seeds:
        dice = random.Random(seed)
        text = json.dumps(mutant(document, dice)).encode()
        if dice.random() < 0.1:
            text = garbled(text, dice)
        path.write_bytes(text)
        try:
            found = manifest.read(FileStore(path))
            found.remembered()
            values(found)
        except Usage:
            pass
        except BaseException as error:
            raise AssertionError(f"manifest of seed {seed}: {text!r}"[:2000]) from error
        assert path.read_bytes() == text
        assert [each.name for each in folder.iterdir() if "hyperpod" in each.name] == [path.name]


@contextmanager
def liar(endpoint: str, seed: int, share: float) -> Iterator[str]:
    """Run a proxy in front of AWS that garbles a share of the answers.

    The seed, the request and its number of repetitions determine the answer, because requests are
    concurrent and have no fixed order.
    """
    came: Counter[str] = Counter()

    class Liar(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = f"{seed} {self.command} {self.path} {body.decode(errors='replace')}"
            came[asked] += 1
            dice = random.Random(f"{asked} {came[asked]}")
            headers = dict(self.headers.items())
            request = urllib.request.Request(
                endpoint + self.path, body or None, headers, method=self.command
            )
            try:
                answer: Any = urllib.request.urlopen(request, timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            content, status = answer.read(), answer.status
            said = {k: v for k, v in answer.headers.items() if k.lower() != "content-length"}
            length = len(content)
            if dice.random() < share:
                content = garbled(content, dice)
                length = len(content) if dice.random() < 0.7 else length
                status = dice.choice([status, status, 200, 403, 404, 500, 302])
                if dice.random() < 0.5:
                    said = {k: v for k, v in said.items() if "request" not in k.lower()}
            self.send_response(status)
            for name, value in said.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = pass_on  # noqa: N815

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


COMMANDS = (
    ("status", "demo"),
    ("plan", "demo"),
    ("nodes", "demo"),
    ("orphans",),
    ("kubeconfig", "demo"),
    ("list",),
    ("preflight", "demo", "--chart", str(CHART)),
    ("logs", "demo"),
    ("logs", "demo", "--control-plane"),
    ("events", "demo"),
    ("adopt", "demo", "--rebuild"),
    ("create", "demo", "--chart", str(CHART), "--dry-run"),
)
"""Commands that change nothing in the account."""


def harmless(said: Said, *what: object) -> None:
    """Check for a message without a bug, a traceback or terminal control characters."""
    why = (*what, said.err[:2000])
    assert said.code != 70, why
    assert "Traceback" not in said.err, why
    assert not WRITTEN.search(said.err), why
    assert len(said.err) < 20_000, why


def answers(user: User, seeds: range, patch: pytest.MonkeyPatch) -> None:
    """Run read-only commands with garbled answers of AWS."""
    patch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    # pytest's handlers keep records, whose exceptions refer to whole runs
    patch.setattr(logging.getLogger(), "handlers", [])
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    for seed in seeds:
        dice = random.Random(seed)
        words = dice.choice(COMMANDS)
        with liar(endpoint, seed, dice.choice([1.0, 0.5, 0.1])) as url:
            patch.setenv("AWS_ENDPOINT_URL", url)
            said = user.types(*words, "--region", "us-west-2", "-o", "json")
        harmless(said, seed, words)
        json.loads(said.out)
    published.problems()  # AWS would refuse an ARN that its own answer has garbled


OFFLINE = (
    "outputs",
    "validate",
    "version",
    "schema",
    "status --offline",
    "init",
)
ONLINE = (
    "events",
    "token",
    "status",
    "plan",
    "nodes",
    "logs",
    "list",
    "orphans",
    "preflight",
    "scale",
    "adopt",
    "policy",
    "kubeconfig",
    "ssm",
    "delete",
    "update-software",
    "create --dry-run",
)
TEXTS = [
    str(each).replace("\x00", "") for each in ODD if isinstance(each, str | int | float)
]  # arguments and variables cannot contain NUL


def options(user: User, seeds: range, patch: pytest.MonkeyPatch) -> None:
    """Run commands with invalid values in options and variables."""
    texts = [each for each in TEXTS if not each.startswith("/dev/")]
    for seed in seeds:
        dice = random.Random(seed)
        command, *more = dice.choice(OFFLINE + ONLINE).split()
        skipped = ("local", "events", "follow", "run")
        known = [p for p in EVERY[command].params if p.name not in skipped]
        words = [command, *more]
        for param in dice.sample(known, min(len(known), dice.randint(1, 4))):
            if param.param_type_name == "argument":
                words.append(dice.choice(texts))
            elif getattr(param, "is_flag", False):
                words.append(param.opts[-1])
            else:
                words += [param.opts[-1], dice.choice(texts)]
        with pytest.MonkeyPatch.context() as inner:
            for name in ("AWS_REGION", "AWS_PROFILE", "HYPERPOD_EKS_OUTPUT", "HYPERPOD_EKS_NAME"):
                if dice.random() < 0.2:
                    inner.setenv(name, dice.choice(texts).encode("utf-8", "replace").decode())
            said = user.types(*words)
        harmless(said, seed, words)


VARIABLES = (
    *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_MAX_ATTEMPTS"),
    *("AWS_RETRY_MODE", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER", "AWS_ENDPOINT_URL_STS", "AWS_DATA_PATH"),
    *("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_STS_REGIONAL_ENDPOINTS"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    *("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_REQUEST_CHECKSUM_CALCULATION"),
    *("AWS_DEFAULTS_MODE", "AWS_SDK_UA_APP_ID", "AWS_ACCOUNT_ID", "AWS_ACCOUNT_ID_ENDPOINT_MODE"),
    *("AWS_DISABLE_REQUEST_COMPRESSION", "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES"),
    *("AWS_SIGV4A_SIGNING_REGION_SET", "AWS_AUTH_SCHEME_PREFERENCE", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "TMPDIR", "KUBECONFIG", "PATH", "CI", "TERM"),
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "LANG", "LC_ALL", "TZ", "USER"),
    *("HYPERPOD_EKS_CHART", "HYPERPOD_EKS_COMPLETE", "HYPERPOD_EKS_HELM", "HYPERPOD_EKS_NAME"),
    *("HYPERPOD_EKS_KUBERNETES_VERSION", "HYPERPOD_EKS_LIFECYCLE", "HYPERPOD_EKS_OUTPUT"),
    *("HYPERPOD_EKS_REGION", "HYPERPOD_EKS_RUN"),
)
AWS_WORDS = (
    *("http://[", "http://127.0.0.1:1", "http://127.0.0.1:99999", "foo", "true", "legacy"),
    *("[profile x]\nregion = ", "/proc/self/status", "/", "~", "*", "arn:aws:iam::1:role/x"),
    *("127.0.0.1", "socks5://127.0.0.1:1", "http://u:p@127.0.0.1:1", "a b", "eu-west-1"),
)


SETTINGS = (
    *("region", "output", "retry_mode", "max_attempts", "ca_bundle", "endpoint_url", "s3", "sqs"),
    *("services", "use_fips_endpoint", "use_dualstack_endpoint", "defaults_mode", "api_versions"),
    *("credential_process", "role_arn", "source_profile", "credential_source", "external_id"),
    *("web_identity_token_file", "role_session_name", "duration_seconds", "mfa_serial"),
    *("sso_session", "sso_start_url", "sso_region", "sso_account_id", "sso_role_name"),
    *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "login_session"),
    *(
        "tcp_keepalive",
        "parameter_validation",
        "sts_regional_endpoints",
        "account_id_endpoint_mode",
    ),
    *("request_checksum_calculation", "response_checksum_validation", "signature_version"),
    *("request_min_compression_size_bytes", "ignore_configured_endpoint_urls", "sdk_ua_app_id"),
    *("metadata_service_timeout", "metadata_service_num_attempts", "sigv4a_signing_region_set"),
)
SECTIONS = ("default", "default", "profile default", "services x", "sso-session x", "profile x")


def profiles(dice: random.Random) -> str:
    """Return an AWS configuration file with invalid values and nesting."""
    lines = []
    for _ in range(dice.randint(1, 3)):
        lines.append(f"[{dice.choice(SECTIONS)}]")
        for name in dice.sample(SETTINGS, dice.randint(1, 5)):
            value = dice.choice([*TEXTS, *AWS_WORDS, "x", "default", "echo {}", "false", ""])
            value = " ".join(value.split())
            key = dice.choice([*SETTINGS, "addressing_style", "x"])
            nested = f"{name} =\n  {key} = {value}"
            lines.append(nested if dice.random() < 0.3 else f"{name} = {value}")
    return "\n".join([*lines, ""]).encode("utf-8", "replace").decode()


def environment(user: User, seeds: range, patch: pytest.MonkeyPatch) -> None:
    """Run commands with invalid variables and garbled AWS configuration files."""
    patch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    patch.setattr(logging.getLogger(), "handlers", [])
    for seed in seeds:
        dice = random.Random(seed)
        offline = tuple(tuple(each.split()) for each in OFFLINE if each != "init")
        words = dice.choice(COMMANDS + offline)
        changed = {}
        for name in dice.sample(VARIABLES, dice.randint(1, 3)):
            value = dice.choice([*TEXTS, *AWS_WORDS])
            changed[name] = value.encode("utf-8", "replace").decode()
        if dice.random() < 0.4:
            text = profiles(dice).encode()
            text = garbled(text, dice) if dice.random() < 0.2 else text
            (user.folder / "aws").write_bytes(text)
            changed[dice.choice(["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])] = "aws"
            if dice.random() < 0.5:
                for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
                    changed.setdefault(name, "")
        with pytest.MonkeyPatch.context() as inner:
            for name, value in changed.items():
                inner.setenv(name, value)
            harmless(user.types(*words), seed, words, changed)


def a_manifest(user: User) -> dict[str, Any]:
    user.has("demo")
    found: dict[str, Any] = json.loads((user.folder / "demo.hyperpod-eks.json").read_text())
    return found


@pytest.fixture(autouse=True)
def nobodys_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")


def test_configs(tmp_path: Path) -> None:
    configs(tmp_path, range(200))


def test_manifests_options_variables_and_answers(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = a_manifest(user)
    (folder := user.folder / "m").mkdir()
    manifests(folder, document, range(150))
    options(user, range(25), monkeypatch)
    environment(user, range(20), monkeypatch)
    answers(user, range(8), monkeypatch)


@pytest.mark.prove
def test_twenty_thousand_configs(tmp_path: Path) -> None:
    configs(tmp_path, range(200, 20_200))


@pytest.mark.prove
def test_five_thousand_manifests(user: User) -> None:
    document = a_manifest(user)
    (folder := user.folder / "m").mkdir()
    manifests(folder, document, range(150, 5_150))


@pytest.mark.prove
def test_two_thousand_answers(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    a_manifest(user)
    answers(user, range(8, 2_008), monkeypatch)


@pytest.mark.prove
def test_two_thousand_options(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    options(user, range(25, 2_025), monkeypatch)


@pytest.mark.prove
def test_two_thousand_environments(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    a_manifest(user)
    environment(user, range(20, 2_020), monkeypatch)
