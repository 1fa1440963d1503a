"""Sagas that the storage may hold us for the owner of, while no actor of ours runs them.

It happens when the reply to a create or an adopt is lost, when the task that asked is cancelled, and when an actor
crashes. Nobody else will adopt them while our lease goes on, so we must. Each try waits longer than the one before.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType

import trio

from ..errors import NotStarted, OwnershipLost, SagaNotFound, SagaStateError, StorageRefused, UnreadableSaga
from ..saga.state import SagaState

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 600.0


class Strays:
    """When each stray is to be looked at, and how long to wait after that."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._pause: dict[str, float] = {}
        self._openings: dict[str, SagaState] = {}
        self._asked_for: Counter[str] = Counter()

    def __contains__(self, saga_id: str) -> bool:
        return saga_id in self._due

    def unless_settled(self, saga_id: str, opening: SagaState | None = None) -> _UnlessSettled:
        """A context manager that notes the saga if its block ends without a definite answer.

        Args:
            saga_id: The saga's.
            opening: As it is created in the block; see `opening`.
        """
        return _UnlessSettled(self, saga_id, opening)

    def opening(self, saga_id: str) -> SagaState | None:
        """The state with which we asked for the saga to be created, if that had no answer.

        As long as the storage has no more of it than that, none of its handlers was invoked.
        """
        return self._openings.get(saga_id)

    def settled(self, saga_id: str) -> None:
        """It has an actor. The pause stays: an actor that crashes as soon as it runs comes back to it."""
        self._due.pop(saga_id, None)
        self._openings.pop(saga_id, None)

    def add(self, saga_id: str, opening: SagaState | None = None) -> None:
        """Note a saga to be looked at after a pause that doubles each time."""
        if opening is not None:
            self._openings[saga_id] = opening
        pause = self._pause.get(saga_id, _FIRST_PAUSE)
        self._due[saga_id] = trio.current_time() + pause
        self._pause[saga_id] = min(pause * 2, _LONGEST_PAUSE)

    def forget(self, saga_id: str) -> None:
        """It is no stray (any more)."""
        self._due.pop(saga_id, None)
        self._pause.pop(saga_id, None)
        self._openings.pop(saga_id, None)

    def due(self) -> list[str]:
        """Those whose time has come."""
        now = trio.current_time()
        return [saga_id for saga_id, at in self._due.items() if at <= now]

    def asked_for(self, saga_id: str) -> bool:
        """Whether somebody here asks for the saga at the moment, and will have an actor for it, or note it anew."""
        return saga_id in self._asked_for

    def asks(self, saga_id: str, more: int) -> None:
        """One more asks for the saga, or one less."""
        self._asked_for[saga_id] += more
        if not self._asked_for[saga_id]:
            del self._asked_for[saga_id]


class _UnlessSettled:
    """See `Strays.unless_settled`. A class, because a generator here would cost as much as an append."""

    __slots__ = ("_opening", "_saga_id", "_strays")

    def __init__(self, strays: Strays, saga_id: str, opening: SagaState | None) -> None:
        self._strays = strays
        self._saga_id = saga_id
        self._opening = opening

    def __enter__(self) -> None:
        self._strays.asks(self._saga_id, 1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._strays.asks(self._saga_id, -1)
        if error is None:
            self._strays.settled(self._saga_id)
        elif isinstance(error, SagaNotFound):
            self._strays.forget(self._saga_id)
        # A definite answer to this try is no reason to forget: an earlier one, whose answer was lost, may still have
        # made it ours. NotStarted came too late for an actor; the worker retires next, and that hands the saga over.
        elif not isinstance(error, OwnershipLost | SagaStateError | StorageRefused | NotStarted | UnreadableSaga):
            self._strays.add(self._saga_id, self._opening)
