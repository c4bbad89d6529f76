"""The settings of roles for pods."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from hyperpod_eks.config.pod_checks import statement_fault
from hyperpod_eks.config.rules import Check, Pattern
from hyperpod_eks.config.section import Section

NAMESPACE = Pattern(
    "a namespace of Kubernetes",
    "at most 63 lowercase letters, digits and hyphens",
    r"(?=.{1,63}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
    "list them with `kubectl get namespaces`",
)
SERVICE_ACCOUNT = Pattern(
    "the name of a service account",
    "at most 253 lowercase letters, digits, dots and hyphens",
    r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?",
    "list them with `kubectl get serviceaccounts`",
)
POLICY_ARN = Pattern(
    "the ARN of a policy",
    "arn:aws:iam::<account or aws>:policy/<name>",
    r"arn:aws[a-z-]*:iam::(?:[0-9]{12}|aws):policy/[\w+=,.@/-]+",
    "print it with `aws iam list-policies`",
)


class PodIdentity(Section):
    """A role for the pods of one service account (EKS Pod Identity)."""

    namespace: Annotated[
        str, NAMESPACE, Field(description="Namespace of the service account; it may come later.")
    ]
    service_account: Annotated[
        str, SERVICE_ACCOUNT, Field(description="Name of the service account; it may come later.")
    ]
    role_arn: Annotated[
        Annotated[
            str,
            Pattern(
                "the ARN of a role",
                "arn:aws:iam::<account>:role/<path><name>",
                r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+",
                "print it with `aws iam get-role`",
            ),
        ]
        | None,
        Field(
            description="An existing role, which pods.eks.amazonaws.com can assume. Without it: a"
            " role is created, with `policies` and `statements`."
        ),
    ] = None
    policies: Annotated[
        tuple[Annotated[str, POLICY_ARN], ...],
        Field(strict=False, description="ARNs of policies that the created role has."),
    ] = ()
    statements: Annotated[
        tuple[
            Annotated[
                Mapping[str, JsonValue],
                Check("a statement with Effect, Action and Resource", statement_fault),
            ],
            ...,
        ],
        Field(
            strict=False,
            description="Further permissions of the created role: statements as an IAM policy has"
            " them, `{Effect: Allow, Action: […], Resource: […]}`.",
        ),
    ] = ()
