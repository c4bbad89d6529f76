"""Leave: the resources of a manifest as Terraform configuration or a CloudFormation template."""
