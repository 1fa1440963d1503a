"""From what the scripts return to records."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from dotmac.tasks.errors import UnreadableSaga
from dotmac.tasks.models import OperationStatus

from ...saga.snapshots import SNAPSHOT_FORMAT
from ..records import MICROSECONDS, JournalEntry, SagaMeta, SagaNote, Snapshot

_snapshot = msgspec.json.Decoder(Snapshot).decode


def decode_meta(saga_id: str, found: dict[bytes, bytes]) -> SagaMeta:
    """A saga's head from its hash. Raises UnreadableSaga."""
    try:
        return _meta(saga_id, found)
    except (KeyError, ValueError) as error:
        raise UnreadableSaga(f"the head of saga {saga_id} cannot be read: {error!r}") from error


def listed_meta(saga_id: str, found: dict[bytes, bytes]) -> SagaMeta:
    """A saga's head for a list. One that cannot be read is listed with the status ``unknown``."""
    try:
        return _meta(saga_id, found)
    except (KeyError, ValueError):
        tenant_id, workflow_type = (found.get(name, b"").decode(errors="replace") for name in (b"t", b"y"))
        return SagaMeta(saga_id, tenant_id, workflow_type, OperationStatus.UNKNOWN, 0.0, 0.0)


def _meta(saga_id: str, found: dict[bytes, bytes]) -> SagaMeta:
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
        format=int(found.get(b"f", b"1")),
        waits_for=text(b"w"),
    )


def decode_entries(saga_id: str, sequences: Iterable[int], lines: list[bytes]) -> list[JournalEntry]:
    """Entries of a journal. Raises UnreadableSaga."""
    try:
        return [_entry(sequence, line) for sequence, line in zip(sequences, lines, strict=False)]
    except ValueError as error:
        raise UnreadableSaga(f"the journal of saga {saga_id} is damaged: {error}") from error


def decode_snapshot(data: bytes) -> Snapshot | None:
    """A snapshot; None if this version cannot use it: the journal says the same."""
    try:
        snapshot = _snapshot(data)
    except msgspec.MsgspecError:
        return None
    return snapshot if snapshot.format == SNAPSHOT_FORMAT else None


def decode_notes(saga_id: str, lines: list[bytes]) -> list[SagaNote]:
    """Notes beside a journal. Raises UnreadableSaga."""
    try:
        return [_note(line) for line in lines]
    except ValueError as error:
        raise UnreadableSaga(f"a note beside saga {saga_id} is damaged: {error}") from error


def _entry(sequence: int, line: bytes) -> JournalEntry:
    at, epoch, entry_id, events = line.split(b" ", 3)
    return JournalEntry(sequence, int(at) / MICROSECONDS, int(epoch), entry_id.decode(), events)


def _note(line: bytes) -> SagaNote:
    at, entry = line.split(b" ", 1)
    return SagaNote(int(at) / MICROSECONDS, Raw(entry))
