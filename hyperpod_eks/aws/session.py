"""Opens an AWS session: profile, region and credentials as boto3 finds them, before any call.

boto3 decides (AWS SDK for Python, "Configuration" and "Credentials"), with two additions:
``AWS_REGION`` takes precedence over ``AWS_DEFAULT_REGION``, and the role that a profile assumes is
cached where the AWS CLI caches it, so that an MFA code is asked for once.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperpod_eks import files
from hyperpod_eks.aws.models import loader
from hyperpod_eks.aws.redaction import attach, learn, redacted
from hyperpod_eks.aws.service_model import region_fault
from hyperpod_eks.aws.transport import (
    CONNECT,
    ca_bundle,
    give_up,
    proxy_for,
    share_trust,
    trusting,
    url_fault,
)
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import Denied, HyperpodError, Usage
from hyperpod_eks.workers import start

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from botocore.session import Session
    from botocore.utils import JSONFileCache

Ask = Callable[[str], str]
"""Prompts for a text without echoing it, as `getpass.getpass` does."""

ANSWER = 20.0
"""Seconds to wait for a service that issues credentials; botocore asks it up to five times."""
NO_CREDENTIALS = "no credentials"
"""The reason of the error where nothing has credentials."""
LONGEST = 300
"""Characters that a message quotes of others' messages."""
MUST_PRINT = (
    "it must print a JSON object with Version (1), AccessKeyId and SecretAccessKey; temporary"
    " credentials also need SessionToken and Expiration (ISO 8601)"
)
"""What botocore takes from a credential_process (AWS SDKs and Tools, "Process provider")."""
_LOGIN = "Correct it, or log in again, and run the same command."
_ODD = re.compile(r"[^\x21-\x7e]")
"""Characters that no key or token of AWS contains; most are invalid in a header."""


def session(region: str | None, profile: str | None, ask: Ask = getpass.getpass) -> Session:
    """Open the session that all calls use, with its credentials resolved.

    Its clients have the operations that this tool calls (`models.OPERATIONS`).

    ``ask`` prompts for an MFA code.  Raises Usage for an unknown profile or region and for an
    invalid setting, Denied for a broken configuration or missing credentials, and botocore's
    network errors for a profile that calls STS or IAM Identity Center.
    """
    early = os.environ.get("AWS_CA_BUNDLE")
    reading = start(partial(trusting, early)) if early else None
    core = _core(profile)  # OpenSSL reads the bundle while Python imports botocore
    if reading:
        reading.exception()  # only waits: `trusting` raises it again below
    attach(core)
    emitter = core.get_component("event_emitter")
    emitter.register_first("needs-retry", give_up)
    # a call has fifteen events, and botocore compares each with the former names of 65 services:
    # 0.3 ms a call.  Its own handlers are registered by now, and nobody here uses those names
    emitter._event_aliases = {}
    core.register_component("data_loader", loader())  # shares the models that the config has read
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    with _configuration(core):
        place, origin = _region(core, region)
        bundle = ca_bundle(core)
    if not place:
        raise Usage(
            "no AWS region: no option, variable, config file or profile names one",
            "Set one, for example --region us-west-2.",
        )
    if fault := region_fault(place):
        raise Usage(f"{origin}: region: {json.dumps(place)} {fault}")
    core.set_config_variable("region", place)
    if bundle:
        trusting(bundle)  # also for plain HTTP: Kubernetes and the chart's download use it too
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    proxy_for(f"https://sts.{place}.amazonaws.com" if url_fault(endpoint) else endpoint)
    _log_in(core, ask)
    return core


def _moment(value: Any) -> datetime:
    """Parse a timestamp of an answer; for ISO 8601 that takes botocore ten times as long."""
    if isinstance(value, str) and "T" in value:
        with suppress(ValueError):
            return datetime.fromisoformat(value)
    from botocore.utils import parse_timestamp  # noqa: PLC0415  costs 0.15 s

    return parse_timestamp(value)


def configured_region() -> tuple[str, str]:
    """Return the region of the AWS configuration and its source; an empty region if none is set.

    It resolves no credentials and runs no helper.  Raises as `session`.
    """
    core = _core(None)
    with _configuration(core):
        return _region(core, None)


