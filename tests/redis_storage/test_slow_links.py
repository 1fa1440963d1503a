"""A long journal over a slow link: read in pieces, so that the worker that adopts the saga keeps its lease."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec import Raw

from dotmac.tasks import BackgroundOperationsManager, OperationStatus, SagaHistory
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.events import AttemptStarted, AttemptSucceeded, SagaCreated, SagaStarted, encode_events
from dotmac.tasks.storage.records import Append, NewSaga
from dotmac.tasks.storage.redis import RedisStorage
from support.proxy import FaultProxy
from support.servers import Server

pytestmark = pytest.mark.redis

RESULTS, SIZE, RATE, LEASE = 60, 200_000, 6_000_000, 1.5
RUNNING = OperationStatus.IN_PROGRESS


async def store(storage: RedisStorage) -> str:
    """A saga with many large results that waits for a worker before its last step."""
    saga_id, result = storage.new_saga_id(), Raw(b'"' + b"x" * SIZE + b'"')
    steps = tuple(StepDefinition(f"s{number}", "do") for number in range(RESULTS + 1))
    definition = SagaDefinition(saga_id, "t", "w", steps)
    events = encode_events([SagaCreated(definition), SagaStarted()])
    await storage.create_saga(NewSaga(saga_id, "t", "w", RUNNING, len(steps), "first", events, owner="gone"))
    for step in range(RESULTS):
        release = step == RESULTS - 1
        events = encode_events([AttemptStarted(step, 1), AttemptSucceeded(step, 1, result=result)])
        entry = Append(saga_id, 1, step + 1, f"entry-{step}", events, RUNNING, step + 1, release)
        await storage.append(entry)
    return saga_id


async def test_readers_of_a_long_journal_over_a_slow_link_leave_the_worker_its_lease(server: Server) -> None:
    async with FaultProxy(("127.0.0.1", server.port)) as proxy:
        manager = BackgroundOperationsManager(RedisStorage(proxy.url, prefix="read"), worker_lease=LEASE)
        direct = RedisStorage(server.url, prefix="read")
        async with direct.opened(), manager:
            (worker,) = await manager.list_workers()
            saga_id = await store(direct)
            for _ in range(10):
                await direct.append_saga_history(saga_id, {"event": "note", "text": "x" * SIZE})
            proxy.bytes_per_second = RATE
            began = trio.current_time()
            history = SagaHistory(saga_id)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(manager.get_saga, saga_id)
                nursery.start_soon(manager.extend_saga_history, history)
            assert trio.current_time() - began > LEASE
            assert len(history.entries) == 2 + 2 * RESULTS + 10
            assert [(each.worker_id, each.alive) for each in await manager.list_workers()] == [(worker.worker_id, True)]


async def test_a_worker_that_reads_a_long_journal_over_a_slow_link_keeps_its_lease(server: Server) -> None:
    seen: list[Any] = []

    async def do(parameters: dict[str, Any]) -> int:
        seen.append(parameters)
        return len(seen)

    async with FaultProxy(("127.0.0.1", server.port)) as proxy:
        manager = BackgroundOperationsManager(RedisStorage(proxy.url, prefix="slow"), worker_lease=LEASE)
        manager.register_operation_handler("do", do)
        direct = RedisStorage(server.url, prefix="slow")
        async with direct.opened(), manager:
            (worker,) = await manager.list_workers()
            saga_id = await store(direct)
            proxy.bytes_per_second = RATE
            began = trio.current_time()
            await (await manager._hosted()._runtime.worker()).sagas.adopt(saga_id, 1)
            assert trio.current_time() - began > LEASE
            with trio.fail_after(60):
                await manager.saga_handle(saga_id).result()
            meta = await direct.saga_meta(saga_id)
            assert meta is not None
            assert (meta.status, meta.epoch, len(seen)) == (OperationStatus.COMPLETED, 2, 1)
            assert [each.worker_id for each in await manager.list_workers()] == [worker.worker_id]
