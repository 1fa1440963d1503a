"""A saga's journal as its owner writes it: facts are gathered, and made durable in one append before any effect.

Between gathering and appending nothing may have an effect outside: what is lost with the process then is as if
it had never been decided.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import trio

from ..errors import EnvironmentFault
from ..metrics import listening
from ..models import OperationStatus
from ..saga.events import Event, SagaCompleted, encode_events
from ..saga.fold import apply
from ..saga.state import SagaState
from ..storage.key_records import Completion
from ..storage.protocol import StorageProtocol
from ..storage.records import Append, Appended
from .fresh_ids import fresh_id
from .log_fields import saga_fields
from .telling import tell_event

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Journal:
    """One owner's view of one saga: its state, what is not yet appended, and where the next entry goes.

    Attributes:
        state: The fold of everything recorded, appended or not.
        closed: An entry that gave up ownership is durable; nothing more can be written.
        at: When the newest durable entry was written, by the storage's clock.
    """

    __slots__ = ("_batch", "_durable", "_nonce", "_seconds", "_storage", "at", "closed", "epoch", "sequence",
                 "state")  # fmt: skip

    def __init__(self, storage: StorageProtocol, state: SagaState, *, epoch: int, sequence: int, at: float) -> None:
        self._storage = storage
        self._batch: list[Event] = []
        self._seconds = 0.0
        # Two owners never share an epoch; the nonce makes it visible if that promise should ever be broken.
        self._nonce = fresh_id()
        self._durable = state
        self.at = at
        self.state = state
        self.epoch = epoch
        self.sequence = sequence
        self.closed = False

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
        self._batch.clear()
        self._seconds = 0.0
        self._durable = state
        self.at = appended.at
        self.sequence += 1
        self.closed = status.is_final
        return appended

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
