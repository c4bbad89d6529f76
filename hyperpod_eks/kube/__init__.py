"""The cluster's Kubernetes API, and the user's kubeconfig."""
