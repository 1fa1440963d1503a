"""Which code runs which operation, and how it is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import trio

from ..bridge.identity import act_for, current_caller
from ..bridge.virtual_time import hold_clock
from ..callables import close_unawaited, is_async, is_awaitable, refuse_generators
from ..errors import InvalidInput
from ..idempotency import check_name
from ..saga.state import handler_name
from ..saga.validation import KnownHandlers
from .containment import contained, contained_in_thread
from .context import HandlerContext
from .handler_limits import Demand, Limit
from .unknown_errors import leaves_unknown

HandlerFunction = Callable[..., Any]


class _Permitted:
    """Limits no threads: a permit is held before the attempt begins. Trio's own limiter is left to other threads."""

    async def acquire_on_behalf_of(self, _borrower: object) -> None:
        """See `trio.CapacityLimiter`."""
        await trio.lowlevel.checkpoint()

    def release_on_behalf_of(self, _borrower: object) -> None:
        """See `trio.CapacityLimiter`."""


_PERMITTED = cast("trio.CapacityLimiter", _Permitted())

_CONTEXT = "context"
_ContextPlace = Literal["second", "keyword"] | None


class HandlerHost(Protocol):
    """The event loop that async handlers run in, where that is not the runtime's own trio run."""

    def hosted(self, handler: Handler) -> Handler:
        """The async handler, called in the event loop."""

    async def wait_for(self, awaitable: Awaitable[Any], context: HandlerContext) -> Any:
        """Await, in the event loop, what a plain handler returned; gives the result."""


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered function.

    Attributes:
        unknown_errors: What it raises when it cannot tell whether its effect happened; see `leaves_unknown`.
        demand: The limits that apply to it.
        is_async: Whether it is a coroutine function, so that it matters in which event loop it runs.
    """

    name: str
    call: Callable[[dict[str, Any], HandlerContext], Awaitable[Any]]
    function: HandlerFunction
    unknown_errors: tuple[type[Exception], ...] | None
    demand: Demand
    is_async: bool = False

    def leaves_unknown(self, error: BaseException) -> bool:
        """Whether this error leaves open if the effect happened."""
        return leaves_unknown(error, self.unknown_errors)


class Handlers:
    """Operations and compensations by name.

    Attributes:
        known: For validation: which names can be used, at any time.
        host: Runs async handlers; None: the runtime's trio run.
    """

    def __init__(self) -> None:
        self.operations: dict[str, Handler] = {}
        self.compensations: dict[str, Handler] = {}
        self.known = KnownHandlers(self.operations, self.compensations)
        self.host: HandlerHost | None = None

    def names(self) -> set[str]:
        """The names of all handlers, as in `SagaState.waits_for`."""
        operations = {handler_name(name, undo=False) for name in self.operations}
        return operations | {handler_name(name, undo=True) for name in self.compensations}

    def find(self, name: str, *, undo: bool) -> Handler | None:
        """The handler, if it is registered in this process."""
        handler = (self.compensations if undo else self.operations).get(name)
        return handler if self.host is None or handler is None or not handler.is_async else self.host.hosted(handler)

    async def wait_for(self, awaitable: Awaitable[Any], context: HandlerContext) -> Any:
        """Await what a plain handler returned, in the event loop that async handlers run in."""
        return await (contained(lambda: awaitable) if self.host is None else self.host.wait_for(awaitable, context))


def make_handler(
    name: str,
    function: HandlerFunction,
    handlers: Handlers,
    unknown_errors: tuple[type[Exception], ...] | None = None,
    concurrency: int | None = None,
) -> Handler:
    """Wrap a function so that every kind of handler is called the same way.

    Args:
        name: The operation type.
        function: ``async def handler(parameters)`` or ``(parameters, context)``. Any other callable with these
            arguments runs in a worker thread; an awaitable that it returns is awaited as an async handler would be.
        handlers: Where the handler is registered.
        unknown_errors: Those after which nobody knows if it happened; None: time-outs and lost connections.
        concurrency: Calls of it that may run at once in this process; None: no limit of its own.

    Raises:
        InvalidInput: It is not callable, is a generator function, or does not take these arguments.
    """
    check_name("operation_type", name)
    place = _context_place(name, function)
    if isinstance(unknown_errors, type):
        raise InvalidInput(
            "unknown_errors", f"must be a tuple of exception classes; write ({unknown_errors.__name__},)"
        )
    try:
        unknown = None if unknown_errors is None else tuple(unknown_errors)
    except TypeError as error:
        raise InvalidInput("unknown_errors", f"must be a tuple of exception classes, not {unknown_errors!r}") from error
    for each in unknown or ():
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise InvalidInput("unknown_errors", f"must hold exception classes, not {each!r}")
    invoke = _invocation(function, place)
    limit = None if concurrency is None else Limit(name, concurrency)
    demand = Demand(name, not is_async(function), limit)
    if not demand.thread:
        return Handler(name, _async_call(invoke), function, unknown, demand, is_async=True)
    return Handler(name, _thread_call(invoke, handlers), function, unknown, demand)


def checked_concurrency(concurrency: int | None) -> int | None:
    """The concurrency of an operation as it was given. Raises InvalidInput."""
    if concurrency is None:
        return None
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidInput("concurrency", f"must be a whole number of 1 or more, or None, not {concurrency!r:.80}")
    return concurrency


def _invocation(function: HandlerFunction, place: _ContextPlace) -> Callable[[Any, HandlerContext], Any]:
    """The function as one of parameters and context."""
    if place is None:
        return lambda parameters, _context: function(parameters)
    if place == "keyword":
        return lambda parameters, context: function(parameters, context=context)
    return function


def _async_call(invoke: Callable[[Any, HandlerContext], Any]) -> Callable[..., Awaitable[Any]]:
    async def call(parameters: dict[str, Any], context: HandlerContext) -> Any:
        return await contained(invoke, parameters, context)

    return call


def _thread_call(invoke: Callable[[Any, HandlerContext], Any], handlers: Handlers) -> Callable[..., Awaitable[Any]]:
    async def call(parameters: dict[str, Any], context: HandlerContext) -> Any:
        # Abandoned on cancel: a thread cannot be stopped, so its outcome is unknown from then on, which is what
        # the caller records. Waiting for it would make every time-out and every shutdown wait for it.
        # Unless it never began: whoever comes first, the thread or the cancellation, settles that.
        first: dict[str, str] = {}
        results: list[Any] = []
        caller, permit = current_caller(), context._permit  # noqa: SLF001 - of the runtime
        assert permit is not None  # noqa: S101 - it was granted before the handler is called

        def run() -> None:
            if first.setdefault("first", "thread") != "thread":
                return
            act_for(caller)  # who holds a lock around the handler holds it here too
            try:
                # In a list, because trio answers a returned coroutine with an error of its own, after the effect.
                results.append(contained_in_thread(invoke, parameters, context))
            finally:
                if first.setdefault("last", "thread") != "thread":  # the attempt was cut off before
                    _drop(results)
                    permit.thread_ended()

        context._queued = True  # noqa: SLF001 - between the two of them and the attempt
        context._withdraw = lambda: first.setdefault("first", "caller") != "thread"  # noqa: SLF001 - as above
        try:
            with hold_clock():
                await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=_PERMITTED)
        except BaseException:
            if first.setdefault("last", "caller") != "caller":  # it ended in this very moment
                _drop(results)
            elif "first" in first:
                permit.thread_left()
            raise
        finally:
            context._queued = first.setdefault("first", "caller") != "thread"  # noqa: SLF001 - as above
        (result,) = results
        return await handlers.wait_for(result, context) if is_awaitable(result) else result

    return call


def _drop(results: list[Any]) -> None:
    while results:
        close_unawaited(results.pop())


def _context_place(name: str, function: HandlerFunction) -> _ContextPlace:
    """Where the function takes the context: as its second argument, by keyword, or not at all."""
    field = f"handler of {name}"
    if isinstance(function, classmethod):
        raise InvalidInput(field, "is a classmethod object, bound to no class: register the method of the class")
    if not callable(function):
        raise InvalidInput(field, f"must be callable, not {function!r}")
    refuse_generators(field, function)
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise InvalidInput(field, f"has no signature to look at: {error}") from error
    if _binds(signature, 0, 1):
        positional = [p for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
        # A default says that the second argument is the handler's own, unless the argument is the context by its name.
        second = positional[1:2]
        if not second or second[0].default is inspect.Parameter.empty or _is_context(second[0]):
            return "second"
    if _takes_by_keyword(function, signature):
        return "keyword"
    if _binds(signature, 0):
        return None
    raise InvalidInput(field, "must take (parameters) or (parameters, context)")


def _takes_by_keyword(function: HandlerFunction, signature: inspect.Signature) -> bool:
    parameter = signature.parameters.get(_CONTEXT)
    if parameter is None or parameter.kind is not parameter.KEYWORD_ONLY or not _binds(signature, 0, context=1):
        return False
    # A partial shows what it has bound as a keyword with a default: that is the user's own.
    return not (isinstance(function, functools.partial) and _CONTEXT in function.keywords)


def _is_context(parameter: inspect.Parameter) -> bool:
    return parameter.name == _CONTEXT or HandlerContext.__name__ in str(parameter.annotation)


def _binds(signature: inspect.Signature, *positional: int, **keywords: int) -> bool:
    try:
        signature.bind(*positional, **keywords)
    except TypeError:
        return False
    return True
