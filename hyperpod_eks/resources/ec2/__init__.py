"""EC2 resources: a VPC and its contents."""
