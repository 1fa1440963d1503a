"""The history of a saga, extended by what is new of it: a look at a saga costs what changed since the look before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import trio

from ..models import SagaHistoryEntry
from ..saga.events import SagaCreated, decode_events
from ..saga.views import history_entries, utc
from .folding import decode_stored, readable
from .records import MICROSECONDS, SagaMark, SagaNote, SagaRecord, fence_at

_BYTES_AT_ONCE = 65_536  # decoded before other tasks have a turn: the renewal of a lease is one of them
_POSITION = re.compile(r"([1-9][0-9]{0,11})-([0-9]{1,16})")


class HistoryPosition(NamedTuple):
    """A position in a history: the number of entries up to it, and the time of the newest of them.

    The time distinguishes the history from another one with as many entries.
    """

    number: int
    at: datetime

    def __str__(self) -> str:
        return f"{self.number}-{fence_at(self.at.timestamp())}"

    @classmethod
    def end_of(cls, entries: Sequence[SagaHistoryEntry]) -> HistoryPosition:
        """The position after the newest of these entries; a saga has one at least."""
        return cls(len(entries), entries[-1].timestamp)

    @classmethod
    def parse(cls, text: str) -> HistoryPosition | None:
        """The position from its text; None if the text has another form."""
        found = _POSITION.fullmatch(text)
        return None if found is None else cls(int(found[1]), utc(int(found[2]) / MICROSECONDS))


class SagaHistory:
    """The history of a saga; `BackgroundOperationsManager.extend_saga_history` adds what is new.

    Args:
        saga_id: The saga.

    Attributes:
        saga_id: The saga.
        entries: Journal and notes, in the order of the storage's time; a new list after each change.
    """

    def __init__(self, saga_id: str) -> None:
        self.saga_id = saga_id
        self.entries: list[SagaHistoryEntry] = []
        self.mark: SagaMark | None = None
        self.extending = trio.Lock()
        self._steps: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<SagaHistory of {self.saga_id}, {len(self.entries)} entries>"

    async def extend(self, record: SagaRecord) -> None:
        """Add what the record has; a record that begins with the saga replaces everything.

        Raises:
            UnreadableSaga: The journal cannot be read; the history is unchanged.
            StoredDataUnreadable: A note cannot be read; the history is unchanged.
        """
        steps, known = (self._steps, self.entries) if record.after is not None else (_steps_of(record), [])
        new = [*await self._journal(record, steps), *[self._note(note) for note in record.notes]]
        if new or record.after is None:
            # Where the server's clock was set back after a note, later entries have earlier times than the note.
            self.entries = sorted([*known, *new], key=lambda entry: (entry.timestamp, entry.sequence is None))
        self._steps, self.mark = steps, record.mark

    async def _journal(self, record: SagaRecord, steps: tuple[str, ...]) -> list[SagaHistoryEntry]:
        new: list[SagaHistoryEntry] = []
        decoded = 0
        for entry in record.journal:
            with readable(record):
                events = decode_events(entry.events)
                new += history_entries(steps, self.saga_id, entry.sequence, entry.at, events)
            decoded += len(entry.events)
            if decoded >= _BYTES_AT_ONCE:
                decoded = 0
                await trio.lowlevel.checkpoint()
        return new

    def _note(self, note: SagaNote) -> SagaHistoryEntry:
        details = decode_stored(note.entry, f"a note beside saga {self.saga_id}")
        return SagaHistoryEntry(self.saga_id, utc(note.at), str(details.pop("event", "note")), details=details)


def entries_after(
    entries: Sequence[SagaHistoryEntry], position: HistoryPosition | None
) -> Sequence[SagaHistoryEntry] | None:
    """The entries after a position; None: the history does not contain the position.

    Args:
        entries: A history.
        position: None: before the first entry.
    """
    if position is None:
        return entries
    number = position.number
    if not 0 < number <= len(entries) or entries[number - 1].timestamp != position.at:
        return None
    return entries[number:]


def _steps_of(record: SagaRecord) -> tuple[str, ...]:
    with readable(record):
        created = decode_events(record.journal[0].events)[0]
        assert type(created) is SagaCreated  # noqa: S101 - narrows the type; a failure is an unreadable journal
        return tuple(step.name for step in created.definition.steps)
