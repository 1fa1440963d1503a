"""Keeps leases alive: one task knows when the next is due, and asks for all due ones at once.

Each renewal is a task of its own, so that a node that does not answer holds up nobody else's lease; sent in the same
moment, they leave in one write. What is held for a moment only costs nothing here: it is gone before it is due.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import trio

RENEWALS_PER_LEASE = 3
MARGIN = 0.05
"""Of a lease: who works under it is cancelled this much before it ends, for the time that cancelling takes."""

_TOGETHER = 1 / 4  # of the time between two renewals: those due so soon are renewed with those due now
_LATER = 1 / RENEWALS_PER_LEASE**2  # of a lease: when to ask again where there was no answer


class Renewable(Protocol):
    """A lease that somebody holds; the same one is only equal to itself.

    Attributes:
        lease: Its seconds.
        renew_at: When it should be renewed, in seconds of trio's clock.
    """

    lease: float
    renew_at: float


H = TypeVar("H", bound=Renewable)


class Renewals(Generic[H]):
    """The leases of one kind that this process holds.

    Args:
        renew: Asks for a longer lease. By its end, the lease is due later (see `is_due_again`), or removed.
    """

    def __init__(self, renew: Callable[[H], Awaitable[None]]) -> None:
        self._renew = renew
        self._held: set[H] = set()
        self._asking: set[H] = set()
        self._wakes_at = math.inf
        self._sooner = trio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, held: object) -> bool:
        return held in self._held

    def add(self, held: H) -> None:
        """Keep it until `remove`."""
        self._held.add(held)
        if held.renew_at < self._wakes_at:
            self._wakes_at = held.renew_at
            self._sooner.set()

    def remove(self, held: H) -> None:
        """Keep it no longer."""
        self._held.discard(held)

    async def run(self) -> None:
        """Renew what is due, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._sooner = trio.Event()
                # Where what woke us is given up already, we wake up for it all the same: leases that are held for a
                # moment only, one after the other, would wake us for each of them otherwise.
                expected = self._wakes_at if self._wakes_at > trio.current_time() else math.inf
                self._wakes_at = min((held.renew_at for held in self._held - self._asking), default=expected)
                with trio.move_on_at(self._wakes_at):
                    await self._sooner.wait()
                now = trio.current_time()
                for held in self._held - self._asking:
                    if held.renew_at <= now + held.lease / RENEWALS_PER_LEASE * _TOGETHER:
                        self._asking.add(held)
                        nursery.start_soon(self._ask, held)

    async def _ask(self, held: H) -> None:
        try:
            if held in self._held:  # not given up since it was found due
                await self._renew(held)
        finally:
            self._asking.discard(held)
            self._sooner.set()


def certain_until(asked_at: float, lease: float) -> float:
    """Until when a lease of these seconds is ours for certain that was granted to a request of that moment."""
    return asked_at + lease * (1 - MARGIN)


def due_at(asked_at: float, lease: float) -> float:
    """When such a lease should be renewed."""
    return asked_at + lease / RENEWALS_PER_LEASE


def is_due_again(held: Renewable) -> None:
    """There was no answer: ask again soon."""
    held.renew_at = trio.current_time() + held.lease * _LATER
