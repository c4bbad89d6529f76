"""Helm, its releases, and the HyperPod chart."""
