"""A user's AWS configuration has the same meaning as in boto3, and errors explain themselves.

Each case runs a command; region and profile are compared with those of boto3.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from hyperpod_eks.aws import session as aws_session
from hyperpod_eks.local import CHART
from tests.conftest import Said, User

SECRET = "SENTwJalrXUtnFEMIEXAMPLE"
KEYS = f"aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = {SECRET}KEY\n"
ROLE = "role_arn = arn:aws:iam::123456789012:role/team/Admin\n"


PRINTED: list[str] = []
"""The output of credential helpers; a helper reads it from a file: arguments are public."""


def printing(**words: object) -> str:
    """Return a profile whose credential helper prints this document."""
    said = {"Version": 1, "AccessKeyId": "ASIAIOSFODNN7EXAMPLE", "SecretAccessKey": f"{SECRET}PROC"}
    PRINTED.append(json.dumps(said | {"SessionToken": f"{SECRET}TOKEN"} | words))
    return f'credential_process = /bin/sh -c "cat ~/.aws/printed-{len(PRINTED) - 1}"\n'


PROFILES = {
    "default": f"{KEYS}region = us-east-1\n",
    "tokyo": f"{KEYS}region = ap-northeast-1\n",
    "my team": f"{KEYS}region = eu-west-1\n",
    "noregion": KEYS,
    "process": f"{printing()}region = eu-north-1\n",
    "role": f"{ROLE}source_profile = tokyo\nregion = eu-west-2\nexternal_id = SENTexternal\n",
    "dev": f"{ROLE}source_profile = tokyo\nmfa_serial = arn:aws:iam::123456789012:mfa/x\n"
    "region = us-west-2\n",
    "proc": "credential_process = /bin/echo not-json\nregion = us-west-2\n",
    "procfail": 'credential_process = /bin/sh -c "echo please log in >&2; exit 3"\n',
    "old": printing(Expiration="2020-01-01T00:00:00Z"),
    "badtime": printing(Expiration="tomorrow"),
    "nokey": 'credential_process = /bin/echo {\\"Version\\":1}\n',
    "v2": printing(Version=2),
    "number": printing(AccessKeyId=5),
    "list": "credential_process = /bin/echo []\n",
    "null": "credential_process = /bin/echo null\n",
    "five": "credential_process = /bin/echo 5\n",
    "oddtime": printing(Expiration=[1]),
    "listkey": printing(SecretAccessKey=["SENTx"]),
    "listtoken": printing(SessionToken=["SENTx"]),
    "oddrole": f"{ROLE}source_profile = list\n",
    "emptykey": "aws_access_key_id =\naws_secret_access_key =\n",
    "section": f"aws_access_key_id = AKIAEXAMPLE\naws_secret_access_key =\n  x = {SECRET}\n",
    "missing": "credential_process = /nonexistent/helper --json\n",
    "webid": f"{ROLE}web_identity_token_file = /nonexistent/token\n",
    "onlykey": "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
    "badrole": "role_arn = not-an-arn\nsource_profile = tokyo\n",
    "gone": f"{ROLE}source_profile = nobody\n",
    "loop-a": f"{ROLE}source_profile = loop-b\n",
    "loop-b": f"{ROLE}source_profile = loop-a\n",
    "credsrc": f"{ROLE}credential_source = Nowhere\n",
    "both": f"{ROLE}source_profile = tokyo\ncredential_source = Environment\n",
    "ec2src": f"{ROLE}credential_source = EcsContainer\n",
    "sso": "sso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Admin\n",
}
SSO = "[sso-session corp]\nsso_region = us-west-2\nsso_start_url = https://example.invalid/start\n"


class Sts(BaseHTTPRequestHandler):
    """An STS server that grants every AssumeRole, and counts the calls."""

    protocol_version = "HTTP/1.1"
    test = 0
    asked: list[str] = []  # noqa: RUF012  requests of test number `test`

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path.strip("/") == str(Sts.test):  # a thread of the last test may still call
            self.asked.append(body)
        said = (
            "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAROLE"
            f"</AccessKeyId><SecretAccessKey>{SECRET}ROLE</SecretAccessKey><SessionToken>"
            f"{SECRET}ROLETOKEN</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
            "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())


@pytest.fixture(scope="module")
def sts() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sts)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class Watch:
    """Records data that other users can see only while a command runs.

    These are the arguments of its processes, and the content of temporary files.
    """

    on = False
    arguments: list[str] = []  # noqa: RUF012  a process has one
    files: list[str] = []  # noqa: RUF012

    @classmethod
    def hears(cls, event: str, given: tuple[Any, ...]) -> None:
        """Record an event before it happens (an audit hook, PEP 578)."""
        if not cls.on:
            return
        if event == "subprocess.Popen":
            cls.arguments.extend(os.fsdecode(word) for word in given[1])
        elif event in ("os.remove", "os.rename", "shutil.rmtree"):
            path = Path(os.fsdecode(given[0]))
            for each in path.rglob("*") if path.is_dir() else (path,):
                if each.is_file() and not {".aws", "__pycache__"} & {*each.parts}:
                    cls.files.append(each.read_text("utf-8", "replace"))

    @classmethod
    @contextmanager
    def watches(cls) -> Iterator[None]:
        cls.arguments, cls.files, cls.on = [], [], True
        try:
            yield
        finally:
            cls.on = False


@pytest.fixture(scope="module", autouse=True)
def _watch() -> None:
    sys.addaudithook(Watch.hears)  # hooks cannot be removed


class Someone(NamedTuple):
    """A user with AWS configuration files."""

    at: User
    home: Path
    patch: pytest.MonkeyPatch

    def has(self, environ: Mapping[str, str]) -> None:
        for name, value in environ.items():
            self.patch.setenv(name, value)

    def types(self, *words: str) -> Said:
        with Watch.watches():
            said = self.at.types(*words, "--debug")
        files = [p for p in self.at.folder.parent.rglob("*") if p.is_file() and p != self.config]
        kept = [p.read_text("utf-8", "replace") for p in files if ".aws" not in p.parts]
        everything = "\n".join([said.out, said.err, *kept, *Watch.files, *Watch.arguments])
        assert not re.search(r"(?<![A-Z])SENT", everything)  # botocore's models have PRESENT
        # helm's kubeconfig, which only its user can read, has a token for a quarter of an hour
        assert "k8s-aws-v1." not in "\n".join([*kept, *Watch.arguments])
        return said

    @property
    def config(self) -> Path:
        return self.home / ".aws/config"


@pytest.fixture
def someone(user: User, sts: str, monkeypatch: pytest.MonkeyPatch) -> Someone:
    home = user.folder.parent / "someone"
    (home / ".aws").mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        if not name.startswith("AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    Sts.test, Sts.asked = Sts.test + 1, []
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{sts}/{Sts.test}")
    for number, text in enumerate(PRINTED):
        (home / f".aws/printed-{number}").write_text(text)
    found = Someone(user, home, monkeypatch)
    sections = ["[default]\n" + PROFILES["default"], SSO]
    sections += [f'[profile "{k}"]\n{v}' for k, v in PROFILES.items() if k != "default"]
    found.config.write_text("\n".join(sections))
    return found


@pytest.mark.parametrize("how", ["arguments", "removed", "renamed", "a folder"])
def test_what_is_there_for_a_moment_is_seen(tmp_path: Path, how: str) -> None:
    """`Watch` can detect a secret."""
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub/file"
    file.write_text(SECRET)
    with Watch.watches():
        if how == "arguments":
            subprocess.run(["true", f"--key={SECRET}"], check=True)
        elif how == "removed":
            file.unlink()
        elif how == "renamed":
            file.replace(tmp_path / "other")
        else:
            shutil.rmtree(tmp_path / "sub")
    assert SECRET in "\n".join([*Watch.arguments, *Watch.files])


def test_a_life_has_no_secret_in_arguments_and_files(someone: Someone) -> None:
    """The stack is also the STS; helm runs with its own kubeconfig."""
    someone.patch.delenv("AWS_ENDPOINT_URL_STS")
    someone.has({"AWS_PROFILE": "process", "AWS_REGION": "us-west-2"})
    for words in (
        ("create", "demo", "--chart", str(CHART)),
        ("token", "demo"),
        ("status", "demo"),
        ("delete", "demo", "--yes"),
    ):
        said = someone.types(*words)
        assert said.code == 0, said.err
        if words[0] == "create":
            assert "upgrade" in Watch.arguments


def region_of(said: Said) -> str:
    """Return the region for which a token was signed."""
    assert said.code == 0, said.err
    token = json.loads(said.out)["status"]["token"].removeprefix("k8s-aws-v1.")
    url = base64.urlsafe_b64decode(token + "==").decode()
    match = re.search(r"X-Amz-Credential=\w+%2F\d+%2F([\w-]+)%2Fsts", url)
    assert match
    return match[1]


def boto3_takes(profile: str | None) -> str | None:
    """Return boto3's region, or AWS_REGION, the only variable that we add."""
    session = boto3.Session(profile_name=profile)
    return os.environ.get("AWS_REGION") or session.region_name


