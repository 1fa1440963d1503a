"""A supervised child: what it is (`ChildSpec`) and one life of it, from a start to the end (`ChildLife`).

A life knows how to be guarded, that is, to run without its failure harming anybody, and how to be stopped: politely
first, by cancellation at a deadline. Whether another life follows is the supervisor's business, not decided here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum

import trio

from dotmac.tasks.actors.failures import Report, split_failure
from dotmac.tasks.errors import InvalidInput, UsageError


class Restart(Enum):
    """Which endings of a child are followed by a restart."""

    PERMANENT = "permanent"  # every one
    TRANSIENT = "transient"  # failures
    TEMPORARY = "temporary"  # none

    def follows(self, *, failed: bool) -> bool:
        """Tell whether a child that ended, by failure or not, is started again."""
        return self is Restart.PERMANENT or (self is Restart.TRANSIENT and failed)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What a supervisor needs to know to start, restart and stop a child.

    Attributes:
        name: Unique among the supervisor's children.
        run: Called for each life of the child; the child lives until what it returned is done.
        restart: Which endings are followed by a restart.
        shutdown_seconds: How long the child may take to heed a polite stop (`ChildLife.stopping`) before it is
            cancelled; 0 cancels at once, ``math.inf`` never.
        handshake: Whether the child counts as started only when it calls ``current_child().started()``. Until then
            the supervisor starts nothing else and restarts nobody, so it should not take long. Without a handshake a
            child counts as started when its `run` is entered.

    Raises:
        InvalidInput: `shutdown_seconds` is negative.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    restart: Restart = Restart.PERMANENT
    shutdown_seconds: float = 5.0
    handshake: bool = False

    def __post_init__(self) -> None:
        if not self.shutdown_seconds >= 0:
            raise InvalidInput("shutdown_seconds", "must be 0 seconds or more")


class ChildLife:
    """One life of a child. The child itself gets it from `current_child`.

    Attributes:
        spec: What the child is.
        stopping: Set when the child is politely asked to stop.
        settled: Set when there is no more reason to wait for the start: started, ended, or called off.
        ended: Set when the life is over.
        failure: What the child failed with, once it has ended.
        is_started: Whether the child counts as started.
        born_at: When it was started, in seconds of trio's clock.
    """

    __slots__ = ("_on_end", "_on_stop", "_raised_unless_started", "_report", "_scope", "born_at", "ended", "failure",
                 "is_started", "settled", "spec", "stopping")  # fmt: skip

    def __init__(
        self,
        spec: ChildSpec,
        *,
        on_end: Callable[[ChildLife], None],
        report: Report,
        raised_unless_started: bool = False,
    ) -> None:
        self.spec = spec
        self.stopping = trio.Event()
        self.settled = trio.Event()
        self.ended = trio.Event()
        self.failure: Exception | None = None
        self.is_started = False
        self.born_at = trio.current_time()
        self._scope = trio.CancelScope()
        self._on_stop: Callable[[], None] | None = None
        self._on_end = on_end
        self._report = report
        self._raised_unless_started = raised_unless_started  # then whoever runs the supervisor is told anyway

    def started(self) -> None:
        """Say that the child works now. Calling it again does nothing."""
        self.is_started = True
        self.settled.set()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Have `callback` called at the polite stop (at once if it came already), for a child that waits elsewhere.

        It is called in the supervisor's task; it must neither raise nor block. The last one registered counts.
        """
        self._on_stop = callback
        if self.stopping.is_set():
            callback()

    @property
    def failed_to_start(self) -> bool:
        """Whether it failed before it counted as started."""
        return self.failure is not None and not self.is_started

    @property
    def is_waiting_here(self) -> bool:
        """Whether the current task belongs to this life, and this life has yet to start."""
        return _current.get(None) is self and not self.settled.is_set()

    async def guard(self) -> None:
        """Live. A failure is kept, and reported; cancellation from outside, KeyboardInterrupt and the like pass on.

        Where something passes on, `on_end` is not called: the whole supervisor is being cut off, and a failure that
        came in the same group must not be taken for one that a restart will mend.
        """
        _current.set(self)  # each task has its own context, so this reaches the child and the tasks it starts
        try:
            with self._scope:
                if not self.spec.handshake:
                    self.started()
                await self.spec.run()
        except BaseException as error:
            self.failure, passing = split_failure(error)
            if self.failure is not None and (self.is_started or not self._raised_unless_started):
                self._report(self.spec.name, self.failure)
            if passing is error:
                raise
            if passing is not None:
                raise passing from passing.__cause__
            self._on_end(self)
        else:
            self._on_end(self)
        finally:
            self.ended.set()
            self.settled.set()

    async def stop(self) -> None:
        """Ask the child to stop, cancel it when its time is over, and return when it has ended.

        When this itself is cancelled the child may still be running; whoever cancelled is ending its nursery as well.
        """
        if self.ended.is_set():
            return
        self.stopping.set()
        if self._on_stop is not None:
            self._on_stop()
        with trio.move_on_after(self.spec.shutdown_seconds):
            await self.ended.wait()
        self._scope.cancel()
        await self.ended.wait()


_current: ContextVar[ChildLife] = ContextVar("dotmac.tasks.actors.current_child")


def current_child() -> ChildLife:
    """Return the life of the supervised child that this task belongs to.

    Raises:
        UsageError: The task is not part of a child started from a `ChildSpec`.
    """
    life = _current.get(None)
    if life is None:
        raise UsageError("this task is not part of a supervised child")
    return life
