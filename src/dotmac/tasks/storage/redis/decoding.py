"""From what the scripts return to records."""

from __future__ import annotations

from msgspec import Raw

from dotmac.tasks.models import OperationStatus

from ..records import MICROSECONDS, JournalEntry, SagaMeta, SagaNote, SagaRecord
from .core import fields_of


def decode_meta(saga_id: str, found: dict[bytes, bytes]) -> SagaMeta:
    """A saga's head from its hash."""

    def text(name: bytes) -> str | None:
        value = found.get(name)
        return None if value is None else value.decode()

    return SagaMeta(
        saga_id=saga_id,
        tenant_id=found[b"t"].decode(),
        workflow_type=found[b"y"].decode(),
        status=OperationStatus(found[b"st"].decode()),
        created_at=int(found[b"ca"]) / MICROSECONDS,
        updated_at=int(found[b"ua"]) / MICROSECONDS,
        owner=text(b"o"),
        epoch=int(found[b"e"]),
        length=int(found[b"n"]),
        cursor=int(found[b"c"]),
        size=int(found[b"z"]),
        priority=int(found[b"p"]),
        due_at=float(found[b"d"]) / MICROSECONDS if b"d" in found else None,
        cancel=text(b"x"),
        idempotency_key=text(b"k"),
    )


def decode_saga(saga_id: str, head: list[bytes], journal: list[bytes], notes: list[bytes]) -> SagaRecord:
    """A whole saga from its hash, its list and its notes."""
    return SagaRecord(
        decode_meta(saga_id, fields_of(head)),
        [_entry(sequence, line) for sequence, line in enumerate(journal)],
        sorted((_note(line) for line in notes), key=lambda note: note.at),
    )


def _entry(sequence: int, line: bytes) -> JournalEntry:
    at, epoch, entry_id, events = line.split(b" ", 3)
    return JournalEntry(sequence, int(at) / MICROSECONDS, int(epoch), entry_id.decode(), events)


def _note(line: bytes) -> SagaNote:
    at, entry = line.split(b" ", 1)
    return SagaNote(int(at) / MICROSECONDS, Raw(entry))
