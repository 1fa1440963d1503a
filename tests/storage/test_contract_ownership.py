"""Who runs a saga next, on every storage: release, due times, lost workers, cancel requests, and the lease."""

from __future__ import annotations

from functools import partial

import pytest

from dotmac.tasks.errors import OwnershipLost
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import AdoptableSaga
from storage.stored import (
    CLOCK_ERROR,
    COMPLETED,
    FAILED,
    LONG,
    RUNNING,
    UNDOING,
    UNDONE,
    adoption,
    entry,
    gather,
    head,
    let_time_pass,
    put_saga,
    twice,
    whole,
)


async def _due(storage: StorageProtocol) -> list[str]:
    return [saga.saga_id for saga in await storage.due_sagas(100)]


# --- release and due times ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_entry", [False, True], ids=["alone", "with an entry"])
async def test_a_released_saga_is_due_at_its_time_and_not_before(
    storage: StorageProtocol, tick: float, *, by_entry: bool
) -> None:
    meta = await put_saga(storage, owner="w1", priority=3)
    due_at = storage.now() + 2 * tick
    if by_entry:
        await storage.append(entry(meta, release=True, due_at=due_at))
    else:
        await storage.release_saga(meta.saga_id, 1, due_at)
    after = await head(storage, meta.saga_id)
    assert (after.owner, after.epoch) == (None, 1)
    assert after.due_at == pytest.approx(due_at, abs=1e-5)
    assert await _due(storage) == []
    assert await storage.orphaned_sagas("w1", 10) == []
    await let_time_pass(storage, 3 * tick)
    assert await storage.due_sagas(10) == [AdoptableSaga(meta.saga_id, 1, 3, None)]


@pytest.mark.parametrize("by_entry", [False, True], ids=["alone", "with an entry"])
async def test_released_without_a_time_it_waits_to_be_asked_for(storage: StorageProtocol, *, by_entry: bool) -> None:
    meta = await put_saga(storage, owner="w1")
    if by_entry:
        await storage.append(entry(meta, release=True))
    else:
        await storage.release_saga(meta.saga_id, 1, None)
    assert await _due(storage) == []
    assert (await storage.adopt_saga(adoption(await head(storage, meta.saga_id)))).meta.epoch == 2


