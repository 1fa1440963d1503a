"""Locks, workers, idempotency records and health over HTTP: everything that is only looked at."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus

import trio
from starlette.requests import Request
from starlette.responses import Response

from ..._version import __version__
from ...errors import EnvironmentFault, IdempotencyKeyNotFound, NotStarted
from ...manager import BackgroundOperationsManager
from ...observability.prometheus import CONTENT_TYPE, PrometheusMetrics
from ..problems import RETRY_AFTER
from ..redaction import Redaction
from .documents import Liveness, Locks, Operation, Readiness, StorageState, Workers
from .query import Query
from .replies import as_seen_by, json_reply

DEFAULT_LOCKS, MOST_LOCKS = 100, 1000
DEFAULT_KEYS, MOST_KEYS = 100, 1000
KEY_FILTERS = ("tenant_id", "limit", "cursor")
_PATIENCE = 2.0  # seconds that a probe waits for the storage
_log = logging.getLogger(__name__)


class Looks:
    """Handlers that only read.

    Args:
        manager: Whose storage is looked at.
        closing: Set when this process takes no more work.
        metrics: What ``/metrics`` shows.
        redaction: Hides values from callers who may only view.
    """

    def __init__(
        self,
        manager: BackgroundOperationsManager,
        closing: trio.Event,
        metrics: PrometheusMetrics,
        redaction: Redaction,
    ) -> None:
        self._manager = manager
        self._closing = closing
        self._metrics = metrics
        self._redaction = redaction

    async def locks(self, request: Request) -> Response:
        """Locks that are held."""
        limit = Query(request, ("limit",)).number("limit", DEFAULT_LOCKS, MOST_LOCKS)
        return json_reply(Locks(await self._manager.list_locks(limit)))

    async def lock(self, request: Request) -> Response:
        """One lock and its queue."""
        limit = Query(request, ("limit",)).number("limit", DEFAULT_LOCKS, MOST_LOCKS)
        return json_reply(await self._manager.inspect_lock(request.path_params["name"], limit))

    async def workers(self, request: Request) -> Response:
        """Workers and their leases."""
        Query(request, ())
        return json_reply(Workers(await self._manager.list_workers()))

    async def operations(self, request: Request) -> Response:
        """A page of idempotency records, without what their operations take and give."""
        query = Query(request, KEY_FILTERS)
        limit = query.number("limit", DEFAULT_KEYS, MOST_KEYS)
        page = await self._manager.list_idempotency_keys(query.text("tenant_id"), limit, query.text("cursor"))
        return json_reply(page)

    async def operation(self, request: Request) -> Response:
        """An idempotency record, by its own key or, with ``tenant_id``, by the one that the caller chose."""
        tenant_id = Query(request, ("tenant_id",)).text("tenant_id")
        record = await self._manager.check_idempotency(request.path_params["key"], tenant_id=tenant_id)
        if record is None:
            raise IdempotencyKeyNotFound("there is no record of this key, or its time to live is over")
        return json_reply(as_seen_by(request, Operation(record), self._redaction))

    async def live(self, request: Request) -> Response:
        """This process answers; nothing else is looked at."""
        Query(request, ())
        return json_reply(Liveness("alive", __version__))

    async def ready(self, request: Request) -> Response:
        """Whether work can be given to this process."""
        Query(request, ())
        storage = await self._storage_state()
        if self._closing.is_set():
            return _not_ready(Readiness("stopping", storage))
        if storage.problem is not None:
            return _not_ready(Readiness("unavailable", storage))
        return json_reply(Readiness("ready", storage))

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format. Without the storage, what this process counted itself is still told."""
        Query(request, ())
        try:
            await self._metrics.look(self._manager)
        except (EnvironmentFault, NotStarted) as error:
            _log.warning("/metrics shows no fresh counts of sagas and workers: %s", error)
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _storage_state(self) -> StorageState:
        began = time.perf_counter()
        try:
            with trio.fail_after(_PATIENCE):
                await self._manager.check_idempotency("readiness")
        except trio.TooSlowError:
            return StorageState("unavailable", problem=f"it did not answer within {_PATIENCE:g} s")
        except (EnvironmentFault, NotStarted) as error:
            return StorageState("unavailable", problem=str(error))
        return StorageState("ok", seconds=round(time.perf_counter() - began, 6))


def _not_ready(told: Readiness) -> Response:
    return json_reply(told, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(RETRY_AFTER)})
