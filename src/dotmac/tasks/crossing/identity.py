"""Who calls, across threads: the trio task, asyncio task or thread on whose behalf something runs.

A call that crosses runs in a task of its own. Where it matters who asked (a task that waits for a lock that it holds
itself would wait for ever), it is the caller at the far end who counts.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import trio

_acting: ContextVar[tuple[object, object]] = ContextVar("dotmac.tasks.crossing.acting")
"""A task, and for whom it acts. The task is noted because a context is inherited by tasks that act for themselves."""


def current_caller() -> object:
    """Who is calling: the present task or thread, or whoever it acts for."""
    here = _here()
    acting, caller = _acting.get((None, None))
    return caller if acting is here else here


def act_for(caller: object) -> None:
    """The present task acts for this caller, as long as it lives."""
    _acting.set((_here(), caller))


def _here() -> object:
    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.current_thread() if task is None else task
