"""What happens to a saga that this process cannot run, for want of a handler or because its journal cannot be read.

Which worker adopts a saga is a matter of chance, and no worker knows what the others can do. So whoever gives one back
stands back until each of the others can have had it. Where nobody has the handler, each round of them takes longer.
"""

from __future__ import annotations

import trio

_SHORTEST, _LONGEST_ROUND = 5.0, 600.0
_MOST_REFUSALS = 10_000  # sagas that are remembered
_DOUBLINGS = 10  # more than there are between the two


class StandingBack:
    """The sagas that this process leaves to others for a while.

    Attributes:
        others: How many other workers there are, as far as is known.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._refusals: dict[str, int] = {}
        self.others = 0

    def give_back(self, saga_id: str, fruitless: int) -> float:
        """Seconds until the saga may be adopted again, which is not for us before the others had their turn.

        Args:
            saga_id: The saga's.
            fruitless: How many adoptions in a row before this one led to no attempt.
        """
        turns = self.others + 1
        pause = self._pause(fruitless // turns, turns)
        self._until[saga_id] = trio.current_time() + pause * turns
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
