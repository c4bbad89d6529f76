"""Secrets, hidden wherever they would be shown: by value where it is known, else by name.

Known are the values that botocore signs with or sends as a credential, those of the environment,
and those that the config declares under a name such as ``password``.
"""

from __future__ import annotations

import json
import os
import re
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    import logging

    from botocore.model import OperationModel

    from hyperpod_eks.documents import JsonMapping

HIDDEN = "[hidden]"
LOGIN = ("sts", "sso", "sso-oidc", "signin")
"""Services that give credentials: their requests and answers are logged by allow-list."""
SHORTEST = 8
"""A shorter value is hidden by its name alone: it would be found within other words."""

_LOGGED = frozenset(
    {
        "RoleArn", "RoleSessionName", "DurationSeconds", "SerialNumber", "PrincipalArn",
        "ProviderId", "accountId", "roleName", "grantType", "clientName", "clientType", "scopes",
        "x-k8s-aws-id",  # the EKS cluster of a token
    }
)  # fmt: skip
"""Members of requests to LOGIN that are no secret."""
_NAMED = (
    r"(?:authorization|x-amz-security-token|bearer_token"
    r"|(?:secret_?access|aws_secret)_?key(?!_id)|session_?token|client_?secret|device_?code"
    r"|(?:access|refresh|id)_?token|web_?identity_?token|saml_?assertion|external_?id|token_?code"
    r"|password|passwd)"
)
_SECRET_NAME = re.compile(r"(?i)secret|password|passwd|token|credential|api_?key|private_?key")
_REFERENCE = re.compile(r"(?i)(name|namespace|ref)s?$|^existing|^image_?pull")
"""What a setting is called that says where a secret is, as Kubernetes names it."""
_HINTS = (
    "token", "secret", "passw", "authorization", "external", "assertion", "signature", "bearer",
    "device", "k8s-aws", "://", "configurationvalues", "configuration_values",
)  # fmt: skip
"""Without any of these no pattern matches; looking for them is ten times as fast."""
_PATTERNS = (
    # an EKS token is a presigned URL, and opens the cluster for a quarter of an hour
    (re.compile(r"k8s-aws-v1\.[\w-]+"), f"k8s-aws-v1.{HIDDEN}"),
    (re.compile(r"(?i)(bearer |x-amz-(?:security-token|signature)=)[^\s'\"&]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(Signature=|Signature:\n)[0-9a-f]{16,}"), rf"\1{HIDDEN}"),
    # user and password of a URL
    (re.compile(r"(://)[^/?#\s'\"<>\\]+@"), rf"\1{HIDDEN}@"),
    # JSON within JSON within a repr: all up to the quote that began it
    (
        re.compile(
            r"(?is)(configuration_?values\\*['\"]?\s*[:=]\s*b?)(\\*['\"])(.*?)(?<!\\)\2(?=\s*[,}\])])"
        ),
        rf"\1\2{HIDDEN}\2",
    ),
    # headers, JSON, XML and reprs of them: a name, what stands between, and the value
    (
        re.compile(rf"(?i)({_NAMED}\\*['\"]?\s*[:=>]\s*(?:b?\\*['\"])?)[^'\"\\<>\n]+"),
        rf"\1{HIDDEN}",
    ),
)

_known: dict[str, None] = {}
_lock = threading.Lock()
_here = threading.local()


def learn(*values: object) -> None:
    """Hide these values from now on, however JSON, a URL or Python spells them.

    A line break within one ends it, for a message may break there too.
    """
    for value in values:
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
        for part in re.split(r"[\s\x00-\x1f\x7f-\x9f]+", text):
            if len(part) >= SHORTEST and part not in _known:
                spelled = {part, quote(part, safe="", errors="replace")}
                spelled |= {
                    quote(part, errors="replace"),
                    part.encode("utf-8", "replace").decode("latin-1"),
                }
                for _ in range(2):  # a body of JSON, in a repr, in an error's JSON
                    spelled |= {
                        write(each)[1:-1] for each in spelled for write in (repr, json.dumps)
                    }
                with _lock:
                    found = {*_known, *spelled}
                    _known.clear()
                    _known.update(dict.fromkeys(sorted(found, key=len, reverse=True)))


