#!/usr/bin/env bash
# What a careful user of the AWS CLI writes: look up, then create; the waiters of `aws ... wait`.
# Makes what `hyperpod-eks create NAME` makes.  Usage: aws_cli.sh create|delete NAME
set -euo pipefail
verb=$1 name=$2
chart=$BENCH_CHART lifecycle=$BENCH_LIFECYCLE region=$AWS_REGION
addons=(vpc-cni kube-proxy eks-pod-identity-agent)
policies=arn:aws:iam::aws:policy
mine=Name=tag:cluster,Values=$name

q() { aws "$@" --output text 2>/dev/null | sed 's/^None$//' || true; }   # look; empty: not there
do_() { aws "$@" --output text; }
tags() { echo "ResourceType=$1,Tags=[{Key=cluster,Value=$name},{Key=Name,Value=${2:-$name}}]"; }
named() { echo "$mine Name=tag:Name,Values=$1"; }

account=$(do_ sts get-caller-identity --query Account)
bucket=sagemaker-$name-$account-$region

role() {  # NAME SERVICE MANAGED-POLICY -> ARN
  local arn
  arn=$(q iam get-role --role-name "$1" --query Role.Arn)
  if [ -z "$arn" ]; then
    arn=$(do_ iam create-role --role-name "$1" --tags "Key=cluster,Value=$name" --query Role.Arn \
      --assume-role-policy-document '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"'"$2"'"},"Action":"sts:AssumeRole"}]}')
    do_ iam attach-role-policy --role-name "$1" --policy-arn "$policies/$3"
  fi
  echo "$arn"
}

subnet() {  # NAME CIDR ZONE -> id
  local id
  # shellcheck disable=SC2046  # two filters
  id=$(q ec2 describe-subnets --filters $(named "$1") --query 'Subnets[0].SubnetId')
  [ -n "$id" ] || id=$(do_ ec2 create-subnet --vpc-id "$vpc" --cidr-block "$2" \
    --availability-zone-id "$3" --tag-specifications "$(tags subnet "$1")" --query Subnet.SubnetId)
  echo "$id"
}

table() {  # NAME ROUTE-OPTION TARGET SUBNET... -> id
  local id name_=$1 option=$2 target=$3
  shift 3
  # shellcheck disable=SC2046
  id=$(q ec2 describe-route-tables --filters $(named "$name_") --query 'RouteTables[0].RouteTableId')
  if [ -z "$id" ]; then
    id=$(do_ ec2 create-route-table --vpc-id "$vpc" \
      --tag-specifications "$(tags route-table "$name_")" --query RouteTable.RouteTableId)
    do_ ec2 create-route --route-table-id "$id" --destination-cidr-block 0.0.0.0/0 \
      "$option" "$target" >/dev/null
    for each in "$@"; do
      do_ ec2 associate-route-table --route-table-id "$id" --subnet-id "$each" >/dev/null
    done
  fi
  echo "$id"
}

