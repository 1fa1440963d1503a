"""Creating sagas and writing their journals on every storage: one writer, no gap, nothing twice."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from dotmac.tasks.errors import JournalConflict, OwnershipLost, SagaNotFound, SagaStateError
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.saga.events import SagaAdopted, decode_events
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import MICROSECONDS, Appended, SagaRecord, fence_at
from storage.stored import (
    COMPLETED,
    FAILED,
    LONG,
    PENDING,
    RUNNING,
    UNDONE,
    adoption,
    entry,
    gather,
    head,
    let_time_pass,
    new_saga,
    put_saga,
    twice,
    whole,
)


@pytest.fixture(params=["no id at all", "a fresh id"])
def unknown_id(request: pytest.FixtureRequest, storage: StorageProtocol) -> str:
    return "nowhere" if request.param == "no id at all" else storage.new_saga_id()


async def test_a_created_saga_holds_what_was_given(storage: StorageProtocol) -> None:
    new = new_saga(storage, tenant_id="t2", workflow_type="kind", size=3, cursor=2, priority=7, events=b'["\xd0\xba"]')
    meta = (await storage.create_saga(new)).meta
    assert meta is not None
    assert (meta.saga_id, meta.tenant_id, meta.workflow_type) == (new.saga_id, "t2", "kind")
    assert (meta.status, meta.size, meta.cursor, meta.priority) == (PENDING, 3, 2, 7)
    assert (meta.owner, meta.epoch, meta.length, meta.due_at, meta.cancel) == (None, 0, 1, None, None)
    assert meta.idempotency_key is None
    record = await whole(storage, new.saga_id)
    assert record.meta == meta == await head(storage, new.saga_id)
    assert [(line.epoch, line.entry_id, line.events) for line in record.journal] == [(0, new.entry_id, new.events)]
    assert record.journal[0].at == meta.created_at == meta.updated_at
    assert record.notes == []


async def test_a_saga_created_for_a_worker_is_owned_from_its_first_entry(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1", status=RUNNING, due_at=storage.now())
    assert (meta.owner, meta.epoch, meta.due_at) == ("w1", 1, None)
    assert (await whole(storage, meta.saga_id)).journal[0].epoch == 1
    assert await storage.due_sagas(10) == []


async def test_a_creation_sent_again_creates_nothing(storage: StorageProtocol) -> None:
    new = new_saga(storage, owner="w1")
    creation = await twice(lambda: storage.create_saga(new))
    assert creation.created
    assert len((await whole(storage, new.saga_id)).journal) == 1


async def test_a_creation_sent_again_after_the_saga_went_on_leaves_it_alone(storage: StorageProtocol) -> None:
    new = new_saga(storage, owner="w1")
    meta = (await storage.create_saga(new)).meta
    assert meta is not None
    await storage.append(entry(meta, UNDONE))
    before = await whole(storage, new.saga_id)
    assert (await storage.create_saga(new)).created
    assert await whole(storage, new.saga_id) == before


async def test_an_id_that_is_taken_is_refused(storage: StorageProtocol) -> None:
    first = new_saga(storage)
    await storage.create_saga(first)
    with pytest.raises(SagaStateError):
        await storage.create_saga(replace(first, entry_id="other", events=b"[1]", owner="w1"))
    record = await whole(storage, first.saga_id)
    assert record.journal[0].entry_id == first.entry_id
    assert record.meta.owner is None


async def test_of_many_creations_under_one_id_one_wins(storage: StorageProtocol) -> None:
    first = new_saga(storage)
    rivals = [replace(first, entry_id=f"e{number}") for number in range(20)]
    answers = await gather(*(partial(storage.create_saga, each) for each in rivals))
    assert sum(isinstance(answer, SagaStateError) for answer in answers) == 19
    winner = next(i for i, answer in enumerate(answers) if not isinstance(answer, Exception))
    assert (await whole(storage, first.saga_id)).journal[0].entry_id == f"e{winner}"


async def test_entries_follow_each_other_and_change_the_head(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    for number in range(1, 30):
        meta = await head(storage, meta.saga_id)
        wrote = await storage.append(entry(meta, entry_id=f"e{number}", events=b'[{"n":%d}]' % number, cursor=number))
        assert (wrote.cancel, wrote.at is None) == (None, False)
        now = await head(storage, meta.saga_id)
        assert (now.length, now.cursor, now.status, now.updated_at) == (number + 1, number, RUNNING, wrote.at)
        assert (now.owner, now.epoch) == ("w1", 1)
    journal = (await whole(storage, meta.saga_id)).journal
    assert [line.entry_id for line in journal[1:]] == [f"e{number}" for number in range(1, 30)]
    assert [line.events for line in journal[1:]] == [b'[{"n":%d}]' % number for number in range(1, 30)]
    assert sorted(line.at for line in journal) == [line.at for line in journal]


async def test_the_head_tells_when_the_newest_entry_was_written(storage: StorageProtocol, tick: float) -> None:
    meta = await put_saga(storage, owner="w1")
    await let_time_pass(storage, tick)
    wrote = await storage.append(entry(meta))
    after = await head(storage, meta.saga_id)
    assert after.created_at == meta.created_at
    assert wrote.at is not None
    assert after.updated_at == wrote.at >= meta.created_at + tick * 0.9
    await let_time_pass(storage, tick)
    assert (await storage.adopt_saga(adoption(after))).meta.updated_at > after.updated_at


@pytest.mark.parametrize(
    "events",
    [b"[]", '["\U0001f600 \\u0000"]'.encode(), b'[ 1.0,\n "spaces \\" kept" ]', b'["' + b"x" * 2**20 + b'"]'],
    ids=["empty", "unicode", "spelling", "1MiB"],
)
async def test_events_come_back_to_the_byte(storage: StorageProtocol, events: bytes) -> None:
    meta = await put_saga(storage, owner="w1", events=events)
    await storage.append(entry(meta, events=events))
    assert [line.events for line in (await whole(storage, meta.saga_id)).journal] == [events, events]
    adopted = await storage.adopt_saga(adoption(await head(storage, meta.saga_id)))
    assert [line.events for line in adopted.journal[:2]] == [events, events]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": COMPLETED, "retention": LONG},
        {"status": FAILED},
        {"release": True},
        {"release": True, "due_at": 1.0},
        {"release": True, "due_at": 1e10},
    ],
    ids=str,
)
async def test_an_entry_sent_again_is_in_the_journal_once(storage: StorageProtocol, changes: dict[str, object]) -> None:
    line = entry(await put_saga(storage, owner="w1"), **changes)  # type: ignore[arg-type]  # fields by name
    await storage.append(line)
    before = await whole(storage, line.saga_id)
    again = await twice(lambda: storage.append(line))
    assert again == Appended(before.journal[1].at, None)
    assert await whole(storage, line.saga_id) == before


async def test_an_entry_sent_again_after_later_ones_is_still_known(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    first = entry(meta)
    wrote = await storage.append(first)
    await storage.append(entry(await head(storage, meta.saga_id), cursor=5))
    assert (await storage.append(first)).at == wrote.at
    assert (await head(storage, meta.saga_id)).cursor == 5


@pytest.mark.parametrize("sequence", [0, 1, 3, 9], ids=["the first", "taken", "a gap", "far ahead"])
async def test_an_entry_out_of_place_is_a_conflict(storage: StorageProtocol, sequence: int) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.append(entry(meta))
    before = await whole(storage, meta.saga_id)
    with pytest.raises(JournalConflict):
        await storage.append(entry(meta, COMPLETED, sequence=sequence))
    assert await whole(storage, meta.saga_id) == before


async def test_of_many_entries_for_one_place_one_is_written(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    lines = [entry(meta, cursor=number) for number in range(20)]
    answers = await gather(*(partial(storage.append, line) for line in lines))
    assert sum(isinstance(answer, JournalConflict) for answer in answers) == 19
    record = await whole(storage, meta.saga_id)
    winner = next(line for line, answer in zip(lines, answers, strict=True) if isinstance(answer, Appended))
    assert (record.journal[1].entry_id, record.meta.cursor) == (winner.entry_id, winner.cursor)


@pytest.mark.parametrize("epoch", [0, 2], ids=["older", "never given"])
async def test_only_the_newest_epoch_writes(storage: StorageProtocol, epoch: int) -> None:
    meta = await put_saga(storage, owner="w1")
    with pytest.raises(OwnershipLost):
        await storage.append(entry(meta, COMPLETED, epoch=epoch))
    with pytest.raises(OwnershipLost):
        await storage.release_saga(meta.saga_id, epoch, None)
    assert (await whole(storage, meta.saga_id)).meta == meta


async def test_who_gave_the_saga_up_writes_no_more(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.release_saga(meta.saga_id, meta.epoch, None)
    with pytest.raises(JournalConflict):
        await storage.append(entry(meta))
    assert (await head(storage, meta.saga_id)).length == 1


@pytest.mark.parametrize("status", [COMPLETED, UNDONE, FAILED])
async def test_a_final_entry_gives_the_saga_up(storage: StorageProtocol, status: OperationStatus) -> None:
    meta = await put_saga(storage, owner="w1")
    await storage.append(entry(meta, status, due_at=1.0))
    after = await head(storage, meta.saga_id)
    assert (after.status, after.owner, after.due_at) == (status, None, None)
    assert await storage.due_sagas(10) == []
    assert await storage.orphaned_sagas("w1", 10) == []


async def test_unknown_sagas(storage: StorageProtocol, unknown_id: str) -> None:
    assert await storage.load_saga(unknown_id) is None
    assert await storage.saga_meta(unknown_id) is None
    line = replace(entry(await put_saga(storage, owner="w1")), saga_id=unknown_id)
    wish = replace(adoption(await put_saga(storage)), saga_id=unknown_id)
    for call in (
        partial(storage.append, line),
        partial(storage.adopt_saga, wish),
        partial(storage.release_saga, unknown_id, 1, None),
        partial(storage.request_cancel, unknown_id, "why"),
    ):
        with pytest.raises(SagaNotFound):
            await call()


async def test_adoption_gives_the_journal_without_notes_and_is_journaled(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1", status=RUNNING)
    await storage.append(entry(meta, cursor=3))
    await storage.append_saga_history(meta.saga_id, {"event": "note"})
    before = await whole(storage, meta.saga_id)
    adopted = await storage.adopt_saga(adoption(before.meta, "w2", entry_id="mine"))
    after = await whole(storage, meta.saga_id)
    assert adopted == replace(after, notes=[])
    assert adopted.journal[:-1] == before.journal
    assert after.notes == before.notes
    assert [bytes(note.entry) for note in after.notes] == [b'{"event":"note"}']
    newest = adopted.journal[-1]
    assert (newest.epoch, newest.entry_id, newest.at) == (2, "mine", adopted.meta.updated_at)
    assert decode_events(newest.events) == [SagaAdopted("w2", 2, "w1")]
    assert (adopted.meta.owner, adopted.meta.epoch, adopted.meta.length) == ("w2", 2, 3)
    assert (adopted.meta.status, adopted.meta.cursor) == (RUNNING, 3)


async def test_an_adoption_sent_again_is_the_same_adoption(storage: StorageProtocol) -> None:
    meta = await put_saga(storage)
    wish = adoption(meta, previous=None)
    record = await twice(lambda: storage.adopt_saga(wish))
    assert (record.meta.epoch, record.meta.length) == (1, 2)
    assert decode_events(record.journal[-1].events) == [SagaAdopted("w2", 1, None)]


async def test_of_many_adopters_one_gets_the_saga(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    wishes = [adoption(meta, f"n{number}") for number in range(30)]
    answers = await gather(*(partial(storage.adopt_saga, wish) for wish in wishes))
    assert sum(isinstance(answer, OwnershipLost) for answer in answers) == 29
    winner = next(answer for answer in answers if isinstance(answer, SagaRecord))
    assert winner == await whole(storage, meta.saga_id)
    assert (winner.meta.epoch, winner.meta.length) == (2, 2)


@pytest.mark.parametrize("changes", [{"release": True}, {"status": FAILED}], ids=["release", "end"])
async def test_an_entry_that_gave_the_saga_up_is_known_though_another_owns_it_now(
    storage: StorageProtocol, changes: dict[str, Any]
) -> None:
    meta = await put_saga(storage, owner="w1")
    last = entry(meta, **changes)
    wrote = await storage.append(last)
    await storage.adopt_saga(adoption(await head(storage, meta.saga_id)))
    assert (await storage.append(last)).at == wrote.at
    with pytest.raises(OwnershipLost):
        await storage.append(replace(last, entry_id="another"))
    assert len((await whole(storage, meta.saga_id)).journal) == 3


async def test_who_was_fenced_off_can_do_nothing(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    sent, late = entry(meta), entry(meta, sequence=2, status=COMPLETED)
    await storage.append(sent)
    taken = (await storage.adopt_saga(adoption(await head(storage, meta.saga_id)))).meta
    before = await whole(storage, meta.saga_id)
    for line in (sent, late):
        with pytest.raises(OwnershipLost):
            await storage.append(line)
    with pytest.raises(OwnershipLost):
        await storage.release_saga(meta.saga_id, 1, storage.now())
    with pytest.raises(OwnershipLost):
        await storage.adopt_saga(adoption(meta, "w1"))
    assert await whole(storage, meta.saga_id) == before
    await storage.append(entry(taken, COMPLETED))


async def test_a_last_entry_and_an_adoption_at_once_leave_one_owner(storage: StorageProtocol) -> None:
    for _ in range(10):
        meta = await put_saga(storage, owner="w1")
        wrote, adopted = await gather(
            partial(storage.append, entry(meta, COMPLETED)),
            partial(storage.adopt_saga, adoption(meta)),
        )
        assert isinstance(adopted, SagaRecord)  # the epoch did not change by the entry, so the wish holds
        record = await whole(storage, meta.saga_id)
        if isinstance(wrote, OwnershipLost):
            assert (record.meta.length, record.meta.status) == (2, PENDING)
        else:
            assert (record.meta.length, record.meta.status) == (3, COMPLETED)
        assert record.meta.owner == "w2"


async def test_the_stamps_of_a_journal_rise_in_whole_microseconds(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1")
    for _ in range(20):
        meta = await head(storage, meta.saga_id)
        await storage.append(entry(meta))
    await storage.adopt_saga(adoption(await head(storage, meta.saga_id)))
    stamps = [line.at for line in (await whole(storage, meta.saga_id)).journal]
    fences = [fence_at(at) for at in stamps]
    assert fences == sorted(set(fences))
    assert [fence / MICROSECONDS for fence in fences[1:]] == stamps[1:]
