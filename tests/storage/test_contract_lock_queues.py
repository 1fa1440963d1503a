"""One lock with its queue, on every storage: who waits, in which order, since when; looking changes nothing."""

from __future__ import annotations

import pytest

from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import LockGrant, LockQueued, LockState
from storage.stored import LONG, let_time_pass, lock


async def _waiting(storage: StorageProtocol, limit: int = 10) -> list[str]:
    return [waiter.owner for waiter in (await storage.look_at_lock("lock", limit)).queue]


async def test_a_lock_that_never_was_is_free_and_is_not_made_by_looking(storage: StorageProtocol) -> None:
    assert await storage.look_at_lock("lock", 10) == LockState(None, [], 0)
    assert await storage.look_at_lock("lock", 10) == LockState(None, [], 0)
    assert isinstance(await storage.request_lock(lock("a")), LockGrant)


async def test_the_queue_is_shown_in_the_order_of_turns(storage: StorageProtocol, tick: float) -> None:
    await storage.request_lock(lock("a"))
    for token in ("c", "b", "d"):
        await storage.request_lock(lock(token, wait=LONG))
        await let_time_pass(storage, tick / 10)
    state = await storage.look_at_lock("lock", 10)
    (listed,) = await storage.list_locks(10)
    assert state.held == listed
    assert [waiter.owner for waiter in state.queue] == ["owner-c", "owner-b", "owner-d"]
    times = [waiter.since for waiter in state.queue]
    assert times == sorted(times)
    assert all(waiter.until >= waiter.since + LONG - 1 for waiter in state.queue)
    assert (await storage.look_at_lock("lock", 2)).queue == state.queue[:2]
    assert (await storage.look_at_lock("lock", 2)).waiters == 3


async def test_asking_again_keeps_the_time_of_arrival(storage: StorageProtocol, tick: float) -> None:
    await storage.request_lock(lock("a"))
    await storage.request_lock(lock("b", wait=LONG))
    (before,) = (await storage.look_at_lock("lock", 10)).queue
    await let_time_pass(storage, tick)
    await storage.request_lock(lock("b", wait=LONG))
    (after,) = (await storage.look_at_lock("lock", 10)).queue
    assert after.since == before.since
    assert after.until > before.until


async def test_who_got_it_or_left_or_died_waits_no_more(storage: StorageProtocol, tick: float) -> None:
    await storage.request_lock(lock("a"))
    await storage.request_lock(lock("dead", wait=tick))
    for token in ("b", "c", "d"):
        await storage.request_lock(lock(token, wait=LONG))
    await storage.free_lock("lock", "c")
    assert await _waiting(storage) == ["owner-dead", "owner-b", "owner-d"]
    await let_time_pass(storage, 2 * tick)
    assert await _waiting(storage) == ["owner-b", "owner-d"]
    await storage.free_lock("lock", "a")
    state = await storage.look_at_lock("lock", 10)
    assert (state.held, len(state.queue)) == (None, 2)
    assert isinstance(await storage.request_lock(lock("b", wait=LONG)), LockGrant)
    assert await _waiting(storage) == ["owner-d"]


async def test_a_lease_that_is_over_is_not_shown(storage: StorageProtocol, tick: float) -> None:
    await storage.request_lock(lock("a", lease=tick))
    await storage.request_lock(lock("b", wait=LONG))
    await let_time_pass(storage, 2 * tick)
    state = await storage.look_at_lock("lock", 10)
    assert (state.held, [waiter.owner for waiter in state.queue]) == (None, ["owner-b"])


async def test_names_and_owners_are_any_text(storage: StorageProtocol) -> None:
    name, owner = "ключ {x}* 1", "a b\nc ключ"
    await storage.request_lock(lock("a", name=name, owner=owner))
    assert isinstance(await storage.request_lock(lock("b", name=name, owner=owner, wait=LONG)), LockQueued)
    state = await storage.look_at_lock(name, 10)
    assert state.held is not None
    assert (state.held.name, state.held.owner) == (name, owner)
    assert [waiter.owner for waiter in state.queue] == [owner]


async def test_whose_place_ran_out_comes_back_as_the_last(storage: StorageProtocol, tick: float) -> None:
    await storage.request_lock(lock("a"))
    for token, wait in (("b", LONG), ("late", tick), ("c", LONG)):
        await storage.request_lock(lock(token, wait=wait))
    await let_time_pass(storage, 2 * tick)
    back = await storage.request_lock(lock("late", wait=LONG))
    assert isinstance(back, LockQueued)
    assert back.ahead == 2
    assert await _waiting(storage) == ["owner-b", "owner-c", "owner-late"]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_locks_are_listed_by_name_whenever_they_end(storage: StorageProtocol, limit: int) -> None:
    for name, lease in (("c", 500.0), ("a", 700.0), ("d", 400.0), ("b", 600.0)):
        await storage.request_lock(lock("t", name=name, lease=lease))
    assert [held.name for held in await storage.list_locks(limit)] == list("abcd")[:limit]