create() {
  vpc=$(q ec2 describe-vpcs --filters "$mine" --query 'Vpcs[0].VpcId')
  if [ -z "$vpc" ]; then
    vpc=$(do_ ec2 create-vpc --cidr-block 10.0.0.0/16 --tag-specifications "$(tags vpc)" --query Vpc.VpcId)
    do_ ec2 modify-vpc-attribute --vpc-id "$vpc" --enable-dns-hostnames
  fi
  igw=$(q ec2 describe-internet-gateways --filters "$mine" --query 'InternetGateways[0].InternetGatewayId')
  if [ -z "$igw" ]; then
    igw=$(do_ ec2 create-internet-gateway --tag-specifications "$(tags internet-gateway)" \
      --query InternetGateway.InternetGatewayId)
    do_ ec2 attach-internet-gateway --internet-gateway-id "$igw" --vpc-id "$vpc"
  fi
  read -r zone0 zone1 _ <<<"$(do_ ec2 describe-availability-zones --query 'AvailabilityZones[].ZoneId')"
  private0=$(subnet private-0 10.0.0.0/18 "$zone0")
  private1=$(subnet private-1 10.0.64.0/18 "$zone1")
  public=$(subnet public 10.0.128.0/18 "$zone0")
  address=$(q ec2 describe-addresses --filters "$mine" --query 'Addresses[0].AllocationId')
  [ -n "$address" ] || address=$(do_ ec2 allocate-address --domain vpc \
    --tag-specifications "$(tags elastic-ip)" --query AllocationId)
  nat=$(q ec2 describe-nat-gateways --filter "$mine" Name=state,Values=available,pending \
    --query 'NatGateways[0].NatGatewayId')
  if [ -z "$nat" ]; then
    nat=$(do_ ec2 create-nat-gateway --subnet-id "$public" --allocation-id "$address" \
      --tag-specifications "$(tags natgateway)" --query NatGateway.NatGatewayId)
    do_ ec2 wait nat-gateway-available --nat-gateway-ids "$nat"
  fi
  table public --gateway-id "$igw" "$public" >/dev/null
  routes=$(table private --nat-gateway-id "$nat" "$private0" "$private1")
  endpoint=$(q ec2 describe-vpc-endpoints --filters "$mine" --query 'VpcEndpoints[0].VpcEndpointId')
  [ -n "$endpoint" ] || do_ ec2 create-vpc-endpoint --vpc-id "$vpc" --vpc-endpoint-type Gateway \
    --service-name "com.amazonaws.$region.s3" --route-table-ids "$routes" \
    --tag-specifications "$(tags vpc-endpoint)" >/dev/null
  group=$(q ec2 describe-security-groups --filters "$mine" --query 'SecurityGroups[0].GroupId')
  if [ -z "$group" ]; then
    group=$(do_ ec2 create-security-group --group-name "$name" --description nodes --vpc-id "$vpc" \
      --tag-specifications "$(tags security-group)" --query GroupId)
    rule="IpProtocol=-1,UserIdGroupPairs=[{GroupId=$group}]"
    do_ ec2 authorize-security-group-ingress --group-id "$group" --ip-permissions "$rule" >/dev/null
    do_ ec2 authorize-security-group-egress --group-id "$group" --ip-permissions "$rule" >/dev/null
  fi

  linked=$(q iam get-role --role-name AWSServiceRoleForSageMakerHyperPod --query Role.Arn)
  [ -n "$linked" ] || do_ iam create-service-linked-role \
    --aws-service-name hyperpod.sagemaker.amazonaws.com >/dev/null
  cluster_role=$(role "$name-eks" eks.amazonaws.com AmazonEKSClusterPolicy)
  execution=$(role "$name-hyperpod" sagemaker.amazonaws.com AmazonSageMakerClusterInstanceRolePolicy)
  policy=arn:aws:iam::$account:policy/$name-hyperpod
  if [ -z "$(q iam get-policy --policy-arn "$policy" --query Policy.Arn)" ]; then
    do_ iam create-policy --policy-name "$name-hyperpod" --tags "Key=cluster,Value=$name" \
      --policy-document "file://$(dirname "$0")/execution_policy.json" >/dev/null
    do_ iam attach-role-policy --role-name "$name-hyperpod" --policy-arn "$policy"
  fi

  if [ -z "$(q s3api get-bucket-tagging --bucket "$bucket" --query 'TagSet[0].Key')" ]; then
    do_ s3api create-bucket --bucket "$bucket" \
      --create-bucket-configuration "LocationConstraint=$region" >/dev/null
    do_ s3api put-bucket-tagging --bucket "$bucket" --tagging "TagSet=[{Key=cluster,Value=$name}]"
    do_ s3api put-bucket-policy --bucket "$bucket" --policy '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::'"$bucket"'","arn:aws:s3:::'"$bucket"'/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}'
  fi
  [ -n "$(q s3api head-object --bucket "$bucket" --key lifecycle/on_create.sh --query ETag)" ] ||
    do_ s3api put-object --bucket "$bucket" --key lifecycle/on_create.sh \
      --body "$lifecycle/on_create.sh" >/dev/null

  logs=/aws/eks/$name/cluster
  if [ -z "$(q logs describe-log-groups --log-group-name-prefix "$logs" --query 'logGroups[0].arn')" ]; then
    do_ logs create-log-group --log-group-name "$logs"
    do_ logs put-retention-policy --log-group-name "$logs" --retention-in-days 30
  fi
  arn=$(q eks describe-cluster --name "$name" --query cluster.arn)
  if [ -z "$arn" ]; then
    version=$(do_ eks describe-cluster-versions --default-only --query 'clusterVersions[0].clusterVersion')
    arn=$(do_ eks create-cluster --name "$name" --kubernetes-version "$version" --role-arn "$cluster_role" \
      --resources-vpc-config "subnetIds=$private0,$private1,securityGroupIds=$group" \
      --access-config authenticationMode=API,bootstrapClusterCreatorAdminPermissions=false \
      --no-bootstrap-self-managed-addons --query cluster.arn)
    do_ eks wait cluster-active --name "$name"
  fi
  me=$(do_ sts get-caller-identity --query Arn | cut -d/ -f2)
  me=$(do_ iam get-role --role-name "$me" --query Role.Arn)
  if [ -z "$(q eks describe-access-entry --cluster-name "$name" --principal-arn "$me" --query accessEntry.type)" ]; then
    do_ eks create-access-entry --cluster-name "$name" --principal-arn "$me" >/dev/null
    do_ eks associate-access-policy --cluster-name "$name" --principal-arn "$me" --access-scope type=cluster \
      --policy-arn arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy >/dev/null
  fi
  for addon in "${addons[@]}"; do addon "$addon"; done

  KUBECONFIG=$(mktemp)
  export KUBECONFIG
  trap 'rm -f "$KUBECONFIG"' EXIT
  aws eks update-kubeconfig --name "$name" >/dev/null
  helm status hyperpod-dependencies --namespace kube-system >/dev/null 2>&1 ||
    helm upgrade --install hyperpod-dependencies "$chart" --namespace kube-system >/dev/null

  if [ -z "$(q sagemaker describe-cluster --cluster-name "$name" --query ClusterArn)" ]; then
    do_ sagemaker create-cluster --cluster-name "$name" --orchestrator "Eks={ClusterArn=$arn}" \
      --node-recovery Automatic --tags "Key=cluster,Value=$name" \
      --vpc-config "SecurityGroupIds=$group,Subnets=$private0" \
      --instance-groups "InstanceGroupName=workers,InstanceType=ml.m5.2xlarge,InstanceCount=2,ThreadsPerCore=1,ExecutionRole=$execution,LifeCycleConfig={SourceS3Uri=s3://$bucket/lifecycle/,OnCreate=on_create.sh},InstanceStorageConfigs=[{EbsVolumeConfig={VolumeSizeInGB=500}}]" >/dev/null
  fi
  until [ "$(do_ sagemaker describe-cluster --cluster-name "$name" --query ClusterStatus)" = InService ]; do
    sleep 30
  done
  addon coredns
}

