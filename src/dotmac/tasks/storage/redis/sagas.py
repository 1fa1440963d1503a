"""Sagas in Redis: a hash and a list each, changed by scripts that compare the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import trio

from dotmac.tasks.errors import JournalConflict, OwnershipLost, SagaNotFound, SagaStateError

from ...jsonvalue import encode
from ...saga.events import SagaAdopted, encode_events
from ..heads import first_head, too_new
from ..ids import any_partition, make_saga_id, partition_of_key
from ..key_records import Completion
from ..protocol import record_topic, saga_topic, worker_topic
from ..records import (
    MICROSECONDS,
    Adoption,
    Append,
    Appended,
    Creation,
    NewSaga,
    SagaMark,
    SagaMeta,
    SagaRecord,
    Snapshot,
)
from .commands import Argument
from .core import RedisCore, fields_of, marked, micros, optional, verb
from .decoding import decode_entries, decode_meta, decode_snapshot
from .layout import format_field
from .reading import SagaReading
from .records import decode_record
from .scripts import load

_CREATE, _APPEND, _ADOPT = load("saga_create"), load("saga_append"), load("saga_adopt")
_LOAD, _RELEASE, _CANCEL, _NOTE = load("saga_load"), load("saga_release"), load("saga_cancel"), load("saga_note")
_NOTICE, _READ, _SNAPSHOT = load("worker_notice"), load("saga_read"), load("saga_snapshot")
_WHOLE_BYTES, _PIECE_BYTES, _PIECE_ENTRIES = 65_536, 262_144, 500
_JOURNALS_AT_ONCE = 2
_HIGHEST = 1000  # priorities end here; stored upside down, so that sorting by name puts the highest first


class RedisSagas(RedisCore):
    """See `SagaStore`; what finds and lists sagas is in `search`."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces = trio.Semaphore(_JOURNALS_AT_ONCE)

    def new_saga_id(self, key: str | None = None) -> str:
        """See `SagaStore`."""
        count = len(self.layout.partitions)
        return make_saga_id(self.now(), any_partition(count) if key is None else partition_of_key(key, count))

    @verb
    async def create_saga(self, new: NewSaga) -> Creation:
        """See `SagaStore`."""
        client, layout = self._here()
        partition, saga_id = layout.of_saga(new.saga_id), new.saga_id.encode()
        keys = [partition.saga(saga_id), partition.journal(saga_id), partition.owned, partition.due, partition.index]
        args: list[Argument] = [
            saga_id,
            new.entry_id,
            new.events,
            new.tenant_id,
            new.workflow_type,
            str(new.status),
            new.size,
            new.cursor,
            f"{_HIGHEST - new.priority:04d}",
            optional(new.owner),
            b"" if new.due_at is None else micros(new.due_at),
            layout.due_channel,
            new.priority,
            format_field(new.format),
        ]
        if new.key is not None:
            key = new.key
            keys.append(partition.record(key.key))
            args += [key.key, key.fingerprint, optional(new.claim_token), micros(key.ttl)]
            args += [optional(key.user_id), key.operation_type]
        reply = await client.run(_CREATE, keys, args, slot=partition.slot)
        if isinstance(reply, int):
            due_at = None if new.due_at is None else micros(new.due_at) / MICROSECONDS
            return Creation(True, first_head(new, reply / MICROSECONDS, due_at))
        if reply[0] == b"exists":
            raise SagaStateError(f"a saga {new.saga_id} exists")
        if reply[0] == b"created":
            return Creation(True, decode_meta(new.saga_id, fields_of(reply[1])))
        record = decode_record("" if new.key is None else new.key.key, reply[2])
        meta = None if record.saga_id is None else await self.saga_meta(record.saga_id)
        return Creation(False, meta, record)

    @verb
    async def append(self, entry: Append) -> Appended:
        """See `SagaStore`."""
        client, layout = self._here()
        partition, saga_id = layout.of_saga(entry.saga_id), entry.saga_id.encode()
        final = entry.status.is_final
        keys = [partition.saga(saga_id), partition.journal(saga_id), partition.index, partition.expiry]
        args: list[Argument] = [
            entry.epoch,
            entry.sequence,
            entry.entry_id,
            entry.events,
            entry.status.value,
            entry.cursor,
            saga_id,
            format_field(entry.format),
        ]
        if final or entry.release:
            keys += [partition.owned, partition.due]
            args += [
                _ending(entry),
                b"" if entry.due_at is None else micros(entry.due_at),
                layout.due_channel,
                b"" if entry.retention is None else micros(entry.retention),
                layout.channel(saga_topic(entry.saga_id)) if final else b"",
                optional(entry.waits_for),
            ]
        if final and entry.completion is not None:
            keys.append(partition.record(entry.completion.key))
            args += self._completion(entry.completion)
        reply = await client.run(_APPEND, keys, args, slot=partition.slot)
        if isinstance(reply, int):
            return Appended(reply / MICROSECONDS, None)
        if reply[0] == b"cancelled":
            return Appended(None, reply[1].decode())
        if not isinstance(reply[0], int):
            raise _refusal(entry.saga_id, reply)
        if (final or entry.release) and reply[2]:
            await self.drop_notice(reply[2].decode(), entry.saga_id)
        return Appended(reply[0] / MICROSECONDS, None if reply[1] is None else reply[1].decode())

    @verb
    async def adopt_saga(self, adoption: Adoption) -> SagaRecord:
        """See `SagaStore`."""
        partition, saga_id = self.layout.of_saga(adoption.saga_id), adoption.saga_id.encode()
        epoch, length = adoption.expected_epoch, adoption.expected_length
        event = SagaAdopted(adoption.worker, epoch + 1, adoption.previous)
        reply = await self.client.run(
            _ADOPT,
            [
                partition.saga(saga_id),
                partition.journal(saga_id),
                partition.owned,
                partition.due,
                partition.snapshot(saga_id),
            ],
            [
                saga_id,
                adoption.worker,
                epoch,
                adoption.entry_id,
                encode_events([event]),
                b"" if length is None else length,
                format_field(adoption.reads),
                micros(adoption.pause),
                _WHOLE_BYTES,
                self.layout.due_channel,
            ],
            slot=partition.slot,
        )
        if reply[0] == b"unreadable":
            raise too_new(adoption.saga_id, int(reply[1]), adoption.reads)
        if reply[0] != b"ok":
            raise _refusal(adoption.saga_id, reply)
        record = await self._adopted(adoption.saga_id, reply[1], reply[2], reply[3])
        if adoption.previous is not None and record.meta.cancel is not None:
            await self.drop_notice(adoption.previous, adoption.saga_id)
        return record

    @verb
    async def keep_snapshot(self, saga_id: str, epoch: int, snapshot: Snapshot) -> None:
        """See `SagaStore`."""
        partition, raw = self.layout.of_saga(saga_id), saga_id.encode()
        await self.client.run(
            _SNAPSHOT, [partition.saga(raw), partition.snapshot(raw)], [epoch, encode(snapshot)], durable=False
        )

    @verb
    async def release_saga(self, saga_id: str, epoch: int, due_at: float | None) -> None:
        """See `SagaStore`."""
        partition, raw = self.layout.of_saga(saga_id), saga_id.encode()
        due = b"" if due_at is None else micros(due_at)
        reply = await self.client.run(
            _RELEASE,
            [partition.saga(raw), partition.owned, partition.due],
            [raw, epoch, due, self.layout.due_channel],
        )
        if isinstance(reply, list):
            raise _refusal(saga_id, reply)
        if reply != b"ok":
            await self.drop_notice(reply.decode(), saga_id)

    @verb
    async def request_cancel(self, saga_id: str, reason: str) -> SagaMeta:
        """See `SagaStore`. The notice for the owner lies on another node, so it follows in a step of its own.

        Should that step be lost with this process, the owner sees the request with its next append.
        """
        partition, raw = self.layout.of_saga(saga_id), saga_id.encode()
        flat = await self.client.run(
            _CANCEL, [partition.saga(raw), partition.due], [raw, reason, self.layout.due_channel]
        )
        if not flat:
            raise SagaNotFound(f"there is no saga {saga_id!r}, or its retention is over")
        meta = decode_meta(saga_id, fields_of(flat))
        if meta.owner is not None and not meta.status.is_final:
            notices = self.layout.cancels(meta.owner)
            channel = self.layout.channel(worker_topic(meta.owner))
            await self.client.run(_NOTICE, [notices], [raw, channel], durable=False)
            # Whoever takes the saga from its owner takes the notice away too, but maybe did so before it was there.
            now = await self.saga_meta(saga_id)
            if now is None or now.owner != meta.owner:
                await self.drop_notice(meta.owner, saga_id)
        return meta

    @verb
    async def load_saga(self, saga_id: str, after: SagaMark | None = None) -> SagaRecord | None:
        """See `SagaStore`."""
        try:
            partition, raw = self.layout.of_saga(saga_id), saga_id.encode()
        except SagaNotFound:
            return None
        keys = [partition.saga(raw), partition.journal(raw), partition.notes(raw)]
        reading = SagaReading(saga_id, after)

        async def read(most: int) -> bool:
            args = [most, _PIECE_ENTRIES, *reading.position]
            return reading.take(await self.client.run(_LOAD, keys, args, durable=False, slot=partition.slot))

        if not await read(_WHOLE_BYTES):
            async with self._pieces:
                while not await read(_PIECE_BYTES):
                    pass
        return reading.record

    async def _adopted(self, saga_id: str, head: list[bytes], journal: list[bytes], kept: bytes) -> SagaRecord:
        """The saga from what the adoption gave; a journal that was left out is read now, in pieces.

        The pieces of few journals are on their way at once: the renewal of a lease waits behind them on the connection.
        """
        meta = decode_meta(saga_id, fields_of(head))
        positions: Sequence[int] = range(meta.length)
        snapshot = decode_snapshot(kept) if kept else None
        if snapshot is not None:
            positions = sorted({0, *snapshot.results.values(), *range(snapshot.length, meta.length)})
        if not journal:
            async with self._pieces:
                journal = await self._read(saga_id, positions)
        entries = decode_entries(saga_id, positions, journal)
        return SagaRecord(meta, entries, snapshot=snapshot)

    async def _read(self, saga_id: str, positions: Sequence[int]) -> list[bytes]:
        partition, lines = self.layout.of_saga(saga_id), list[bytes]()
        journal = partition.journal(saga_id.encode())
        while len(lines) < len(positions):
            asked = positions[len(lines) : len(lines) + _PIECE_ENTRIES]
            piece = await self.client.run(_READ, [journal], [_PIECE_BYTES, *asked], durable=False, slot=partition.slot)
            if not piece:
                raise SagaNotFound(f"saga {saga_id} was forgotten while its journal was read")
            lines += piece
        return lines

    @verb
    async def saga_meta(self, saga_id: str) -> SagaMeta | None:
        """See `SagaStore`."""
        found = await self._saga_head(saga_id)
        return decode_meta(saga_id, found) if found else None

    async def _saga_head(self, saga_id: str) -> dict[bytes, bytes]:
        """The saga's hash; empty if there is no such saga."""
        try:
            name = self.layout.of_saga(saga_id).saga(saga_id.encode())
        except SagaNotFound:
            return {}
        found: dict[bytes, bytes] = await self.client.execute("HGETALL", name, key=name, repeatable=True)
        return found

    @verb
    async def add_note(self, saga_id: str, entry: bytes) -> bool:
        """Write a note beside the journal; False if there is no such saga."""
        partition, raw = self.layout.of_saga(saga_id), saga_id.encode()
        keys = [partition.saga(raw), partition.notes(raw)]
        return bool(await self.client.run(_NOTE, keys, [uuid4().hex, entry]))

    async def drop_notice(self, worker_id: str, saga_id: str) -> None:
        """The worker does not own the saga any more, so a cancel request for it is not its business."""
        notices = self.layout.cancels(worker_id)
        await self.client.execute("ZREM", notices, saga_id, key=notices, repeatable=True)

    def _completion(self, completion: Completion) -> list[Argument]:
        return [
            completion.status.value,
            optional(completion.result),
            marked(completion.error),
            micros(completion.ttl),
            self.layout.channel(record_topic(completion.key)),
        ]


def _ending(entry: Append) -> bytes:
    """How an entry gives the saga up."""
    if entry.unless_cancelled:
        return b"complete"
    return b"final" if entry.status.is_final else b"release"


def _refusal(saga_id: str, reply: list[bytes]) -> SagaNotFound | OwnershipLost | JournalConflict:
    if reply[0] == b"gone":
        return SagaNotFound(f"there is no saga {saga_id!r}, or its retention is over")
    owner = reply[2].decode() or "nobody"
    if reply[0] == b"stale":
        return OwnershipLost(f"saga {saga_id} has epoch {reply[1].decode()}, owner {owner}; ours is older")
    return JournalConflict(f"saga {saga_id} has another entry there: {reply[1].decode()} entries, owner {owner}")
