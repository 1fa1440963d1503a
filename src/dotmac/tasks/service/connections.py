"""Places for connections: how many connections a process holds open, and which one closes to make room for a new one.

Each connection takes a file descriptor. A process without a free descriptor accepts no connection, also not that of a
probe, so a connection closes before the descriptors run out. The candidates are ordered: first a connection without
an admitted request (idle, stalled in its head or body, before sign-in), then an event stream or a request that is
being answered; among equals, the one that the server has sent nothing to for longest. A client gains nothing by
sending its request byte by byte.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Scope

MAX_CONNECTIONS = 10_000
"""Connections that a process holds open at a time, where the limit on file descriptors allows as many."""

_KEY = "dotmac.tasks.place"  # in the state of a connection, which each of its requests gets
_RESERVED_SHARE = 4  # 1 / 4 of the descriptors, for Redis, logs and what handlers open
_MOST_RESERVED = 1024


class Place:
    """The place of one connection.

    Args:
        close: Closes the connection at once; its tasks end as if the client had closed it.
    """

    __slots__ = ("admitted", "close", "closed")

    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close
        self.admitted = 0  # requests that are being answered, of callers who are known
        self.closed = False


class Places:
    """The places of a process.

    Args:
        most: Places there are, as far as the descriptors allow.
    """

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._others = 0  # descriptors in use that are no connections
        self._places: dict[Place, None] = {}  # the first one was used least recently

    @contextmanager
    def taken(self, descriptor: int, close: Callable[[], None]) -> Iterator[Place]:
        """Have a place while inside; another connection closes where there is none left.

        Args:
            descriptor: Of the new connection. The system gives the lowest number that is free, so at least as many
                descriptors are in use, for whatever purpose.
            close: See `Place`.
        """
        # A place that was just freed hides the other descriptors from this measure, so it falls by one at a time.
        self._others = max(descriptor - len(self._places), self._others - 1)
        room = min(self._most, _usable_descriptors() - self._others)
        while self._places and len(self._places) >= room:
            self._close_one()
        place = Place(close)
        self._places[place] = None
        try:
            yield place
        finally:
            self._places.pop(place, None)

    def used(self, place: Place) -> None:
        """The server has sent something to the client."""
        if place in self._places:
            del self._places[place]
            self._places[place] = None

    def _close_one(self) -> None:
        place = next((place for place in self._places if not place.admitted), next(iter(self._places)))
        del self._places[place]
        place.closed = True
        place.close()


@contextmanager
def admitted(scope: Scope) -> Iterator[None]:
    """Mark the connection of this request as one with an admitted request while inside."""
    place = scope.get("state", {}).get(_KEY)
    if not isinstance(place, Place):  # of a server that knows no places
        yield
        return
    place.admitted += 1
    try:
        yield
    finally:
        place.admitted -= 1


def state_with(state: dict[str, object], place: Place) -> dict[str, object]:
    """The state of a connection, with its place."""
    return {**state, _KEY: place}


def _usable_descriptors() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return float("inf")
    return limit - min(limit // _RESERVED_SHARE, _MOST_RESERVED)