REGIONS: list[tuple[dict[str, str], str | None, str]] = [
    ({}, None, "us-east-1"),
    ({"AWS_DEFAULT_PROFILE": "tokyo"}, None, "ap-northeast-1"),
    ({"AWS_PROFILE": "tokyo"}, None, "ap-northeast-1"),
    ({"AWS_DEFAULT_PROFILE": "tokyo", "AWS_PROFILE": "my team"}, None, "ap-northeast-1"),
    ({"AWS_DEFAULT_PROFILE": "tokyo"}, "my team", "eu-west-1"),
    ({}, "my team", "eu-west-1"),
    ({}, "process", "eu-north-1"),
    ({}, "role", "eu-west-2"),
    ({"AWS_DEFAULT_REGION": "eu-west-3"}, "tokyo", "eu-west-3"),
    ({"AWS_REGION": "ca-central-1", "AWS_DEFAULT_REGION": "eu-west-3"}, None, "ca-central-1"),
    ({"AWS_REGION": "ca-central-1"}, "noregion", "ca-central-1"),
    ({"AWS_REGION": ""}, None, "us-east-1"),
]


@pytest.mark.parametrize(("environ", "profile", "region"), REGIONS)
def test_region_and_profile_are_boto3s(
    someone: Someone, environ: Mapping[str, str], profile: str | None, region: str
) -> None:
    someone.has(environ)
    named = ("--profile", profile) if profile else ()
    assert region_of(someone.types("token", "demo", *named)) == region == boto3_takes(profile)
    if not profile:  # `validate` has no such option
        (someone.at.folder / "c.yaml").write_text("name: demo\n")
        checked = someone.types("validate", "-f", "c.yaml", "-o", "json")
        assert checked.document["config"]["region"] == region


