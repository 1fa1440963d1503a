"""The OpenAPI document: made from the very types that requests are read into and answers are made of."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec

from ..._version import __version__
from ..problems import MEDIA_TYPE
from .documents import ProblemDocument, SagaInput, StepInput

_REFERENCE = "#/components/schemas/{name}"
_SECURED = (401, 403)
_EVERYWHERE = (400, 421, 500, 503)
_MOST_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One operation of the API.

    Attributes:
        method: ``GET`` or ``POST``.
        path: With its parameters in braces.
        gives: The type of its answer, or the media type where that is no JSON.
        status: Of its answer.
        query: Schemas of query parameters.
        headers: Schemas of request headers.
        body: The type of its request, if it takes one.
        also: Further statuses with that answer; 204 has none.
        refuses: Statuses with a problem document beside those that every operation can have.
        open_to_all: Whether it is answered without a caller.
    """

    method: str
    path: str
    gives: Any
    status: int = 200
    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=dict)
    body: type | None = None
    also: tuple[int, ...] = ()
    refuses: tuple[int, ...] = ()
    open_to_all: bool = False


def make_document(endpoints: list[Endpoint]) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    types = [each for endpoint in endpoints for each in (endpoint.gives, endpoint.body) if isinstance(each, type)]
    known = list(dict.fromkeys([*types, ProblemDocument, StepInput]))
    references, components = msgspec.json.schema_components(known, ref_template=_REFERENCE)
    schemas = dict(zip(known, references, strict=True))
    for name, component in components.items():
        if "description" in component:
            component["description"] = _first_paragraph(component["description"])
        if "properties" in component and name not in _OPTIONAL_FIELDS:
            component["required"] = list(component["properties"])  # answers tell all fields, whatever their defaults
    steps = components[SagaInput.__name__]["properties"]["steps"]
    steps.update(items=schemas[StepInput], minItems=1, maxItems=_MOST_STEPS)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dotmac-tasks", "version": __version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "dotmac_tasks_session"},
            },
        },
    }


_DESCRIPTION = (
    "Sagas, locks, workers and idempotency records of one namespace. Errors are problem documents (RFC 9457); "
    "`field` names what is wrong. A service that listens on loopback without tokens asks nobody who they are."
)
_OPTIONAL_FIELDS = frozenset(
    {
        *(SagaInput.__name__, StepInput.__name__, "RetryPolicy", "Steering", "Retrying"),
        *("ProblemDocument", "StorageState"),
    }
)


def _operation(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    media = endpoint.gives if isinstance(endpoint.gives, str) else "application/json"
    schema = {"type": "string"} if isinstance(endpoint.gives, str) else schemas[endpoint.gives]
    answers: dict[str, Any] = {}
    for status in (endpoint.status, *endpoint.also):
        answers[str(status)] = {"description": HTTPStatus(status).phrase}
        if status != HTTPStatus.NO_CONTENT:
            answers[str(status)]["content"] = {media: {"schema": schema}}
    refusals = {*_EVERYWHERE, *(() if endpoint.open_to_all else _SECURED), *endpoint.refuses}
    for status in sorted(refusals):
        answer = answers.setdefault(str(status), {"description": HTTPStatus(status).phrase, "content": {}})
        answer["content"][MEDIA_TYPE] = {"schema": schemas[ProblemDocument]}
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "parameters": _parameters(endpoint),
        "responses": answers,
    }
    if not endpoint.open_to_all:
        operation["security"] = [{}, {"bearer": []}, {"session": []}]
    if endpoint.body is not None:
        content = {"application/json": {"schema": schemas[endpoint.body]}}
        operation["requestBody"] = {"required": endpoint.body is SagaInput, "content": content}
    return operation


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1}
    in_path = dict.fromkeys(re.findall(r"{(\w+)}", endpoint.path), text)
    return [
        *({"name": name, "in": "path", "required": True, "schema": schema} for name, schema in in_path.items()),
        *({"name": name, "in": "query", "schema": schema} for name, schema in endpoint.query.items()),
        *({"name": name, "in": "header", "schema": schema} for name, schema in endpoint.headers.items()),
    ]


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", endpoint.path.replace("{saga_id}", "saga").replace("{key}", ""))
    return "_".join([endpoint.method.lower(), *(word for word in words if word != "v1")])


def _first_paragraph(docstring: str) -> str:
    return " ".join(inspect.cleandoc(docstring).partition("\n\n")[0].split())
