"""The API's addresses: each operation with what it takes and gives, from which routes and the OpenAPI document come."""

from __future__ import annotations

from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router

from ...http.keys import HEADER
from ...listings import IdempotencyKeyList, LockStanding
from ...manager import BackgroundOperationsManager
from ...models import SagaList, SagaWorkflow
from ...observability.prometheus import PrometheusMetrics
from ..feed import Feed
from ..redaction import Redaction
from .documents import (
    History,
    Liveness,
    Locks,
    Operation,
    Readiness,
    Retrying,
    SagaInput,
    StartedSaga,
    SteeredSaga,
    Steering,
    Workers,
)
from .events import Events
from .looks import DEFAULT_KEYS, DEFAULT_LOCKS, MOST_KEYS, MOST_LOCKS, Looks
from .openapi import Endpoint, make_document
from .replies import Handler, guarded, json_reply
from .sagas import DEFAULT_PAGE, LARGEST_PAGE, Sagas

_STATUSES = ["pending", "in_progress", "completed", "compensating", "compensated", "failed", "parked"]  # parked: failed
_TEXT = {"type": "string", "minLength": 1}
_TIME = {"type": "string", "format": "date-time"}
_KEY = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[A-Za-z0-9._-]+$"}
_SAGA = "/v1/sagas/{saga_id}"


def _whole(default: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": most, "default": default}


def api_routes(
    manager: BackgroundOperationsManager,
    feed: Feed,
    closing: trio.Event,
    metrics: PrometheusMetrics,
    redaction: Redaction,
) -> list[BaseRoute]:
    """All routes of the API.

    Args:
        manager: What is looked at and operated.
        feed: What happens in this process.
        closing: Set when the service stops.
        metrics: What ``/metrics`` shows.
        redaction: Hides values from callers who may only view.
    """
    found = _endpoints(manager, feed, closing, metrics, redaction)
    document = make_document(list(found))

    async def openapi(_request: Request) -> Response:
        return json_reply(document)

    routes: list[BaseRoute] = [Route("/openapi.json", openapi)]
    below: list[BaseRoute] = []
    for path, handlers in _by_path(found).items():
        inside = path.startswith("/v1/")
        # One route a path, so that a method which is not possible is answered with all that are.
        # Names of locks may have slashes.
        address = path.removeprefix("/v1").replace("{name}", "{name:path}")
        route = Route(address, _by_method(handlers), methods=list(handlers))
        (below if inside else routes).append(route)
    # Mounted, so that what is not there is the API's to answer, not a page's.
    return [*routes, Mount("/v1", app=Router(below, redirect_slashes=False))]


def _by_path(endpoints: dict[Endpoint, Handler]) -> dict[str, dict[str, Handler]]:
    paths: dict[str, dict[str, Handler]] = {}
    for endpoint, handler in endpoints.items():
        paths.setdefault(endpoint.path, {})[endpoint.method] = guarded(handler)
    return paths


def _by_method(handlers: dict[str, Handler]) -> Handler:
    async def answer(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return answer


def _endpoints(
    manager: BackgroundOperationsManager,
    feed: Feed,
    closing: trio.Event,
    metrics: PrometheusMetrics,
    redaction: Redaction,
) -> dict[Endpoint, Handler]:
    sagas, looks = Sagas(manager, redaction), Looks(manager, closing, metrics, redaction)
    events = Events(manager, feed, closing, redaction)
    filters = {
        "tenant_id": _TEXT,
        "status": {"type": "string", "enum": _STATUSES},
        "workflow_type": _TEXT,
        "parked": {"type": "boolean", "default": False},
        "created_after": _TIME,
        "created_before": _TIME,
        "limit": _whole(DEFAULT_PAGE, LARGEST_PAGE),
        "cursor": _TEXT,
    }
    keys = {"tenant_id": _TEXT, "limit": _whole(DEFAULT_KEYS, MOST_KEYS), "cursor": _TEXT}
    starts = Endpoint("POST", "/v1/sagas", StartedSaga, 201, body=SagaInput, headers={HEADER: _KEY}, refuses=(422,))
    steers: dict[str, Any] = {"gives": SteeredSaga, "status": 202, "refuses": (404, 409)}
    return {
        Endpoint("GET", "/v1/sagas", SagaList, query=filters): sagas.list,
        starts: sagas.start,
        Endpoint("GET", _SAGA, SagaWorkflow, refuses=(404,)): sagas.show,
        Endpoint("GET", f"{_SAGA}/history", History, refuses=(404,)): sagas.history,
        Endpoint("GET", f"{_SAGA}/events", "text/event-stream", also=(204,), refuses=(404,)): events.of_saga,
        Endpoint("POST", f"{_SAGA}/cancel", **steers, body=Steering): sagas.cancel,
        Endpoint("POST", f"{_SAGA}/retry", **steers, body=Retrying): sagas.retry,
        Endpoint("GET", "/v1/events", "text/event-stream"): events.of_all,
        Endpoint("GET", "/v1/locks", Locks, query={"limit": _whole(DEFAULT_LOCKS, MOST_LOCKS)}): looks.locks,
        Endpoint(  # 404 for a name with a line break, which no route matches
            "GET",
            "/v1/locks/{name}",
            LockStanding,
            query={"limit": _whole(DEFAULT_LOCKS, MOST_LOCKS)},
            refuses=(404,),
        ): looks.lock,
        Endpoint("GET", "/v1/workers", Workers): looks.workers,
        Endpoint("GET", "/v1/operations", IdempotencyKeyList, query=keys): looks.operations,
        Endpoint("GET", "/v1/operations/{key}", Operation, query={"tenant_id": _TEXT}, refuses=(404,)): looks.operation,
        Endpoint("GET", "/health/live", Liveness, open_to_all=True): looks.live,
        Endpoint("GET", "/health/ready", Readiness, also=(503,), open_to_all=True): looks.ready,
        Endpoint("GET", "/metrics", "text/plain"): looks.metrics,
    }
