"""Checks of where metrics go."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpod_eks.aws.failures import absent
from hyperpod_eks.preflight.inputs import Facts, Finding


def workspace(facts: Facts) -> Iterator[Finding]:
    """An existing workspace must exist, in this account: its role may write to no other one."""
    arn = facts.config.prometheus.workspace_arn
    if not arn:
        return
    setting = {"setting": "prometheus.workspace_arn"}
    status, id_ = "", arn.rpartition("/")[2]
    if arn.split(":")[4] == facts.aws.identity.account:
        with absent("ResourceNotFoundException|ValidationException"):
            found = facts.aws.amp.describe_workspace(workspaceId=id_)["workspace"]
            status = found["status"]["statusCode"]
    if status not in ("ACTIVE", "UPDATING"):
        why = f"is {status}" if status else "does not exist in this account"
        text = f"prometheus.workspace_arn: {arn} {why}"
        fix = "Use an ARN that `aws amp list-workspaces` prints, or remove the setting."
        yield Finding("prometheus-workspace", "error", text, fix, setting)
