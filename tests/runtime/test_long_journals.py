"""Sagas with long journals: adopted from a snapshot, as the journal says, and within the lease."""

from __future__ import annotations

import pytest
from msgspec import Raw
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage
from dotmac.tasks.saga.snapshots import SNAPSHOT_FORMAT
from dotmac.tasks.storage.folding import folded, state_of
from dotmac.tasks.storage.records import Adoption, Snapshot
from runtime.nodes import Ledger, Node, step, until

RETRY = {"max_retries": 100_000, "initial_delay": 1.0, "max_delay": 1.0, "multiplier": 1.0, "jitter": False}


async def tried(node: Node, shared: MemoryStorage, ledger: Ledger, attempts: int) -> str:
    """A saga with one step done and one that was tried so often, each time after it was adopted anew."""
    ledger.failing["b"] = ValueError("not yet")
    saga = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b", retry=RETRY)])
    await until(lambda: ledger.attempts.count(("b", attempts)), 20.0 * attempts)
    await until(lambda: shared._sagas[saga.saga_id].meta.owner is None)
    return saga.saga_id


async def test_a_saga_that_is_retried_for_ever_is_adopted_from_a_snapshot(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register, passivate_after=0.5) as node:
        saga_id = await tried(node, shared, ledger, 30)
        stored = shared._sagas[saga_id]
        assert stored.snapshot is not None
        assert len(stored.journal) - stored.snapshot.length < 70
        record = await shared.adopt_saga(Adoption(saga_id, "w", stored.meta.epoch, "mine"))
        assert len(record.journal) < 80
        whole = await shared.load_saga(saga_id)
        assert whole is not None
        restored, true = folded(record), folded(whole)
        assert (restored.state, restored.results, restored.fruitless) == (true.state, true.results, true.fruitless)
        assert restored.state == state_of(whole)
        assert restored.state.steps[0].result is not None


@pytest.mark.parametrize("state", [b"{}", b'"damaged"', b"[1"], ids=["empty", "damaged", "no JSON"])
async def test_a_snapshot_that_cannot_be_read_costs_nothing_but_time(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, state: bytes
) -> None:
    async with Node(shared, ledger.register, passivate_after=0.5) as node:
        saga_id = await tried(node, shared, ledger, 20)
        stored = shared._sagas[saga_id]
        await shared.adopt_saga(Adoption(saga_id, "w", stored.meta.epoch, "mine"))
        await shared.keep_snapshot(saga_id, stored.meta.epoch, Snapshot(SNAPSHOT_FORMAT, 10, {0: 1}, Raw(state)))
        await shared.release_saga(saga_id, stored.meta.epoch, shared.now())
        ledger.failing.clear()
        assert (await node.manager.saga_handle(saga_id).result()).completed
    assert ledger.effects == ["a", "b"]
