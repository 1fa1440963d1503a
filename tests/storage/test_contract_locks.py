"""Locks on every storage: one holder, a fence that only rises, a queue in order, and leases that end."""

from __future__ import annotations

from functools import partial

import pytest

from dotmac.tasks.errors import LockLost
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import LockGrant, LockQueued
from storage.stored import LONG, gather, let_time_pass, lock, twice


async def _granted(storage: StorageProtocol, by: str, *, name: str = "lock", lease: float = LONG) -> LockGrant:
    answer = await storage.request_lock(lock(by, name=name, lease=lease))
    assert isinstance(answer, LockGrant)
    return answer


async def _queued(storage: StorageProtocol, by: str, wait: float = LONG, lease: float = LONG) -> LockQueued:
    answer = await storage.request_lock(lock(by, wait=wait, lease=lease))
    assert isinstance(answer, LockQueued)
    return answer


async def test_a_free_lock_is_granted_and_listed(storage: StorageProtocol) -> None:
    grant = await _granted(storage, "a", lease=10.0)
    (record,) = await storage.list_locks(10)
    assert (record.name, record.owner, record.token, record.fence) == ("lock", "owner-a", "a", grant.fence)
    assert (record.until, record.waiters) == (grant.until, 0)
    assert record.until - record.since == pytest.approx(10.0)


async def test_a_request_sent_again_is_the_same_grant(storage: StorageProtocol) -> None:
    grant = await twice(lambda: storage.request_lock(lock("a")))
    assert isinstance(grant, LockGrant)
    assert len(await storage.list_locks(10)) == 1


async def test_a_held_lock_is_granted_to_nobody_else(storage: StorageProtocol, tick: float) -> None:
    grant = await _granted(storage, "a", lease=4 * tick)
    refused = await storage.request_lock(lock("b"))
    assert isinstance(refused, LockQueued)
    assert 0 < refused.retry_after <= 4 * tick
    (record,) = await storage.list_locks(10)
    assert (record.token, record.fence, record.waiters) == ("a", grant.fence, 0)  # b did not want to wait


async def test_of_many_that_ask_at_once_one_gets_it(storage: StorageProtocol) -> None:
    answers = await gather(*(partial(storage.request_lock, lock(f"t{number}")) for number in range(50)))
    assert sum(isinstance(answer, LockGrant) for answer in answers) == 1
    assert sum(isinstance(answer, LockQueued) for answer in answers) == 49


async def test_locks_of_other_names_are_other_locks(storage: StorageProtocol) -> None:
    for name in ("b", "ключ {x}*", "a"):
        await _granted(storage, f"for {name}", name=name)
    assert [record.name for record in await storage.list_locks(10)] == ["a", "b", "ключ {x}*"]
    assert [record.name for record in await storage.list_locks(2)] == ["a", "b"]
    assert await storage.free_lock("b", "for a") is False
    assert len(await storage.list_locks(10)) == 3


async def test_the_fence_rises_with_every_grant(storage: StorageProtocol, tick: float) -> None:
    """By release, by the lease's end, and when the name was long forgotten in between."""
    fences = []
    for number in range(12):
        token = f"t{number}"
        fences.append((await _granted(storage, token, lease=tick)).fence)
        if number % 3 == 0:
            await let_time_pass(storage, 2 * tick)
            await storage.list_locks(10)
            await storage.purge(100)
        else:
            assert await storage.free_lock("lock", token) is True
    assert fences == sorted(set(fences))


async def test_a_lease_ends_by_itself(storage: StorageProtocol, tick: float) -> None:
    first = await _granted(storage, "a", lease=tick)
    await let_time_pass(storage, 2 * tick)
    assert await storage.list_locks(10) == []
    second = await _granted(storage, "b")
    assert second.fence > first.fence


async def test_extending_keeps_the_lock_and_its_fence(storage: StorageProtocol, tick: float) -> None:
    grant = await _granted(storage, "a", lease=2 * tick)
    for _ in range(3):
        await let_time_pass(storage, tick)
        until = await storage.extend_lock("lock", "a", 2 * tick)
        assert isinstance(await storage.request_lock(lock("b")), LockQueued)
    (record,) = await storage.list_locks(10)
    assert (record.token, record.fence, record.until) == ("a", grant.fence, until)


