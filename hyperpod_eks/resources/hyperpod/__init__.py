"""SageMaker HyperPod: the cluster, its instance groups and its nodes."""
