"""The helm program, its releases, and the HyperPod chart."""