@pytest.mark.parametrize("where", ["credentials", "[profile default]", "another file"])
def test_the_region_may_stand_wherever_boto3_reads_it(someone: Someone, where: str) -> None:
    text = f"[default]\n{KEYS}region = eu-south-1\n"
    if where == "credentials":
        (someone.home / ".aws/credentials").write_text(text)
        someone.config.unlink()
    elif where == "another file":
        (someone.home / ".aws/elsewhere").write_text(text)
        someone.patch.setenv("AWS_CONFIG_FILE", "~/.aws/elsewhere")
    else:
        someone.config.write_text(text.replace("[default]", where))
    assert region_of(someone.types("token", "demo")) == "eu-south-1" == boto3_takes(None)


MUST = "it must print a JSON object with Version (1), AccessKeyId and SecretAccessKey"
WITHOUT = [
    ("proc", "printed no JSON"),
    ("procfail", "please log in"),
    ("old", "expired"),
    ("badtime", "tomorrow"),
    ("nokey", "AccessKeyId"),
    ("v2", "version"),
    ("number", "the access key id is not text"),
    ("list", f"credential_process of profile list printed no JSON object; {MUST}"),
    ("null", f"printed no JSON object; {MUST}"),
    ("five", f"printed no JSON object; {MUST}"),
    ("oddtime", MUST),
    ("listkey", "the secret access key is not text; its credential_process must print"),
    ("listtoken", "the session token is not text; its credential_process must print"),
    ("oddrole", f"credential_process of profile list printed no JSON object; {MUST}"),
    ("emptykey", "the access key id is empty"),
    ("section", "the secret access key is not text"),
    ("missing", "/nonexistent/helper: No such file or directory"),
    ("webid", "/nonexistent/token: No such file or directory"),
    ("onlykey", "aws_secret_access_key"),
    ("gone", "nobody"),
    ("loop-a", "loop"),
    ("credsrc", "Nowhere"),
    ("both", "source_profile"),
    ("ec2src", "EcsContainer"),
    ("sso", "SSO"),
    ("dev", "asks for an MFA code, and there is no terminal"),
]


@pytest.mark.parametrize(("profile", "says"), WITHOUT)
def test_a_profile_without_credentials_ends_at_once_and_says_why(
    someone: Someone, profile: str, says: str
) -> None:
    someone.patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # any call would fail otherwise
    said = someone.types("status", "demo", "--profile", profile, "--region", "us-west-2")
    assert said.code == 3
    message = said.err.splitlines()[0]
    assert message.startswith("error: ")
    assert says in message
    assert "attribute" not in message
    assert f"profile {profile} ({someone.config}, " in message
    assert "Traceback" not in said.err
    assert not Sts.asked


