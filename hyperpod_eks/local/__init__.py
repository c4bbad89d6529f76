"""The embedded stack: AWS and Kubernetes on this machine, for trials and tests."""

from pathlib import Path

CHART = Path(__file__).parent / "chart"
"""Stands in for AWS's HyperPod chart, which cannot be fetched without leaving the machine."""
UPSTREAM = "upstream/"
"""Precedes the names of other registries' images in the embedded registry."""