addon() {
  [ -n "$(q eks describe-addon --cluster-name "$name" --addon-name "$1" --query addon.status)" ] && return
  do_ eks create-addon --cluster-name "$name" --addon-name "$1" >/dev/null
  do_ eks wait addon-active --cluster-name "$name" --addon-name "$1"
}

delete() {
  do_ sagemaker delete-cluster --cluster-name "$name" >/dev/null
  while [ -n "$(q sagemaker describe-cluster --cluster-name "$name" --query ClusterArn)" ]; do sleep 30; done
  do_ eks delete-cluster --name "$name" >/dev/null
  do_ eks wait cluster-deleted --name "$name"
  for prefix in "/aws/eks/$name/" "/aws/sagemaker/Clusters/$name/"; do
    for each in $(q logs describe-log-groups --log-group-name-prefix "$prefix" --query 'logGroups[].logGroupName'); do
      do_ logs delete-log-group --log-group-name "$each"
    done
  done
  aws s3 rm --quiet --recursive "s3://$bucket"
  do_ s3api delete-bucket --bucket "$bucket"
  for each in "$name-eks" "$name-hyperpod"; do
    for policy in $(q iam list-attached-role-policies --role-name "$each" --query 'AttachedPolicies[].PolicyArn'); do
      do_ iam detach-role-policy --role-name "$each" --policy-arn "$policy"
    done
    do_ iam delete-role --role-name "$each"
  done
  do_ iam delete-policy --policy-arn "arn:aws:iam::$account:policy/$name-hyperpod"
  for each in $(q ec2 describe-vpc-endpoints --filters "$mine" --query 'VpcEndpoints[].VpcEndpointId'); do
    do_ ec2 delete-vpc-endpoints --vpc-endpoint-ids "$each" >/dev/null
  done
  nat=$(q ec2 describe-nat-gateways --filter "$mine" --query 'NatGateways[0].NatGatewayId')
  do_ ec2 delete-nat-gateway --nat-gateway-id "$nat" >/dev/null
  do_ ec2 wait nat-gateway-deleted --nat-gateway-ids "$nat"
  for each in $(q ec2 describe-addresses --filters "$mine" --query 'Addresses[].AllocationId'); do
    do_ ec2 release-address --allocation-id "$each"
  done
  for each in $(q ec2 describe-route-tables --filters "$mine" --query 'RouteTables[].Associations[].RouteTableAssociationId'); do
    do_ ec2 disassociate-route-table --association-id "$each"
  done
  for each in $(q ec2 describe-route-tables --filters "$mine" --query 'RouteTables[].RouteTableId'); do
    do_ ec2 delete-route-table --route-table-id "$each"
  done
  read -r igw vpc <<<"$(q ec2 describe-internet-gateways --filters "$mine" \
    --query 'InternetGateways[0].[InternetGatewayId,Attachments[0].VpcId]')"
  do_ ec2 detach-internet-gateway --internet-gateway-id "$igw" --vpc-id "$vpc"
  do_ ec2 delete-internet-gateway --internet-gateway-id "$igw"
  for each in $(q ec2 describe-subnets --filters "$mine" --query 'Subnets[].SubnetId'); do
    do_ ec2 delete-subnet --subnet-id "$each"
  done
  for each in $(q ec2 describe-security-groups --filters "$mine" --query 'SecurityGroups[].GroupId'); do
    do_ ec2 delete-security-group --group-id "$each" >/dev/null
  done
  do_ ec2 delete-vpc --vpc-id "$vpc"
}

"$verb"
