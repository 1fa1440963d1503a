"""Cancels at random moments around the end of a saga: each was refused, or the saga did not complete."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import trio

from dotmac.tasks import (
    BackgroundOperationsManager,
    HandlerContext,
    MemoryStorage,
    OperationStatus,
    SagaStateError,
    StorageProtocol,
)
from dotmac.tasks.storage.redis import RedisStorage
from support.servers import standalone

MakeStorage = Callable[[], StorageProtocol]
SAGAS = 60


@pytest.fixture(scope="module", params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def make(request: pytest.FixtureRequest) -> Iterator[MakeStorage]:
    """Gives storages of the same data, one for each manager."""
    if request.param == "memory":
        memory = MemoryStorage()
        yield lambda: memory
        return
    with standalone() as server:
        prefix = f"test-{uuid4().hex[:8]}"
        yield lambda: RedisStorage(server.url, prefix)


async def test_a_cancel_by_another_manager_near_the_end(make: MakeStorage) -> None:
    manager, other = BackgroundOperationsManager(make()), BackgroundOperationsManager(make(), works=False)
    entered: dict[str, trio.Event] = {}
    chance = random.Random(7)
    wrong: list[tuple[str, bool, OperationStatus]] = []
    seen: set[bool] = set()

    @manager.register_operation_handler("brief")
    async def brief(_parameters: dict[str, Any], context: HandlerContext) -> None:
        entered.setdefault(context.saga_id or "", trio.Event()).set()
        await trio.sleep(0.002)

    @manager.register_compensation_handler("undo")
    async def undo(_parameters: dict[str, Any]) -> None:
        pass

    async def one() -> None:
        steps = [{"name": "a", "operation": "brief", "compensation_operation": "undo"}]
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        await entered.setdefault(handle.saga_id, trio.Event()).wait()
        await trio.sleep(chance.uniform(0, 0.006))
        try:
            await other.cancel_saga(handle.saga_id, "no")
            acknowledged = True
        except SagaStateError:
            acknowledged = False
        status = (await handle.result()).status
        seen.add(acknowledged)
        if acknowledged is not (status is OperationStatus.COMPENSATED):
            wrong.append((handle.saga_id, acknowledged, status))

    async with manager, other, trio.open_nursery() as nursery:
        for _ in range(SAGAS):
            nursery.start_soon(one)
    assert wrong == []
    assert seen


@pytest.mark.parametrize("sync", [False, True])
async def test_a_handler_cancels_its_own_saga_in_its_only_step(make: MakeStorage, sync: bool) -> None:
    manager = BackgroundOperationsManager(make())

    async def cancels(_parameters: dict[str, Any], context: HandlerContext) -> None:
        assert context.saga_id is not None
        await manager.cancel_saga(context.saga_id, "no need")

    def cancels_in_a_thread(_parameters: dict[str, Any], context: HandlerContext) -> None:
        assert context.saga_id is not None
        manager.sync.cancel_saga(context.saga_id, "no need")

    manager.register_operation_handler("cancels", cancels_in_a_thread if sync else cancels)
    async with manager:
        steps = [{"name": "a", "operation": "cancels"}]
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        with trio.fail_after(30):
            outcome = await handle.result()
    assert (outcome.status, outcome.error) == (OperationStatus.COMPENSATED, "cancelled: no need")
