"""CloudWatch Logs' keys, which moto takes with a new log group only."""

from __future__ import annotations

import moto.logs.urls
from moto.core.responses import ActionResult, EmptyResult
from moto.logs.exceptions import ResourceNotFoundException
from moto.logs.responses import LogsResponse


class Response(LogsResponse):
    """moto's answers, and those about keys."""

    def associate_kms_key(self) -> ActionResult:
        """Encrypt what is written from now on with another key."""
        return self._set_key(self._get_param("kmsKeyId"))

    def disassociate_kms_key(self) -> ActionResult:
        """Encrypt it with AWS's own key again."""
        return self._set_key(None)

    def _set_key(self, arn: str | None) -> ActionResult:
        name = self._get_param("logGroupName")
        if name not in self.logs_backend.groups:
            raise ResourceNotFoundException
        self.logs_backend.groups[name].kms_key_id = arn
        return EmptyResult()


def install() -> None:
    """Swap moto's answers for ours."""
    moto.logs.urls.url_paths["{0}/$"] = Response.dispatch
