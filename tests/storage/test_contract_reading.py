"""Reading a saga from a position, on every storage: the answer has what is new, or the whole saga."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec import Raw
from msgspec.structs import replace

from dotmac.tasks.saga.snapshots import SNAPSHOT_FORMAT
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import SagaMark, SagaMeta, SagaRecord, Snapshot
from storage.stored import COMPLETED, adoption, entry, head, let_time_pass, put_saga, whole


async def grown(storage: StorageProtocol, entries: int = 3, notes: int = 2, size: int = 10) -> SagaMeta:
    """A saga with so many entries after the first one, and so many notes."""
    meta = await put_saga(storage, owner="w1")
    for _ in range(entries):
        await storage.append(entry(await head(storage, meta.saga_id), events=b'["%s"]' % (b"x" * size)))
    for number in range(notes):
        await storage.append_saga_history(meta.saga_id, {"event": "note", "number": number, "text": "x" * size})
    return await head(storage, meta.saga_id)


async def read(storage: StorageProtocol, saga_id: str, after: SagaMark | None) -> SagaRecord:
    record = await storage.load_saga(saga_id, after)
    assert record is not None
    return record


async def test_an_unchanged_saga_is_read_as_its_head_alone(storage: StorageProtocol) -> None:
    meta = await grown(storage)
    mark = (await whole(storage, meta.saga_id)).mark
    assert (mark.length, mark.notes) == (4, 2)
    again = await read(storage, meta.saga_id, mark)
    assert again == SagaRecord(meta, [], [], after=mark)
    assert again.mark == mark


@pytest.mark.parametrize("size", [10, 90_000], ids=["small", "in pieces"])
async def test_what_was_added_after_a_position_is_read(storage: StorageProtocol, size: int) -> None:
    meta = await grown(storage, 2, 1, size)
    mark = (await whole(storage, meta.saga_id)).mark
    for _ in range(5):
        await storage.append(entry(await head(storage, meta.saga_id), events=b'["%s"]' % (b"y" * size)))
        await storage.append_saga_history(meta.saga_id, {"event": "note", "text": "y" * size})
    record, everything = await read(storage, meta.saga_id, mark), await whole(storage, meta.saga_id)
    assert record == replace(everything, journal=everything.journal[3:], notes=everything.notes[1:], after=mark)
    assert (record.mark, len(record.journal), len(record.notes)) == (everything.mark, 5, 5)


async def test_a_note_alone_is_read_and_a_change_of_the_head_too(storage: StorageProtocol) -> None:
    meta = await grown(storage, notes=0)
    mark = (await whole(storage, meta.saga_id)).mark
    await storage.append_saga_history(meta.saga_id, {"event": "first"})
    await storage.request_cancel(meta.saga_id, "why")
    record = await read(storage, meta.saga_id, mark)
    assert (record.meta.cancel, record.journal, record.after) == ("why", [], mark)
    assert [bytes(note.entry) for note in record.notes] == [b'{"event":"first"}']


async def test_many_large_notes_are_read_in_the_order_in_which_they_were_written(storage: StorageProtocol) -> None:
    meta = await grown(storage, notes=40, size=20_000)
    notes = (await whole(storage, meta.saga_id)).notes
    assert [bytes(note.entry) for note in notes] == [
        b'{"event":"note","number":%d,"text":"%s"}' % (number, b"x" * 20_000) for number in range(40)
    ]
    assert all(earlier.at < later.at for earlier, later in pairwise(notes))


async def test_a_note_is_not_older_than_the_entries_before_it(storage: StorageProtocol) -> None:
    meta = await grown(storage, 30, 1)
    record = await whole(storage, meta.saga_id)
    assert record.notes[0].at >= record.journal[-1].at


async def test_a_snapshot_between_two_readings_changes_nothing(storage: StorageProtocol) -> None:
    meta = await grown(storage, 20, size=5000)
    mark = (await whole(storage, meta.saga_id)).mark
    await storage.keep_snapshot(meta.saga_id, 1, Snapshot(SNAPSHOT_FORMAT, 18, {}, Raw(b"{}")))
    adopted = await storage.adopt_saga(adoption(meta))
    record = await read(storage, meta.saga_id, mark)
    assert (record.after, record.journal, record.meta) == (mark, [adopted.journal[-1]], adopted.meta)


@pytest.mark.parametrize(
    "lost",
    [
        {"length": 9},
        {"entry_id": "another"},
        {"at": 1.0},
        {"notes": 9},
        {"noted_at": 1.0},
    ],
    ids=lambda lost: next(iter(lost)),
)
async def test_a_position_that_the_saga_does_not_contain_gives_the_whole_saga(
    storage: StorageProtocol, lost: dict[str, float | str]
) -> None:
    meta = await grown(storage)
    record = await whole(storage, meta.saga_id)
    assert await read(storage, meta.saga_id, replace(record.mark, **lost)) == record


async def test_a_saga_that_was_replaced_under_its_id_is_read_whole(storage: StorageProtocol, tick: float) -> None:
    meta = await grown(storage)
    mark = (await whole(storage, meta.saga_id)).mark
    await storage.append(entry(meta, COMPLETED, retention=tick))
    await let_time_pass(storage, 2 * tick)
    assert (await storage.purge(10)).sagas == 1
    assert await storage.load_saga(meta.saga_id, mark) is None
    again = await put_saga(storage, saga_id=meta.saga_id, owner="w1")
    for _ in range(5):
        await storage.append(entry(await head(storage, again.saga_id)))
    assert await read(storage, again.saga_id, mark) == await whole(storage, again.saga_id)


async def test_no_saga_has_no_position(storage: StorageProtocol) -> None:
    mark = SagaMark(1, "entry", 1.0)
    for unknown in ("nowhere", storage.new_saga_id()):
        assert await storage.load_saga(unknown, mark) is None
