"""The exceptions of boto3, for callers that distinguish refusals; slow to import."""

from botocore.exceptions import BotoCoreError, ClientError

__all__ = ["BotoCoreError", "ClientError"]
