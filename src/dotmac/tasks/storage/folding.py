"""From a stored saga to its state: the one place where journal bytes become the fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from ..errors import StoredDataUnreadable, UnreadableSaga
from ..jsonvalue import decode
from ..models import Finding, SagaSummary, SagaWorkflow, Verdict, WorkerInfo
from ..saga.events import JOURNAL_FORMAT, AttemptSucceeded, HandlerMissing, SagaAdopted, SagaCreated, decode_events
from ..saga.fold import fold
from ..saga.snapshots import unpack
from ..saga.state import SagaState
from ..saga.views import utc, waiting_for, workflow_view
from .heads import too_new
from .records import SagaMeta, SagaRecord, Snapshot, WorkerRecord


class Folded(NamedTuple):
    """A journal as its owner needs it.

    Attributes:
        state: The saga's.
        results: For each step that returned, the entry that holds its newest result.
        fruitless: How many adoptions in a row, up to the newest entry, led to nothing.
        kept: How many entries the snapshot covers.
    """

    state: SagaState
    results: dict[int, int]
    fruitless: int
    kept: int


_FRUITLESS = (SagaAdopted, HandlerMissing)
TROUBLES = "troubles"
"""In a worker's registration: what delays its handlers, one line each."""
STATE, DRAINING = "state", "draining"
"""In a worker's registration, while the worker lets running attempts end and begins nothing new."""

_REMEDY = "give these handlers time limits of their own, or raise the limit (DOTMAC_TASKS_SYNC_HANDLER_THREADS, say)"


def state_of(record: SagaRecord) -> SagaState:
    """The fold of the saga's journal. Raises UnreadableSaga."""
    with readable(record):
        return fold(event for entry in record.journal for event in decode_events(entry.events))


def folded(record: SagaRecord) -> Folded:
    """The state of an adopted saga, from its snapshot if the record has one. Raises UnreadableSaga."""
    with readable(record):
        snapshot, state = record.snapshot, None
        results: dict[int, int] = {}
        kept = fruitless = 0
        if snapshot is not None:
            state, fruitless = _restored(snapshot, record)
            results, kept = dict(snapshot.results), snapshot.length
        tail = [(entry.sequence, decode_events(entry.events)) for entry in record.journal if entry.sequence >= kept]
        for sequence, events in tail:
            if any(type(event) not in _FRUITLESS for event in events):
                fruitless = 0
            elif type(events[0]) is SagaAdopted:
                fruitless += 1
            for event in events:
                if type(event) is AttemptSucceeded and not event.undo:
                    results[event.step] = sequence
        return Folded(fold((event for _, events in tail for event in events), state), results, fruitless, kept)


def _restored(snapshot: Snapshot, record: SagaRecord) -> tuple[SagaState, int]:
    entries = {
        entry.sequence: decode_events(entry.events) for entry in record.journal if entry.sequence < snapshot.length
    }

    def result_at(step: int, sequence: int) -> Raw:
        returned = [event for event in entries[sequence] if type(event) is AttemptSucceeded and not event.undo]
        return next(event.result for event in returned if event.step == step)

    created = entries[0][0]
    assert type(created) is SagaCreated  # noqa: S101 - narrows the type; a failure is an unreadable journal
    return unpack(snapshot.state, created.definition, snapshot.results, result_at)


@contextmanager
def readable(record: SagaRecord) -> Iterator[None]:
    """Any error inside is an UnreadableSaga, as is a journal of a newer format."""
    meta = record.meta
    if meta.format > JOURNAL_FORMAT:
        raise too_new(meta.saga_id, meta.format, JOURNAL_FORMAT)
    try:
        yield
    except Exception as error:  # no kind of error is impossible where the bytes are not what was written
        raise UnreadableSaga(f"the journal of saga {meta.saga_id} cannot be read: {error}") from error


def decode_stored(data: bytes | Raw, what: str) -> Any:
    """The value of stored JSON. Raises StoredDataUnreadable, which names `what`."""
    try:
        return decode(data)
    except (ValueError, msgspec.MsgspecError) as error:
        raise StoredDataUnreadable(f"{what} cannot be read: {error}") from error


def workflow_of(record: SagaRecord, state: SagaState | None = None) -> SagaWorkflow:
    """The saga as its users see it."""
    meta = record.meta
    return workflow_view(
        state or state_of(record),
        created_at=meta.created_at,
        updated_at=meta.updated_at,
        owner=meta.owner,
        epoch=meta.epoch,
    )


def worker_view(worker: WorkerRecord, now: float) -> WorkerInfo:
    """A worker as users see it, at this time of the storage."""
    pid, alive = worker.info.get("pid", ""), worker.lease_until > now
    return WorkerInfo(
        worker_id=worker.worker_id,
        host=worker.info.get("host", ""),
        pid=int(pid) if pid.isdecimal() else None,
        started_at=utc(worker.started_at),
        lease_until=utc(worker.lease_until),
        alive=alive,
        state="lost" if not alive else "draining" if worker.info.get(STATE) == DRAINING else "alive",
        troubles=tuple(worker.info.get(TROUBLES, "").splitlines()),
    )


def findings_of_workers(workers: Iterable[WorkerRecord], now: float) -> list[Finding]:
    """What delays the handlers of workers that are alive."""
    alive = [view for view in (worker_view(worker, now) for worker in workers) if view.alive]
    findings = [
        Finding("handlers", Verdict.ADVICE, trouble, worker.worker_id, _REMEDY)
        for worker in alive
        for trouble in worker.troubles
    ]
    return findings or [Finding("handlers", Verdict.OK, f"{len(alive)} workers, none with full limits or left threads")]


def findings_of_handlers(missing: Mapping[str, int]) -> list[Finding]:
    """Which handlers sagas wait for because no worker has them."""
    return [
        Finding(
            "missing handlers",
            Verdict.PROBLEM,
            f"sagas that wait: {count}; {waiting_for(handler)}",
            remedy="start a worker that registers the handler; the sagas go on at once",
        )
        for handler, count in sorted(missing.items())
    ] or [Finding("missing handlers", Verdict.OK, "no saga waits for a handler that no worker has")]


def summary_of(meta: SagaMeta) -> SagaSummary:
    """A saga as lists show it."""
    return SagaSummary(
        saga_id=meta.saga_id,
        tenant_id=meta.tenant_id,
        workflow_type=meta.workflow_type,
        status=meta.status,
        current_step=max(meta.cursor, 0),
        step_count=meta.size,
        created_at=utc(meta.created_at),
        updated_at=utc(meta.updated_at),
        owner=meta.owner,
        priority=meta.priority,
        waiting_for=waiting_for(meta.waits_for),
    )
