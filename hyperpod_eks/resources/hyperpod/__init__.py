"""SageMaker HyperPod: the cluster, its groups and its nodes."""
