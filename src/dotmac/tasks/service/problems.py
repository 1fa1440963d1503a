"""Errors as problem documents (RFC 9457): what went wrong, whose fault it is, and the field it is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from ..errors import (
    DotmacTasksError,
    EnvironmentFault,
    IdempotencyKeyNotFound,
    IdempotencyMismatch,
    InvalidInput,
    NotStarted,
    SagaNotFound,
    SagaStateError,
)
from ..jsonvalue import encode

TYPE_PREFIX = "urn:dotmac-tasks:problem:"
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 2
"""Seconds after which a request that met a storage out of reach is worth another try."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem document.

    Attributes:
        status: The HTTP status.
        slug: The last part of the problem's type, which clients may compare.
        detail: Of this occurrence, for people.
        members: Further members, such as ``field``.
        headers: Of the response.
    """

    status: HTTPStatus
    slug: str
    detail: str
    members: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The document."""
        return {
            **self.members,
            "type": TYPE_PREFIX + self.slug,
            "title": self.slug.replace("-", " ").capitalize(),
            "status": int(self.status),
            "detail": self.detail,
        }

    def response(self) -> Response:
        """The response that carries it."""
        return Response(encode(self.document()), int(self.status), self.headers, MEDIA_TYPE)


def problem_of(error: DotmacTasksError) -> Problem | None:
    """The problem that an error means; None if it is no fault of the caller or of the surroundings."""
    match error:
        case InvalidInput():
            problem = Problem(HTTPStatus.BAD_REQUEST, "invalid-input", error.reason, {"field": error.field})
        case SagaNotFound():
            problem = Problem(HTTPStatus.NOT_FOUND, "saga-not-found", str(error))
        case IdempotencyKeyNotFound():
            problem = Problem(HTTPStatus.NOT_FOUND, "key-not-found", str(error))
        case SagaStateError():
            problem = Problem(HTTPStatus.CONFLICT, "saga-state", str(error))
        case IdempotencyMismatch():
            problem = Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, "payload-mismatch", str(error), {"field": "Idempotency-Key"}
            )
        case NotStarted():
            problem = _unavailable("not-running", "this process is stopping, or has not started yet")
        case EnvironmentFault():
            problem = _unavailable("storage-unavailable", str(error))
        case _:
            return None
    return problem


def not_found(path: str) -> Problem:
    """404: there is nothing at this path."""
    return Problem(HTTPStatus.NOT_FOUND, "not-found", f"there is nothing at {path}; see /openapi.json")


def _unavailable(slug: str, detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, slug, detail, headers={"Retry-After": str(RETRY_AFTER)})
