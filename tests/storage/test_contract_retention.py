"""Retention on every storage: what is past its time goes, in batches; everything else stays."""

from __future__ import annotations

import pytest
import trio

from dotmac.tasks.errors import SagaNotFound
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import SagaFilter, SagaMeta
from storage.stored import (
    COMPLETED,
    FAILED,
    LONG,
    RUNNING,
    UNDONE,
    adoption,
    claim,
    done,
    entry,
    head,
    let_time_pass,
    new_record,
    put_saga,
)


async def _purge(storage: StorageProtocol, limit: int = 100) -> int:
    """Purge until nothing more is to be removed; how many sagas that were."""
    removed = 0
    for _ in range(100):
        purged = await storage.purge(limit)
        assert purged.sagas <= limit
        assert purged.records <= limit
        removed += purged.sagas
        if not purged.more:
            return removed
    raise AssertionError("it says for ever that there is more")


async def _ended(
    storage: StorageProtocol, retention: float | None, status: OperationStatus = COMPLETED, **changes: object
) -> SagaMeta:
    meta = await put_saga(storage, owner="w1", **changes)
    await storage.append(entry(meta, status, retention=retention))
    return meta


async def _is_there(storage: StorageProtocol, meta: SagaMeta) -> bool:
    return await storage.saga_meta(meta.saga_id) is not None


@pytest.mark.parametrize("status", [COMPLETED, UNDONE])
async def test_an_ended_saga_is_forgotten_after_its_retention(
    storage: StorageProtocol, tick: float, status: OperationStatus
) -> None:
    meta = await _ended(storage, 4 * tick, status)  # three more than are waited for: a busy machine can stand still
    await storage.append_saga_history(meta.saga_id, {"event": "note"})
    await let_time_pass(storage, tick)
    assert await _purge(storage) == 0
    assert await _is_there(storage, meta)
    await let_time_pass(storage, 4 * tick)
    assert await _purge(storage) == 1
    assert await storage.load_saga(meta.saga_id) is None
    assert await storage.saga_meta(meta.saga_id) is None
    assert (await storage.list_sagas(SagaFilter(), 10)).sagas == []
    assert (await storage.list_sagas(SagaFilter(status=status), 10)).sagas == []
    with pytest.raises(SagaNotFound):
        await storage.append_saga_history(meta.saga_id, {"event": "late"})
    with pytest.raises(SagaNotFound):
        await storage.request_cancel(meta.saga_id, "late")


async def test_what_is_not_past_its_time_stays(storage: StorageProtocol, tick: float) -> None:
    """Fault 5: the cleanup compared a creation time with now, and removed every live key."""
    await storage.create_record(new_record("pending"))
    await claim(storage, "claimed")
    await claim(storage, "ended")
    await storage.complete_record(done("ended"))
    kept = [
        await put_saga(storage),
        await put_saga(storage, due_at=storage.now()),
        await put_saga(storage, owner="w1", status=RUNNING, key=new_record("linked", ttl=tick)),
        await _ended(storage, LONG),
        await _ended(storage, None),
        await _ended(storage, None, FAILED),
    ]
    await let_time_pass(storage, 3 * tick)
    for _ in range(3):
        purged = await storage.purge(100)
        assert (purged.sagas, purged.records, purged.more) == (0, 0, False)
    assert all([await _is_there(storage, meta) for meta in kept])
    for key in ("pending", "claimed", "ended", "linked"):
        assert await storage.get_record(key) is not None


async def test_expired_records_go(storage: StorageProtocol, tick: float) -> None:
    await storage.create_record(new_record("pending", ttl=tick))
    await claim(storage, "claimed", lease=tick, new=new_record("claimed", ttl=tick))
    await claim(storage, "ended")
    await storage.complete_record(done("ended", ttl=tick))
    await let_time_pass(storage, 2 * tick)
    await _purge(storage)
    for key in ("pending", "claimed", "ended"):
        assert await storage.get_record(key) is None


