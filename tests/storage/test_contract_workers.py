"""Worker leases on every storage: they end by themselves, never come back, and nobody's saga is forgotten."""

from __future__ import annotations

import pytest
import trio

from dotmac.tasks.errors import OwnershipLost
from dotmac.tasks.storage.protocol import StorageProtocol
from storage.stored import CLOCK_ERROR, COMPLETED, LONG, adoption, entry, head, let_time_pass, put_saga


async def _all_forgotten(storage: StorageProtocol) -> None:
    """A storage's own clock is known here to half a round trip only, so "at once" may be a moment later."""
    with trio.fail_after(5):
        while await _workers(storage):  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.005)


async def _workers(storage: StorageProtocol) -> list[str]:
    return sorted(worker.worker_id for worker in await storage.list_workers())


async def test_a_registered_worker_is_listed_with_its_lease(storage: StorageProtocol) -> None:
    at = await storage.register_worker("w1", 10.0, {"host": "ключ"})
    await storage.register_worker("w2", 10.0, {})
    (first, second) = sorted(await storage.list_workers(), key=lambda worker: worker.worker_id)
    assert (first.worker_id, first.info, first.started_at) == ("w1", {"host": "ключ"}, at)
    assert first.lease_until - first.started_at == pytest.approx(10.0)
    assert (second.worker_id, second.info) == ("w2", {})


async def test_registering_again_is_one_worker(storage: StorageProtocol) -> None:
    await storage.register_worker("w1", LONG, {})
    await storage.register_worker("w1", LONG, {})
    assert await _workers(storage) == ["w1"]
    assert (await storage.renew_worker("w1", LONG)).cancels == []


async def test_renewal_keeps_a_worker_alive(storage: StorageProtocol, tick: float) -> None:
    await storage.register_worker("w1", 2 * tick, {})
    for _ in range(3):
        await let_time_pass(storage, tick)
        at = (await storage.renew_worker("w1", 2 * tick)).at
        (worker,) = await storage.list_workers()
        assert worker.lease_until == pytest.approx(at + 2 * tick)


async def test_a_renewal_can_replace_what_a_worker_registered_with(storage: StorageProtocol) -> None:
    at = await storage.register_worker("w1", LONG, {"host": "a"})
    for info, expected in (
        (None, {"host": "a"}),
        ({"host": "ключ", "b": "2 3"}, {"host": "ключ", "b": "2 3"}),
        ({}, {}),
    ):
        await storage.renew_worker("w1", LONG, info)
        (worker,) = await storage.list_workers()
        assert (worker.info, worker.started_at) == (expected, at)


async def test_a_lease_that_is_over_never_comes_back(storage: StorageProtocol, tick: float) -> None:
    await storage.register_worker("w1", tick, {})
    await put_saga(storage, owner="w1")
    await let_time_pass(storage, 2 * tick)
    (before,) = await storage.list_workers()
    assert before.lease_until <= storage.now()
    for _ in range(2):
        with pytest.raises(OwnershipLost):
            await storage.renew_worker("w1", LONG)
    assert await storage.list_workers() == [before]


async def test_a_worker_that_never_was_cannot_renew(storage: StorageProtocol) -> None:
    with pytest.raises(OwnershipLost):
        await storage.renew_worker("nobody", LONG)
    assert await _workers(storage) == []


async def test_a_lost_worker_is_listed_until_its_last_saga_is_taken(storage: StorageProtocol, tick: float) -> None:
    await storage.register_worker("w1", tick, {})
    await storage.register_worker("w2", LONG, {})
    first, second = [await put_saga(storage, owner="w1") for _ in range(2)]
    await let_time_pass(storage, 2 * tick)
    assert await _workers(storage) == ["w1", "w2"]
    await storage.adopt_saga(adoption(first, "w2"))
    assert await _workers(storage) == ["w1", "w2"]
    await storage.adopt_saga(adoption(second, "w2"))
    assert await _workers(storage) == ["w2"]


async def test_a_lost_worker_that_owns_nothing_is_forgotten(storage: StorageProtocol, tick: float) -> None:
    await storage.register_worker("w1", tick, {})
    await let_time_pass(storage, 2 * tick)
    assert await _workers(storage) == []


async def test_a_retired_worker_that_owns_nothing_is_forgotten_at_once(storage: StorageProtocol) -> None:
    await storage.register_worker("w1", LONG, {})
    for had_lease in (True, False):
        assert await storage.retire_worker("w1") is had_lease
        await _all_forgotten(storage)
    with pytest.raises(OwnershipLost):
        await storage.renew_worker("w1", LONG)


async def test_a_worker_that_retires_with_sagas_counts_as_lost(storage: StorageProtocol) -> None:
    await storage.register_worker("w1", LONG, {})
    meta = await put_saga(storage, owner="w1")
    assert await storage.retire_worker("w1")
    assert not await storage.retire_worker("w1")
    (worker,) = await storage.list_workers()
    assert worker.lease_until <= storage.now() + CLOCK_ERROR
    assert [saga.saga_id for saga in await storage.orphaned_sagas("w1", 10)] == [meta.saga_id]
    with pytest.raises(OwnershipLost):
        await storage.renew_worker("w1", LONG)
    await storage.append(entry(meta, COMPLETED))  # its epoch is still the newest one
    await _all_forgotten(storage)


async def test_retiring_a_worker_that_never_was_is_no_error(storage: StorageProtocol) -> None:
    assert not await storage.retire_worker("nobody")
    assert await _workers(storage) == []


@pytest.mark.parametrize("how", ["created", "adopted"])
async def test_a_saga_given_to_a_forgotten_worker_is_not_lost(storage: StorageProtocol, tick: float, how: str) -> None:
    """A worker stops in the midst of a request (SIGSTOP, say) and is forgotten before the request arrives."""
    await storage.register_worker("w1", tick, {})
    await let_time_pass(storage, 2 * tick)
    assert await _workers(storage) == []
    if how == "created":
        meta = await put_saga(storage, owner="w1")
    else:
        meta = (await storage.adopt_saga(adoption(await put_saga(storage), "w1"))).meta
    (worker,) = await storage.list_workers()
    assert worker.worker_id == "w1"
    assert worker.lease_until <= storage.now() + CLOCK_ERROR
    with pytest.raises(OwnershipLost):
        await storage.renew_worker("w1", LONG)
    assert [saga.saga_id for saga in await storage.orphaned_sagas("w1", 10)] == [meta.saga_id]
    await storage.adopt_saga(adoption(meta, "w2"))
    assert (await head(storage, meta.saga_id)).owner == "w2"


async def test_a_glance_at_the_workers_misses_nobody_who_registered_or_was_lost(
    storage: StorageProtocol, tick: float
) -> None:
    assert await storage.list_workers(max_age=LONG) == []
    await storage.register_worker("w1", LONG, {})
    await storage.register_worker("w2", tick, {})
    meta = await put_saga(storage, owner="w2")
    assert [worker.worker_id for worker in await storage.list_workers(max_age=LONG)] == ["w1", "w2"]
    await let_time_pass(storage, 2 * tick)
    assert [worker.worker_id for worker in await storage.list_workers(max_age=LONG)] == ["w1", "w2"]
    await storage.adopt_saga(adoption(meta, "w1"))
    assert [worker.worker_id for worker in await storage.list_workers(max_age=LONG)] == ["w1"]
