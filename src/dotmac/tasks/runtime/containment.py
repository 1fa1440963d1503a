"""Whatever a handler lets out ends the handler, and nothing else.

An `Exception` passes as it is. Any other exception would end the task, the worker or the process that takes the saga
over next: it becomes `OutcomeUnknown`. Three kinds belong to the code around the handler and pass:

- a cancellation that was asked for outside (trio: a scope around the handler; asyncio: `Task.cancel`). One without
  such a request is foreign, such as a stored `trio.Cancelled` that is raised again;
- an interruption by a signal (see `signals`);
- `GeneratorExit` where the coroutine is closed by another task or by the garbage collector.

An exception whose class breaks what every traceback and `isinstance` looks at is replaced by a readable one, because
event loops and log handlers fail on it. So is a group that is nested so deeply that Python cannot split it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from ..bridge.identity import cancelled_from_outside, present_task
from ..callables import is_awaitable
from ..errors import NonRetryableError, OutcomeUnknown
from ..signals import came_by_signal
from .error_texts import class_of, message_of, repr_of
from .unknown_errors import class_leaves_unknown, singles

Passes = Callable[[BaseException], bool]
_MAX_DEPTH = 100  # of groups in groups: to split one takes a call for each level


async def contained(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Call an async handler and await its result, which is awaited too if it is awaitable.

    Raises:
        Exception: What the handler raised, or `OutcomeUnknown` for what is no `Exception`.
        BaseException: What belongs to the code around the handler.
    """
    task = present_task()
    try:
        result = await function(*args)
        while is_awaitable(result):
            result = await result
    except BaseException as error:
        ending = contain(error, "task", functools.partial(_belongs_outside, error, task))
        if ending is error:
            raise
    else:
        return result
    raise ending


def contained_in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """As `contained`, for a plain handler in a worker thread, where neither cancellations nor signals arrive."""
    try:
        return function(*args)
    except BaseException as error:
        ending = contain(error, "thread")
        if ending is error:
            raise
    raise ending


def contain(error: BaseException, place: str, passes: Passes = lambda _error: False) -> BaseException:
    """What is to be raised instead of what a handler let out; the same error where it can pass.

    Args:
        error: What the handler let out; no group in it has been split yet.
        place: What the handler ran in, for the message: a task or a thread.
        passes: Whether an error belongs to the code around the handler.
    """
    if not _is_readable(error):
        return _readable(error)
    if isinstance(error, Exception):
        return error
    if not any(passes(single) for single in singles(error)):
        return _doubt(error, place)
    if not isinstance(error, BaseExceptionGroup):
        return error
    passing, rest = error.split(lambda each: not isinstance(each, BaseExceptionGroup) and passes(each))
    if rest is None or passing is None or isinstance(rest, Exception):
        return error
    return BaseExceptionGroup(error.message, [passing, _doubt(rest, place)])


def _doubt(error: BaseException, place: str) -> OutcomeUnknown:
    doubt = OutcomeUnknown(f"the handler let {repr_of(error)} out of its {place}")
    doubt.__cause__ = error
    return doubt


def _belongs_outside(whole: BaseException, task: object, single: BaseException) -> bool:
    if isinstance(single, GeneratorExit):
        return present_task() is not task
    cancelled = cancelled_from_outside(single, grouped=single is not whole)
    return came_by_signal(single) if cancelled is None else cancelled


def _is_readable(error: BaseException) -> bool:
    seen: set[int] = set()
    left: list[tuple[BaseException | None, int]] = [(error, 0)]
    try:
        while left:
            each, depth = left.pop()
            if each is None or id(each) in seen:
                continue
            if depth > _MAX_DEPTH:
                return False
            seen.add(id(each))
            isinstance(each, _Unmet)
            getattr(each, "__notes__", None)
            if each.with_traceback(each.__traceback__) is not each:  # trio's worker threads end on such an error
                return False
            left += [(each.__cause__, 0), (each.__context__, 0)]
            if issubclass(type(each), BaseExceptionGroup):
                members = each.exceptions  # type: ignore[attr-defined]  # by its real class
                left += [(member, depth + 1) for member in members]
    except BaseException as broken:
        if came_by_signal(broken):
            raise
        return False
    return True


class _Unmet:
    """A class that no error has: to compare with it, Python asks for ``__class__``."""


def _readable(error: BaseException) -> Exception:
    """What stands for an error that cannot be looked at, and counts as it would."""
    kinds = [type(single) for single in singles(error)]
    text = f"the handler raised {class_of(error)}, which cannot be looked at: {message_of(error)}"
    unknown = any(not issubclass(kind, Exception) or class_leaves_unknown(kind, None) for kind in kinds)
    if not unknown and any(issubclass(kind, NonRetryableError) for kind in kinds):
        return NonRetryableError(text)
    return OutcomeUnknown(text) if unknown else RuntimeError(text)
