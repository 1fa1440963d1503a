"""A worker that stops is registered as draining until its attempts have ended, and its stop never waits for that."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, StorageUnavailable
from runtime.nodes import Ledger, Node, step, until


async def states(node: Node) -> dict[str, str]:
    return {worker.worker_id: worker.state for worker in await node.manager.list_workers()}


async def test_a_stopping_worker_is_draining_then_gone(autojump_clock: MockClock) -> None:
    shared, ledger = MemoryStorage(), Ledger()
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as looking:
        async with Node(shared, ledger.register, drain_timeout=60.0) as stopping:
            await stopping.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
            await until(lambda: "a" in ledger.entered)
            worker_id = stopping.worker.worker_id
            assert (await states(looking))[worker_id] == "alive"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stopping.manager.stop)
                while (await states(looking))[worker_id] != "draining":  # noqa: ASYNC110 - a renewal brings it
                    await trio.sleep(0.001)
                (told,) = [each for each in await looking.manager.list_workers() if each.worker_id == worker_id]
                assert told.alive
                ledger.hold["a"].set()
        assert worker_id not in await states(looking)


@pytest.mark.parametrize("trouble", ["hangs", "fails"])
async def test_a_stop_does_not_wait_for_its_registration(autojump_clock: MockClock, trouble: str) -> None:
    async def fault(_wire: Any, verb: str, call: Any) -> Any:
        if verb != "renew_worker":
            return await call()
        if trouble == "hangs":
            await trio.sleep_forever()
        raise StorageUnavailable("away")

    ledger = Ledger()
    ledger.hold["a"] = trio.Event()
    async with Node(MemoryStorage(), ledger.register, worker_lease=60.0) as node:
        await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        await until(lambda: "a" in ledger.entered)
        node.wire.fault = fault
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.manager.stop)
            await until(lambda: "renew_worker" in node.wire.calls)
            ledger.hold["a"].set()
        assert node.wire.calls.count("renew_worker") == 1
