"""Registering handlers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar, overload

from ..errors import InvalidInput
from ..runtime.handlers import Handler, HandlerFunction, Handlers, checked_concurrency, make_handler
from ..runtime.inside_handlers import marked

F = TypeVar("F", bound=HandlerFunction)
G = TypeVar("G", bound=HandlerFunction)
UnknownErrors = tuple[type[Exception], ...] | None


class Decorator(Protocol):
    """Takes a handler and gives it back as it is."""

    def __call__(self, function: G, /) -> G:
        """Register the handler."""
        ...


class HandlerMethods:
    """Which code runs which operation. Handlers can be registered before and after the start."""

    def __init__(self) -> None:
        self._handlers = Handlers()

    @overload
    def register_operation_handler(
        self,
        operation_type: str,
        handler: F,
        *,
        unknown_errors: UnknownErrors = None,
        replace: bool = False,
        concurrency: int | None = None,
    ) -> F: ...

    @overload
    def register_operation_handler(
        self,
        operation_type: str,
        handler: None = None,
        *,
        unknown_errors: UnknownErrors = None,
        replace: bool = False,
        concurrency: int | None = None,
    ) -> Decorator: ...

    def register_operation_handler(
        self,
        operation_type: str,
        handler: F | None = None,
        *,
        unknown_errors: UnknownErrors = None,
        replace: bool = False,
        concurrency: int | None = None,
    ) -> F | Decorator:
        """Say which code runs an operation. Without `handler` it is a decorator.

        Args:
            operation_type: The name that steps use.
            handler: ``async def handler(parameters)`` or ``(parameters, context)``; a plain ``def`` runs in a
                worker thread. It returns JSON, or an awaitable of JSON, which is awaited where async handlers run.
                An argument named ``context`` gets the `HandlerContext`, also if it has a default or is keyword-only.
            unknown_errors: Exceptions after which nobody knows whether the effect happened; by default
                time-outs and lost connections.
            replace: Take the place of a handler that is registered under this name already.
            concurrency: Calls of the handler that may run at once in this process; None: as many as `max_running`
                and `sync_handler_threads` admit. Waiting for a call to begin is no attempt.

        Raises:
            InvalidInput: The handler does not take these arguments, or is a generator function; or the name has
                another handler; or the concurrency is no whole number of 1 or more.
        """
        make = partial(
            make_handler,
            handlers=self._handlers,
            unknown_errors=unknown_errors,
            concurrency=checked_concurrency(concurrency),
        )
        return self._register(self._handlers.operations, operation_type, handler, make, replace=replace)

    @overload
    def register_compensation_handler(
        self,
        operation_type: str,
        handler: F,
        *,
        unknown_errors: UnknownErrors = None,
        replace: bool = False,
        concurrency: int | None = None,
    ) -> F: ...

    @overload
    def register_compensation_handler(
        self,
        operation_type: str,
        handler: None = None,
        *,
        unknown_errors: UnknownErrors = None,
        replace: bool = False,
        concurrency: int | None = None,
    ) -> Decorator: ...

    def register_compensation_handler(
        self,
        operation_type: str,
        handler: F | None = None,
        *,
        unknown_errors: UnknownErrors = None,
        replace: bool = False,
        concurrency: int | None = None,
    ) -> F | Decorator:
        """Say which code undoes an operation; as `register_operation_handler`.

        A compensation may be called more than once, and for an operation that never happened: it must bear both.
        """
        make = partial(
            make_handler,
            handlers=self._handlers,
            unknown_errors=unknown_errors,
            concurrency=checked_concurrency(concurrency),
        )
        return self._register(self._handlers.compensations, operation_type, handler, make, replace=replace)

    def _register(
        self, table: dict[str, Handler], name: str, function: F | None, make: Callable[..., Handler], *, replace: bool
    ) -> F | Decorator:
        def register(function: G) -> G:
            made = make(name, function)
            present = table.get(name)
            if present is not None and present.function != function and not replace:
                raise InvalidInput(
                    "operation_type",
                    f"{name!r} is registered already, with {present.function!r:.120}; "
                    "pass replace=True to register another handler for it",
                )
            if present is not None:
                made.demand.succeed(present.demand)
            table[name] = marked(made, self._handlers)
            return function

        return register if function is None else register(function)
