"""The Kubernetes API of the cluster, and the user's kubeconfig."""
