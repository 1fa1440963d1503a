"""What happens to a saga that this process cannot run, for want of a handler or because its journal cannot be read.

Which worker adopts a saga is a matter of chance, and no worker knows what the others can do. So whoever gives one back
stands back until each of the others can have had it. Where nobody has the handler, each round of them takes longer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

_SHORTEST, _LONGEST_ROUND = 5.0, 600.0
_MOST_REFUSALS = 10_000  # sagas that are remembered
_DOUBLINGS = 10  # more than there are between the two
_log = logging.getLogger(__name__)


class StandingBack:
    """The sagas that this process leaves to others for a while.

    Attributes:
        others: How many other workers there are, as far as is known.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._refusals: dict[str, int] = {}
        self._given_back: dict[str, None] = {}
        self.others = 0

    def forget(self, saga_id: str) -> None:
        """Its handler has been registered here: leave it to others no longer."""
        self._until.pop(saga_id, None)
        self._given_back.pop(saga_id, None)

    def give_back(self, saga_id: str, fruitless: int, operation: str, fields: Mapping[str, object]) -> float:
        """Seconds until the saga may be adopted again, which is not for us before the others had their turn.

        Args:
            saga_id: The saga's.
            fruitless: How many adoptions in a row before this one led to no attempt.
            operation: What no handler is registered for, for the log. The first time counts as a warning.
            fields: Of the record in the log.
        """
        turns = self.others + 1
        pause = self._pause(fruitless // turns, turns)
        self._until[saga_id] = trio.current_time() + pause * turns
        level = logging.DEBUG if saga_id in self._given_back else logging.WARNING
        message = "saga %s waits %.0f s: no handler for %r is registered in this process"
        _log.log(level, message, saga_id, pause, operation, extra=dict(fields))
        self._given_back[saga_id] = None
        while len(self._given_back) > _MOST_REFUSALS:
            del self._given_back[next(iter(self._given_back))]
        return pause

    @staticmethod
    def _pause(rounds: int, turns: int) -> float:
        whole_round = min(_SHORTEST * 2.0 ** min(rounds, _DOUBLINGS), _LONGEST_ROUND)
        return max(_SHORTEST, whole_round / turns)

    def pause(self, saga_id: str) -> float:
        """Seconds for which a saga is left to other workers if its journal cannot be read here."""
        return self._pause(self._refusals.get(saga_id, 0), self.others + 1)

    def unreadable(self, saga_id: str) -> bool:
        """Leave the saga, whose journal could not be read, to other workers for a while; True for the first time."""
        refusals, turns = self._refusals.get(saga_id, 0), self.others + 1
        self._until[saga_id] = trio.current_time() + self._pause(refusals, turns) * turns
        self._refusals[saga_id] = refusals + 1
        while len(self._refusals) > _MOST_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        return not refusals

    def is_for_others(self, saga_id: str) -> bool:
        """Whether others have their turn with it."""
        return self._until.get(saga_id, 0.0) > trio.current_time()

    def forget_ended(self) -> None:
        """Forget those that others had their turn with."""
        if self._until:
            now = trio.current_time()
            self._until = {saga_id: until for saga_id, until in self._until.items() if until > now}
