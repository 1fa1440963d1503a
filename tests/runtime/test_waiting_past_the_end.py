"""Whoever waits for a saga's end when the manager is stopped learns that it will not be told here."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, NotStarted

STEPS = [{"name": "only", "operation": "work"}]


async def test_a_wait_ends_with_the_manager(autojump_clock: trio.testing.MockClock) -> None:
    manager = BackgroundOperationsManager(storage=MemoryStorage())
    entered = trio.Event()

    async def work(_parameters: dict[str, Any]) -> None:
        entered.set()
        await trio.sleep_forever()

    manager.register_operation_handler("work", work)
    told: list[BaseException] = []

    async with trio.open_nursery() as nursery:
        await manager.start()
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=STEPS)

        async def wait() -> None:
            with pytest.raises(NotStarted, match="was stopped") as caught:
                await handle.result()
            told.append(caught.value)

        nursery.start_soon(wait)
        await entered.wait()
        await manager.stop(hurry=True)
    assert len(told) == 1
    with trio.fail_after(60), pytest.raises(NotStarted, match=handle.saga_id):
        await handle.result()
