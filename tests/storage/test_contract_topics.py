"""Wake-ups on every storage: a watch that was open before hears of what it waits for."""

from __future__ import annotations

import pytest
import trio

from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.key_records import Completion
from dotmac.tasks.storage.protocol import DUE_TOPIC, StorageProtocol, record_topic, saga_topic, worker_topic
from storage.stored import (
    COMPLETED,
    FAILED,
    LONG,
    UNDONE,
    adoption,
    claim,
    done,
    entry,
    head,
    let_time_pass,
    lock,
    new_record,
    put_saga,
    woken,
)


@pytest.mark.parametrize("status", [COMPLETED, UNDONE, FAILED])
async def test_the_last_entry_wakes_who_waits_for_the_saga(storage: StorageProtocol, status: OperationStatus) -> None:
    meta = await put_saga(storage, owner="w1")
    async with storage.watch(saga_topic(meta.saga_id)) as watch:
        await storage.append(entry(meta, status))
        await woken(watch)
        assert (await head(storage, meta.saga_id)).status is status


async def test_every_waiter_wakes(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    ready, finished = 0, trio.Event()

    async def wait() -> None:
        nonlocal ready
        async with storage.watch(saga_topic(meta.saga_id)) as watch:
            ready += 1
            if ready == 20:
                finished.set()
            await woken(watch)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(wait)
        with trio.fail_after(10):
            await finished.wait()
        await storage.append(entry(meta, COMPLETED))


@pytest.mark.parametrize("how", ["completed", "failed", "abandoned", "abandoned, created", "deleted", "by its saga"])
async def test_the_end_of_a_claim_wakes_who_waits_for_the_key(storage: StorageProtocol, how: str) -> None:
    if "created" in how:
        await storage.create_record(new_record())
    meta = await put_saga(storage, owner="w1", key=new_record()) if "saga" in how else None
    if meta is None:
        await claim(storage)
    async with storage.watch(record_topic("key")) as watch:
        if meta is not None:
            await storage.append(entry(meta, COMPLETED, completion=done(by=None)))
        elif "abandoned" in how:
            await storage.abandon_claim("key", "a")
        elif how == "deleted":
            await storage.delete_idempotency("key")
        else:
            await storage.complete_record(
                Completion("key", "a", COMPLETED if how == "completed" else FAILED, None, None, LONG)
            )
        await woken(watch)


async def test_a_cancel_request_wakes_the_worker(storage: StorageProtocol) -> None:
    await storage.register_worker("w1", LONG, {})
    meta = await put_saga(storage, owner="w1")
    async with storage.watch(worker_topic("w1")) as watch:
        await storage.request_cancel(meta.saga_id, "why")
        await woken(watch)
        assert (await storage.renew_worker("w1", LONG)).cancels == [meta.saga_id]


@pytest.mark.parametrize("how", ["created", "released", "given up", "cancel", "cancel before the release"])
async def test_a_saga_that_is_due_now_wakes_who_looks_for_work(storage: StorageProtocol, how: str) -> None:
    now = storage.now()
    meta = await put_saga(storage, owner=None if how in ("created", "cancel") else "w1")
    if how == "cancel before the release":
        await storage.request_cancel(meta.saga_id, "why")
    async with storage.watch(DUE_TOPIC) as watch:
        if how == "created":
            meta = await put_saga(storage, due_at=now)
        elif how == "released":
            await storage.release_saga(meta.saga_id, 1, now)
        elif how == "given up":
            await storage.append(entry(meta, release=True, due_at=now))
        elif how == "cancel":
            await storage.request_cancel(meta.saga_id, "why")
        else:
            await storage.release_saga(meta.saga_id, 1, now + LONG)
        await woken(watch)
        assert [saga.saga_id for saga in await storage.due_sagas(10)] == [meta.saga_id]


@pytest.mark.parametrize("how", ["created", "released", "given up"])
async def test_a_saga_that_is_due_soon_is_announced_and_then_found_in_time_without_looking_everywhere(
    storage: StorageProtocol, tick: float, how: str
) -> None:
    meta = await put_saga(storage, owner=None if how == "created" else "w1")
    assert await storage.due_sagas(10, max_age=LONG) == []
    async with storage.watch(DUE_TOPIC) as watch:
        due_at = storage.now() + tick
        if how == "created":
            meta = await put_saga(storage, due_at=due_at)
        elif how == "released":
            await storage.release_saga(meta.saga_id, 1, due_at)
        else:
            await storage.append(entry(meta, release=True, due_at=due_at))
        await woken(watch)
    assert await storage.due_sagas(10) == []
    await let_time_pass(storage, 2 * tick)
    assert [saga.saga_id for saga in await storage.due_sagas(10, max_age=LONG)] == [meta.saga_id]
    assert [saga.saga_id for saga in await storage.due_sagas(10, max_age=LONG)] == [meta.saga_id]


@pytest.mark.parametrize("how", ["freed", "the head gives up"])
async def test_a_lock_that_may_be_had_wakes_the_head_of_its_queue(storage: StorageProtocol, how: str) -> None:
    await storage.request_lock(lock("a"))
    if how == "the head gives up":
        await storage.request_lock(lock("gone", wait=LONG))
    await storage.request_lock(lock("b", wait=LONG))
    await storage.request_lock(lock("c", wait=LONG))
    async with storage.watch("wake-b") as watch:
        await storage.free_lock("lock", "a")
        if how == "the head gives up":
            await storage.free_lock("lock", "gone")
        await woken(watch)


async def test_who_finds_a_lock_free_that_another_waits_for_wakes_that_one(
    storage: StorageProtocol, tick: float
) -> None:
    """A lease that ends is announced by nobody; the first who asks after it tells whose turn it is."""
    await storage.request_lock(lock("a", lease=tick))
    await storage.request_lock(lock("b", wait=LONG))
    await let_time_pass(storage, 2 * tick)
    async with storage.watch("wake-b") as watch:
        await storage.request_lock(lock("newcomer", wait=LONG))
        await woken(watch)


async def test_what_was_published_between_two_waits_is_not_missed(storage: StorageProtocol) -> None:
    await claim(storage)
    async with storage.watch(record_topic("key")) as watch:
        for token in ("b", "c"):
            held = await storage.get_record("key")
            assert held is not None
            await storage.abandon_claim("key", held.token or "")
            await woken(watch)
            await claim(storage, by=token)


async def test_a_wait_that_is_cancelled_does_not_use_up_the_message(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    async with storage.watch(saga_topic(meta.saga_id)) as watch:
        with trio.CancelScope() as scope:
            scope.cancel()
            await watch.wait()
        await storage.append(entry(meta, COMPLETED))
        with trio.CancelScope() as scope:
            scope.cancel()
            await watch.wait()
        await woken(watch)


async def test_topics_of_others_do_not_wake(storage: StorageProtocol) -> None:
    """A hint may come for nothing, but not for everything: each end would make every waiter look."""
    mine, other = await put_saga(storage, owner="w1"), await put_saga(storage, owner="w1")
    woke = trio.Event()

    async def wait() -> None:
        async with storage.watch(saga_topic(mine.saga_id)) as watch:
            listening.set()
            await watch.wait()
            woke.set()

    async with trio.open_nursery() as nursery:
        listening = trio.Event()
        nursery.start_soon(wait)
        await listening.wait()
        async with storage.watch(saga_topic(other.saga_id)) as watch:
            await storage.append(entry(other, COMPLETED))
            await woken(watch)
        assert not woke.is_set()
        await storage.append(entry((await storage.adopt_saga(adoption(mine))).meta, COMPLETED))
        with trio.fail_after(10):
            await woke.wait()
