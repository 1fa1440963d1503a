"""What all parts of the memory storage share: the clock, the topics, and how a plain method becomes a verb."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

import trio

from ..protocol import Observer

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S", bound="MemoryCore")


_VERBS_PER_TURN = 4
"""A turn of the scheduler costs as much as a verb: other tasks have theirs after every so many verbs."""


class MemoryCore:
    """Clock and topics."""

    def __init__(self) -> None:
        self._verbs = 0
        self.observer: Observer | None = None
        self._watches: dict[str, set[_Watch]] = {}
        self._clock: trio.abc.Clock | None = None  # each trio run has one of its own, or goes on with another's time
        self._base = 0.0
        self._latest = 0.0

    def now(self) -> float:
        """Unix seconds that advance with trio's clock, and never go back from one trio run to the next."""
        clock = trio.lowlevel.current_clock()
        elapsed = clock.current_time()
        if clock is not self._clock:
            self._base = max(time.time(), self._latest) - elapsed
            self._clock = clock
        self._latest = latest = self._base + elapsed
        return latest

    @asynccontextmanager
    async def watch(self, topic: str) -> AsyncIterator[_Watch]:
        """Listen to a topic while inside."""
        watch = _Watch()
        self._watches.setdefault(topic, set()).add(watch)
        try:
            yield watch
        finally:
            self._watches[topic].discard(watch)
            if not self._watches[topic]:
                del self._watches[topic]

    def publish(self, topic: str) -> None:
        """Wake everyone who watches the topic."""
        for watch in self._watches.get(topic, ()):
            watch.set()


class _Watch:
    """A flag that a publisher raises and a waiter lowers."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()


class Verb(Protocol[P, R_co]):
    """What a plain method becomes. Said by an async method, since type checkers differ in what those return."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """A verb of the storage."""
        ...


def verb(method: Callable[Concatenate[S, P], R]) -> Verb[P, R]:
    """Make a plain method a verb: a checkpoint first (cancelled there, nothing happened), then all in one go."""

    @functools.wraps(method)
    async def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        self._verbs += 1
        if self._verbs % _VERBS_PER_TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        if not self.observer:
            return method(self, *args, **kwargs)
        start = time.perf_counter()
        failure: BaseException | None = None
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            failure = error
            raise
        finally:
            self.observer(method.__name__, time.perf_counter() - start, failure)

    return cast("Verb[P, R]", call)
