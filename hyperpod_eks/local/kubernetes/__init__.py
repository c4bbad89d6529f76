"""A Kubernetes API server small enough to embed, which real clients take for a real one."""

from .api import ADDON_MANAGER, Fault, Grant, Identity
from .clock import INSTANT, Clock, Delays
from .cluster import Cluster
from .errors import ApiError

__all__ = [
    "ADDON_MANAGER",
    "INSTANT",
    "ApiError",
    "Clock",
    "Cluster",
    "Delays",
    "Fault",
    "Grant",
    "Identity",
]
