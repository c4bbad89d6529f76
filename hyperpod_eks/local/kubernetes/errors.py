"""How a Kubernetes API server says no: errors that become `Status` documents."""

from __future__ import annotations

from typing import NamedTuple

from .objects import Obj
from .resources import Resource


class ApiError(Exception):
    """A refusal: HTTP `code`, Kubernetes `reason`, a message, and `details` unless None."""

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details

    def document(self) -> Obj:
        """The `Status` document that clients parse."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            **({} if self.details is None else {"details": self.details}),
            "code": self.code,
        }


class Cause(NamedTuple):
    """One reason among several for a refusal, at one field."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def document(self) -> Obj:
        """The entry for `details.causes`."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


def details(resource: Resource, name: str) -> Obj:
    """The `details` of an answer about one object: its name, its group if any, its plural."""
    group = {"group": resource.group} if resource.group else {}
    return {"name": name, **group, "kind": resource.plural}


def not_found(resource: Resource, name: str) -> ApiError:
    """No such object."""
    message = f'{resource.qualified} "{name}" not found'
    return ApiError(404, "NotFound", message, details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """An object of that name exists."""
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details(resource, name))


def modified(resource: Resource, name: str) -> ApiError:
    """The writer has seen an older version."""
    message = (
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": the object has been '
        "modified; please apply your changes to the latest version and try again"
    )
    return ApiError(409, "Conflict", message, details(resource, name))


def terminating(resource: Resource, name: str, namespace: str) -> ApiError:
    """The namespace is going away and takes nothing new."""
    cause = Cause(
        "metadata.namespace", f"namespace {namespace} is being terminated", "NamespaceTerminating"
    )
    return ApiError(
        403,
        "Forbidden",
        f'{resource.qualified} "{name}" is forbidden: unable to create new content in namespace '
        f"{namespace} because it is being terminated",
        {**details(resource, name), "causes": [cause.document()]},
    )


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> ApiError:
    """The object breaks the rules of its kind."""
    told = [f"{cause.field}: {cause.message}" for cause in causes]
    what = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    return ApiError(
        422,
        "Invalid",
        f'{kind}{"." * bool(group)}{group} "{name}" is invalid: {what}',
        {
            **({"name": name} if name else {}),
            **({"group": group} if group else {}),
            "kind": kind,
            "causes": [cause.document() for cause in causes],
        },
    )


def bad_request(message: str) -> ApiError:
    """The request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def rejected() -> ApiError:
    """A patch that does not fit its object."""
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, {})


def immortal(name: str) -> ApiError:
    """A namespace that the cluster cannot be without."""
    told = {"name": name, "kind": "namespaces"}
    message = f'namespaces "{name}" is forbidden: this namespace may not be deleted'
    return ApiError(403, "Forbidden", message, told)


def unknown_resource() -> ApiError:
    """A path below a known group version that names no resource."""
    message = "the server could not find the requested resource"
    return ApiError(404, "NotFound", message, {})


def not_allowed() -> ApiError:
    """A method that the resource does not have."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def misnamed(found: str | None, name: str) -> ApiError:
    """The body names another object than the path."""
    return bad_request(
        f"the name of the object ({found}) does not match the name on the URL ({name})"
    )
