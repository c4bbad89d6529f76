"""EC2: a VPC and what is in it."""
