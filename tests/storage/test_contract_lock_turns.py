"""What a process that hands a lock on to its own waiters needs of every storage: fences in reserve, and turns."""

from __future__ import annotations

from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import LockGrant, LockQueued
from storage.stored import LONG, let_time_pass, lock, twice, woken


async def test_reserved_fences_lie_between_those_of_other_grants(storage: StorageProtocol, tick: float) -> None:
    seen = []
    for number in range(6):
        grant = await storage.request_lock(lock(f"t{number}", lease=tick, fences=1 + 500 * (number % 2)))
        assert isinstance(grant, LockGrant)
        (record,) = await storage.list_locks(10)
        assert record.fence == grant.fence
        seen += [grant.fence, grant.fence + 500 * (number % 2)]
        if number % 3:
            await storage.free_lock("lock", f"t{number}")
        else:
            await let_time_pass(storage, 2 * tick)
    assert seen == sorted(seen)
    assert len(set(seen)) == 9


async def test_asked_again_a_grant_has_the_same_reserve(storage: StorageProtocol) -> None:
    await twice(lambda: storage.request_lock(lock("a", fences=10)))
    after = await storage.request_lock(lock("b", instead_of="a"))
    assert isinstance(after, LockGrant)
    assert [record.token for record in await storage.list_locks(10)] == ["b"]


async def test_giving_up_and_asking_anew_is_one_step_and_goes_to_the_end_of_the_queue(
    storage: StorageProtocol,
) -> None:
    await storage.request_lock(lock("a"))
    await storage.request_lock(lock("other", wait=LONG))
    async with storage.watch("wake-other") as hint:
        for _ in range(2):  # the second time as after a lost answer
            queued = await storage.request_lock(lock("a again", wait=LONG, instead_of="a"))
            assert isinstance(queued, LockQueued)
            assert queued.ahead == 1
        await woken(hint)
    assert await storage.list_locks(10) == []
    assert isinstance(await storage.request_lock(lock("other", wait=LONG)), LockGrant)


async def test_without_others_the_next_turn_begins_at_once(storage: StorageProtocol) -> None:
    first = await storage.request_lock(lock("a", fences=64))
    second = await twice(lambda: storage.request_lock(lock("b", instead_of="a")))
    assert isinstance(first, LockGrant)
    assert isinstance(second, LockGrant)
    assert second.fence > first.fence + 63


async def test_only_the_own_grant_is_given_up(storage: StorageProtocol) -> None:
    await storage.request_lock(lock("a"))
    assert isinstance(await storage.request_lock(lock("c", instead_of="b")), LockQueued)
    assert [record.token for record in await storage.list_locks(10)] == ["a"]


async def test_a_place_in_the_queue_can_be_given_up_too(storage: StorageProtocol) -> None:
    await storage.request_lock(lock("a"))
    await storage.request_lock(lock("b", wait=LONG))
    await storage.request_lock(lock("c", wait=LONG, instead_of="b"))
    (record,) = await storage.list_locks(10)
    assert record.waiters == 1


async def test_an_extension_never_shortens_a_lease(storage: StorageProtocol, tick: float) -> None:
    grant = await storage.request_lock(lock("a", lease=100 * tick))
    assert isinstance(grant, LockGrant)
    assert await storage.extend_lock("lock", "a", tick) == grant.until
    (record,) = await storage.list_locks(10)
    assert record.until == grant.until
