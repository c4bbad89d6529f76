"""No secret is shown on a terminal, in a document or in a log, even after errors."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.tokens import SSOTokenProvider

from hyperpod_eks.aws import redaction
from hyperpod_eks.local import CHART
from tests.conftest import Said, User


def everything(user: User, said: Said) -> str:
    """Return all output of a command: both streams, and all files in the test's folder."""
    files = [path for path in user.folder.parent.rglob("*") if path.is_file()]
    ours = [path for path in files if ".aws" not in path.parts and "token" not in path.name]
    return "\n".join([said.out, said.err, *(path.read_text("utf-8", "replace") for path in ours)])


def logs(user: User) -> str:
    folder = user.folder.parent / "state/hyperpod-eks/logs"
    return "\n".join(path.read_text() for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEXAMPLETOKENVALUE\n", "FwoGZXIvYXdz"),
        ("AWS_SESSION_TOKEN", "FwoGZXIvYXdz\r\nEXAMPLETOKENVALUE", "EXAMPLETOKEN"),
        ("AWS_ENDPOINT_URL", "http://someone:hunter2hunter2@127.0.0.1:1", "hunter2hunter2"),
        ("AWS_ENDPOINT_URL", "http://someone:pa%2Fss@word@127.0.0.1:1", "ss@wo"),
    ],
)
def test_what_botocore_cannot_send_is_not_shown(
    user: User, monkeypatch: pytest.MonkeyPatch, name: str, value: str, secret: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before the retry
    monkeypatch.setenv(name, value)
    said = user.types("status", "demo", "-o", "json", "--debug")
    assert said.code != 0
    assert secret not in everything(user, said)


class Login(BaseHTTPRequestHandler):
    """An SSO and STS server, whose credentials have secrets that begin with SENT."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path.startswith("/pod"):  # an error that repeats the request
            self.send_error(403, f"{self.path} {self.headers['Authorization']}")
            return
        if self.path.startswith("/federation/credentials"):
            words = {"accessKeyId": "ASIASSO", "secretAccessKey": "SENT_SSO_SECRETKEY"}
            words |= {"sessionToken": "SENT_SSO_SESSIONTOKEN"}
            said = json.dumps({"roleCredentials": {**words, "expiration": 4102444800000}})
        elif "AssumeRole" in body:
            action = "AssumeRoleWithWebIdentity" if "WebIdentity" in body else "AssumeRole"
            said = (
                f"<{action}Response><{action}Result><Credentials><AccessKeyId>ASIAROLE"
                "</AccessKeyId><SecretAccessKey>SENT_ROLE/SECRET+KEY</SecretAccessKey>"
                "<SessionToken>SENT_ROLE/SESSION+TOKEN==</SessionToken>"
                "<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
                f"</{action}Result></{action}Response>"
            )
        else:
            said = (
                "<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012"
                "</Account><Arn>arn:aws:iam::123456789012:user/someone</Arn>"
                "</GetCallerIdentityResult></GetCallerIdentityResponse>"
            )
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    do_GET = do_POST = answer  # noqa: N815  names of http.server


@pytest.fixture(scope="module")
def login() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Login)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


CONFIG = """
[profile sso]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = Admin
[sso-session corp]
sso_start_url = https://example.awsapps.com/start
sso_region = us-west-2
[profile web]
role_arn = arn:aws:iam::123456789012:role/team/Admin
web_identity_token_file = {home}/token
[profile role]
role_arn = arn:aws:iam::123456789012:role/team/Admin
source_profile = base
external_id = SENT-external-id
[profile base]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = SENT/base/secret/access/key
[profile process]
credential_process = /bin/echo {process}
"""
PROCESS = {"Version": 1, "AccessKeyId": "ASIAPROCESS", "SecretAccessKey": "SENT_PROCESS_SECRET"}
PROCESS |= {"SessionToken": "SENT_PROCESS_TOKEN"}


@pytest.fixture
def home(user: User, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with profiles of each kind, a web identity token and an SSO login."""
    folder = user.folder.parent / "user"
    cache = folder / ".aws/sso/cache"
    cache.mkdir(parents=True)
    given = CONFIG.format(home=folder, process=json.dumps(PROCESS).replace('"', '\\"'))
    (folder / ".aws/config").write_text(given)
    (folder / "token").write_text("eyJSENT.web.identity")
    # botocore's file name is the SHA-1 of the session's name
    cached = {"accessToken": "SENT_SSO_ACCESSTOKEN", "expiresAt": "2099-01-01T00:00:00Z"}
    name = hashlib.sha1(b"corp").hexdigest()
    (cache / f"{name}.json").write_text(json.dumps(cached))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr(SSOTokenProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))  # set on import
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(variable, raising=False)
    return folder


