"""What a handler is told beside its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw

from ..errors import UsageError
from ..jsonvalue import decode
from ..saga.commands import Invoke
from ..saga.state import SagaState, TrackStatus
from .permits import Permit


class StepResults(Mapping[str, Any]):
    """Results of a saga's completed steps by name, for one attempt.

    Each result is decoded once, when it is first asked for; what the handler changes in it stays in this attempt.
    """

    __slots__ = ("_decoded", "_indices", "_state")

    def __init__(self, state: SagaState) -> None:
        self._state = state
        self._indices: dict[str, int] | None = None
        self._decoded: dict[str, Any] = {}

    def raw(self, name: str) -> Raw:
        """The JSON of a result. Raises KeyError."""
        if self._indices is None:
            self._indices = {definition.name: at for at, definition in enumerate(self._state.definition.steps)}
        step = self._state.steps[self._indices[name]]
        if step.forward.status is not TrackStatus.DONE or step.result is None:
            raise KeyError(name)
        return step.result

    def __getitem__(self, name: str) -> Any:
        if name not in self._decoded:
            self._decoded[name] = decode(self.raw(name))
        return self._decoded[name]

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
        fence: When the attempt began, in microseconds of the storage's clock. An attempt has a higher fence than every
            attempt that began before, of whichever saga or operation: a resource that remembers the highest fence it
            saw can refuse the writes of an attempt that was replaced.
        lock_fence: Of the lock that the step names, rising with each of its holders; 0 without a lock. Of the two, a
            resource compares one, not both.
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
    _beat: Callable[[Callable[[datetime | None], None]], None] = lambda _tell: None
    _permit: Permit | None = None
    _epoch: int = 0  # of the saga's owner, for traces; 0 outside of sagas
    _queued: bool = False  # a plain function that has to wait for a thread is not invoked yet
    _withdraw: Callable[[], bool] = lambda: False  # keeps it from being called; False: it was called

    def heartbeat(self) -> None:
        """Say that the work goes on: the attempt's time-out starts again from now (the saga's deadline stays).

        It can be called in any thread and event loop. Outside of the runtime's trio run, `deadline` moves once the
        runtime has handled the call.

        Raises:
            UsageError: The context is a copy that was made by pickling it: only its own process can move the deadline.
        """
        self._beat(self._set_deadline)

    def _set_deadline(self, deadline: datetime | None) -> None:
        self.deadline = deadline

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what the context says, for a handler that works in a process pool."""
        values = {name: getattr(self, name) for name in self.__struct_fields__ if not name.startswith("_")}
        return _remade, ({**values, "results": dict(self.results), "metadata": dict(self.metadata)},)


def _remade(values: dict[str, Any]) -> HandlerContext:
    return HandlerContext(**values, _beat=_no_heartbeat)


def _no_heartbeat(_tell: object) -> None:
    raise UsageError("this context is a copy: call heartbeat() in the process in which the handler was called")


def attempt_token(state: SagaState, command: Invoke) -> str:
    """What stays the same for all attempts at one step, or at undoing it once."""
    times_undone = state.steps[command.step].times_undone
    again = f".{times_undone}" if times_undone else ""
    return f"{state.definition.saga_id}:{command.step}{again}{':undo' if command.undo else ''}"
