"""Permits: how many handlers run at once in this process, and which of them hold a thread.

Three limits apply to a handler: `max_running` (all handlers), `sync_handler_threads` (plain functions), and the
concurrency of its operation. A handler gets its permit from all of its limits at once, or waits and holds none. Waiting
handlers get permits in order of priority, then of arrival. A handler that waits for one limit does not delay handlers
that need other limits.

A handler that waits for another handler (the result of a saga, an idempotent operation, a lock) could wait for one
that waits for its permit. So a permit is suspended during such a wait, and counts again afterwards without waiting:
handlers that resume can exceed a limit, and the limit admits no others until it is below its capacity. This is the
managed blocking of fork-join pools.

A thread cannot be stopped. A thread whose attempt was cut off leaves the pool, so that other handlers get its place,
and is counted and named as a left thread. From `MOST_LEFT_THREADS` on, an operation that left threads behind gets no
permits until one of these threads has ended.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable

import trio

from ..errors import NotStarted
from ..models import HandlerLoad, LeftThread, LimitInfo
from .handler_limits import Demand, HandlerQueue, Limit, Waiter

MAX_RUNNING, SYNC_HANDLER_THREADS = "max_running", "sync_handler_threads"
MOST_LEFT_THREADS = 256
_QUIET = 10.0  # seconds between two messages that one limit is full: a limit under load is full again and again
_NAMED = 5  # operations that one message names
_log = logging.getLogger(__name__)


class Permit:
    """What a handler holds of its limits while it runs. Called in the trio run, but for `suspend` and `resume`.

    Attributes:
        demand: What the handler needs.
        subject: The saga, or the token of the idempotent operation.
        since: When a plain handler got it (``time.monotonic()``: a left thread can outlive its trio run).
    """

    __slots__ = ("_limits", "_permits", "_released", "_waits", "demand", "since", "subject")

    def __init__(self, permits: Permits, limits: tuple[Limit, ...], demand: Demand, subject: str) -> None:
        self._permits = permits
        self._limits = limits
        self._released = False
        self._waits = 0
        self.demand = demand
        self.subject = subject
        self.since = time.monotonic() if demand.thread else 0.0
        demand.running += 1
        for limit in limits:
            limit.running += 1

    def release(self) -> None:
        """The handler has ended, or will not be called. Again does nothing."""
        if not self._released:
            self._released = True
            if self._waits == 0:
                self._uncount()

    def suspend(self) -> None:
        """The handler waits for what may need a permit. Called in any thread, once for each of its waits."""
        self._permits.call(self._suspend)

    def resume(self) -> None:
        """The wait is over. Called in any thread."""
        self._permits.call(self._resume)

    def thread_left(self) -> None:
        """The handler's thread goes on although its attempt was cut off."""
        self._permits.thread_left(self)

    def thread_ended(self) -> None:
        """That thread has ended. Called in the thread."""
        self._permits.call(lambda: self._permits.thread_ended(self))

    def _suspend(self) -> None:
        self._waits += 1
        if self._waits == 1 and not self._released:
            self._uncount()

    def _resume(self) -> None:
        self._waits -= 1
        if self._waits == 0 and not self._released:
            self._count()

    def _count(self) -> None:
        self.demand.running += 1
        for limit in self._limits:
            limit.running += 1

    def _uncount(self) -> None:
        self.demand.running -= 1
        reported = False
        for limit in self._limits:
            limit.running -= 1
            reported = reported or limit.reported
        if self._permits.queues:
            self._permits.serve()
        if reported:
            for limit in self._limits:
                limit.reported = limit.reported and limit.running >= limit.capacity  # else nothing waits for it