def profile_of(session: Session) -> str | None:
    """Return the profile that was chosen for a session; None if none was."""
    name: str | None = session.profile
    return name


def region_of(session: Session) -> str:
    """Return the region of a session, which `session` has checked."""
    return str(session.get_config_variable("region"))


def new_client(session: Session, service: str, region: str, **more: Any) -> Any:
    """Create a client; raise Usage for settings (endpoint, proxy) that cannot work."""
    with usable_settings(session):
        made: Any = session.create_client(service, region, **more)
        url = made.meta.endpoint_url
        if fault := url_fault(url):
            name = f"AWS_ENDPOINT_URL_{made.meta.service_model.service_id.hyphenize()}"
            raise Usage(
                f"the endpoint of {service}, {url!r}, {fault}",
                f"Correct AWS_ENDPOINT_URL, {name.replace('-', '_').upper()} or endpoint_url"
                " of the profile.",
            )
        proxy_for(url)  # raises for a proxy that boto3 cannot use
        share_trust(made)
    return made


@contextmanager
def usable_settings(core: Session) -> Iterator[None]:
    """Convert botocore's errors about the user's settings into Usage that names the setting.

    botocore checks few of them: text instead of a section ends as an AttributeError.
    """
    try:
        yield
    except HyperpodError:
        raise
    except Exception as error:
        what, said = _guilty(core, str(error)), _short(str(error))
        if isinstance(error, AttributeError | TypeError) and (odd := _of_wrong_kind(core)):
            what, said = odd
        elif valid := getattr(error, "kwargs", {}).get("valid_modes"):  # botocore calls it "mode"
            said = f"it must be one of {valid if isinstance(valid, str) else ', '.join(valid)}"
        raise Usage(f"{what} cannot be used: {said}", "Correct or unset it.") from error


def _guilty(core: Session, said: str) -> str:
    """Return the variables, or else the profile's settings, whose values an error message names."""
    known = core.session_var_map.items()  # names, with the setting, the variables, …
    read = {variable for name, (_, variable, *_) in known if name != "profile"}
    variables = ", ".join(
        name
        for name, value in sorted(os.environ.items())
        if (name in read and _names(said, value))
        or (name.startswith("AWS_ENDPOINT_URL") and value and url_fault(value))
    )
    if variables:
        return variables
    found = [(name, value) for name, value in _settings(core) if _names(said, value)]
    if not found:
        return f"the AWS configuration ({_files(core)})"
    return ", ".join(_described(core, *each) for each in found)


