"""The storage as its contract has it, in the plainest form: what the model test compares a backend with.

No time passes here and leases are long, so an answer depends only on the verbs before it. Errors are answers too:
a verb that fails gives the class of its error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dotmac.tasks.errors import (
    ClaimLost,
    IdempotencyKeyNotFound,
    JournalConflict,
    OwnershipLost,
    SagaNotFound,
    SagaStateError,
)
from dotmac.tasks.models import OperationStatus

PENDING, RUNNING = OperationStatus.PENDING, OperationStatus.IN_PROGRESS
COMPLETED, FAILED = OperationStatus.COMPLETED, OperationStatus.FAILED


@dataclass
class Record:
    """A key: its status, who may end it, and how it ended."""

    print: str
    explicit: bool
    status: OperationStatus = PENDING
    token: str | None = None
    saga: int | None = None
    result: bytes | None = None


@dataclass
class Saga:
    """A saga by the number of its id; its journal is the list of its entries' ids."""

    journal: list[str]
    owner: str | None
    epoch: int
    key: str | None
    status: OperationStatus = RUNNING
    due: bool = False
    cancel: str | None = None
    cancel_epoch: int | None = None


@dataclass
class Reference:
    """Records by key, sagas by number."""

    records: dict[str, Record] = field(default_factory=dict)
    sagas: dict[int, Saga] = field(default_factory=dict)

    # --- records ----------------------------------------------------------------------------------------------

    def create_record(self, key: str, print_: str) -> Any:
        created = key not in self.records
        record = self.records.setdefault(key, Record(print_, explicit=True))
        return created, record.status, record.print

    def claim(self, key: str, print_: str, token: str) -> Any:
        record = self.records.get(key) or Record(print_, explicit=False)
        if record.print != print_:
            return "mismatch", record.token
        if record.status in (COMPLETED, FAILED):
            return "done", record.token
        if record.saga is not None or record.token not in (None, token):
            return "in_progress", record.token
        self.records[key] = record
        record.status, record.token = RUNNING, token
        return "granted", token

    def renew(self, key: str, token: str) -> Any:
        return None if self._held(key, token) else ClaimLost

    def complete(self, key: str, token: str | None, result: bytes) -> Any:
        record = self.records.get(key)
        if record is None:
            return IdempotencyKeyNotFound
        if record.status is COMPLETED:
            return COMPLETED if (record.token, record.result) == (token, result) else ClaimLost
        if record.saga is not None or record.token != token:
            return ClaimLost
        record.status, record.result = COMPLETED, result
        return COMPLETED

    def abandon(self, key: str, token: str) -> Any:
        record = self.records.get(key)
        if record is None or record.status is PENDING:
            return None
        if not self._held(key, token):
            return ClaimLost
        if record.explicit:
            record.status, record.token = PENDING, None
        else:
            del self.records[key]
        return None

    def _held(self, key: str, token: str) -> bool:
        record = self.records.get(key)
        return record is not None and record.status is RUNNING and record.saga is None and record.token == token

    # --- sagas ------------------------------------------------------------------------------------------------

    def create_saga(
        self, number: int, entry_id: str, owner: str | None, key: tuple[str, str, str | None] | None
    ) -> Any:
        known = self.sagas.get(number)
        if known is not None:
            return (True, number) if known.journal[0] == entry_id else SagaStateError
        if key is not None:
            name, print_, token = key
            record = self.records.get(name) or Record(print_, explicit=False)
            ours = record.status is RUNNING and record.saga is None and token is not None and record.token == token
            if not ours and (record.status is not PENDING or record.print != print_):
                return False, record.saga
            self.records[name] = record
            record.status, record.saga = RUNNING, number
        self.sagas[number] = Saga([entry_id], owner, int(owner is not None), key and key[0])
        return True, number

    def append(self, number: int, epoch: int, sequence: int, entry_id: str, how: str) -> Any:
        saga = self.sagas.get(number)
        if saga is None:
            return SagaNotFound
        if saga.epoch != epoch:
            # Sent again: its entry gave the saga up, and the saga has another owner by now.
            sent_again = how != "keep" and saga.journal[sequence : sequence + 1] == [entry_id]
            return ("at", None) if sent_again else OwnershipLost
        if sequence < len(saga.journal):
            return ("at", saga.cancel) if saga.journal[sequence] == entry_id else JournalConflict
        if sequence > len(saga.journal) or saga.owner is None:
            return JournalConflict
        if how == "completed" and saga.cancel is not None:
            return "refused", saga.cancel
        saga.journal.append(entry_id)
        saga.status = RUNNING
        if how == "completed":
            saga.status, saga.cancel, saga.owner = COMPLETED, None, None
            record = self.records.get(saga.key or "")
            if record is not None and record.saga == number:
                record.status, record.result = COMPLETED, b"1"
        elif how == "parked":
            saga.status, saga.cancel, saga.owner = FAILED, None, None
        elif how == "release":
            self._give_up(saga, due=False)
        return "at", saga.cancel

    def adopt(self, number: int, worker: str, epoch: int, entry_id: str) -> Any:
        saga = self.sagas.get(number)
        if saga is None:
            return SagaNotFound
        if saga.epoch == epoch:
            saga.journal.append(entry_id)
            saga.owner, saga.epoch, saga.due = worker, epoch + 1, False
        elif saga.journal[-1] != entry_id:
            return OwnershipLost
        return self.look(number)

    def release(self, number: int, epoch: int, due: bool) -> Any:
        saga = self.sagas.get(number)
        if saga is None or saga.epoch != epoch:
            return SagaNotFound if saga is None else OwnershipLost
        if saga.owner is not None:
            self._give_up(saga, due=due)
        return None

    def cancel(self, number: int, reason: str) -> Any:
        saga = self.sagas.get(number)
        if saga is None:
            return SagaNotFound
        if saga.status is RUNNING:
            saga.cancel = reason if saga.cancel is None else saga.cancel
            if saga.owner is None:
                saga.due = True
            else:
                saga.cancel_epoch = saga.epoch
        return saga.status, saga.cancel

    def _give_up(self, saga: Saga, *, due: bool) -> None:
        saga.owner = None
        saga.due = due or (saga.cancel is not None and saga.cancel_epoch == saga.epoch)

    # --- looking ----------------------------------------------------------------------------------------------

    def look(self, number: int) -> Any:
        """The saga's whole state, or None."""
        saga = self.sagas.get(number)
        return saga and (saga.status, saga.owner, saga.epoch, saga.cancel, tuple(saga.journal))

    def due(self) -> set[int]:
        """Numbers of the sagas that are due."""
        return {number for number, saga in self.sagas.items() if saga.due}

    def owned(self, worker: str) -> set[int]:
        """Numbers of the sagas that the worker owns."""
        return {number for number, saga in self.sagas.items() if saga.owner == worker}

    def cancels(self, worker: str) -> set[int]:
        """Numbers of the worker's sagas that were asked to cancel under its ownership."""
        return {
            n for n in self.owned(worker) if self.sagas[n].cancel and self.sagas[n].cancel_epoch == self.sagas[n].epoch
        }