class Permits:
    """The limits of one process.

    Args:
        max_running: Handlers at once; None: no bound.
        threads: Plain handlers at once.

    Attributes:
        queues: Of handlers that wait, by what they need; empty ones are removed.
    """

    def __init__(self, max_running: int | None, threads: int) -> None:
        running = Limit(MAX_RUNNING, math.inf if max_running is None else max_running)
        threaded = Limit(SYNC_HANDLER_THREADS, threads)
        self._async, self._sync = (running,), (running, threaded)
        self._demands: list[Demand] = []
        self.queues: dict[Demand, HandlerQueue[Permit]] = {}
        self._numbers = itertools.count()
        self._left: dict[Permit, float] = {}
        self._held_back: set[str] = set()
        self._thread = threading.get_ident()
        self._token: trio.lowlevel.TrioToken | None = None
        self._closed = False

    # --- its life -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Belong to the present trio run."""
        self._thread = threading.get_ident()
        self._token = trio.lowlevel.current_trio_token()
        self._closed = False

    def close(self) -> None:
        """The runtime stops: a handler that still waits is not called, and its wait raises."""
        self._closed = True
        for queue in self.queues.values():
            for waiter in queue.all():
                waiter.event.set()

    def call(self, function: Callable[[], None]) -> None:
        """Call it in the trio run, from any thread; at once where that run is over."""
        if threading.get_ident() == self._thread or self._token is None:
            function()
            return
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            function()

    # --- getting one ----------------------------------------------------------------------------------------

    def take(self, demand: Demand, subject: str) -> Permit | None:
        """A permit, if there is one without waiting."""
        limits = demand.limits or self._applied(demand)
        for limit in limits:
            if limit.running >= limit.capacity:
                return None
        if self._left and self._holds_back(demand):
            return None
        return Permit(self, limits, demand, subject)

    async def wait(self, demand: Demand, subject: str, priority: int = 0) -> Permit:
        """Wait for a permit. When it raises or is cancelled, nothing is held.

        Args:
            demand: What the handler needs.
            subject: The saga, or the token of the idempotent operation.
            priority: Higher is served first.

        Raises:
            NotStarted: The runtime stops.
        """
        permit = None if self._closed else self.take(demand, subject)
        if permit is not None:
            return permit
        queue = self.queues.setdefault(demand, HandlerQueue(demand, demand.limits or self._applied(demand)))
        waiter: Waiter[Permit] = Waiter(subject)
        queue.add(priority, next(self._numbers), waiter)
        self._report_full(queue)
        try:
            if not self._closed:
                await waiter.event.wait()
        except BaseException:
            if waiter.permit is not None:
                waiter.permit.release()
            raise
        finally:
            queue.leave(waiter)
            if not queue.waiting and self.queues.get(demand) is queue:
                del self.queues[demand]
        if waiter.permit is None:
            raise NotStarted("the runtime is stopping, and the handler was not called")
        return waiter.permit

    def serve(self) -> None:
        """Give permits to waiting handlers, as far as their limits have room."""
        while self.queues and not self._closed:
            ready = [queue for queue in self.queues.values() if queue.waiting and queue.has_room]
            ready = [queue for queue in ready if not self._holds_back(queue.demand)]
            if not ready:
                break
            queue = min(ready, key=HandlerQueue.place_of_first)
            waiter = queue.first()
            waiter.permit = Permit(self, queue.limits, queue.demand, waiter.subject)
            queue.leave(waiter)
            waiter.event.set()

    def _applied(self, demand: Demand) -> tuple[Limit, ...]:
        """The limits of a demand that asks for its first permit."""
        limits = self._sync if demand.thread else self._async
        demand.limits = limits if demand.limit is None else (*limits, demand.limit)
        self._demands.append(demand)
        return demand.limits

    # --- threads that outlive their attempts ------------------------------------------------------------------

    def thread_left(self, permit: Permit) -> None:
        """The thread of this permit's handler goes on although its attempt was cut off."""
        self._left[permit] = permit.since
        _log.warning(
            "the thread of %r (%s) goes on after its attempt was cut off, %.1f s after its start; %d such threads run",
            permit.demand.operation,
            permit.subject,
            time.monotonic() - permit.since,
            len(self._left),
        )

    def thread_ended(self, permit: Permit) -> None:
        """That thread has ended."""
        self._left.pop(permit, None)
        self._held_back.clear()
        _log.info("the thread of %r (%s) has ended after its attempt", permit.demand.operation, permit.subject)
        self.serve()

    def _holds_back(self, demand: Demand) -> bool:
        """Whether the operation has to wait for the end of its left threads."""
        if len(self._left) < MOST_LEFT_THREADS or not demand.thread:
            return False
        operation = demand.operation
        count = sum(permit.demand.operation == operation for permit in self._left)
        if count and operation not in self._held_back:
            self._held_back.add(operation)
            _log.error(
                "%r gets no more threads until one of its %d left threads has ended: their attempts were cut off, and "
                "the threads run on. Give the handler a time limit of its own",
                operation,
                count,
            )
        return count > 0

    # --- looking ----------------------------------------------------------------------------------------------

    def load(self) -> HandlerLoad:
        """What runs and what waits, limit by limit."""
        limits = list(self._sync)
        for demand in self._demands:
            if demand.limit is not None and demand.limit not in limits:
                limits.append(demand.limit)
        now = time.monotonic()
        left = [LeftThread(p.demand.operation, p.subject, now - since) for p, since in self._left.items()]
        return HandlerLoad([self._view(limit) for limit in limits], left)

    def troubles(self) -> list[str]:
        """What delays handlers, a line each; empty where nothing does."""
        load = self.load() if self.queues or self._left else HandlerLoad([], [])
        lines = [
            f"{limit.name} is full: {limit.running} handlers run, {limit.waiting} wait. "
            f"It is held by {_counted(limit.operations)}"
            for limit in load.limits
            if limit.waiting
        ]
        if load.left_threads:
            longest = sorted(load.left_threads, key=lambda thread: -thread.seconds)[:_NAMED]
            named = ", ".join(f"{thread.operation} ({thread.subject}, {thread.seconds:.0f} s)" for thread in longest)
            lines.append(f"{len(load.left_threads)} threads outlived their attempts, the longest of {named}")
        return lines

    def _view(self, limit: Limit) -> LimitInfo:
        held: Counter[str] = Counter()
        for demand in self._demands:
            if demand.running and limit in (demand.limits or ()):
                held[demand.operation] += demand.running
        full = limit.running >= limit.capacity
        waiting = sum(queue.waiting for queue in self.queues.values() if limit in queue.limits) if full else 0
        capacity = None if limit.capacity == math.inf else int(limit.capacity)
        return LimitInfo(limit.name, capacity, limit.running, waiting, dict(held.most_common()))

    def _report_full(self, queue: HandlerQueue[Permit]) -> None:
        """Log once that a limit is full, until it has room and nothing waits for it."""
        now = trio.current_time()
        for limit in queue.limits:
            if limit.running >= limit.capacity and not limit.reported and now >= limit.quiet_until:
                limit.reported, limit.quiet_until = True, now + _QUIET
                names = _counted(self._view(limit).operations)
                level = logging.INFO if limit is queue.demand.limit else logging.WARNING
                _log.log(
                    level,
                    "%s is full: %d handlers run, others wait. It is held by %s",
                    limit.name,
                    limit.running,
                    names,
                )


def _counted(operations: dict[str, int]) -> str:
    """The operations that hold most, for a message."""
    return ", ".join(f"{name} ({count})" for name, count in list(operations.items())[:_NAMED])
