"""AWS on this machine: moto, extended by subclass and data by what HyperPod on EKS needs."""
