"""Sagas whose handlers no worker has: they say so, their bounces back off quietly, and a new handler finds them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, OperationStatus
from dotmac.tasks.storage.redis import RedisStorage
from runtime.nodes import Ledger, Node, step, until
from support.servers import standalone

MISSING = "no worker has a handler for operation 'do'"


def nothing(_manager: BackgroundOperationsManager) -> None:
    pass


async def submit(shared: MemoryStorage, *steps: dict[str, Any]) -> str:
    async with BackgroundOperationsManager(shared, works=False) as manager:
        return (await manager.start_saga(tenant_id="t", workflow_type="w", steps=list(steps))).saga_id


async def test_a_saga_without_a_handler_says_so(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    saga_id = await submit(shared, step("a"))
    async with Node(shared, nothing) as node:
        await trio.sleep(30)
        saga = await node.manager.get_saga(saga_id)
        (listed,) = (await node.manager.list_sagas()).sagas
        assert (saga.waiting_for, listed.waiting_for) == (MISSING, MISSING)
        lines = [line for line in await node.manager.get_saga_history(saga_id) if line.event == "handler_missing"]
        assert [(line.step, line.details) for line in lines] == [("a", {"operation": "do"})]
        (finding,) = [each for each in await node.manager.examine() if each.check == "missing handlers"]
        assert finding.verdict == "problem"
        assert "operation 'do'" in finding.message
    async with Node(shared, ledger.register) as able:
        assert (await able.manager.saga_handle(saga_id).result()).completed
        saga = await able.manager.get_saga(saga_id)
        (finding,) = [each for each in await able.manager.examine() if each.check == "missing handlers"]
    assert (saga.waiting_for, finding.verdict) == (None, "ok")


async def test_a_missing_compensation_is_named(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["b"] = ValueError("no")
    saga_id = await submit(shared, step("a"), step("b", max_retries=0))

    def without_undo(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("do", ledger._do)

    async with Node(shared, without_undo) as node:
        await trio.sleep(30)
        saga = await node.manager.get_saga(saga_id)
        assert saga.waiting_for == "no worker has a handler for compensation 'undo'"
        node.manager.register_compensation_handler("undo", ledger._undo)
        with trio.fail_after(5):
            outcome = await node.manager.saga_handle(saga_id).result()
    assert outcome.status is OperationStatus.COMPENSATED


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_worker_with_the_handler_runs_the_saga_within_seconds_however_long_it_has_waited(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, nursery: trio.Nursery, workers: int
) -> None:
    saga_id = await submit(shared, step("a"))
    others = [Node(shared, nothing) for _ in range(workers)]
    for node in others:
        await node.manager.start()
    await trio.sleep(1000)
    async with Node(shared, ledger.register) as able:
        with trio.fail_after(5):
            assert (await able.manager.saga_handle(saga_id).result()).completed
    for node in others:
        await node.manager.stop()


async def test_a_handler_that_is_registered_later_runs_the_saga_within_seconds(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    saga_id = await submit(shared, step("a"))
    async with Node(shared, nothing) as node:
        await trio.sleep(1000)
        ledger.register(node.manager)
        with trio.fail_after(5):
            assert (await node.manager.saga_handle(saga_id).result()).completed


async def test_a_process_logs_a_missing_handler_once_for_each_saga_and_asks_ever_less_often(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dotmac.tasks")
    ids = [await submit(shared, step("a")) for _ in range(3)]
    async with Node(shared, nothing) as node:
        await trio.sleep(1000)
        adoptions = node.wire.calls.count("adopt_saga")
    lines = [line for line in caplog.messages if "no handler for 'do'" in line]
    assert len(lines) == len(ids)
    assert adoptions < 12 * len(ids)


async def test_one_that_another_worker_can_run_is_not_reported(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, nothing), Node(shared, ledger.register) as able:
        await trio.sleep(2)
        ids = [await submit(shared, step(str(number))) for number in range(10)]
        for saga_id in ids:
            assert (await able.manager.saga_handle(saga_id).result()).completed
            history = await able.manager.get_saga_history(saga_id)
            assert "handler_missing" not in [line.event for line in history]


@pytest.fixture(scope="module")
def redis_storage() -> Iterator[Callable[[], RedisStorage]]:
    with standalone(aof=True) as server:
        prefix = f"test-{uuid4().hex[:8]}"
        yield lambda: RedisStorage(server.url, prefix=prefix)


@pytest.mark.redis
async def test_on_a_server_a_new_handler_finds_the_sagas_that_wait_for_it(
    redis_storage: Callable[[], RedisStorage], ledger: Ledger
) -> None:
    manager = BackgroundOperationsManager(redis_storage())
    async with BackgroundOperationsManager(redis_storage(), works=False) as outside:
        handle = await outside.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b")])
        async with manager:
            with trio.fail_after(20):
                while (await outside.get_saga(handle.saga_id)).waiting_for is None:  # noqa: ASYNC110 - of another process
                    await trio.sleep(0.05)
            (listed,) = (await outside.list_sagas()).sagas
            assert listed.waiting_for == MISSING
            (finding,) = [each for each in await outside.examine() if each.check == "missing handlers"]
            assert (finding.verdict, finding.message) == ("problem", f"sagas that wait: 1; {MISSING}")
        able = BackgroundOperationsManager(redis_storage())
        ledger.register(able)
        async with able:
            with trio.fail_after(4):  # the next look of a worker that does not search for it comes after 5 s
                await until(lambda: "a" in ledger.effects)
                assert (await handle.result()).completed
        (finding,) = [each for each in await outside.examine() if each.check == "missing handlers"]
        assert finding.verdict == "ok"
        (listed,) = (await outside.list_sagas()).sagas
        assert listed.waiting_for is None
