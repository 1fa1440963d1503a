"""Which handlers a piece of code runs inside of: what they call must not wait for their own end.

It goes by the context, so that it holds in whichever event loop or thread a handler runs, and for the tasks that it
starts; these may outlive it, so each mark says whether its handler still runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from ..errors import UsageError
from .context import HandlerContext
from .handlers import Handler, Handlers
from .permits import Permit


class _Mark:
    """One call of a handler; permit: what it holds meanwhile; over: it has ended."""

    __slots__ = ("handlers", "over", "permit")

    def __init__(self, handlers: Handlers, permit: Permit | None) -> None:
        self.handlers = handlers
        self.permit = permit
        self.over = False


_NOTHING: AbstractContextManager[None] = nullcontext()
_marks: ContextVar[tuple[_Mark, ...]] = ContextVar("dotmac.tasks.runtime.inside_handlers", default=())
"""Several: a handler can ask another manager for something, whose handler runs for it."""


def marked(handler: Handler, handlers: Handlers) -> Handler:
    """The handler, as one whose calls are known to be inside of it.

    Args:
        handler: The plain one.
        handlers: All of its manager.
    """
    plain = handler.call

    async def call(parameters: dict[str, Any], context: HandlerContext) -> Any:
        outer, mark = _marks.get(), _Mark(handlers, context._permit)  # noqa: SLF001 - of the runtime
        _marks.set((*(each for each in outer if not each.over), mark) if outer else (mark,))
        try:
            return await plain(parameters, context)
        finally:
            mark.over = True
            _marks.set(outer)  # and no reset: a coroutine can be closed in another context

    return replace(handler, call=call)


def inside_handler() -> bool:
    """Whether this runs inside a handler that has not ended."""
    marks = _marks.get()
    return bool(marks) and not marks[-1].over


def waiting_for_others() -> AbstractContextManager[None]:
    """Inside, the present handler waits for what may need its permit: another handler, or a lock that one holds."""
    marks = _marks.get()
    permit = marks[-1].permit if marks and not marks[-1].over else None
    return _NOTHING if permit is None else _suspended(permit)


@contextmanager
def _suspended(permit: Permit) -> Iterator[None]:
    permit.suspend()
    try:
        yield
    finally:
        permit.resume()


def refuse_inside(handlers: Handlers) -> None:
    """Raise where a handler would wait for its own end.

    Raises:
        UsageError: This runs inside one of these handlers.
    """
    if any(mark.handlers is handlers and not mark.over for mark in _marks.get()):
        raise UsageError(
            "a handler cannot stop its own manager, which would wait for the handler: have it tell a task that is "
            "none of its own, by an event, say, and stop the manager there"
        )