def learn_environment(environ: Mapping[str, str] = os.environ) -> None:
    """Learn the credentials of AWS's variables, and the user and password of every URL.

    What a file has that a variable names is learned by who reads it.
    """
    for name, value in environ.items():
        if not name.upper().startswith("AWS_") and not name.upper().endswith("_PROXY"):
            continue
        if re.search(r"(?i)secret|token(?!_file)", name) and not name.endswith("_FILE"):
            learn(value)
        if name.startswith("AWS_CONTAINER_CREDENTIALS_"):  # whoever has the path gets credentials
            learn(value.rpartition("://")[2].partition("/")[2])
        before, at, _ = value.rpartition("@")
        if at and name.upper().startswith(("AWS_ENDPOINT_URL", "HTTP", "ALL_PROXY")):
            given = before.rpartition("://")[2]
            for who in (given, unquote(given)):  # and as HTTP's basic authentication has it
                learn(who, who.partition(":")[2], b64encode(who.encode(errors="replace")))


def learn_settings(value: object, name: str = "") -> None:
    """Learn what a user's settings declare under the name of a secret."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            learn_settings(each, str(key))
    elif isinstance(value, list | tuple):
        for each in value:
            learn_settings(each, name)
    elif isinstance(value, str) and _is_secret(name) and "${env:" not in value:
        learn(value)


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _REFERENCE.search(name)


def without_values(text: str) -> str:
    """Hide the values that are known; what is called a secret stays."""
    for value in tuple(_known):
        if value in text:
            text = text.replace(value, HIDDEN)
    return text


def redacted(text: str) -> str:
    """Hide credentials, signatures and tokens, known ones and what is called one.

    >>> redacted("'Authorization': b'AWS4-HMAC-SHA256 Credential=AKIA/2026', 'Host': b'a'")
    "'Authorization': b'[hidden]', 'Host': b'a'"
    >>> redacted("<SecretAccessKey>abc/def</SecretAccessKey><SessionToken>xyz</SessionToken>")
    '<SecretAccessKey>[hidden]</SecretAccessKey><SessionToken>[hidden]</SessionToken>'
    >>> redacted("token: k8s-aws-v1.aHR0cHM6Ly9zdHM_x-y end")
    'token: k8s-aws-v1.[hidden] end'
    >>> redacted("no answer from https://me:pass@word@proxy:3128/x")
    'no answer from https://[hidden]@proxy:3128/x'
    """
    text = without_values(text)
    lower = text.lower()
    if any(hint in lower for hint in _HINTS):
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
    return text


# --- what botocore sends


def attach(session: Any) -> None:  # the stubs know no handler with parameters of its own
    """Learn what all future clients of a botocore session send and get as a secret.

    What they sign with `aws_session` learns.
    """
    session.register("provide-client-params", _asked)
    session.register("before-call", _begun)
    session.register("after-call", _answered)
    session.register("after-call-error", _ended)


def logged(record: logging.LogRecord) -> bool:
    """Whether a record may be logged: botocore's words about a call that logs in may not."""
    ours = not record.name.startswith(("botocore", "boto3", "urllib3"))
    return ours or not any(_calls())


def _calls() -> list[bool]:
    """Return, for each call that this thread is making, whether it logs in; the outermost first."""
    if not hasattr(_here, "calls"):
        _here.calls = []
    calls: list[bool] = _here.calls
    return calls


def _asked(params: JsonMapping, model: OperationModel, **_: object) -> None:
    service = model.service_model.service_name
    if service in LOGIN:
        learn(*(v for k, v in params.items() if k not in _LOGGED and isinstance(v, str)))
        said = " ".join(f"{k}={v}" for k, v in params.items() if k in _LOGGED)
        import logging  # noqa: PLC0415  --help goes without

        logging.getLogger(__name__).debug("%s:%s %s", service, model.name, said)


def _begun(model: OperationModel, **_: object) -> None:
    _calls().append(model.service_model.service_name in LOGIN)


def _answered(parsed: JsonMapping, model: OperationModel, **_: object) -> None:
    if model.service_model.service_name in LOGIN:
        learn(*_secrets(parsed))
    _ended()


def _ended(**_: object) -> None:
    if calls := _calls():
        calls.pop()


def _secrets(answer: object) -> Iterator[str]:
    """Every text of an answer whose member is called a secret or a token."""
    if isinstance(answer, Mapping):
        for name, value in answer.items():
            if isinstance(value, str) and re.search(r"(?i)secret|token", str(name)):
                yield value
            else:
                yield from _secrets(value)