@pytest.mark.parametrize("profile", ["nobody", ""])
def test_a_profile_that_does_not_exist_is_wrong_usage(someone: Someone, profile: str) -> None:
    someone.patch.setenv("AWS_PROFILE", profile)
    said = someone.types("status", "demo")
    assert said.code == 2
    assert f"The config profile ({profile}) could not be found" in said.err
    assert str(someone.config) in said.err


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_SESSION_TOKEN", f"{SECRET}\n", "AWS_SESSION_TOKEN ends in a line break"),
        ("AWS_SESSION_TOKEN", f"{SECRET}\x00"[:-1] + "\x1b[0m", "AWS_SESSION_TOKEN has"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE\r", "AWS_ACCESS_KEY_ID ends in a carriage"),
        ("AWS_SECRET_ACCESS_KEY", f"{SECRET}\udcff", "AWS_SECRET_ACCESS_KEY ends in a byte"),
        ("AWS_SECRET_ACCESS_KEY", f"{SECRET}ключ", "AWS_SECRET_ACCESS_KEY has"),
        ("AWS_SECRET_ACCESS_KEY", f" {SECRET}", "AWS_SECRET_ACCESS_KEY has a space"),
    ],
)
def test_a_key_that_no_header_can_hold_is_named_and_not_shown(
    someone: Someone, name: str, value: str, says: str
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    someone.has(keys | {name: value})
    said = someone.types("status", "demo", "-o", "json")
    assert (said.code, said.document["error"]["class"]) == (3, "Denied")
    assert said.err.startswith(f"error: {says}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_MAX_ATTEMPTS", "abc"),
        ("AWS_RETRY_MODE", "sometimes"),
        ("AWS_DEFAULTS_MODE", "whatever"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "soon"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "nowhere"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "nonsense"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "now_and_then"),
        ("AWS_ENDPOINT_URL", "foo"),
        ("AWS_ENDPOINT_URL", "file:///x"),
        ("AWS_ENDPOINT_URL", "http://["),
        ("AWS_ENDPOINT_URL", "http://h:99999"),
        ("AWS_ENDPOINT_URL", "http://h:abc"),
        ("AWS_ENDPOINT_URL", "http://h\n"),
        ("AWS_ENDPOINT_URL", "http://h#f"),
        ("AWS_ENDPOINT_URL_SAGEMAKER", "foo"),
        ("AWS_ENDPOINT_URL_STS", "127.0.0.1"),
        ("AWS_REGION", "us-west-2a"),
        ("AWS_REGION", "[us-west-2]"),
        ("AWS_REGION", "us-west-2\r"),
        ("AWS_REGION", "US-WEST-2"),
    ],
)
def test_a_setting_that_is_no_value_is_named(someone: Someone, name: str, value: str) -> None:
    if name == "AWS_ENDPOINT_URL":
        someone.patch.delenv("AWS_ENDPOINT_URL_STS")
    someone.patch.setenv(name, value)
    command = {"SAGEMAKER": "status", "STS": "token"}.get(name.rpartition("_")[2], "orphans")
    said = someone.types(command, *(["demo"] if command != "orphans" else []), "-o", "json")
    assert (said.code, said.document["error"]["class"]) == (2, "Usage")
    assert name in said.err
    assert Sts.asked == [] or command == "status"
    if name == "AWS_REGION":
        assert "us-west-2" in said.document["error"]["message"]
        for words in (("token", "demo"), ("kubeconfig", "demo"), ("status", "demo")):
            assert someone.types(*words).code == 2


WRONG = {
    "retry_mode = fast": "it must be one of legacy, standard, adaptive",
    "retry_mode =\n  x = y": "it must be",
    "defaults_mode = fast": "it must be one of legacy, auto, standard, in-region",
    "max_attempts = many": "many",
    "max_attempts = -1": "greater than or equal to 1",
    "max_attempts =\n  x = y": "it must be text, not a section",
    "endpoint_url = foo": "foo",
    "sts_regional_endpoints = fast": "legacy",
    "request_checksum_calculation = fast": "when_supported",
    "account_id_endpoint_mode = fast": "preferred",
    "request_min_compression_size_bytes = fast": "integer",
    "metadata_service_timeout = fast": "fast",
    "s3 = fast": "it must be a section of indented lines",
    "s3 =\n  addressing_style = fast": "'virtual'",
    "api_versions = fast": "it must be a section of indented lines",
}
"""Settings that botocore checks, and what says which values there are."""


