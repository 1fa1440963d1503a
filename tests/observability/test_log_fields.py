"""What is logged about a saga can be found by its fields."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage
from runtime.nodes import Ledger, Node, step, until


async def test_records_name_saga_tenant_and_step(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dotmac.tasks")
    shared, ledger = MemoryStorage(), Ledger()
    ledger.hold["p"] = trio.Event()
    ledger.failing["p"] = TimeoutError("who knows")
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        steps = [step("p", kind="pivot", max_retries=1)]
        handle = await first.manager.start_saga(tenant_id="acme", workflow_type="order", steps=steps)
        await until(lambda: "p" in ledger.entered)
        await first.kill()
        ledger.hold.clear()
        await second.manager.saga_handle(handle.saga_id).result()
    told = [record for record in caplog.records if getattr(record, "saga_id", None) == handle.saga_id]
    assert {(vars(record)["tenant_id"], vars(record)["workflow_type"]) for record in told} == {("acme", "order")}
    messages = [record.getMessage() for record in told]
    assert any("taken over from worker" in message for message in messages)
    assert any("is parked: outcome of the pivot step 'p'" in message for message in messages)
    (failed,) = [record for record in told if record.exc_info]
    assert vars(failed)["step"] == "p"
