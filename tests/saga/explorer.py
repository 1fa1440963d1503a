"""Walks every way that a small saga can go, once per distinct moment, and shows that each of them ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saga.model import Budget, Node, begin, choices
from saga.properties import check_snapshot

if TYPE_CHECKING:
    from dotmac.tasks.saga.definition import SagaDefinition


@dataclass(slots=True)
class Walk:
    """What was seen.

    Attributes:
        moments: Distinct moments visited.
        taken: The names of all choices taken.
        ends: How often each final status was reached.
        calm_ends: The same, where an operator resumed the saga and nothing went wrong afterwards.
    """

    moments: int = 0
    taken: set[str] = field(default_factory=set)
    ends: Counter[str] = field(default_factory=Counter)
    calm_ends: Counter[str] = field(default_factory=Counter)


def explore(definition: SagaDefinition, left: Budget, walk: Walk | None = None) -> Walk:
    """Visit everything.

    Raises:
        AssertionError: A property does not hold, or a saga can go on for ever.
    """
    walk = Walk() if walk is None else walk
    # False while the moment is on the way that is being walked: meeting it again would be an endless saga. The
    # graph of distinct moments is finite, so without such a circle every way ends.
    finished: dict[tuple[object, ...], bool] = {}
    _visit(begin(definition, left), walk, finished)
    walk.moments += len(finished)
    return walk


def _visit(node: Node, walk: Walk, finished: dict[tuple[object, ...], bool]) -> None:
    key = node.key
    if key in finished:
        assert finished[key], "the saga comes back to where it was: it need never end"
        return
    finished[key] = False
    check_snapshot(node)
    ways = choices(node)
    if node.live.status.is_final and not node.batch:
        (walk.calm_ends if node.calm else walk.ends)[node.live.status] += 1
    for name, following in ways:
        walk.taken.add(name)
        _visit(following, walk, finished)
    finished[key] = True