@pytest.mark.parametrize("setting", WRONG)
@pytest.mark.parametrize("kept", ["config", "credentials"])
@pytest.mark.sample(
    "config-max_attempts = many", "credentials-retry_mode = fast", "config-s3 = fast"
)
def test_a_setting_in_a_file_that_no_client_can_have_is_named(
    someone: Someone, setting: str, kept: str
) -> None:
    """Once, with its file; not a variable that has the same value, as AWS_PROFILE here."""
    someone.patch.delenv("AWS_ENDPOINT_URL_STS")
    if setting.startswith("endpoint_url"):
        someone.patch.delenv("AWS_ENDPOINT_URL")
    file = someone.config.with_name(kept)
    head = "[profile fast]" if kept == "config" else "[fast]"
    file.write_text(f"{head}\n{KEYS}region = us-west-2\n{setting}\n")
    someone.has({"AWS_PROFILE": "fast"})
    said = someone.types("status", "demo")
    assert said.code == 2
    name, _, value = setting.partition(" =")
    if "=" in value:
        name = f"{name}.{value.split()[0]}" if name == "s3" else name
    assert said.err.startswith(f"error: {name}")
    assert f" of the profile fast ({file}) cannot be used: " in said.err
    assert said.err.count("cannot be used") == 1
    assert WRONG[setting] in said.err
    assert "AWS_PROFILE" not in said.err
    assert "attribute" not in said.err


def test_a_region_that_is_a_section_is_named(someone: Someone) -> None:
    someone.config.write_text(f"[default]\n{KEYS}region =\n  x = y\n")
    for words in (("status", "demo"), ("orphans",), ("token", "demo")):
        said = someone.types(*words)
        assert (said.code, said.err.partition(" of ")[0]) == (2, "error: region")
        assert f"{someone.config}) cannot be used: it must be text, not a section" in said.err


@pytest.mark.parametrize(
    "content", [b"garbage\x00[", b"\xef\xbb\xbf[default]\n", b"[default]\nx=\xff"]
)
def test_a_file_that_boto3_cannot_read_is_named(someone: Someone, content: bytes) -> None:
    someone.config.write_bytes(content)
    for words in (("orphans",), ("status", "demo", "--region", "us-west-2")):
        said = someone.types(*words)
        assert said.code == 3
        assert str(someone.config) in said.err


def test_commands_that_do_not_ask_aws_run_no_helper(someone: Someone) -> None:
    ran = someone.home / "ran"
    helper = f"[default]\nregion = us-west-2\ncredential_process = /usr/bin/touch {ran}\n"
    someone.config.write_text(helper)
    (someone.at.folder / "c.yaml").write_text("name: demo\n")
    for words, code in (
        (("validate", "-f", "c.yaml"), 0),
        (("init", "demo"), 0),
        (("outputs", "demo"), 8),
        (("status", "demo", "--offline"), 8),
        (("schema",), 0),
        (("version",), 0),
    ):
        assert someone.types(*words).code == code
    assert not ran.exists()
    assert someone.types("status", "demo").code == 3
    assert ran.exists()


def test_an_mfa_code_is_asked_for_once(
    someone: Someone, capsys: pytest.CaptureFixture[str]
) -> None:
    """Like the AWS CLI, whose cache we share: further processes of both find the role there."""
    asked: list[str] = []

    def ask(words: str) -> str:
        asked.append(words)
        return "123456"

    class Terminal:
        def isatty(self) -> bool:
            return True

    someone.patch.setattr(sys, "stdin", Terminal())
    for _ in range(2):
        aws_session.session(None, "dev", ask)
    assert len(asked) == len(Sts.asked) == 1
    assert "TokenCode=123456" in Sts.asked[0]
    (cached,) = (someone.home / ".aws/cli/cache").iterdir()
    assert stat.S_IMODE(cached.stat().st_mode) == 0o600
    cached.write_text("{")
    aws_session.session(None, "dev", ask)
    assert len(asked) == 2
    cached.unlink()
    cached.parent.rmdir()
    cached.parent.write_text("a folder that cannot be written")
    aws_session.session(None, "dev", ask)  # works, but asks again the next time


def test_attempts_and_mode_of_retries_are_the_users(someone: Someone) -> None:
    from hyperpod_eks.aws.client import Aws  # noqa: PLC0415

    def retries() -> Any:
        sts: Any = Aws(aws_session.session(None, None), "demo", {}).sts
        return sts.meta.config.retries

    assert retries() == {"mode": "standard", "total_max_attempts": 9}
    someone.has({"AWS_MAX_ATTEMPTS": "2", "AWS_RETRY_MODE": "adaptive"})
    assert retries() == {"mode": "adaptive", "total_max_attempts": 2}
