"""What users hold in their hands: statuses, and plain dataclasses that describe keys, sagas, steps and history.

These are views, taken at one moment. Changing one changes nothing in the storage.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal


class OperationStatus(StrEnum):
    """Where an operation, a saga or a step stands.

    Sagas: ``pending → in_progress → completed``, or ``in_progress → compensating → compensated`` (everything
    undone) or ``failed`` (parked: an operator decides). Idempotency keys use the first three and ``failed``.
    ``unknown`` is for steps only: the step may or may not have happened. ``parked`` is accepted for ``failed``.

    Attributes:
        is_final: Whether nothing more happens by itself (``failed`` can still be retried by an operator).
    """

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    FAILED = "failed"
    UNKNOWN = "unknown"

    is_final: bool

    def __init__(self, value: str) -> None:
        self.is_final = value in {"completed", "compensated", "failed"}

    @classmethod
    def _missing_(cls, value: object) -> OperationStatus | None:
        return cls.FAILED if value == "parked" else None


class StepKind(StrEnum):
    """What a step means for going back.

    A ``compensatable`` step (the default) can be undone. A ``pivot`` is the point of no return: once it
    completed, the saga only goes forward. ``retriable`` steps come after a pivot and have no compensation.
    """

    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


@dataclass(slots=True)
class IdempotencyKey:
    """One idempotent operation: its key, who asked for it, and how it ended if it has.

    Attributes:
        key: The record's name; pass it to ``check_idempotency`` and ``complete_idempotent_operation``.
        expires_at: When the record is forgotten (UTC); counted anew from completion.
        result: What the operation returned, once it completed.
        error: Why it failed, once it failed.
    """

    key: str
    tenant_id: str
    user_id: str | None
    operation_type: str
    created_at: datetime
    expires_at: datetime
    status: OperationStatus = OperationStatus.PENDING
    result: Any = None
    error: str | None = None
    parameters: dict[str, Any] | None = None


@dataclass(slots=True)
class SagaStep:
    """One step of a saga as it stands.

    Attributes:
        status: The forward half: pending, in_progress, completed, failed or unknown; compensated once it is undone.
        attempts: Attempts made, interrupted ones included.
        retry_count: Retries used up of `max_retries`. An interrupted attempt (orderly stop, lost worker) uses up none;
            an operator's retry begins anew.
        compensation_status: The backward half: None (nothing to undo so far), pending, in_progress,
            completed (undone) or failed (out of retries: an open item).
        next_attempt_at: When the next attempt is due (UTC), while one waits.
    """

    name: str
    operation: str
    parameters: dict[str, Any]
    _: KW_ONLY
    kind: StepKind = StepKind.COMPENSATABLE
    compensation_operation: str | None = None
    compensation_parameters: dict[str, Any] = field(default_factory=dict)
    max_retries: int = 3
    timeout_seconds: float | None = None
    status: OperationStatus = OperationStatus.PENDING
    attempts: int = 0
    retry_count: int = 0
    result: Any = None
    error: str | None = None
    compensation_status: OperationStatus | None = None
    compensation_attempts: int = 0
    compensation_error: str | None = None
    next_attempt_at: datetime | None = None


@dataclass(slots=True)
class SagaWorkflow:
    """One saga as it stands.

    Attributes:
        current_step: Index of the step that runs, waits or comes next; ``len(steps)`` when all are done.
        timeout_seconds: The saga's deadline, counted from its start.
        error: Why the saga turned back or was parked.
        open_items: What an operator has to see to, each one named; empty unless the status is ``failed``.
        retry_from: Names of the steps that ``retry_saga(from_step=…)`` accepts; empty unless the status is ``failed``.
        waiting_for: Why the next attempt cannot begin (no worker has its handler), or None.
    """

    saga_id: str
    tenant_id: str
    workflow_type: str
    steps: list[SagaStep]
    _: KW_ONLY
    status: OperationStatus = OperationStatus.PENDING
    current_step: int = 0
    created_at: datetime
    updated_at: datetime
    timeout_seconds: float | None = None
    idempotency_key: str | None = None
    priority: int = 0
    error: str | None = None
    open_items: list[str] = field(default_factory=list)
    retry_from: list[str] = field(default_factory=list)
    waiting_for: str | None = None
    owner: str | None = None
    epoch: int = 0

    @property
    def results(self) -> dict[str, Any]:
        """Results of the completed steps by step name."""
        return {step.name: step.result for step in self.steps if step.status is OperationStatus.COMPLETED}


@dataclass(frozen=True, slots=True)
class SagaOutcome:
    """How a saga ended.

    Attributes:
        status: ``completed``, ``compensated`` (everything that happened, or may have, was undone) or ``failed``
            (parked: an operator decides).
        results: Results of the steps that stand, by step name.
        error: Why it did not complete, or None.
        open_items: What an operator has to see to; empty unless ``failed``.
    """

    saga_id: str
    status: OperationStatus
    results: dict[str, Any]
    error: str | None = None
    open_items: tuple[str, ...] = ()

    @property
    def completed(self) -> bool:
        """Whether every step completed."""
        return self.status is OperationStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class SagaList:
    """A page of sagas, newest first, without their steps' details.

    Attributes:
        cursor: Pass it to get the next page; None: this was the last one.
    """

    sagas: list[SagaSummary]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class SagaSummary:
    """The head of a saga, as lists show it.

    Attributes:
        waiting_for: Why the next attempt cannot begin (no worker has its handler), or None.
    """

    saga_id: str
    tenant_id: str
    workflow_type: str
    status: OperationStatus
    current_step: int
    step_count: int
    created_at: datetime
    updated_at: datetime
    owner: str | None = None
    priority: int = 0
    waiting_for: str | None = None


@dataclass(slots=True)
class SagaHistoryEntry:
    """One fact of a saga's journal, or one note written beside it.

    Attributes:
        timestamp: The storage's own time (UTC) when the fact was recorded.
        event: What happened, such as ``step_started`` or ``compensation_failed``.
        sequence: Position in the journal; None for a note.
        details: The rest of the fact.
    """

    saga_id: str
    timestamp: datetime
    event: str
    sequence: int | None = None
    step: str | None = None
    attempt: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LockInfo:
    """A lock that is held.

    Attributes:
        owner: The process that holds it, as ``host:pid``.
        fence: Of its holder; of the first one where the process hands it on to others of its own.
        since: When the process got it (storage's time, UTC).
        until: When its lease ends unless it is renewed.
        waiters: Processes that wait for it.
    """

    name: str
    owner: str
    fence: int
    since: datetime
    until: datetime
    waiters: int


WorkerState = Literal["alive", "draining", "lost"]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One start of a runtime process, and its lease.

    Attributes:
        worker_id: As sagas name their owner.
        started_at: Storage's time (UTC).
        lease_until: When others may take its sagas over, unless it renews the lease.
        alive: Whether the lease holds.
        state: ``alive``; ``draining`` while it lets running attempts end and begins nothing new; ``lost`` once its
            lease is over and its sagas are not taken over yet. As old as the last renewal of its lease.
        troubles: What delays its handlers, in words: full limits, threads that outlived their attempts. As old as the
            last renewal of its lease.
    """

    worker_id: str
    host: str
    pid: int | None
    started_at: datetime
    lease_until: datetime
    alive: bool
    state: WorkerState
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitInfo:
    """One limit on the handlers of a process.

    Attributes:
        name: ``max_running``, ``sync_handler_threads``, or an operation that was registered with a concurrency.
        capacity: Handlers that may run at once; None: no bound.
        running: Handlers that run. More than the capacity where handlers resumed after waiting for others.
        waiting: Handlers that wait while this limit is full.
        operations: Running handlers by operation, most first.
    """

    name: str
    capacity: int | None
    running: int
    waiting: int
    operations: dict[str, int]


@dataclass(frozen=True, slots=True)
class LeftThread:
    """A thread that goes on after its attempt was cut off.

    Attributes:
        operation: Whose handler runs in it.
        subject: The saga, or the token of the idempotent operation.
        seconds: Since its start.
    """

    operation: str
    subject: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HandlerLoad:
    """The handlers of one process at one moment.

    Attributes:
        limits: `max_running`, `sync_handler_threads`, then operations that have a concurrency and ran already.
        left_threads: Threads whose attempts were cut off; they take no place in the pool.
    """

    limits: list[LimitInfo]
    left_threads: list[LeftThread]


class Verdict(StrEnum):
    """How serious a finding is: ``ok``, ``advice`` (it works, but consider this) or ``problem`` (promises break)."""

    OK = "ok"
    ADVICE = "advice"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at the storage found.

    Attributes:
        check: What was looked at, such as ``persistence``.
        node: Of which server; empty where it is about all of them.
        message: What was found, with its figures.
        remedy: The command, or the change, that mends it; None where nothing has to be mended.
    """

    check: str
    verdict: Verdict
    message: str
    node: str = ""
    remedy: str | None = None