async def test_a_lost_lease_is_never_revived(storage: StorageProtocol, tick: float) -> None:
    await _granted(storage, "a", lease=tick)
    await let_time_pass(storage, 2 * tick)
    for _ in range(2):
        with pytest.raises(LockLost):
            await storage.extend_lock("lock", "a", LONG)
    assert await storage.list_locks(10) == []
    assert await storage.free_lock("lock", "a") is False
    await _granted(storage, "b")


async def test_who_lost_the_lock_leaves_the_next_owner_alone(storage: StorageProtocol, tick: float) -> None:
    """Fault 15: a plain delete freed whoever held the lock by then."""
    await _granted(storage, "a", lease=tick)
    await let_time_pass(storage, 2 * tick)
    await _granted(storage, "b")
    before = await storage.list_locks(10)
    with pytest.raises(LockLost):
        await storage.extend_lock("lock", "a", LONG)
    assert await storage.free_lock("lock", "a") is False
    assert await storage.list_locks(10) == before
    assert isinstance(await storage.request_lock(lock("a")), LockQueued)


async def test_a_lock_is_freed_once(storage: StorageProtocol) -> None:
    await _granted(storage, "a")
    assert await storage.free_lock("lock", "a") is True
    assert await storage.list_locks(10) == []
    assert await storage.free_lock("lock", "a") is False
    with pytest.raises(LockLost):
        await storage.extend_lock("lock", "a", LONG)


async def test_a_lock_that_never_was(storage: StorageProtocol) -> None:
    with pytest.raises(LockLost):
        await storage.extend_lock("nothing", "a", LONG)
    assert await storage.free_lock("nothing", "a") is False
    assert await storage.list_locks(10) == []


async def test_waiters_are_served_in_order_of_arrival(storage: StorageProtocol) -> None:
    await _granted(storage, "a")
    assert [(await _queued(storage, name)).ahead for name in "bcd"] == [0, 1, 2]
    (record,) = await storage.list_locks(10)
    assert record.waiters == 3
    assert [(await _queued(storage, name)).ahead for name in "dcb"] == [2, 1, 0]  # asking again keeps the place
    holder = "a"
    for following in "bcd":
        await storage.free_lock("lock", holder)
        for other in set("bcd") - {following}:
            if other > following:
                await _queued(storage, other)
        assert isinstance(await storage.request_lock(lock("late")), LockQueued)  # nobody overtakes the head
        assert isinstance(await storage.request_lock(lock(following, wait=LONG)), LockGrant)
        holder = following
    (record,) = await storage.list_locks(10)
    assert record.waiters == 0


async def test_a_waiter_that_gives_up_makes_room(storage: StorageProtocol) -> None:
    await _granted(storage, "a")
    await _queued(storage, "b")
    await _queued(storage, "c")
    assert await storage.free_lock("lock", "b") is False
    assert (await _queued(storage, "c")).ahead == 0
    await storage.free_lock("lock", "a")
    assert isinstance(await storage.request_lock(lock("c", wait=LONG)), LockGrant)


async def test_a_waiter_that_died_holds_up_nobody_for_longer_than_its_place_lasts(
    storage: StorageProtocol, tick: float
) -> None:
    await _granted(storage, "a")
    await _queued(storage, "dead", wait=2 * tick)
    await _queued(storage, "b")
    await storage.free_lock("lock", "a")
    behind = await _queued(storage, "b")
    assert behind.ahead == 1
    assert 0 < behind.retry_after <= 2 * tick
    await let_time_pass(storage, 3 * tick)
    assert isinstance(await storage.request_lock(lock("b", wait=LONG)), LockGrant)
    assert isinstance(await storage.request_lock(lock("dead")), LockQueued)


async def test_asking_again_in_time_keeps_the_place(storage: StorageProtocol, tick: float) -> None:
    await _granted(storage, "a")
    await _queued(storage, "b", wait=2 * tick)
    await _queued(storage, "c")
    for _ in range(3):
        await let_time_pass(storage, tick)
        assert (await _queued(storage, "b", wait=2 * tick)).ahead == 0
    assert (await _queued(storage, "c")).ahead == 1


async def test_an_expired_lock_goes_to_the_head_of_the_queue(storage: StorageProtocol, tick: float) -> None:
    await _granted(storage, "a", lease=tick)
    first = await _queued(storage, "b")
    assert 0 < first.retry_after <= tick
    await let_time_pass(storage, 2 * tick)
    assert isinstance(await storage.request_lock(lock("newcomer", wait=LONG)), LockQueued)
    assert isinstance(await storage.request_lock(lock("b", wait=LONG)), LockGrant)
