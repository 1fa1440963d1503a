"""What is special about the storage in memory: its clock, its life, and that its verbs happen in one go."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio
import trio.lowlevel
from msgspec import Raw
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.errors import ClaimLost
from dotmac.tasks.saga.snapshots import SNAPSHOT_FORMAT
from dotmac.tasks.storage.memory import MemoryStorage
from dotmac.tasks.storage.protocol import record_topic
from dotmac.tasks.storage.records import LockGrant, Snapshot
from storage.stored import (
    COMPLETED,
    LONG,
    adoption,
    claim,
    done,
    entry,
    gather,
    head,
    let_time_pass,
    lock,
    new_record,
    new_saga,
    put_saga,
    whole,
)

Call = Callable[[MemoryStorage], Coroutine[Any, Any, object]]


async def _saga_verb(storage: MemoryStorage, make: Callable[[Any], Coroutine[Any, Any, object]]) -> object:
    (saga_id,) = storage._sagas
    return await make(storage._sagas[saga_id].meta)


SNAPSHOT = Snapshot(SNAPSHOT_FORMAT, 1, {}, Raw(b"{}"))
VERBS: dict[str, Call] = {
    "create_record": lambda s: s.create_record(new_record("new")),
    "claim_record": lambda s: claim(s, "new"),
    "renew_claim": lambda s: s.renew_claim("claimed", "a", 2 * LONG),
    "complete_record": lambda s: s.complete_record(done("claimed")),
    "abandon_claim": lambda s: s.abandon_claim("claimed", "a"),
    "delete_record": lambda s: s.delete_idempotency("claimed"),
    "create_saga": lambda s: s.create_saga(new_saga(s, key=new_record("new"))),
    "append": lambda s: _saga_verb(s, lambda meta: s.append(entry(meta, COMPLETED, completion=done("claimed")))),
    "adopt_saga": lambda s: _saga_verb(s, lambda meta: s.adopt_saga(adoption(meta))),
    "release_saga": lambda s: _saga_verb(s, lambda meta: s.release_saga(meta.saga_id, meta.epoch, 0.0)),
    "keep_snapshot": lambda s: _saga_verb(s, lambda meta: s.keep_snapshot(meta.saga_id, meta.epoch, SNAPSHOT)),
    "request_cancel": lambda s: _saga_verb(s, lambda meta: s.request_cancel(meta.saga_id, "why")),
    "add_note": lambda s: _saga_verb(s, lambda meta: s.append_saga_history(meta.saga_id, {"event": "note"})),
    "register_worker": lambda s: s.register_worker("w9", LONG, {}),
    "renew_worker": lambda s: s.renew_worker("w1", 2 * LONG),
    "retire_worker": lambda s: s.retire_worker("w1"),
    "request_lock": lambda s: s.request_lock(lock("b", wait=LONG)),
    "extend_lock": lambda s: s.extend_lock("lock", "a", 2 * LONG),
    "free_lock": lambda s: s.free_lock("lock", "a"),
    "acquire_lock": lambda s: s.acquire_lock("other", LONG),
    "release_lock": lambda s: s.release_lock("seed"),
    "purge": lambda s: s.purge(10),
}
"""A call of each verb that changes something, on what `_furnished` holds."""


async def _furnished(storage: MemoryStorage) -> None:
    await claim(storage, "claimed")
    await storage.create_record(new_record("over", ttl=0.5))
    await storage.register_worker("w1", LONG, {})
    await put_saga(storage, owner="w1")
    await storage.request_lock(lock("a"))
    await storage.acquire_lock("seed", LONG)
    await trio.sleep(1)


def _contents(storage: MemoryStorage) -> dict[str, Any]:
    besides = ("observer", "_watches", "_clock", "_base", "_latest", "_verbs")
    return {name: copy.deepcopy(value) for name, value in vars(storage).items() if name not in besides}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_that_is_cancelled_did_nothing(autojump_clock: MockClock, verb: str) -> None:
    storage = MemoryStorage()
    await _furnished(storage)
    before = _contents(storage)
    with trio.CancelScope() as scope:
        scope.cancel()
        await VERBS[verb](storage)
    assert scope.cancelled_caught
    assert _contents(storage) == before
    await VERBS[verb](storage)
    assert _contents(storage) != before  # it would have changed something


def test_data_and_time_go_on_from_one_run_to_the_next() -> None:
    storage = MemoryStorage()
    times: list[float] = [time.time()]  # the storage's time is the world's, before it runs ahead

    async def first() -> None:
        await storage.create_record(new_record("kept", ttl=86400.0))
        await storage.create_record(new_record("short", ttl=30.0))
        await storage.create_saga(new_saga(storage, owner="w1"))
        times.append(storage.now())
        await trio.sleep(3600)
        times.append(storage.now())

    async def later() -> None:
        times.append(storage.now())
        assert await storage.get_record("kept") is not None
        assert await storage.get_record("short") is None
        assert len(await storage.orphaned_sagas("w1", 10)) == 1
        await trio.lowlevel.checkpoint()
        times.append(storage.now())

    trio.run(first, clock=MockClock(autojump_threshold=0))
    trio.run(later)
    trio.run(later, clock=MockClock(autojump_threshold=0))
    trio.run(later)
    assert times == sorted(times)
    assert times[2] - times[1] == pytest.approx(3600)


def test_the_fence_rises_from_one_run_to_the_next() -> None:
    storage = MemoryStorage()
    fences: list[int] = []

    async def hold(token: str) -> None:
        grant = await storage.request_lock(lock(token))
        assert isinstance(grant, LockGrant)
        fences.append(grant.fence)
        await storage.free_lock("lock", token)

    for token in "abc":
        trio.run(hold, token)
    assert fences == sorted(set(fences))


async def test_stopping_a_manager_keeps_the_data(autojump_clock: MockClock) -> None:
    """Fault 20: the stop wiped them."""
    storage = MemoryStorage()
    async with BackgroundOperationsManager(storage=storage):
        await storage.create_record(new_record())
        meta = await put_saga(storage)
    assert await storage.get_record("key") is not None
    async with BackgroundOperationsManager(storage=storage):
        assert (await whole(storage, meta.saga_id)).meta == meta


async def test_a_managers_cleanup_leaves_the_storage_usable(autojump_clock: MockClock) -> None:
    """Fault 6: an hour after the start, every call hung."""
    storage = MemoryStorage()
    async with BackgroundOperationsManager(storage=storage):
        await storage.create_record(new_record("short", ttl=60.0))
        await storage.create_record(new_record("long", ttl=86400.0))
        ended = await put_saga(storage, owner="w1")
        await storage.append(entry(ended, COMPLETED, retention=60.0))
        await trio.sleep(3 * 3600)
        with trio.fail_after(10):
            assert await storage.get_record("long") is not None
        assert set(storage._records) == {"long"}
        assert await storage.saga_meta(ended.saga_id) is None


async def test_the_observer_hears_of_each_verb(autojump_clock: MockClock) -> None:
    storage = MemoryStorage()
    heard: list[tuple[str, type[BaseException] | None]] = []

    def observe(verb: str, seconds: float, failure: BaseException | None) -> None:
        assert seconds >= 0
        heard.append((verb, None if failure is None else type(failure)))

    storage.observer = observe
    await storage.create_record(new_record())
    with pytest.raises(ClaimLost):
        await storage.renew_claim("key", "nobody's", 1.0)
    assert heard == [("create_record", None), ("renew_claim", ClaimLost)]


async def test_nothing_piles_up(autojump_clock: MockClock) -> None:
    """Names, keys, claims and workers that come and go leave no trace once they are purged and listed."""
    storage = MemoryStorage()
    for number in range(50):
        await storage.request_lock(lock("a", name=f"lock {number}"))
        await storage.free_lock(f"lock {number}", "a")
        await storage.request_lock(lock("a", name=f"lost {number}", lease=1.0))
        await claim(storage, f"key {number}", new=new_record(f"key {number}", ttl=1.0), lease=1.0)
        for _ in range(10):
            await storage.renew_claim(f"key {number}", "a", 1.0)
        await storage.register_worker(f"w{number}", 1.0, {})
        meta = await put_saga(storage, owner=f"w{number}")
        await storage.request_cancel(meta.saga_id, "why")
        await storage.append(entry(meta, COMPLETED, retention=1.0))
    assert len(storage._record_expiry) <= 100
    await let_time_pass(storage, 2.0)
    await storage.purge(10)
    assert not storage._locks, "locks that nobody gave up or listed"
    while (await storage.purge(10)).more:
        pass
    assert await storage.list_locks(1) == []
    assert await storage.list_workers() == []
    assert not any(_contents(storage).values())


async def test_a_release_that_fails_can_be_tried_again(autojump_clock: MockClock) -> None:
    storage = MemoryStorage()
    await storage.acquire_lock("lock", LONG)
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.release_lock("lock")
    await storage.release_lock("lock")
    assert await storage.acquire_lock("lock", LONG) is True


async def test_two_managers_worth_of_callers_see_one_storage(autojump_clock: MockClock) -> None:
    storage = MemoryStorage()
    async with storage.opened(), storage.opened():
        meta = await put_saga(storage)
        async with storage.watch(record_topic("key")) as one, storage.watch(record_topic("key")) as other:
            await claim(storage)
            await storage.complete_record(done())
            await one.wait()
            await other.wait()
        assert len(await gather(lambda: head(storage, meta.saga_id))) == 1
