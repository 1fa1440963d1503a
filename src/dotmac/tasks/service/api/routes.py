"""The API's addresses."""

from __future__ import annotations

import trio
from starlette.routing import BaseRoute, Route

from ...manager import BackgroundOperationsManager
from ...observability.prometheus import PrometheusMetrics
from .looks import Looks
from .replies import Handler, guarded
from .sagas import Sagas


def api_routes(
    manager: BackgroundOperationsManager, closing: trio.Event, metrics: PrometheusMetrics
) -> list[BaseRoute]:
    """All routes of the API."""
    sagas, looks = Sagas(manager), Looks(manager, closing, metrics)
    saga = "/v1/sagas/{saga_id}"
    return [
        _get("/health/live", looks.live),
        _get("/health/ready", looks.ready),
        _get("/metrics", looks.metrics),
        _get("/v1/sagas", sagas.list),
        _post("/v1/sagas", sagas.start),
        _get(saga, sagas.show),
        _get(f"{saga}/history", sagas.history),
        _post(f"{saga}/cancel", sagas.cancel),
        _post(f"{saga}/retry", sagas.retry),
        _get("/v1/locks", looks.locks),
        _get("/v1/workers", looks.workers),
        _get("/v1/operations/{key}", looks.operation),
    ]


def _get(path: str, handler: Handler) -> Route:
    return Route(path, guarded(handler), methods=["GET"])


def _post(path: str, handler: Handler) -> Route:
    return Route(path, guarded(handler), methods=["POST"])
