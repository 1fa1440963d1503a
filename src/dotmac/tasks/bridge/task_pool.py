"""Tasks of a trio run that carry out calls, one call after the other.

A task and a cancel scope for each call would cost more than most calls do. So a carrier whose call has returned is
parked, and takes the next one, in that call's context. One whose call was cancelled, or raised, ends: its cancel scope
has served its purpose then, and to leave it is what tells a cancellation from an error.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import Context
from typing import Any, Protocol

import outcome
import trio

_MOST_PARKED = 64  # after a rush, the others end


class Job(Protocol):
    """What a carrier carries."""

    @property
    def context(self) -> Context:
        """To be carried out in."""

    def carry_out(self) -> Awaitable[Any]:
        """Do it; in the carrier's task."""

    def over(self, result: outcome.Outcome[Any] | None) -> None:
        """It has ended; None: because it was cancelled."""


class TaskPool:
    """The tasks; all is called in the trio run."""

    def __init__(self) -> None:
        self.parked: list[PoolTask] = []
        self.closed = False
        self.nowhere = Context()

    def carry(self, load: Job) -> PoolTask:
        """Have it carried out, soon. Gives who does it, to be cancelled as long as it is not over."""
        carrier = self.parked.pop() if self.parked else PoolTask(self)
        carrier.take(load)
        return carrier

    def close(self) -> None:
        """Take no more."""
        self.closed = True
        for carrier in tuple(self.parked):
            carrier.cancel()


class PoolTask:
    """One of them."""

    __slots__ = ("_carriers", "_load", "_scope", "_task")

    def __init__(self, carriers: TaskPool) -> None:
        self._carriers = carriers
        self._scope = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None
        self._load: Job | None = None

    def take(self, load: Job) -> None:
        """Carry this out next."""
        self._load = load
        if self._task is None:
            self._task = trio.lowlevel.spawn_system_task(self._run, name="dotmac.tasks call", context=load.context)
        else:
            self._task.context = load.context
            trio.lowlevel.reschedule(self._task)

    def cancel(self) -> None:
        """Cancel what it carries, or end it."""
        self._scope.cancel()

    async def _run(self) -> None:
        result: outcome.Outcome[Any] | None = None
        try:
            with self._scope:
                while self._load is not None:
                    value = await self._load.carry_out()
                    self._put_down(outcome.Value(value))
                    await self._park()
        except trio.Cancelled as cancelled:  # the whole run is
            result = outcome.Error(cancelled)
            raise
        except BaseException as error:
            result = outcome.Error(error)
        finally:
            self._put_down(result)

    def _put_down(self, result: outcome.Outcome[Any] | None) -> None:
        """Nothing, if it carries nothing."""
        load, self._load = self._load, None
        if load is not None:
            load.over(result)

    async def _park(self) -> None:
        """Wait for the next load; there is none if this is left to end."""
        carriers = self._carriers
        if carriers.closed or self._scope.cancel_called or len(carriers.parked) >= _MOST_PARKED:
            return
        task = trio.lowlevel.current_task()
        task.context = carriers.nowhere  # the last caller's is not kept
        carriers.parked.append(self)
        await trio.lowlevel.wait_task_rescheduled(self._leave)

    def _leave(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._carriers.parked.remove(self)
        return trio.lowlevel.Abort.SUCCEEDED
