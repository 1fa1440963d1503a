"""Who calls, across threads: the trio task, asyncio task or thread on whose behalf something runs.

A call that crosses runs in a task of its own. Where it matters who asked (a task that waits for a lock that it holds
itself would wait for ever), it is the caller at the far end who counts.
"""

from __future__ import annotations

import asyncio
import math
import threading
from contextvars import ContextVar

import trio

_acting: ContextVar[tuple[object, object]] = ContextVar("dotmac.tasks.bridge.acting")
"""A task, and for whom it acts. The task is noted because a context is inherited by tasks that act for themselves."""

runs_beside_its_host: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("runs_beside_its_host", default=False)
"""True in the trio run of a `RuntimeThread`: asyncio belongs to the host program there and must not be patched.

The variable belongs to the run, not to the context, because a call over the bridge brings its caller's context along.
"""


def current_caller() -> object:
    """Who is calling: the present task or thread, or whoever it acts for."""
    here = present_task()
    acting, caller = _acting.get((None, None))
    return caller if acting is here else here


def act_for(caller: object) -> None:
    """The present task acts for this caller, as long as it lives."""
    _acting.set((present_task(), caller))


def present_task() -> object:
    """The task of trio or asyncio that runs, or the thread where none does."""
    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.current_thread() if task is None else task


def cancelled_from_outside(error: BaseException, *, grouped: bool) -> bool | None:
    """Whether an exception is a cancellation of the present task that was asked for; None: it is no cancellation.

    Args:
        error: What the task's code raised.
        grouped: Whether it is a member of an exception group, in which form asyncio takes it for a failure.
    """
    if isinstance(error, trio.Cancelled):
        return trio.lowlevel.in_trio_task() and trio.current_effective_deadline() == -math.inf
    if isinstance(error, asyncio.CancelledError):
        task = present_task()
        return isinstance(task, asyncio.Task) and task.cancelling() > 0 and not grouped
    return None
