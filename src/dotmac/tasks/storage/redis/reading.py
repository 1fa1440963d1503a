"""A saga that is read in pieces, so that no reply is so long that the renewal of a lease waits behind it."""

from __future__ import annotations

from typing import Any

from ...errors import UnreadableSaga
from ..records import SagaMark, SagaRecord
from .commands import Argument
from .core import fields_of, micros
from .decoding import decode_entries, decode_meta, decode_notes

_START = SagaMark(0, "", 0.0)


class SagaReading:
    """Joins the pieces that ``saga_load.lua`` gives.

    Each piece shows the saga at the moment of its reply. Entries and notes are only ever added to a saga, so
    all pieces together are the saga as of the last reply. Where the saga was replaced in between, the reading starts
    again.

    Args:
        saga_id: The saga.
        after: Where to begin; None: with the saga.

    Attributes:
        record: What was read so far; None: there is no such saga.
    """

    def __init__(self, saga_id: str, after: SagaMark | None) -> None:
        self._saga_id = saga_id
        self._after = after
        self.record: SagaRecord | None = None

    @property
    def position(self) -> list[Argument]:
        """The position after what was read so far, as the script takes it."""
        mark = self.record.mark if self.record is not None else self._after or _START
        return [mark.length, micros(mark.at), mark.entry_id, mark.notes, micros(mark.noted_at)]

    def take(self, reply: list[Any]) -> bool:
        """Add a piece; True: the saga is complete. Raises UnreadableSaga."""
        if not reply[0]:
            self.record = None
            return True
        head, contained, journal, notes, total = reply
        meta = decode_meta(self._saga_id, fields_of(head))
        if not contained:
            self.record = self._after = None
        before = SagaRecord(meta, [], after=self._after) if self.record is None else self.record
        read = before.mark.length
        entries = decode_entries(self._saga_id, range(read, read + len(journal)), journal)
        self.record = SagaRecord(
            meta,
            before.journal + entries,
            before.notes + decode_notes(self._saga_id, notes),
            after=self._after,
        )
        mark = self.record.mark
        if (mark.length, mark.notes) == (meta.length, total):
            return True
        if not journal and not notes:
            raise UnreadableSaga(
                f"the journal of saga {self._saga_id} is incomplete: {mark.length} of {meta.length} entries are stored"
            )
        return False
