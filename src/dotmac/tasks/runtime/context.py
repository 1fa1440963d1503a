"""What a handler is told beside its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from ..saga.commands import Invoke
from ..saga.state import SagaState, TrackStatus
from ..saga.views import result_value


class StepResults(Mapping[str, Any]):
    """Results of a saga's completed steps by name; each is decoded when asked for, into a copy of its own."""

    __slots__ = ("_state",)

    def __init__(self, state: SagaState) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Any:
        for definition, step in zip(self._state.definition.steps, self._state.steps, strict=True):
            if definition.name == name and step.forward.status is TrackStatus.DONE:
                return result_value(step)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        for definition, step in zip(self._state.definition.steps, self._state.steps, strict=True):
            if step.forward.status is TrackStatus.DONE:
                yield definition.name

    def __len__(self) -> int:
        return sum(1 for _ in self)


class HandlerContext(msgspec.Struct):
    """Where and for whom a handler runs.

    Attributes:
        token: Stable across retries, restarts and takeovers of this very operation: pass it downstream as the
            idempotency key, and doing it again does nothing.
        attempt: 1 for the first attempt.
        fence: Rises with each change of owner; a resource that remembers the highest one it saw can refuse
            writes of an owner that was replaced without noticing. 0 outside sagas.
        lock_fence: Of the lock that the step names, rising with each of its holders; 0 without a lock.
        deadline: When this attempt is cut off unless it ends or beats (storage's time, UTC); None: never.
        results: Results of the saga's completed steps by name.
        metadata: The strings that travel with the saga.
        compensating: Whether the handler undoes its step.
        step_happened: When compensating, whether the step is known to have happened; False: it may have.
    """

    tenant_id: str
    operation_type: str
    token: str
    attempt: int = 1
    saga_id: str | None = None
    workflow_type: str | None = None
    step: str | None = None
    user_id: str | None = None
    fence: int = 0
    lock_fence: int = 0
    deadline: datetime | None = None
    results: Mapping[str, Any] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    compensating: bool = False
    step_happened: bool = True
    _beat: Callable[[], datetime | None] = lambda: None
    _queued: bool = False  # a plain function that has to wait for a thread is not invoked yet

    def heartbeat(self) -> None:
        """Say that the work goes on: the attempt's time-out starts again from now (the saga's deadline stays).

        From a worker thread, call it through ``trio.from_thread.run_sync(context.heartbeat)``.
        """
        self.deadline = self._beat()


def attempt_token(state: SagaState, command: Invoke) -> str:
    """What stays the same for all attempts at one step, or at undoing it once."""
    times_undone = state.steps[command.step].times_undone
    again = f".{times_undone}" if times_undone else ""
    return f"{state.definition.saga_id}:{command.step}{again}{':undo' if command.undo else ''}"
