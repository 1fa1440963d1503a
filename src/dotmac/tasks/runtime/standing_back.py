"""What happens to a saga whose next handler this process does not have: others get their turn before it tries again.

Which worker adopts a saga is a matter of chance, and no worker knows what the others can do. So whoever gives one back
stands back until each of the others can have had it. Where nobody has the handler, each round of them takes longer.
"""

from __future__ import annotations

import trio

_SHORTEST, _LONGEST_ROUND = 5.0, 600.0
_DOUBLINGS = 10  # more than there are between the two


class StandingBack:
    """The sagas that this process leaves to others for a while.

    Attributes:
        others: How many other workers there are, as far as is known.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self.others = 0

    def give_back(self, saga_id: str, fruitless: int) -> float:
        """Seconds until the saga may be adopted again, which is not for us before the others had their turn.

        Args:
            saga_id: The saga's.
            fruitless: How many adoptions in a row before this one led to no attempt.
        """
        turns = self.others + 1
        whole_round = min(_SHORTEST * 2.0 ** min(fruitless // turns, _DOUBLINGS), _LONGEST_ROUND)
        pause = max(_SHORTEST, whole_round / turns)
        self._until[saga_id] = trio.current_time() + pause * turns
        return pause

    def is_for_others(self, saga_id: str) -> bool:
        """Whether others have their turn with it."""
        return self._until.get(saga_id, 0.0) > trio.current_time()

    def forget_ended(self) -> None:
        """Forget those that others had their turn with."""
        if self._until:
            now = trio.current_time()
            self._until = {saga_id: until for saga_id, until in self._until.items() if until > now}
