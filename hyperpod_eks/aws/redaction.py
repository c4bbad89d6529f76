"""Removes secrets from all output: known values, and values named like secrets.

Known are values that botocore signs with or sends as credentials, credentials in environment
variables, and values that the config declares under a name such as ``password``.
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
"""Services that issue credentials: only allow-listed members of their requests are logged."""
SHORTEST = 8
"""Characters; a shorter value is hidden by name only, since other words may contain it."""

_LOGGED = frozenset(
    {
        "RoleArn", "RoleSessionName", "DurationSeconds", "SerialNumber", "PrincipalArn",
        "ProviderId", "accountId", "roleName", "grantType", "clientName", "clientType", "scopes",
        "x-k8s-aws-id",  # the EKS cluster of a token
    }
)  # fmt: skip
"""Members of requests to LOGIN that are no secret."""
_NAMED = (
    r"(?:authorization(?:_?token)?|x-amz-security-token|bearer_token"
    r"|(?:secret_?access|aws_secret)_?key(?!_id)|session_?token|client_?secret|device_?code"
    r"|(?:access|refresh|id)_?token|web_?identity_?token|saml_?assertion|external_?id|token_?code"
    r"|password|passwd)"
)
_SECRET_NAME = re.compile(r"(?i)secret|password|passwd|token|credential|api_?key|private_?key")
_REFERENCE = re.compile(r"(?i)(name|namespace|ref)s?$|^existing|^image_?pull")
"""Names of settings that refer to a secret, in the style of Kubernetes, and are not one."""
_HINTS = (
    "token", "secret", "passw", "authorization", "external", "assertion", "signature", "bearer",
    "device", "k8s-aws", "://", "configurationvalues", "configuration_values",
)  # fmt: skip
"""No pattern matches a text without any of these; searching for them is ten times faster."""
_PATTERNS = (
    # an EKS token is a presigned URL that grants access for 15 minutes
    (re.compile(r"k8s-aws-v1\.[\w-]+"), f"k8s-aws-v1.{HIDDEN}"),
    (re.compile(r"(?i)(bearer |x-amz-(?:security-token|signature)=)[^\s'\"&]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(Signature=|Signature:\n)[0-9a-f]{16,}"), rf"\1{HIDDEN}"),
    # user and password of a URL
    (re.compile(r"(://)[^/?#\s'\"<>\\]+@"), rf"\1{HIDDEN}@"),
    # JSON within JSON within a repr: everything up to the closing quote
    (
        re.compile(
            r"(?is)(configuration_?values\\*['\"]?\s*[:=]\s*b?)(\\*['\"])(.*?)(?<!\\)\2(?=\s*[,}\])])"
        ),
        rf"\1\2{HIDDEN}\2",
    ),
    # headers, JSON, XML and their reprs: a name, a separator and the value
    (
        re.compile(rf"(?i)({_NAMED}\\*['\"]?\s*[:=>]\s*(?:b?\\*['\"])?)[^'\"\\<>\n]+"),
        rf"\1{HIDDEN}",
    ),
)

_known: dict[str, None] = {}
_lock = threading.Lock()
_here = threading.local()


def learn(*values: object) -> None:
    """Hide these values from now on, also as JSON, URLs and Python reprs escape them.

    Values are split at whitespace and control characters, where a message may break too.
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
                for _ in range(2):  # a JSON body in a repr in an error's JSON
                    spelled |= {
                        write(each)[1:-1] for each in spelled for write in (repr, json.dumps)
                    }
                with _lock:
                    found = {*_known, *spelled}
                    _known.clear()
                    _known.update(dict.fromkeys(sorted(found, key=len, reverse=True)))


def learn_environment(environ: Mapping[str, str] = os.environ) -> None:
    """Hide the credentials in AWS's variables, and the user and password of every URL.

    The reader of a file that a variable names hides its content.
    """
    for name, value in environ.items():
        if not name.upper().startswith("AWS_") and not name.upper().endswith("_PROXY"):
            continue
        if re.search(r"(?i)secret|token(?!_file)", name) and not name.endswith("_FILE"):
            learn(value)
        if name.startswith("AWS_CONTAINER_CREDENTIALS_"):  # the path alone grants credentials
            learn(value.rpartition("://")[2].partition("/")[2])
        before, at, _ = value.rpartition("@")
        if at and name.upper().startswith(("AWS_ENDPOINT_URL", "HTTP", "ALL_PROXY")):
            given = before.rpartition("://")[2]
            for who in (given, unquote(given)):  # base64: as HTTP basic authentication sends it
                learn(who, who.partition(":")[2], b64encode(who.encode(errors="replace")))


def learn_settings(value: object, name: str = "") -> None:
    """Hide the values in a user's settings that are named like secrets."""
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
    """Hide known values only, not values named like secrets."""
    for value in tuple(_known):
        if value in text:
            text = text.replace(value, HIDDEN)
    return text


def redacted(text: str) -> str:
    """Hide credentials, signatures and tokens, by their values and by their names.

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


# --- calls of botocore


def attach(session: Any) -> None:  # the stubs lack handlers with parameters
    """Hide the secrets that all future clients of a botocore session send and receive.

    The module `session` hides the credentials that they sign with.
    """
    session.register("provide-client-params", _asked)
    session.register("before-call", _begun)
    session.register("after-call", _answered)
    session.register("after-call-error", _ended)


def logged(record: logging.LogRecord) -> bool:
    """Whether a record may be logged; botocore's own records of a login call may not."""
    ours = not record.name.startswith(("botocore", "boto3", "urllib3"))
    return ours or not any(_calls())


def _calls() -> list[bool]:
    """Return whether each of this thread's nested calls is a login, outermost first."""
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
    """Yield every text in an answer whose member has "secret" or "token" in its name."""
    if isinstance(answer, Mapping):
        for name, value in answer.items():
            if isinstance(value, str) and re.search(r"(?i)secret|token", str(name)):
                yield value
            else:
                yield from _secrets(value)