async def test_much_is_removed_in_batches(storage: StorageProtocol, tick: float) -> None:
    for number in range(25):
        await _ended(storage, tick)
        await storage.create_record(new_record(f"k{number}", ttl=tick))
    stays = await _ended(storage, LONG)
    await let_time_pass(storage, 2 * tick)
    first = await storage.purge(10)
    assert (first.sagas, first.more) == (10, True)
    assert await _purge(storage, 10) == 15
    assert [meta.saga_id for meta in (await storage.list_sagas(SagaFilter(), 100)).sagas] == [stays.saga_id]


async def test_several_that_purge_at_once_remove_each_thing_once(storage: StorageProtocol, tick: float) -> None:
    """Every process has a janitor."""
    for _ in range(30):
        await _ended(storage, tick)
    await let_time_pass(storage, 2 * tick)
    removed: list[int] = []

    async def janitor() -> None:
        removed.append(await _purge(storage, 7))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(janitor)
    removed.append(await _purge(storage, 7))  # one may leave the rest to another that is at it
    assert sum(removed) == 30
    assert (await storage.list_sagas(SagaFilter(), 10)).sagas == []


async def test_a_parked_saga_that_was_resumed_has_the_retention_of_its_new_end(
    storage: StorageProtocol, tick: float
) -> None:
    meta = await _ended(storage, 2 * tick, FAILED)
    taken = (await storage.adopt_saga(adoption(await head(storage, meta.saga_id)))).meta
    await storage.append(entry(taken, RUNNING))
    await storage.append(entry(await head(storage, meta.saga_id), FAILED))
    await let_time_pass(storage, 3 * tick)
    assert await _purge(storage) == 0
    assert await _is_there(storage, meta)


async def test_a_saga_that_somebody_owns_is_not_forgotten_under_its_hands(
    storage: StorageProtocol, tick: float
) -> None:
    """Whoever looks at an ended saga in this moment gives it back; then its time counts as before."""
    meta = await _ended(storage, tick)
    taken = (await storage.adopt_saga(adoption(await head(storage, meta.saga_id)))).meta
    await let_time_pass(storage, 2 * tick)
    assert await _purge(storage) == 0
    assert [saga.saga_id for saga in await storage.orphaned_sagas("w2", 10)] == [meta.saga_id]
    await storage.release_saga(meta.saga_id, taken.epoch, None)
    assert await _purge(storage) == 1
    assert not await _is_there(storage, meta)


async def test_the_key_of_a_forgotten_saga_still_answers(storage: StorageProtocol, tick: float) -> None:
    meta = await put_saga(storage, owner="w1", key=new_record())
    await storage.append(entry(meta, COMPLETED, retention=tick, completion=done(by=None)))
    await let_time_pass(storage, 2 * tick)
    await _purge(storage)
    record = await storage.get_record("key")
    assert record is not None
    assert (record.status, record.saga_id) == (COMPLETED, meta.saga_id)


async def test_cleaning_up_under_load_hinders_nobody(storage: StorageProtocol) -> None:
    """Fault 6: the cleanup locked itself out, and with it every other call for ever."""
    stop = trio.Event()

    async def purge() -> None:
        while not stop.is_set():
            await storage.purge(3)

    async def work(number: int) -> None:
        for step in range(10):
            meta = await _ended(storage, 0.0)
            await storage.create_record(new_record(f"{number}.{step}", ttl=LONG))
            await storage.saga_meta(meta.saga_id)

    with trio.fail_after(60):
        async with trio.open_nursery() as janitors:
            janitors.start_soon(purge)
            janitors.start_soon(purge)
            async with trio.open_nursery() as workers:
                for number in range(20):
                    workers.start_soon(work, number)
            stop.set()
        await _purge(storage)
    assert (await storage.list_sagas(SagaFilter(), 10)).sagas == []
    for number in range(20):
        assert await storage.get_record(f"{number}.9") is not None
