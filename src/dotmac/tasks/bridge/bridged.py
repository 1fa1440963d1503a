"""Methods of something that lives in a trio run, for callers who live anywhere.

In that trio run a method is called as it is, at the price of one comparison. From an event loop of asyncio, or from
another trio run, the call crosses over: it runs there, and its result or error comes back.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from ..errors import UsageError
from .contexts import Opening, RemoteContext
from .runtime_loop import RuntimeLoop

USED = "each block needs a context of its own: make it where it is entered, as in 'async with manager.lock(…):'"
"""For who enters a second time what can be entered once."""


class HasRuntimeLoop(Protocol):
    """Lives in a trio run."""

    @property
    def _home(self) -> RuntimeLoop:
        """Which one.

        Raises:
            NotStarted: There is none at the moment.
        """
        ...


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=HasRuntimeLoop)

_UNDO = "_dotmac_tasks_undo"


def bridged(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method one that can be awaited from anywhere.

    Cancelling it from elsewhere cancels it here, and waits until it has ended.
    """

    @functools.wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        home = self._home
        if home.is_here:
            return await method(self, *args, **kwargs)
        return await home.run(lambda: method(self, *args, **kwargs), together=True)

    return call


def on_abandoned(
    undo: Callable[..., Awaitable[object]],
) -> Callable[
    [Callable[Concatenate[S, P], Coroutine[Any, Any, T]]], Callable[Concatenate[S, P], Coroutine[Any, Any, T]]
]:
    """As `bridged`, for a method whose result must not get lost.

    Args:
        undo: Called as ``await undo(self, result, *args, **kwargs)``, in the trio run, when the caller was cancelled
            in the moment in which the result was there already.
    """

    def decorate(
        method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
    ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
        @functools.wraps(method)
        async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            home = self._home
            if home.is_here:
                return await method(self, *args, **kwargs)
            return await home.run(
                lambda: method(self, *args, **kwargs),
                lambda result: undo(self, result, *args, **kwargs),
                together=True,
            )

        setattr(call, _UNDO, undo)
        return call

    return decorate


def abandoned_hook(method: Callable[..., object]) -> Callable[..., Awaitable[object]] | None:
    """What `on_abandoned` was given for this method, if it was: for those who call it in the trio run themselves."""
    undo: Callable[..., Awaitable[object]] | None = getattr(method, _UNDO, None)
    return undo


class BridgedContext(AbstractAsyncContextManager[T], Generic[T]):
    """A context of something that lives in a trio run, whose body runs wherever it is entered.

    Args:
        owner: What lives there.
        opening: Makes the context, there.
        adapt: Makes what a body elsewhere gets of what the context gave.

    Entered once: it knows of one body, and would leave that of another task.
    """

    def __init__(self, owner: HasRuntimeLoop, opening: Opening[T], adapt: Callable[[T, RemoteContext[T]], T]) -> None:
        self._owner = owner
        self._opening = opening
        self._adapt = adapt
        self._inner: AbstractAsyncContextManager[T] | RemoteContext[T]
        self._used = False

    async def __aenter__(self) -> T:
        home = self._owner._home  # noqa: SLF001 - the protocol's one name, kept out of users' sight
        if self._used:
            raise UsageError(USED)
        self._used = True
        self._inner = self._opening() if home.is_here else RemoteContext(home, self._opening, self._adapt)
        return await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)
