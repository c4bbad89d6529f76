"""Attach known causes to an error before it is printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import silent
from hyperpod_eks.aws.transport import Unreachable
from hyperpod_eks.config.model import Config
from hyperpod_eks.engine import words_of
from hyperpod_eks.errors import FAILED, Denied, Foreign, HyperpodError, Usage
from hyperpod_eks.state.store import Unwritable

CERTAIN = (Denied, Foreign, OSError, Unreachable, Unwritable, Usage)
"""Errors that need no evidence from AWS: their message says everything."""


@contextmanager
def explaining(aws: Aws, config: Config, cluster: str, *, collect: bool) -> Iterator[None]:
    """Set ``causes`` (list of `diagnose.Diagnosis`) on every error that leaves the context.

    ``cluster`` is its name and options in the commands to run next. With ``collect``, evidence
    is collected from AWS and Kubernetes first, except for `CERTAIN` errors and for endpoints that
    do not answer: each further call would wait for its timeout.
    """
    try:
        yield
    except Exception as error:
        from hyperpod_eks.diagnosis import diagnose as explain  # noqa: PLC0415  only an error needs it

        name = config.name
        eks_name = aws.adopted.get("eks/cluster") or name
        message = "\n".join([words_of(error), *getattr(error, "__notes__", ())])
        evidence = explain.of_error(error, message)
        if collect and not isinstance(error, CERTAIN) and not silent(error.__cause__ or error):
            evidence += explain.collect(aws, name, eks_name)
        again = f"hyperpod-eks create {cluster}"
        if isinstance(error, HyperpodError) and error.reason == FAILED:  # else create stops again
            again += " --replace-failed"
        names = {"cluster": cluster, "name": name, "again": again}
        names |= {"eks": eks_name, "region": config.region}
        error.causes = explain.diagnose(evidence, names)  # type: ignore[attr-defined]  # Console reads it
        raise
