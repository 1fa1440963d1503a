"""Very many short-lived children: one `start_soon` each, no life object, no restart, no events of their own.

A supervisor hosts one such crowd in one nursery. Its members share the polite stop signal and the deadline after which
they are cancelled, which is what makes each of them cheap.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from dotmac.tasks.actors.failures import Report, split_failure
from dotmac.tasks.errors import ActorDied

OnExit: TypeAlias = Callable[[BaseException | None], None]
"""Called when a spawned child has ended: with its failure, or the Cancelled that ended it, or None if it returned."""


class SpawnedChildren:
    """The crowd of spawned children of one supervisor.

    Args:
        stopping: The polite stop signal: when set, nothing is spawned any more and the deadline starts.
        shutdown_seconds: How long the children may take from then on before they are cancelled.
        report: Told of the failures of children without an `on_exit` of their own, and of failing `on_exit` callbacks.
    """

    def __init__(self, stopping: trio.Event, *, shutdown_seconds: float, report: Report) -> None:
        self.gone = trio.Event()
        self._stopping = stopping
        self._shutdown_seconds = shutdown_seconds
        self._report = report
        self._nursery: trio.Nursery | None = None

    async def host(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the children until the stop, then until they have ended or their time is over; then set `gone`."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    task_status.started()
                    await self._stopping.wait()
                finally:
                    # Before this block is left: afterwards the nursery may be closed at any time, refusing tasks.
                    self._nursery = None
                nursery.cancel_scope.deadline = trio.current_time() + self._shutdown_seconds
        finally:
            self.gone.set()

    def spawn(self, name: str, function: Callable[..., Awaitable[object]], args: tuple[object, ...],
              on_exit: OnExit | None) -> None:  # fmt: skip
        """Start a child.

        Raises:
            ActorDied: The crowd is stopping or gone. Nothing was started, `on_exit` will not be called.
        """
        if self._nursery is None or self._stopping.is_set():  # the host may have yet to wake up and see the stop
            raise ActorDied(f"cannot spawn {name}: the supervisor is stopping")
        self._nursery.start_soon(self._guard, name, function, args, on_exit, name=name)

    async def _guard(self, name: str, function: Callable[..., Awaitable[object]], args: tuple[object, ...],
                     on_exit: OnExit | None) -> None:  # fmt: skip
        ending: BaseException | None = None
        try:
            await function(*args)
        except BaseException as error:
            failure, passing = split_failure(error)
            ending = passing if failure is None else failure
            if failure is not None and on_exit is None:
                self._report(name, failure)
            if passing is error:
                raise
            if passing is not None:
                raise passing from passing.__cause__
        finally:
            if on_exit is not None:
                self._tell_exit(name, on_exit, ending)

    def _tell_exit(self, name: str, on_exit: OnExit, ending: BaseException | None) -> None:
        try:
            on_exit(ending)
        except Exception as error:  # a broken callback is a failure of this child and must not harm its siblings
            self._report(name, error)
