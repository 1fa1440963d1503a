"""Journals of a newer format on every storage: refused before anything is owned, left to others, still listed."""

from __future__ import annotations

import pytest

from dotmac.tasks.errors import OwnershipLost, UnreadableSaga
from dotmac.tasks.saga.events import JOURNAL_FORMAT
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import SagaFilter
from storage.stored import FAILED, LONG, RUNNING, adoption, entry, head, let_time_pass, put_saga, whole

NEWER = JOURNAL_FORMAT + 1
FUTURE = b'[{"e":"from_the_future"}]'


async def test_an_ordinary_journal_needs_the_present_format(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.append(entry(meta))
    assert (await head(storage, meta.saga_id)).format == JOURNAL_FORMAT


@pytest.mark.parametrize("by", ["create", "append"])
async def test_a_newer_journal_is_refused_before_anything_is_owned(
    storage: StorageProtocol, tick: float, by: str
) -> None:
    due_at = storage.now()
    if by == "create":
        meta = await put_saga(storage, format=NEWER, events=FUTURE, due_at=due_at)
    else:
        meta = await put_saga(storage, owner="w1")
        await storage.append(entry(meta, format=NEWER, events=FUTURE, release=True, due_at=due_at))
    meta = await head(storage, meta.saga_id)
    assert meta.format == NEWER
    with pytest.raises(UnreadableSaga, match=f"needs format {NEWER}, this process reads format {JOURNAL_FORMAT}"):
        await storage.adopt_saga(adoption(meta, pause=2 * tick))
    after = await whole(storage, meta.saga_id)
    assert (after.meta.owner, after.meta.epoch, after.meta.length) == (None, meta.epoch, meta.length)
    assert await storage.due_sagas(10) == []
    await let_time_pass(storage, 3 * tick)
    assert [saga.saga_id for saga in await storage.due_sagas(10)] == [meta.saga_id]
    record = await storage.adopt_saga(adoption(meta, "newer worker", reads=NEWER))
    assert (record.meta.owner, record.meta.format) == ("newer worker", NEWER)


async def test_the_format_of_a_journal_never_falls(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.append(entry(meta, format=NEWER))
    meta = await head(storage, meta.saga_id)
    await storage.append(entry(meta, format=JOURNAL_FORMAT))
    assert (await head(storage, meta.saga_id)).format == NEWER


async def test_a_newer_saga_of_a_lost_worker_leaves_its_owner(storage: StorageProtocol, tick: float) -> None:
    await storage.register_worker("w1", LONG, {})
    meta = await put_saga(storage, owner="w1", format=NEWER, events=FUTURE, status=RUNNING)
    with pytest.raises(UnreadableSaga):
        await storage.adopt_saga(adoption(meta, pause=tick))
    assert await storage.orphaned_sagas("w1", 10) == []
    with pytest.raises(OwnershipLost):
        await storage.append(entry(meta))
    await let_time_pass(storage, 2 * tick)
    (found,) = await storage.due_sagas(10)
    record = await storage.adopt_saga(adoption(await head(storage, found.saga_id), "w3", reads=NEWER))
    assert record.meta.owner == "w3"


async def test_a_newer_saga_that_waits_to_be_asked_for_stays_as_it_is(storage: StorageProtocol, tick: float) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.append(entry(meta, FAILED, format=NEWER))
    parked = await head(storage, meta.saga_id)
    with pytest.raises(UnreadableSaga):
        await storage.adopt_saga(adoption(parked, expected_length=parked.length, pause=tick))
    assert await head(storage, meta.saga_id) == parked
    await let_time_pass(storage, 2 * tick)
    assert await storage.due_sagas(10) == []


async def test_a_newer_saga_is_listed(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, format=NEWER, events=FUTURE)
    assert (await storage.list_sagas(SagaFilter(), 10)).sagas == [meta]


async def test_a_long_journal_is_read_whole(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    sizes = [10, 300_000, 10, 70_000, 70_000, 70_000, 70_000, 400_000, *[20] * 700]
    for size in sizes:
        await storage.append(entry(await head(storage, meta.saga_id), events=b'["' + b"x" * size + b'"]'))
    meta = await head(storage, meta.saga_id)
    loaded = await whole(storage, meta.saga_id)
    assert [len(line.events) - 4 for line in loaded.journal[1:]] == sizes
    adopted = await storage.adopt_saga(adoption(meta))
    assert adopted.journal[:-1] == loaded.journal
    assert len(adopted.journal) == adopted.meta.length