@pytest.mark.parametrize("profile", ["sso", "web", "role", "base", "process"])
def test_the_debug_log_has_no_secret_of_any_way_to_log_in(
    user: User, home: Path, login: str, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", login)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", login)
    said = user.types("kubeconfig", "demo", "--profile", profile, "--debug", "-o", "json")
    assert said.code == 8, said.err  # there is no cluster: AWS accepted the credentials
    assert "SENT" not in everything(user, said)
    log = logs(user)
    assert "Making request for OperationModel(name=DescribeCluster)" in log
    called = {"sso": "sso:GetRoleCredentials", "web": "sts:AssumeRoleWithWebIdentity"}
    assert called.get(profile, "") in log  # the call itself is not secret


@pytest.mark.parametrize("given", ["token", "file"])
def test_a_refusal_shows_no_token_of_a_container(
    user: User, home: Path, login: str, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{login}/pod/SENT-path")
    variable = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
    if given == "token":
        monkeypatch.setenv(variable, "SENT-in-a-variable")
    else:
        (home / "token").write_text("SENT-in-a-file")
        monkeypatch.setenv(f"{variable}_FILE", str(home / "token"))
    said = user.types("list", "--region", "us-west-2", "--debug", "-o", "json")
    assert said.code == 3, said.err
    assert "403" in said.err
    assert "SENT" not in everything(user, said)


def test_the_password_of_a_proxy_is_hidden_as_http_sends_it() -> None:
    redaction.learn_environment({"HTTPS_PROXY": "someone:p%40ss%2Fword@proxy:3128"})
    sent = base64.b64encode(b"someone:p@ss/word").decode()
    assert redaction.redacted(f"Basic {sent}, p@ss/word") == "Basic [hidden], [hidden]"


def test_what_addons_are_configured_with_is_not_logged(user: User) -> None:
    values = {"env": {"API_PASSWORD": "SENT'pass\"word", "MODE": "SENT-other"}, "list": ['"', "]"]}
    (user.folder / "c.yaml").write_text(
        "name: demo\nregion: us-west-2\n"
        f"addons: {{metrics-server: {{configuration_values: {json.dumps(values)}}}}}\n"
    )
    said = user.types("create", "-f", "c.yaml", "--chart", str(CHART), "--debug", "-o", "json")
    assert "configurationValues" in logs(user)
    assert "SENT" not in logs(user) + said.err + said.out
    assert "API_PASSWORD" in (user.folder / "demo.hyperpod-eks.json").read_text()


def test_a_common_word_as_a_secret_renames_no_member(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_known", {})
    values = {"tokenMode": "resources", "secretName": "us-west-2", "password": "metrics-server"}
    (user.folder / "c.yaml").write_text(
        "name: demo\nregion: us-west-2\n"
        f"addons: {{metrics-server: {{configuration_values: {json.dumps(values)}}}}}\n"
    )
    said = user.types("plan", "-f", "c.yaml", "-o", "json")
    assert {"resources", "schema"} <= set(said.document)
    assert said.document["region"] == "us-west-2"  # the name of a secret is not secret
    assert "metrics-server" not in said.out
    said = user.types("plan", "-f", "c.yaml", "--events", "-")
    assert "resources" in json.loads(said.out.splitlines()[-1])["document"]
    assert "metrics-server" not in said.out


@pytest.mark.parametrize("spelled", [repr, json.dumps, lambda words: repr(json.dumps(words))])
def test_a_known_value_is_hidden_however_it_is_spelled(spelled: Any) -> None:
    secret = "a/b+c=\"d'e\\f-é"
    redaction.learn(secret)
    assert "b+c" not in redaction.redacted(f"before {spelled(secret)} after")


@pytest.mark.parametrize(
    "text",
    [
        '{"InstanceType": "ml.m5.2xlarge", "token": 1}' * 25_000,
        "token " + "0123456789abcdef" * 6000,
    ],
    ids=["an answer of a megabyte", "a word of 96 kB"],
)
def test_redaction_is_fast(text: str) -> None:
    """Every debug line is redacted."""
    began = time.process_time()
    redaction.redacted(text)
    assert time.process_time() - began < 1.5
