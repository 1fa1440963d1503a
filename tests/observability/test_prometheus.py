"""Prometheus metrics say what happened, with labels that cannot grow without bound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, ClaimLost, InvalidInput, LockNotAcquired, MemoryStorage
from dotmac.tasks.metrics import emit, listening
from dotmac.tasks.observability.prometheus import PrometheusMetrics
from runtime.nodes import Ledger, Node, step, until


@pytest.fixture
async def manager(autojump_clock: MockClock) -> AsyncIterator[BackgroundOperationsManager]:
    async with BackgroundOperationsManager(storage=MemoryStorage()) as manager:
        yield manager


@pytest.fixture
def metrics() -> Iterator[PrometheusMetrics]:
    made = PrometheusMetrics()
    uninstall = made.install()
    yield made
    uninstall()
    assert not listening()


def value(metrics: PrometheusMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"dotmac_tasks_{name}", labels)


async def test_a_saga_that_turns_back_is_counted(
    manager: BackgroundOperationsManager, metrics: PrometheusMetrics
) -> None:
    ledger = Ledger()
    ledger.register(manager)
    ledger.failing["b"] = ValueError("no")
    steps = [step("a"), step("b", max_retries=1)]
    await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    assert value(metrics, "sagas_created_total", workflow_type="w") == 1
    for status in ("in_progress", "compensating", "compensated"):
        assert value(metrics, "saga_status_changes_total", workflow_type="w", status=status) == 1
    forward = {"operation": "do", "direction": "forward"}
    assert value(metrics, "attempts_started_total", **forward) == 3
    assert value(metrics, "attempt_seconds_count", **forward, outcome="succeeded") == 1
    assert value(metrics, "attempt_seconds_count", **forward, outcome="failed") == 2
    assert value(metrics, "retries_total", **forward) == 1
    undo = {"operation": "undo", "direction": "compensation"}
    assert value(metrics, "attempt_seconds_count", **undo, outcome="succeeded") == 1


async def test_running_attempts_are_those_inside_a_handler(
    manager: BackgroundOperationsManager, metrics: PrometheusMetrics
) -> None:
    ledger = Ledger()
    ledger.register(manager)
    ledger.hold["a"] = trio.Event()
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
    await until(lambda: ledger.entered == ["a"])
    assert value(metrics, "attempts_running", operation="do") == 1
    await handle.cancel()
    await handle.result()
    assert value(metrics, "attempts_running", operation="do") == 0


async def test_a_takeover_is_counted(autojump_clock: MockClock, metrics: PrometheusMetrics) -> None:
    shared, ledger = MemoryStorage(), Ledger()
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        handle = await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        await until(lambda: ledger.entered == ["a"])
        await first.kill()
        await metrics.look(second.manager)
        assert value(metrics, "workers", state="alive") == 2  # its lease goes on for a while
        ledger.hold.clear()
        await second.manager.saga_handle(handle.saga_id).result()
        await metrics.look(second.manager)
    assert value(metrics, "sagas_taken_over_total", workflow_type="w") == 1
    assert value(metrics, "workers", state="alive") == 1


async def test_keys_locks_and_the_storage_are_counted(
    manager: BackgroundOperationsManager, metrics: PrometheusMetrics
) -> None:
    async def op(_parameters: Any) -> int:
        return 1

    manager.register_operation_handler("op", op)
    for _ in range(3):
        await manager.run_idempotent(tenant_id="t", operation_type="op")
    assert value(metrics, "idempotency_keys_total", operation="op", outcome="created") == 1
    assert value(metrics, "idempotency_keys_total", operation="op", outcome="hit") == 2
    async with manager.lock("l"), trio.open_nursery() as nursery:
        nursery.start_soon(_try, manager)
    assert value(metrics, "locks_total", outcome="acquired") == 1
    assert value(metrics, "locks_total", outcome="failed") == 1
    assert value(metrics, "lock_wait_seconds_count") == 1
    with pytest.raises(ClaimLost):
        await manager.storage.renew_claim("k", "token", 1.0)
    assert value(metrics, "storage_seconds_count", verb="renew_claim") == 1
    assert value(metrics, "storage_errors_total", verb="renew_claim", error="ClaimLost") == 1


async def _try(manager: BackgroundOperationsManager) -> None:
    with pytest.raises(LockNotAcquired):
        async with manager.lock("l", wait=0):
            pass


async def test_the_storage_is_looked_at_for_each_status(
    manager: BackgroundOperationsManager, metrics: PrometheusMetrics
) -> None:
    ledger = Ledger()
    ledger.register(manager)
    ledger.failing["p"] = TimeoutError("who knows")
    for name in ("p", "a"):
        steps = [step(name, kind="pivot", max_retries=0)]
        await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    await metrics.look(manager)
    assert value(metrics, "sagas", status="failed") == 1
    assert value(metrics, "sagas", status="completed") == 1
    assert value(metrics, "sagas", status="in_progress") == 0
    assert b'dotmac_tasks_sagas{status="failed"} 1.0\n' in metrics.text()


def test_http_requests_that_met_no_storage_are_counted(metrics: PrometheusMetrics) -> None:
    emit("http_storage_failed", "POST /orders", "t", passed=True, error="away")
    emit("http_storage_failed", "POST /orders", "t", passed=False, error="away")
    for handling in ("unprotected", "refused"):
        assert value(metrics, "http_storage_failures_total", handling=handling) == 1


def test_tenants_are_a_label_only_where_wanted() -> None:
    by_tenant = PrometheusMetrics(CollectorRegistry(), tenant_label=True)
    remove = by_tenant.install()
    emit("saga_created", "w", "t")
    emit("idempotency_key_hit", "op", "t")
    remove()
    assert value(by_tenant, "sagas_created_total", workflow_type="w", tenant="t") == 1
    assert value(by_tenant, "idempotency_keys_total", operation="op", outcome="hit", tenant="t") == 1


def test_more_values_of_a_label_than_allowed_share_one() -> None:
    metrics = PrometheusMetrics(label_limit=2)
    remove = metrics.install()
    for name in ("a", "b", "c", "d", "a"):
        emit("saga_created", name, "t")
    remove()
    found = {name: value(metrics, "sagas_created_total", workflow_type=name) for name in ("a", "b", "c", "d", "other")}
    assert found == {"a": 2, "b": 1, "c": None, "d": None, "other": 2}
    for nonsense in (0, -1, True, 1.5):
        with pytest.raises(InvalidInput, match="label_limit"):
            PrometheusMetrics(label_limit=nonsense)  # type: ignore[arg-type]  # wrong on purpose


async def test_limits_and_what_waits_for_them_are_gauges(
    manager: BackgroundOperationsManager, metrics: PrometheusMetrics
) -> None:
    leave = trio.Event()

    async def work(_parameters: Any) -> None:
        await leave.wait()

    manager.register_operation_handler("work", work, concurrency=2)
    handles = [
        await manager.start_saga(tenant_id="t", workflow_type="w", steps=[{"name": "s", "operation": "work"}])
        for _ in range(5)
    ]
    await trio.sleep(1)
    await metrics.look(manager)
    seen = [value(metrics, f"limit_{name}", limit="work") for name in ("capacity", "running", "waiting")]
    assert seen == [2, 2, 3]
    assert value(metrics, "limit_capacity", limit="max_running") == float("inf")
    assert value(metrics, "limit_capacity", limit="sync_handler_threads") == 40
    leave.set()
    for handle in handles:
        await handle.result()