async def test_an_entry_that_keeps_the_saga_makes_it_due_for_nobody(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.append(entry(meta, due_at=storage.now()))
    assert await _due(storage) == []
    after = await head(storage, meta.saga_id)
    assert (after.owner, after.due_at) == ("w1", None)


async def test_a_release_sent_again_changes_nothing(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    due_at = storage.now() + LONG
    await storage.release_saga(meta.saga_id, 1, due_at)
    before = await whole(storage, meta.saga_id)
    await storage.release_saga(meta.saga_id, 1, due_at)
    assert await whole(storage, meta.saga_id) == before


async def test_a_release_sent_again_does_not_put_off_what_was_asked_meanwhile(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.release_saga(meta.saga_id, 1, storage.now() + LONG)
    await storage.request_cancel(meta.saga_id, "why")
    await storage.release_saga(meta.saga_id, 1, storage.now() + LONG)
    assert await _due(storage) == [meta.saga_id]


async def test_an_adopted_saga_is_due_no_more(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, due_at=storage.now())
    assert await _due(storage) == [meta.saga_id]
    taken = (await storage.adopt_saga(adoption(meta))).meta
    assert taken.due_at is None
    assert await _due(storage) == []


async def test_due_sagas_come_by_priority(storage: StorageProtocol) -> None:
    made = {}
    for priority in (0, 9, 3, 9, 1, 0):
        made[(await put_saga(storage, priority=priority, due_at=storage.now())).saga_id] = priority
    found = await storage.due_sagas(10)
    assert {saga.saga_id: saga.priority for saga in found} == made
    assert [saga.priority for saga in found] == [9, 9, 3, 1, 0, 0]
    assert [saga.priority for saga in await storage.due_sagas(3)] == [9, 9, 3]


async def test_a_due_saga_that_many_find_is_adopted_once(storage: StorageProtocol) -> None:
    for _ in range(5):
        await put_saga(storage, due_at=storage.now())
    found = await storage.due_sagas(10)
    assert len(found) == 5
    heads = [await head(storage, saga.saga_id) for saga in found]
    answers = await gather(*(partial(storage.adopt_saga, adoption(meta, f"n{n}")) for meta in heads for n in range(4)))
    assert sum(isinstance(answer, OwnershipLost) for answer in answers) == 15
    assert {(await head(storage, meta.saga_id)).epoch for meta in heads} == {1}


# --- lost workers ---------------------------------------------------------------------------------------------


async def test_orphans_are_the_sagas_a_worker_owned_by_priority(storage: StorageProtocol) -> None:
    low = await put_saga(storage, owner="w1", priority=1)
    high = await put_saga(storage, owner="w1", priority=5)
    await put_saga(storage, owner="w2")
    ended, released = [await put_saga(storage, owner="w1") for _ in range(2)]
    await storage.append(entry(ended, COMPLETED))
    await storage.release_saga(released.saga_id, 1, None)
    expected = [AdoptableSaga(high.saga_id, 1, 5, "w1"), AdoptableSaga(low.saga_id, 1, 1, "w1")]
    assert await storage.orphaned_sagas("w1", 10) == expected
    assert await storage.orphaned_sagas("w1", 1) == expected[:1]
    assert await storage.orphaned_sagas("nobody", 10) == []


async def test_who_decided_by_an_older_journal_does_not_get_the_saga_from_its_owner(storage: StorageProtocol) -> None:
    judged = await put_saga(storage, owner="w1")
    await storage.append(entry(judged))
    with pytest.raises(OwnershipLost):
        await storage.adopt_saga(adoption(judged, "w2", expected_length=judged.length))
    now = await head(storage, judged.saga_id)
    assert (now.owner, now.epoch, now.length) == ("w1", 1, 2)
    wish = adoption(now, "w2", expected_length=now.length)
    taken = (await twice(partial(storage.adopt_saga, wish))).meta
    assert (taken.owner, taken.epoch, taken.length) == ("w2", 2, 3)


async def test_an_adopted_orphan_belongs_to_its_new_worker(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.adopt_saga(adoption(meta, "w2"))
    assert await storage.orphaned_sagas("w1", 10) == []
    assert await storage.orphaned_sagas("w2", 10) == [AdoptableSaga(meta.saga_id, 2, 0, "w2")]


# --- cancel requests ------------------------------------------------------------------------------------------


async def test_a_cancel_request_reaches_the_owner_with_each_answer(storage: StorageProtocol) -> None:
    await storage.register_worker("w1", LONG, {})
    meta = await put_saga(storage, owner="w1", status=RUNNING)
    assert (await storage.renew_worker("w1", LONG)).cancels == []
    asked = await twice(lambda: storage.request_cancel(meta.saga_id, "why"))
    assert (asked.cancel, asked.owner, asked.due_at) == ("why", "w1", None)
    assert await head(storage, meta.saga_id) == asked
    for _ in range(2):  # an answer can be lost, so it is told until the saga leaves the worker
        assert (await storage.renew_worker("w1", LONG)).cancels == [meta.saga_id]
    line = entry(meta)
    assert (await twice(lambda: storage.append(line))).cancel == "why"
    assert (await storage.renew_worker("w1", LONG)).cancels == [meta.saga_id]


@pytest.mark.parametrize("how", ["ended", "given up", "released", "adopted"])
async def test_a_worker_hears_no_more_of_sagas_that_left_it(storage: StorageProtocol, how: str) -> None:
    for worker in ("w1", "w2"):
        await storage.register_worker(worker, LONG, {})
    meta, stays = [await put_saga(storage, owner="w1") for _ in range(2)]
    for each in (meta, stays):
        await storage.request_cancel(each.saga_id, "why")
    if how == "ended":
        await storage.append(entry(meta, UNDONE))
    elif how == "given up":
        await storage.append(entry(meta, release=True))
    elif how == "released":
        await storage.release_saga(meta.saga_id, 1, None)
    else:
        assert (await storage.adopt_saga(adoption(meta, "w2"))).meta.cancel == "why"
    assert (await storage.renew_worker("w1", LONG)).cancels == [stays.saga_id]


@pytest.mark.parametrize("by_entry", [False, True], ids=["alone", "with an entry"])
async def test_a_saga_released_with_an_unseen_cancel_request_is_due_at_once(
    storage: StorageProtocol, *, by_entry: bool
) -> None:
    """The request and the owner's long pause cross: the saga must not sleep on a request that was accepted."""
    meta = await put_saga(storage, owner="w1", status=RUNNING)
    await storage.request_cancel(meta.saga_id, "why")
    if by_entry:
        line = entry(meta, release=True, due_at=storage.now() + LONG)
        assert (await twice(lambda: storage.append(line))).cancel == "why"
    else:
        await storage.release_saga(meta.saga_id, 1, storage.now() + LONG)
    assert await _due(storage) == [meta.saga_id]


async def test_a_request_of_an_earlier_ownership_does_not_hasten_a_later_release(storage: StorageProtocol) -> None:
    """The adopter read the request with the saga; a back-off after that is meant as it is said."""
    meta = await put_saga(storage, owner="w1", status=RUNNING)
    await storage.request_cancel(meta.saga_id, "why")
    taken = (await storage.adopt_saga(adoption(meta))).meta
    assert taken.cancel == "why"
    await storage.append(entry(taken, OperationStatus.COMPENSATING, release=True, due_at=storage.now() + LONG))
    assert await _due(storage) == []
    assert (await head(storage, meta.saga_id)).cancel == "why"


async def test_a_cancel_request_makes_an_unowned_saga_due(storage: StorageProtocol) -> None:
    never = await put_saga(storage)
    later = await put_saga(storage, due_at=storage.now() + LONG)
    for meta in (never, later):
        asked = await twice(partial(storage.request_cancel, meta.saga_id, "why"))
        assert (asked.cancel, asked.owner) == ("why", None)
        assert asked.due_at is not None
        assert asked.due_at <= storage.now() + CLOCK_ERROR
        assert (await storage.adopt_saga(adoption(asked))).meta.cancel == "why"


@pytest.mark.parametrize("status", [COMPLETED, UNDONE, FAILED])
async def test_a_cancel_request_leaves_an_ended_saga_alone(storage: StorageProtocol, status: OperationStatus) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.append(entry(meta, status))
    before = await head(storage, meta.saga_id)
    assert await storage.request_cancel(meta.saga_id, "why") == before
    assert await head(storage, meta.saga_id) == before
    assert await _due(storage) == []


async def test_the_end_of_a_saga_answers_its_cancel_request(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.request_cancel(meta.saga_id, "why")
    assert (await storage.append(entry(meta, UNDONE))).cancel is None
    assert (await head(storage, meta.saga_id)).cancel is None


async def test_a_completion_and_a_cancel_request_exclude_each_other(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    last = entry(meta, COMPLETED, unless_cancelled=True)
    await storage.request_cancel(meta.saga_id, "why")
    before = await whole(storage, meta.saga_id)
    refused = await twice(lambda: storage.append(last))
    assert (refused.at, refused.cancel) == (None, "why")
    assert await whole(storage, meta.saga_id) == before

    line = entry(meta, UNDOING, entry_id=last.entry_id, events=b"[1]")
    assert (await storage.append(line)).at is not None
    assert (await whole(storage, meta.saga_id)).journal[-1].events == b"[1]"


async def test_a_completion_without_a_cancel_request_is_written_once(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    last = entry(meta, COMPLETED, unless_cancelled=True)
    assert (await twice(lambda: storage.append(last))).at is not None
    assert (await storage.request_cancel(meta.saga_id, "late")).status is COMPLETED
    assert (await storage.append(last)).at is not None
    assert (await head(storage, meta.saga_id)).cancel is None


async def test_the_reason_of_the_first_cancel_request_is_kept(storage: StorageProtocol) -> None:
    for owner in (None, "w1"):
        meta = await put_saga(storage, owner=owner)
        for reason in ("first", "second"):
            assert (await storage.request_cancel(meta.saga_id, reason)).cancel == "first"
