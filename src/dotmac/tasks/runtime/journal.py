"""A saga's journal as its owner writes it: facts are gathered, and made durable in one append before any effect.

Between gathering and appending nothing may have an effect outside: what is lost with the process then is as if
it had never been decided.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self, TypeVar

import trio
from msgspec import Raw

from ..errors import EnvironmentFault
from ..metrics import listening
from ..models import OperationStatus
from ..saga.events import AttemptSucceeded, Event, SagaCompleted, encode_events
from ..saga.fold import apply
from ..saga.snapshots import SNAPSHOT_FORMAT, pack
from ..saga.state import SagaState
from ..storage.folding import folded
from ..storage.key_records import Completion
from ..storage.protocol import StorageProtocol
from ..storage.records import Append, Appended, SagaRecord, Snapshot
from .fresh_ids import fresh_id
from .log_fields import saga_fields
from .telling import tell_event

_ENTRIES_AT_RELEASE, _ENTRIES_WHILE_OWNED = 64, 512  # between two snapshots
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Journal:
    """One owner's view of one saga: its state, what is not yet appended, and where the next entry goes.

    Attributes:
        state: The fold of everything recorded, appended or not.
        closed: An entry that gave up ownership is durable; nothing more can be written.
        at: When the newest durable entry was written, by the storage's clock.
        fruitless: How many adoptions in a row, up to the newest durable entry, led to nothing.
    """

    __slots__ = ("_batch", "_durable", "_kept", "_nonce", "_results", "_seconds", "_storage", "at", "closed", "epoch",
                 "fruitless", "sequence", "state")  # fmt: skip

    def __init__(self, storage: StorageProtocol, state: SagaState, *, epoch: int, sequence: int, at: float) -> None:
        self._storage = storage
        self._batch: list[Event] = []
        self._seconds = 0.0
        # Two owners never share an epoch; the nonce makes it visible if that promise should ever be broken.
        self._nonce = fresh_id()
        self._durable = state
        self._results: dict[int, int] = {}
        self._kept = 0
        self.fruitless = 0
        self.at = at
        self.state = state
        self.epoch = epoch
        self.sequence = sequence
        self.closed = False

    @classmethod
    def of(cls, storage: StorageProtocol, record: SagaRecord) -> Self:
        """The journal of a saga that has just been adopted. Raises UnreadableSaga."""
        meta, read = record.meta, folded(record)
        journal = cls(storage, read.state, epoch=meta.epoch, sequence=meta.length, at=meta.updated_at)
        journal._results, journal._kept, journal.fruitless = read.results, read.kept, read.fruitless
        return journal

    @property
    def pending(self) -> bool:
        """Whether something is recorded that is not durable yet."""
        return bool(self._batch)

    def record(self, event: Event, seconds: float = 0.0) -> None:
        """Apply the fact and keep it for the next append; `seconds` is how long it took, for the metrics."""
        self.state = apply(self.state, event)
        self._batch.append(event)
        if seconds:  # of the one ending that a batch can hold, which is followed by facts that took no time
            self._seconds = seconds

    async def flush(self, *, retention: float | None = None, completion: Completion | None = None) -> Appended:
        """Append what is pending. With a final status in it, the saga is given up with the same entry.

        A completion that meets a cancel request is withdrawn instead: nothing was written, everything else stays
        pending, and the answer has the request's reason and no time.

        Raises:
            OwnershipLost: Somebody else owns the saga; nothing was written.
            JournalConflict: The promise of one writer per epoch was broken.
            SagaNotFound: The saga is gone.
        """
        status = self.state.status
        if status is OperationStatus.FAILED or not status.is_final:
            return await self._append()
        return await self._append(retention=retention, completion=completion)

    async def release(self, due_at: float | None) -> None:
        """Append what is pending and give the saga up, to be adopted again at `due_at`. Raises as `flush` does."""
        await self._keep_snapshot(_ENTRIES_AT_RELEASE)
        if self._batch:
            await self._append(release=True, due_at=due_at)
        else:
            saga_id = self.state.definition.saga_id
            try:
                await self._storage.release_saga(saga_id, self.epoch, due_at)
            except EnvironmentFault as error:
                await self._insist(lambda: self._storage.release_saga(saga_id, self.epoch, due_at), error)
        self.closed = True

    async def _append(
        self,
        *,
        release: bool = False,
        due_at: float | None = None,
        retention: float | None = None,
        completion: Completion | None = None,
    ) -> Appended:
        state = self.state
        status = state.status
        entry = Append(
            saga_id=state.definition.saga_id,
            epoch=self.epoch,
            sequence=self.sequence,
            entry_id=f"{self._nonce}.{self.sequence}",
            events=encode_events(self._batch),
            status=status,
            cursor=state.cursor,
            release=release,
            due_at=due_at,
            retention=retention,
            completion=completion,
            unless_cancelled=status is OperationStatus.COMPLETED and not state.committed,
            waits_for=state.waits_for if release else None,
        )
        try:
            appended = await self._storage.append(entry)
        except EnvironmentFault as error:
            appended = await self._insist(lambda: self._storage.append(entry), error)
        if appended.at is None:
            self._withdraw_completion()
            return appended
        if listening():
            for event in self._batch:
                tell_event(state.definition, event, self._seconds)
        for event in self._batch:
            if type(event) is AttemptSucceeded and not event.undo:
                self._results[event.step] = self.sequence
        self._batch.clear()
        self._seconds = 0.0
        self._durable = state
        self.fruitless = 0
        self.at = appended.at
        self.sequence += 1
        self.closed = status.is_final or release
        if not self.closed:
            await self._keep_snapshot(_ENTRIES_WHILE_OWNED)
        return appended

    async def _keep_snapshot(self, entries: int) -> None:
        """Keep a snapshot of what is durable, once so many entries were written since the one before."""
        if self.sequence - self._kept < entries:
            return
        state = self._durable
        results = {step: at for step, at in self._results.items() if state.steps[step].result is not None}
        snapshot = Snapshot(SNAPSHOT_FORMAT, self.sequence, results, Raw(pack(state, self.fruitless)))
        # Without it the next owner reads more of the journal, nothing else; the one after it makes up for that.
        with suppress(EnvironmentFault):
            await self._storage.keep_snapshot(state.definition.saga_id, self.epoch, snapshot)
        self._kept = self.sequence

    def _withdraw_completion(self) -> None:
        completed = self._batch.pop()
        assert type(completed) is SagaCompleted  # noqa: S101 - nothing follows it, and no other entry is refused so
        self.state = self._durable
        for event in self._batch:
            self.state = apply(self.state, event)

    async def _insist(self, send: Callable[[], Awaitable[T]], error: Exception) -> T:
        """Send, after the first try that failed with `error`, until the storage takes it: every verb may be sent twice.

        It ends by itself when the worker's lease would: then the scope round all of a worker's sagas is cancelled.
        """
        definition = self.state.definition
        _log.warning("saga %s waits for its storage: %s", definition.saga_id, error, extra=saga_fields(definition))
        pause = _FIRST_PAUSE
        while True:
            await trio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - spreads retries, guards nothing
            pause = min(pause * 2, _LONGEST_PAUSE)
            # What it fails with now is what the first try failed with, or will be told by whoever waits for it.
            with suppress(EnvironmentFault):
                return await send()
