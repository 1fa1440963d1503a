"""Which code runs which operation, and how it is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from ..crossing.identity import act_for, current_caller
from ..errors import InvalidInput, OutcomeUnknown
from ..idempotency import check_name
from ..saga.validation import KnownHandlers
from .context import HandlerContext
from .error_texts import repr_of
from .unknown_errors import leaves_unknown

HandlerFunction = Callable[..., Any]

_PARAMETERS_AND_CONTEXT = 2


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered function.

    Attributes:
        unknown_errors: What it raises when it cannot tell whether its effect happened; see `leaves_unknown`.
        is_async: Whether it is a coroutine function, so that it matters in which event loop it runs.
    """

    name: str
    call: Callable[[dict[str, Any], HandlerContext], Awaitable[Any]]
    function: HandlerFunction
    unknown_errors: tuple[type[Exception], ...] | None
    is_async: bool = False

    def leaves_unknown(self, error: BaseException) -> bool:
        """Whether this error leaves open if the effect happened."""
        return leaves_unknown(error, self.unknown_errors)


class Handlers:
    """Operations and compensations by name. Registering a name again replaces its handler.

    Attributes:
        known: For validation: which names can be used, at any time.
        host: Makes async handlers run in the host's event loop, where that is not the runtime's own trio run.
    """

    def __init__(self) -> None:
        self.operations: dict[str, Handler] = {}
        self.compensations: dict[str, Handler] = {}
        self.known = KnownHandlers(self.operations, self.compensations)
        self.host: Callable[[Handler], Handler] | None = None

    def find(self, name: str, *, undo: bool) -> Handler | None:
        """The handler, if it is registered in this process."""
        handler = (self.compensations if undo else self.operations).get(name)
        return handler if self.host is None or handler is None or not handler.is_async else self.host(handler)


def make_handler(
    name: str, function: HandlerFunction, unknown_errors: tuple[type[Exception], ...] | None = None
) -> Handler:
    """Wrap a function so that every kind of handler is called the same way.

    Args:
        name: The operation type.
        function: ``async def handler(parameters)`` or ``(parameters, context)``; a plain ``def`` with the same
            arguments runs in a worker thread.
        unknown_errors: Those after which nobody knows if it happened; None: time-outs and lost connections.

    Raises:
        InvalidInput: It is not callable, or cannot be called with one or two positional arguments.
    """
    check_name("operation_type", name)
    with_context = _takes_context(name, function)
    if isinstance(unknown_errors, type):
        raise InvalidInput(
            "unknown_errors", f"must be a tuple of exception classes; write ({unknown_errors.__name__},)"
        )
    unknown = None if unknown_errors is None else tuple(unknown_errors)
    for error in unknown or ():
        if not (isinstance(error, type) and issubclass(error, Exception)):
            raise InvalidInput("unknown_errors", f"must hold exception classes, not {error!r}")
    if _is_async(function):
        return Handler(name, _async_call(function, with_context=with_context), function, unknown, is_async=True)
    return Handler(name, _thread_call(function, with_context=with_context), function, unknown)


def _async_call(function: HandlerFunction, *, with_context: bool) -> Callable[..., Awaitable[Any]]:
    if with_context:
        return function
    return lambda parameters, _context: function(parameters)


def _thread_call(function: HandlerFunction, *, with_context: bool) -> Callable[..., Awaitable[Any]]:
    async def call(parameters: dict[str, Any], context: HandlerContext) -> Any:
        arguments = (parameters, context) if with_context else (parameters,)
        # Abandoned on cancel: a thread cannot be stopped, so its outcome is unknown from then on, which is what
        # the caller records. Waiting for it would make every time-out and every shutdown wait for it.
        # Unless it never began: whoever comes first, the thread or the cancellation, settles that.
        first: dict[str, str] = {}
        caller = current_caller()

        def run() -> tuple[Any] | None:
            if first.setdefault("first", "thread") != "thread":
                return None
            act_for(caller)  # who holds a lock around the handler holds it here too
            try:
                # In a tuple, because trio answers a returned coroutine with an error of its own, after the effect.
                return (function(*arguments),)
            except Exception:
                raise
            except BaseException as error:  # of the function alone: Ctrl-C comes to the main thread
                raise OutcomeUnknown(f"the handler let {repr_of(error)} out of its thread") from error

        context._queued = True  # noqa: SLF001 - between the two of them and the attempt
        try:
            done = await trio.to_thread.run_sync(run, abandon_on_cancel=True)
        finally:
            context._queued = first.setdefault("first", "caller") != "thread"  # noqa: SLF001 - as above
        assert done is not None  # noqa: S101 - who was cancelled does not come here
        (result,) = done
        if inspect.iscoroutine(result):
            result.close()  # refused further on like any result that is no JSON: what the function did, it did
        return result

    return call


def _takes_context(name: str, function: HandlerFunction) -> bool:
    if not callable(function):
        raise InvalidInput(f"handler of {name}", f"must be callable, not {function!r}")
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise InvalidInput(f"handler of {name}", f"has no signature to look at: {error}") from error
    for count in (_PARAMETERS_AND_CONTEXT, 1):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        if count == 1:
            return False
        # A default for the second argument means that it is the handler's own, not the context.
        second = [p for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY][1:2]
        return not second or second[0].default is inspect.Parameter.empty
    raise InvalidInput(f"handler of {name}", "must take (parameters) or (parameters, context)")


def _is_async(function: HandlerFunction) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
