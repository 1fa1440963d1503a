"""Prometheus metrics, fed by the hooks of `dotmac.tasks.metrics` and, at each scrape, by a look at the storage.

Counters, histograms and the gauge of running attempts are of this process. The gauges of sagas and workers are of
the whole namespace, the same from every process that is asked: take the maximum over processes, not the sum.
"""

from __future__ import annotations

import math
from collections import Counter as Counted
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..extras import needs
from ..metrics import register_attempt_hook, register_metrics_hooks
from ..models import HandlerLoad
from .labels import BoundedLabel

with needs("Prometheus", "service"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.metrics import MetricWrapperBase

if TYPE_CHECKING:
    from ..manager import BackgroundOperationsManager

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Of what `PrometheusMetrics.text` gives."""

_ATTEMPT_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_STORAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
Details = dict[str, Any]


class PrometheusMetrics:
    """All metrics of this package in one registry.

    Args:
        registry: Where they are registered; None: one of their own.
        tenant_label: Whether metrics of sagas, attempts and keys carry the label ``tenant``.
        label_limit: How many distinct values a label may take; further ones count as ``other``.

    Attributes:
        registry: The same, or the one that was made.

    Raises:
        InvalidInput: The limit is no positive whole number.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, tenant_label: bool = False, label_limit: int = 200
    ) -> None:
        if isinstance(label_limit, bool) or not isinstance(label_limit, int) or label_limit < 1:
            raise InvalidInput("label_limit", f"must be a whole number of 1 or more, not {label_limit!r}")
        self.registry = CollectorRegistry() if registry is None else registry
        self._by_tenant = tenant_label
        self._workflow, self._operation, self._tenant, self._verb, self._error, self._node = (
            BoundedLabel(label_limit) for _ in range(6)
        )
        self._children: dict[tuple[object, ...], Any] = {}  # as many as there are series, which labels bound
        self._make_saga_metrics()
        self._make_other_metrics()

    def _make_saga_metrics(self) -> None:
        of, tenant, registry = "dotmac_tasks", ("tenant",) if self._by_tenant else (), self.registry
        saga, attempt = ("workflow_type", *tenant), ("operation", "direction", *tenant)
        self._created = Counter("sagas_created", "Sagas created.", saga, of, registry=registry)
        self._changed = Counter("saga_status_changes", "Changes of status.", (*saga, "status"), of, registry=registry)
        self._taken_over = Counter(
            "sagas_taken_over", "Sagas taken over from a lost worker.", saga, of, registry=registry
        )
        self._missing = Counter(
            "sagas_without_handler", "Sagas for which no worker had the handler.", ("operation", *tenant), of,
            registry=registry,
        )  # fmt: skip
        self._started = Counter(
            "attempts_started", "Attempts whose start was journaled.", attempt, of, registry=registry
        )
        self._seconds = Histogram(
            "attempt_seconds", "Duration of attempts.", (*attempt, "outcome"), of,
            buckets=_ATTEMPT_SECONDS, registry=registry,
        )  # fmt: skip
        self._retried = Counter("retries", "Attempts that will be followed by another.", attempt, of, registry=registry)
        self._running = Gauge("attempts_running", "Handlers running now.", ("operation",), of, registry=registry)
        self._capacity = Gauge(
            "limit_capacity", "Handlers that a limit of this process admits.", ("limit",), of, registry=registry
        )
        self._held = Gauge(
            "limit_running", "Handlers that run under a limit of this process.", ("limit",), of, registry=registry
        )
        self._waiting = Gauge(
            "limit_waiting", "Handlers that wait while a limit is full.", ("limit",), of, registry=registry
        )
        self._left_threads = Gauge(
            "left_threads", "Threads that outlived their attempts.", ("operation",), of, registry=registry
        )
        self._sagas = Gauge("sagas", "Sagas stored, by status; failed ones are parked.", ("status",), of,
                            registry=registry)  # fmt: skip
        self._workers = Gauge("workers", "Workers of the namespace.", ("state",), of, registry=registry)

    def _make_other_metrics(self) -> None:
        of, tenant, registry = "dotmac_tasks", ("tenant",) if self._by_tenant else (), self.registry
        self._keys = Counter(
            "idempotency_keys", "What became of requests under idempotency keys.",
            ("operation", "outcome", *tenant), of, registry=registry,
        )  # fmt: skip
        self._http_failures = Counter(
            "http_storage_failures",
            "HTTP requests with an idempotency key that met a storage that was away.",
            ("handling",),
            of,
            registry=registry,
        )
        self._locks = Counter("locks", "What became of requests for locks.", ("outcome",), of, registry=registry)
        self._lock_wait = Histogram(
            "lock_wait_seconds", "Time until a lock was granted.", (), of, buckets=_ATTEMPT_SECONDS, registry=registry
        )
        self._storage = Histogram(
            "storage_seconds", "Duration of calls of the storage.", ("verb",), of,
            buckets=_STORAGE_SECONDS, registry=registry,
        )  # fmt: skip
        self._storage_errors = Counter(
            "storage_errors", "Calls of the storage that raised.", ("verb", "error"), of, registry=registry
        )
        self._losses = Counter(
            "storage_losses", "What this process held and the storage no longer had.", ("kind",), of, registry=registry
        )
        self._breaker = Gauge(
            "storage_breaker_open", "1 while calls to the node fail at once.", ("node",), of, registry=registry
        )

    # --- feeding them -----------------------------------------------------------------------------------------

    def install(self) -> Callable[[], None]:
        """Count from now on what happens in this process; gives a function that stops it."""
        keys = ("created", "hit", "completed", "failed")
        hooks: dict[str, Callable[[str, str, Details], None]] = {
            "saga_created_hook": self._saga_created,
            "saga_status_changed_hook": self._status_changed,
            "saga_taken_over_hook": self._saga_taken_over,
            "saga_handler_missing_hook": self._handler_missing,
            "saga_step_started_hook": self._attempt_started,
            "saga_step_completed_hook": self._attempt_ended("succeeded"),
            "saga_step_compensated_hook": self._attempt_ended("succeeded"),
            "saga_step_failed_hook": self._attempt_ended("failed"),
            "saga_step_retried_hook": self._attempt_retried,
            "lock_acquired_hook": self._lock_acquired,
            "lock_failed_hook": self._lock_told("failed"),
            "lock_lost_hook": self._lock_told("lost"),
            "storage_operation_hook": self._storage_called,
            "http_storage_failed_hook": self._http_storage_failed,
            "storage_data_lost_hook": self._data_lost,
            "storage_breaker_opened_hook": self._breaker_turned(1),
            "storage_breaker_closed_hook": self._breaker_turned(0),
            **{f"idempotency_key_{outcome}_hook": self._key_told(outcome) for outcome in keys},
        }
        removals = [register_metrics_hooks(**hooks), register_attempt_hook(self._around_attempt)]

        def uninstall() -> None:
            for remove in removals:
                remove()

        return uninstall

    async def look(self, manager: BackgroundOperationsManager) -> None:
        """Set the gauges of limits to what runs in this process, those of sagas and workers to what is stored.

        Raises:
            NotStarted: The manager is not running.
            EnvironmentFault: The storage does not answer; the gauges keep what they showed.
        """
        self._set_load(await manager.handler_load())
        counts, workers = await manager.count_sagas(), await manager.list_workers()
        for status, count in counts.items():
            self._sagas.labels(str(status)).set(count)
        alive = sum(worker.alive for worker in workers)
        self._workers.labels("alive").set(alive)
        self._workers.labels("lost").set(len(workers) - alive)

    def _set_load(self, load: HandlerLoad) -> None:
        for limit in load.limits:
            name = self._operation(limit.name)
            self._capacity.labels(name).set(math.inf if limit.capacity is None else limit.capacity)
            self._held.labels(name).set(limit.running)
            self._waiting.labels(name).set(limit.waiting)
        self._left_threads.clear()
        for operation, count in Counted(self._operation(thread.operation) for thread in load.left_threads).items():
            self._left_threads.labels(operation).set(count)

    def text(self) -> bytes:
        """Everything in the text format of `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    # --- the hooks --------------------------------------------------------------------------------------------

    def _saga_created(self, workflow_type: str, tenant_id: str, _details: Details) -> None:
        self._child(self._created, self._workflow(workflow_type), *self._tenants(tenant_id)).inc()

    def _status_changed(self, workflow_type: str, tenant_id: str, details: Details) -> None:
        self._child(self._changed, self._workflow(workflow_type), *self._tenants(tenant_id), details["status"]).inc()

    def _saga_taken_over(self, workflow_type: str, tenant_id: str, _details: Details) -> None:
        self._child(self._taken_over, self._workflow(workflow_type), *self._tenants(tenant_id)).inc()

    def _handler_missing(self, operation: str, tenant_id: str, _details: Details) -> None:
        self._child(self._missing, self._operation(operation), *self._tenants(tenant_id)).inc()

    def _attempt_started(self, operation: str, tenant_id: str, details: Details) -> None:
        self._child(self._started, *self._attempt(operation, tenant_id, details)).inc()

    def _attempt_ended(self, outcome: str) -> Callable[[str, str, Details], None]:
        def ended(operation: str, tenant_id: str, details: Details) -> None:
            labels = self._attempt(operation, tenant_id, details)
            self._child(self._seconds, *labels, outcome).observe(details["seconds"])

        return ended

    def _attempt_retried(self, operation: str, tenant_id: str, details: Details) -> None:
        self._child(self._retried, *self._attempt(operation, tenant_id, details)).inc()

    def _around_attempt(self, context: Any) -> Callable[[BaseException | None], None]:
        running = self._child(self._running, self._operation(context.operation_type))
        running.inc()
        return lambda _failure: running.dec()

    def _key_told(self, outcome: str) -> Callable[[str, str, Details], None]:
        def told(operation: str, tenant_id: str, _details: Details) -> None:
            self._child(self._keys, self._operation(operation), outcome, *self._tenants(tenant_id)).inc()

        return told

    def _lock_acquired(self, _name: str, _tenant_id: str, details: Details) -> None:
        self._child(self._locks, "acquired").inc()
        self._lock_wait.observe(details["seconds"])

    def _lock_told(self, outcome: str) -> Callable[[str, str, Details], None]:
        return lambda _name, _tenant_id, _details: self._child(self._locks, outcome).inc()

    def _storage_called(self, verb: str, _tenant_id: str, details: Details) -> None:
        self._child(self._storage, self._verb(verb)).observe(details["seconds"])
        if details["error"] is not None:
            self._child(self._storage_errors, self._verb(verb), self._error(details["error"].partition("(")[0])).inc()

    def _http_storage_failed(self, _operation: str, _tenant_id: str, details: Details) -> None:
        self._child(self._http_failures, "unprotected" if details["passed"] else "refused").inc()

    def _data_lost(self, kind: str, _tenant_id: str, _details: Details) -> None:
        self._child(self._losses, kind).inc()

    def _breaker_turned(self, state: int) -> Callable[[str, str, Details], None]:
        return lambda node, _tenant_id, _details: self._child(self._breaker, self._node(node)).set(state)

    def _child(self, metric: MetricWrapperBase, *labels: str) -> Any:
        """`metric.labels` remembered: it takes a lock and a check of its arguments, and costs more than counting."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _attempt(self, operation: str, tenant_id: str, details: Details) -> tuple[str, ...]:
        direction = "compensation" if details["undo"] else "forward"
        return self._operation(operation), direction, *self._tenants(tenant_id)

    def _tenants(self, tenant_id: str) -> tuple[str, ...]:
        return (self._tenant(tenant_id),) if self._by_tenant else ()