def _names(said: str, value: str) -> bool:
    """Whether a message has a value as a word."""
    return bool(value and re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", said))


def _settings(core: Session) -> Iterator[tuple[str, str]]:
    """Yield names and values of settings that botocore checks; in a section as ``section.name``."""
    known = {each[0] for each in core.session_var_map.values()} | {"endpoint_url", "s3"}
    for name, value in core.get_scoped_config().items():
        if name not in known or name == "region":  # it is checked before
            continue
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", str(each)) for key, each in value.items())
        else:
            yield name, str(value)


def _described(core: Session, name: str, value: str = "") -> str:
    """Return a setting of the profile, with its value and its file, for messages."""
    profile = core.profile or "default"
    config, credentials = _paths(core)
    theirs = name.partition(".")[0] in _section(credentials, profile)  # it wins
    shown = f" = {_short(value.rpartition('@')[2])}" if value else ""
    return f"{name}{shown} of the profile {profile} ({credentials if theirs else config})"


def _section(path: str, profile: str) -> JsonMapping:
    """Return a profile's section of a credentials file."""
    from botocore.configloader import raw_config_parse  # noqa: PLC0415
    from botocore.exceptions import ConfigNotFound  # noqa: PLC0415

    with suppress(ConfigNotFound):
        found: JsonMapping = raw_config_parse(path).get(profile, {})
        return found
    return {}


def _of_wrong_kind(core: Session) -> tuple[str, str] | None:
    """Return a setting that is text instead of a section, or a section, and what it should be."""
    known = {each[0] for each in core.session_var_map.values() if each[0]} | {"s3"}
    for name, value in core.get_scoped_config().items():
        section = name in ("api_versions", "s3")
        if name in known and isinstance(value, dict) != section:
            needed = "a section of indented lines" if section else "text, not a section"
            return _described(core, name), f"it must be {needed}"
    return None


# --- steps of opening a session


def _core(profile: str | None) -> Session:
    from botocore.config import Config  # noqa: PLC0415  botocore costs 0.15 s
    from botocore.session import Session  # noqa: PLC0415

    core = Session(profile=profile)
    # of the clients that botocore creates to log in
    core.set_default_client_config(Config(connect_timeout=CONNECT, read_timeout=ANSWER))
    return core


@contextmanager
def _configuration(core: Session) -> Iterator[None]:
    """Read the user's files, which also checks the profile; raise Usage or Denied."""
    from botocore.exceptions import BotoCoreError, ProfileNotFound  # noqa: PLC0415

    try:
        core.get_scoped_config()
        yield
    except ProfileNotFound as error:
        raise Usage(
            f"{_short(str(error))} ({_files(core)})", "See `aws configure list-profiles`."
        ) from error
    except HyperpodError:
        raise
    except (BotoCoreError, OSError, ValueError) as error:
        raise Denied(
            f"the AWS configuration cannot be used: {_short(str(error))} ({_files(core)})",
            "Correct the file (text in UTF-8 without a byte order mark), and run the same command.",
        ) from error


def _region(core: Session, given: str | None) -> tuple[str, str]:
    """Return the region, as it is written, and its source."""
    if given:
        return given, "flag --region"
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if region := os.environ.get(variable):
            return region, f"variable {variable}"
    region = core.get_config_variable("region") or ""
    if not isinstance(region, str):
        raise Usage(
            f"{_described(core, 'region')} cannot be used: it must be text, not a section",
            "Correct it, for example region = us-west-2.",
        )
    return region, f"profile {core.profile or 'default'}"


def _log_in(core: Session, ask: Ask) -> None:
    """Resolve and check the credentials now, and again before each signature."""
    where = f"profile {core.profile or 'default'} ({_files(core)})"

    def before_sign(**event: object) -> None:
        credentials = getattr(event["request_signer"], "_credentials", None)
        if credentials is not None:
            _check(credentials, where)

    core.register("before-sign", before_sign)
    _learn_token()
    with usable_settings(core):
        chain = core.get_component("credential_provider")
    with _credentials(where):
        role = chain.get_provider("assume-role")
        role.cache, role._prompter = _cli_cache(), partial(_prompt, ask, where)
        found = core.get_credentials()
    if found is None:
        raise Denied(
            f"no AWS credentials: not in the environment, not in {where}, and not from a"
            " container or an instance role",
            "Select a profile that has credentials (--profile, AWS_PROFILE), or log in"
            " (aws configure, aws sso login). Then run the same command again.",
            reason=NO_CREDENTIALS,
        )
    _check(found, where)


def _prompt(ask: Ask, where: str, words: str) -> str:
    """Prompt for an MFA code; raise Denied without a terminal."""
    if not sys.stdin.isatty():
        raise Denied(
            f"{where} asks for an MFA code, and there is no terminal to prompt on",
            "Run any hyperpod-eks command in a terminal first; it caches the session in the AWS"
            f" CLI cache. {_LOGIN}",
        )
    return ask(words)


def _check(credentials: Credentials, where: str) -> None:
    """Resolve credentials and hide their secrets; raise Denied for malformed ones."""
    _learn_token()  # the token in the file changes every few hours
    with _credentials(where):
        frozen = credentials.get_frozen_credentials()
    learn(frozen.secret_key, frozen.token)
    for name, value in (
        ("access key id", frozen.access_key),
        ("secret access key", frozen.secret_key),
        ("session token", frozen.token),
    ):
        variable = f"AWS_{name.replace(' ', '_').upper()}"
        source = variable if credentials.method == "env" else f"{where}: the {name}"
        flaw = _flaw(value) if value else "is empty" if name != "session token" else ""
        if flaw and credentials.method == "custom-process":
            flaw += f"; its credential_process {MUST_PRINT.removeprefix('it ')}"
        if flaw:
            raise Denied(f"{source} {flaw}", _LOGIN)


def _flaw(value: object) -> str:
    """Return what is wrong with a key or a token; empty if nothing is."""
    if not isinstance(value, str):  # a helper's JSON, a section in a file
        return "is not text"
    if not (odd := _ODD.search(value)):
        return ""
    what = {"\n": "a line break", "\r": "a carriage return", " ": "a space"}
    said = what.get(odd[0], f"the character U+{ord(odd[0]):04X}")
    if "\ud800" <= odd[0] <= "\udfff":  # Python's surrogate for an undecodable byte
        said = "a byte that is not UTF-8"
    place = "ends in" if odd.end() == len(value) else "has"
    return f"{place} {said}, which no AWS credential has"


def _learn_token() -> None:
    """Hide the token that requests a container's credentials, as EKS passes it to pods."""
    if path := os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        with suppress(OSError, HyperpodError):  # botocore reports it
            learn(files.read(Path(path)))


@contextmanager
def _credentials(where: str) -> Iterator[None]:
    """Convert all errors of botocore's credential providers into Denied, except network errors."""
    from botocore import exceptions as e  # noqa: PLC0415

    try:
        yield
    except (HyperpodError, e.HTTPClientError, e.ConnectionError):
        raise
    except Exception as error:
        raise Denied(f"{where}: no credentials: {_short(_why(error))}", _LOGIN) from error


def _why(error: Exception) -> str:
    """Return why a provider has no credentials, as a clause."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    if printed := _printed(error):
        return printed
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, EOFError):
        return "no MFA code was entered"
    if isinstance(error, RuntimeError) and "expired" in str(error):
        return "its credentials have expired"
    if isinstance(error, BotoCoreError | ClientError):
        return str(error)
    return f"its credentials cannot be read ({type(error).__name__}: {error})"


def _printed(error: Exception) -> str:
    """Return what is wrong with what a credential_process printed; empty for another failure.

    The profile may be the source of a role; botocore's exceptions do not name it.
    """
    from botocore.credentials import ProcessProvider  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    profile, expires, trace = "", False, error.__traceback__
    while trace:
        found, trace = trace.tb_frame.f_locals, trace.tb_next
        provider = found.get("self")
        if isinstance(provider, ProcessProvider) and (
            "creds_dict" in found or ("stdout" in found and not found["p"].returncode)
        ):
            profile, expires = vars(provider)["_profile_name"], "creds_dict" in found
    if not profile:
        return ""
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        what = "no JSON"
    elif isinstance(error, BotoCoreError | ValueError):
        what = f"invalid credentials ({error})"
    else:
        what = "an Expiration that is not a time" if expires else "no JSON object"
    return f"the credential_process of profile {profile} printed {what}; {MUST_PRINT}"


def _cli_cache() -> JSONFileCache | dict[str, object]:
    """Return the AWS CLI's cache of assumed roles; invalid files and failed writes are ignored."""
    from botocore.utils import JSONFileCache  # noqa: PLC0415

    home = os.path.expanduser("~")  # noqa: PTH111  Path raises without a home
    if home == "~":
        return {}

    class Cache(JSONFileCache):
        def __contains__(self, key: str) -> bool:
            try:
                return isinstance(self[key]["Credentials"]["Expiration"], str)
            except (KeyError, TypeError):
                return False

        def __setitem__(self, key: str, value: object) -> None:
            with suppress(OSError):
                super().__setitem__(key, value)

    return Cache(str(Path(home) / ".aws/cli/cache"))


def _files(core: Session) -> str:
    """Return the paths of the configuration's files, for messages."""
    return ", ".join(_paths(core))


def _paths(core: Session) -> list[str]:
    """Return the paths of the config file and of the credentials file."""
    names = [core.get_config_variable(name) for name in ("config_file", "credentials_file")]
    return [os.path.expanduser(name) for name in names]  # noqa: PTH111  as botocore does


def _short(text: str) -> str:
    """Return a foreign message on one line, cut and without secrets."""
    words = redacted(" ".join(text.split()))
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"
