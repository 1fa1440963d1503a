"""Sagas that the storage may hold us for the owner of, while no actor of ours runs them.

It happens when the reply to a create or an adopt is lost, when the task that asked is cancelled, and when an actor
crashes. Nobody else will adopt them while our lease goes on, so we must. Each try waits longer than the one before.
"""

from __future__ import annotations

from types import TracebackType

import trio

from ..errors import NotStarted, OwnershipLost, SagaNotFound, SagaStateError, StorageRefused

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 600.0


class Strays:
    """When each stray is to be looked at, and how long to wait after that."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._pause: dict[str, float] = {}

    def __contains__(self, saga_id: str) -> bool:
        return saga_id in self._due

    def unless_settled(self, saga_id: str) -> _UnlessSettled:
        """A context manager that notes the saga if its block ends without a definite answer."""
        return _UnlessSettled(self, saga_id)

    def settled(self, saga_id: str) -> None:
        """It has an actor. The pause stays: an actor that crashes as soon as it runs comes back to it."""
        self._due.pop(saga_id, None)

    def add(self, saga_id: str) -> None:
        """Note a saga to be looked at after a pause that doubles each time."""
        pause = self._pause.get(saga_id, _FIRST_PAUSE)
        self._due[saga_id] = trio.current_time() + pause
        self._pause[saga_id] = min(pause * 2, _LONGEST_PAUSE)

    def forget(self, saga_id: str) -> None:
        """It is no stray (any more)."""
        self._due.pop(saga_id, None)
        self._pause.pop(saga_id, None)

    def due(self) -> list[str]:
        """Those whose time has come."""
        now = trio.current_time()
        return [saga_id for saga_id, at in self._due.items() if at <= now]


class _UnlessSettled:
    """See `Strays.unless_settled`. A class, because a generator here would cost as much as an append."""

    __slots__ = ("_saga_id", "_strays")

    def __init__(self, strays: Strays, saga_id: str) -> None:
        self._strays = strays
        self._saga_id = saga_id

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._strays.settled(self._saga_id)
        elif isinstance(error, SagaNotFound):
            self._strays.forget(self._saga_id)
        # A definite answer to this try is no reason to forget: an earlier one, whose answer was lost, may still have
        # made it ours. NotStarted came too late for an actor; the worker retires next, and that hands the saga over.
        elif not isinstance(error, OwnershipLost | SagaStateError | StorageRefused | NotStarted):
            self._strays.add(self._saga_id)
