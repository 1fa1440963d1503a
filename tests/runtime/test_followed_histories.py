"""Histories that are extended: by what is new, atomically, and in the order of the storage's time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec import Raw
from msgspec.structs import replace
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, SagaHistory, SagaNotFound, StoredDataUnreadable, UnreadableSaga
from dotmac.tasks.storage.history import HistoryPosition, entries_after
from dotmac.tasks.storage.records import SagaNote, SagaRecord
from runtime.nodes import Ledger, Node, step


async def finished(node: Node) -> str:
    saga = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b")])
    await saga.result()
    return saga.saga_id


async def test_an_extended_history_is_the_whole_history(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        saga_id = await finished(node)
        history = SagaHistory(saga_id)
        assert await node.manager.extend_saga_history(history) == "completed"
        for number in range(3):
            await node.manager.add_saga_note(saga_id, "seen", {"number": number})
            before = history.entries
            assert await node.manager.extend_saga_history(history) == "completed"
            assert history.entries[:-1] == before
            assert history.entries == await node.manager.get_saga_history(saga_id)
        unchanged = history.entries
        await node.manager.extend_saga_history(history)
        assert history.entries is unchanged


async def test_extensions_at_the_same_time_add_each_entry_once(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        saga_id = await finished(node)
        history = SagaHistory(saga_id)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(node.manager.extend_saga_history, history)
        assert history.entries == await node.manager.get_saga_history(saga_id)


async def test_an_entry_of_a_clock_that_was_set_back_after_a_note_has_its_place_in_time(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        saga_id = await finished(node)
        record = await shared.load_saga(saga_id)
        assert record is not None
        history, note = SagaHistory(saga_id), SagaNote(record.meta.updated_at + 60.0, Raw(b'{"event":"ahead"}'))
        await history.extend(replace(record, journal=record.journal[:-1], notes=[note]))
        end = HistoryPosition(len(history.entries), history.entries[-1].timestamp)
        assert entries_after(history.entries, end) == []
        await history.extend(replace(record, journal=record.journal[-1:], after=history.mark))
        assert [entry.event for entry in history.entries[-2:]] == ["saga_completed", "ahead"]
        assert entries_after(history.entries, end) is None


@pytest.mark.parametrize("damage", ["an unknown event", "no JSON", "a newer format", "a note"])
async def test_what_cannot_be_read_leaves_the_history_as_it_was(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, damage: str
) -> None:
    async with Node(shared, ledger.register) as node:
        saga_id = await finished(node)
        history = SagaHistory(saga_id)
        await node.manager.extend_saga_history(history)
        before, mark, record = history.entries, history.mark, await shared.load_saga(saga_id)
        assert record is not None
        last = record.journal[-1]
        changes: dict[str, dict[str, Any]] = {
            "an unknown event": {"journal": [replace(last, events=b'[{"e":"from_the_future"}]')]},
            "no JSON": {"journal": [last, replace(last, events=b"x")]},
            "a newer format": {"journal": [last], "meta": replace(record.meta, format=99)},
            "a note": {"journal": [last], "notes": [*record.notes, SagaNote(1.0, Raw(b"x"))]},
        }
        with pytest.raises((UnreadableSaga, StoredDataUnreadable)):
            await history.extend(replace(record, after=mark, **changes[damage]))
        assert (history.entries, history.mark) == (before, mark)


async def test_a_saga_that_is_gone_leaves_the_history_as_it_was(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        history = SagaHistory(await finished(node))
        await node.manager.extend_saga_history(history)
        before = history.entries
        del shared._sagas[history.saga_id]
        with pytest.raises(SagaNotFound):
            await node.manager.extend_saga_history(history)
        assert history.entries is before


async def test_other_tasks_have_turns_while_a_long_history_is_decoded(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        saga_id = await finished(node)
        record = await shared.load_saga(saga_id)
        assert record is not None
        large = replace(record.journal[-1], events=b'[{"e":"compensation_began","reason":"%s"}]' % (b"x" * 100_000))
        turns = [0]

        async def others() -> None:
            while True:
                turns[0] += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            await SagaHistory(saga_id).extend(SagaRecord(record.meta, [*record.journal, *[large] * 20]))
            assert turns[0] >= 15  # the scheduler chooses who is first
            nursery.cancel_scope.cancel()


def test_positions_have_a_text() -> None:
    position = HistoryPosition.parse("12-1796088592007880")
    assert position is not None
    assert str(position) == "12-1796088592007880"
    for wrong in ("", "12", "-1", "0-1", "1-", "1-x", "+1-1", "1-1-1", "9" * 20 + "-1", "1-" + "9" * 17, "١-1"):
        assert HistoryPosition.parse(wrong) is None
