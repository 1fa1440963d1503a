"""Worker leases in memory."""

from __future__ import annotations

from msgspec.structs import replace

from ...errors import OwnershipLost
from ..records import Renewal, WorkerRecord
from .core import MemoryCore, verb


class MemoryWorkers(MemoryCore):
    """Leases, and per worker the sagas it owns and the cancel requests it has still to see."""

    def __init__(self) -> None:
        super().__init__()
        self._workers: dict[str, WorkerRecord] = {}
        self._owned: dict[str, set[str]] = {}
        self._cancels: dict[str, set[str]] = {}

    @verb
    def register_worker(self, worker_id: str, lease: float, info: dict[str, str]) -> float:
        """See `WorkerStore`."""
        now = self.now()
        self._workers[worker_id] = WorkerRecord(worker_id, now, now + lease, info)
        return now

    @verb
    def renew_worker(self, worker_id: str, lease: float, info: dict[str, str] | None = None) -> Renewal:
        """See `WorkerStore`."""
        now = self.now()
        worker = self._workers.get(worker_id)
        if worker is None or worker.lease_until <= now:
            raise OwnershipLost(f"the lease of worker {worker_id} is over")
        self._workers[worker_id] = replace(worker, lease_until=now + lease, info=worker.info if info is None else info)
        return Renewal(now, sorted(self._cancels.get(worker_id, ())))

    @verb
    def retire_worker(self, worker_id: str) -> bool:
        """See `WorkerStore`."""
        worker, now = self._workers.get(worker_id), self.now()
        if worker is None or worker.lease_until <= now:
            return False
        self._workers[worker_id] = replace(worker, lease_until=now)
        return True

    @verb
    def list_workers(self, *, max_age: float = 0.0) -> list[WorkerRecord]:
        """See `WorkerStore`."""
        now = self.now()
        gone = [w.worker_id for w in self._workers.values() if w.lease_until <= now and w.worker_id not in self._owned]
        for worker_id in gone:
            del self._workers[worker_id]
        return sorted(self._workers.values(), key=lambda worker: worker.worker_id)

    def own(self, worker_id: str, saga_id: str) -> None:
        """The worker owns the saga from now on."""
        if worker_id not in self._workers:
            # It was forgotten while its request was under way. Unlisted, nobody would look for its sagas.
            now = self.now()
            self._workers[worker_id] = WorkerRecord(worker_id, now, now)
        self._owned.setdefault(worker_id, set()).add(saga_id)

    def disown(self, worker_id: str | None, saga_id: str) -> None:
        """The worker does not own the saga any more."""
        for table in (self._owned, self._cancels):
            sagas = table.get(worker_id or "")
            if sagas is not None:
                sagas.discard(saga_id)
                if not sagas:
                    del table[worker_id or ""]

    def owned_by(self, worker_id: str) -> frozenset[str]:
        """Ids of the sagas this worker owns."""
        return frozenset(self._owned.get(worker_id, ()))

    def cancel_noted(self, worker_id: str, saga_id: str) -> bool:
        """Whether a cancel was asked for since the worker owns the saga."""
        return saga_id in self._cancels.get(worker_id, ())

    def note_cancel(self, worker_id: str, saga_id: str) -> None:
        """Remember the cancel request for the worker's next renewal."""
        self._cancels.setdefault(worker_id, set()).add(saga_id)
