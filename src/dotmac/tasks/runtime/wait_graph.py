"""The wait-for graph of this process: a wait that can never end is refused, as a lock that is entered twice is.

A caller (a task, or the thread or asyncio task that a call crossed over from) waits for one resource at a time: the
end of a saga, the run of an idempotent operation, a lock. A resource has at most one caller in this process: the
task of the saga's actor, the task that runs the operation, the lock's holder. A cycle of waits is a deadlock, and the
wait that would close it raises `WouldDeadlock`.

Only what is certain is refused. A wait with a time-out ends by itself, and so does a wait of an attempt that is being
cut off: neither closes a cycle. A wait for the caller's own end is refused all the same, since nothing but the time-out
could end it. Tasks that a handler starts are callers
of their own: the handler may end without them.

Not seen: callers in other processes, and time-outs of asyncio and of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import trio

from ..bridge.identity import current_caller
from ..errors import WouldDeadlock

Scopes = tuple[trio.lowlevel.TrioToken | trio.CancelScope, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """One wait of one caller.

    Attributes:
        target: Names the resource, for messages.
        holder: Gives the caller that the resource waits for; None: none in this process.
        bounded: The wait ends by itself.
        scopes: Of the engine, around the wait.
    """

    target: str
    holder: Callable[[], object | None]
    bounded: bool
    scopes: Scopes

    @property
    def ends(self) -> bool:
        """Whether the wait ends without its resource: by a time-out, or because its attempt is being cut off."""
        return self.bounded or any(isinstance(each, trio.CancelScope) and each.cancel_called for each in self.scopes)


_waits: dict[object, Wait] = {}
"""By caller."""

_scopes: ContextVar[Scopes] = ContextVar("dotmac.tasks.runtime.wait_graph", default=())
"""Scopes of the engine around the present code, behind the token of their trio run.

Their deadlines move on, so they bound no wait.
"""


def begin_scopes(*scopes: trio.CancelScope) -> None:
    """Mark the scopes of the engine (lease, time-out of an attempt) that this task runs in, and no others."""
    _scopes.set((trio.lowlevel.current_trio_token(), *scopes))


def enter_scope(scope: trio.CancelScope) -> Scopes:
    """Mark one more scope of the engine; gives what `leave_scope` takes."""
    outer = _scopes.get()
    _scopes.set((*(outer or (trio.lowlevel.current_trio_token(),)), scope))
    return outer


def leave_scope(outer: Scopes) -> None:
    """End the mark of `enter_scope`."""
    _scopes.set(outer)


@contextmanager
def waiting_for(target: str, holder: Callable[[], object | None], *, bounded: bool = False) -> Iterator[None]:
    """Wait inside.

    Args:
        target: Names the resource, for the message.
        holder: See `Wait`.
        bounded: The wait has a time-out of its own; a deadline of the caller's scope is seen without it.

    Raises:
        WouldDeadlock: The wait would close a cycle.
    """
    caller = current_caller()
    wait = Wait(target, holder, bounded or _has_time_out(), _scopes.get())
    _check(caller, wait)
    _waits[caller] = wait
    try:
        yield
    finally:
        if _waits.get(caller) is wait:
            del _waits[caller]


def _has_time_out() -> bool:
    """Whether a scope around the caller that is none of the engine's has a deadline."""
    if not trio.lowlevel.in_trio_task() or trio.current_effective_deadline() == math.inf:
        return False
    token, *marked = _scopes.get() or (None,)
    if token is not trio.lowlevel.current_trio_token():  # inherited from a caller in another run
        return True
    # Trio tells the earliest deadline only, so those of the engine are lifted to see the others. Without a checkpoint
    # in between, no scope is cancelled later for that.
    lifted = [(scope, scope.deadline) for scope in marked if isinstance(scope, trio.CancelScope)]
    for scope, _ in lifted:
        scope.deadline = math.inf
    try:
        return trio.current_effective_deadline() < math.inf
    finally:
        for scope, deadline in lifted:
            scope.deadline = deadline


def _check(caller: object, wait: Wait) -> None:
    cycle = _cycle(caller, wait)
    if not cycle or (len(cycle) > 1 and any(each.ends for each in cycle)):
        return
    behind = "".join(f", which waits for {each.target}" for each in cycle[1:])
    raise WouldDeadlock(f"the wait for {wait.target}{behind} would never end: that waits for the caller itself")


def _cycle(caller: object, wait: Wait) -> list[Wait]:
    """The waits from this one back to its caller; empty: there is no way back."""
    chain, seen = [wait], set()
    while (holder := chain[-1].holder()) is not None:
        if holder is caller:
            return chain
        following = _waits.get(holder)
        if following is None or holder in seen:
            return []
        seen.add(holder)
        chain.append(following)
    return []
