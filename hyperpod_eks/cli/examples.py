"""What people type: the examples at the end of each command's help."""

from __future__ import annotations

import click

EXAMPLES = {
    "create": """
        hyperpod-eks create demo                       two nodes in the default region
        hyperpod-eks create -f cluster.yaml            as a file says; again: what is missing
        hyperpod-eks create -f cluster.yaml --dry-run  only tell
        hyperpod-eks create demo -o json > result.json
        hyperpod-eks create demo --query outputs.vpc_id
        hyperpod-eks create -f cluster.yaml --run "$CI_JOB_ID"
        """,
    "plan": """
        hyperpod-eks plan -f cluster.yaml
        hyperpod-eks plan demo --detailed-exitcode     5: there is something to do
        hyperpod-eks plan demo -o json --query "resources[?action=='change'].key"
        """,
    "preflight": """
        hyperpod-eks preflight -f cluster.yaml
        hyperpod-eks preflight demo --skip quota-instances -o json
        """,
    "policy": """
        hyperpod-eks policy -f cluster.yaml
        hyperpod-eks policy demo -o json > policies.json
        """,
    "logs": """
        hyperpod-eks logs demo
        hyperpod-eks logs demo --group worker-group --follow
        hyperpod-eks logs demo --control-plane --tail 20
        """,
    "events": """
        hyperpod-eks events demo
        hyperpod-eks events demo --since 2h -o table
        """,
    "nodes": """
        hyperpod-eks nodes demo
        hyperpod-eks nodes demo reboot i-0ab12cd34ef56ab78
        hyperpod-eks nodes demo replace i-0ab12cd34ef56ab78 --yes
        """,
    "ssm": """
        hyperpod-eks ssm demo i-0ab12cd34ef56ab78
        hyperpod-eks ssm demo i-0ab12cd34ef56ab78 --run
        """,
    "scale": """
        hyperpod-eks scale demo worker-group=4
        hyperpod-eks scale -f cluster.yaml worker-group=0
        """,
    "update-software": """
        hyperpod-eks update-software demo --batch 1
        hyperpod-eks update-software demo --group worker-group --yes
        """,
    "status": """
        hyperpod-eks status demo
        hyperpod-eks status demo --offline             what the manifest says, at once
        hyperpod-eks status demo --query cluster.status
        hyperpod-eks status demo -o json --query differences
        """,
    "delete": """
        hyperpod-eks delete demo                       asks for the name
        hyperpod-eks delete demo --dry-run             only tell
        hyperpod-eks delete demo --yes --keep bucket,logs
        hyperpod-eks delete demo --yes --if-created-by "$run"
        """,
    "adopt": """
        hyperpod-eks adopt demo --resource network/vpc=vpc-0ab12cd34ef56ab78
        hyperpod-eks adopt demo --rebuild              the manifest is lost
        """,
    "list": """
        hyperpod-eks list
        hyperpod-eks list --all-regions
        hyperpod-eks list --query "clusters[?created_by!='hyperpod-eks'].name"
        """,
    "orphans": """
        hyperpod-eks orphans
        hyperpod-eks orphans --region eu-west-1 -o table
        """,
    "outputs": """
        hyperpod-eks outputs demo
        hyperpod-eks outputs demo vpc_id
        eval "$(hyperpod-eks outputs demo -o env)"     sets $HYPERPOD_EKS_VPC_ID and others
        """,
    "kubeconfig": """
        hyperpod-eks kubeconfig demo                   writes ./demo.kubeconfig
        hyperpod-eks kubeconfig demo --kubeconfig ~/.kube/config
        hyperpod-eks kubeconfig demo --stdout > k && kubectl --kubeconfig k get nodes
        """,
    "token": """
        hyperpod-eks token demo --query status.token
        """,
    "init": """
        hyperpod-eks init                              asks
        hyperpod-eks init demo --region us-west-2 --instance-type ml.g5.8xlarge
        hyperpod-eks init demo --region us-west-2 -f - | hyperpod-eks validate -f -
        """,
    "validate": """
        hyperpod-eks validate -f cluster.yaml
        hyperpod-eks validate -f cluster.yaml -o json --query warnings
        """,
    "schema": """
        hyperpod-eks schema > config.schema.json
        hyperpod-eks schema --document result
        """,
    "version": """
        hyperpod-eks version
        hyperpod-eks version -o json
        """,
    "completion": """
        eval "$(hyperpod-eks completion bash)"
        hyperpod-eks completion fish > ~/.config/fish/completions/hyperpod-eks.fish
        """,
}


def illustrate(group: click.Group) -> None:
    """Put the examples under the help of each command that has none of its own."""
    for name, text in EXAMPLES.items():
        lines = [f"  {line.strip()}" for line in text.strip().splitlines()]
        command = group.commands[name]
        command.epilog = command.epilog or "\n".join(
            ["\b", "Examples:", *lines, "", "Exit codes and documents: docs/pipelines.md"]
        )
