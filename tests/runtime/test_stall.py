"""A handler that blocks the event loop is named while it does it."""

from __future__ import annotations

import logging
import time

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage


async def test_a_handler_that_blocks_the_loop_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="dotmac.tasks.runtime.stall")
    manager = BackgroundOperationsManager(MemoryStorage(), worker_lease=1.5)

    async def blocking(parameters: dict[str, object]) -> None:
        deadline = time.monotonic() + 10.0
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251 - blocking the loop is what this test is about

    manager.register_operation_handler("blocking", blocking)
    async with manager:
        steps = [{"name": "Block", "operation": "blocking", "max_retries": 0}]
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        await handle.result()

    assert "blocking" in caplog.text
    assert handle.saga_id in caplog.text
    assert len([record for record in caplog.records if record.name == "dotmac.tasks.runtime.stall"]) == 1


async def test_a_loop_that_waits_while_its_clock_stands_is_not_called_blocked(
    caplog: pytest.LogCaptureFixture, mock_clock: object
) -> None:
    async with BackgroundOperationsManager(MemoryStorage(), worker_lease=0.3):
        # No beat can come, since the virtual clock stands; the listening thread gets time for many looks.
        await trio.to_thread.run_sync(time.sleep, 0.5)
    assert "blocked" not in caplog.text
