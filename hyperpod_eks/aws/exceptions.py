"""What boto3 raises, for those who tell one refusal from another; slow to import."""

from botocore.exceptions import BotoCoreError, ClientError

__all__ = ["BotoCoreError", "ClientError"]
