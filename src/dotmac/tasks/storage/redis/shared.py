"""One thing that several users in a trio run hold open together: it ends with the last of them, whoever was first.

It lives in a system task, because it must outlive the task of the user who happened to open it.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

import trio

from dotmac.tasks.errors import EnvironmentFault

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Shared(Generic[T]):
    """Opens on the first use, closes after the last one; then it can be opened again.

    Args:
        open_it: Makes the context manager of what is shared.
    """

    def __init__(self, open_it: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._open = open_it
        self._current: _Opening[T] | None = None

    @asynccontextmanager
    async def used(self) -> AsyncIterator[T]:
        """Hold it open while inside. Raises what opening it raises."""
        opening = self._current
        if opening is None or opening.closing:
            opening = self._current = _Opening(self._open)
        async with opening.held() as value:
            yield value


class _Opening(Generic[T]):
    """One time that it is open."""

    def __init__(self, open_it: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._users = 0
        self._settled = trio.Event()
        self._ended = trio.Event()
        self._unused = trio.Event()
        self._scope = trio.CancelScope()
        self._failure: Exception | None = None
        self._value: list[T] = []
        trio.lowlevel.spawn_system_task(self._host, open_it, name="dotmac.tasks storage")

    @property
    def closing(self) -> bool:
        return self._unused.is_set() or self._ended.is_set()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[T]:
        self._users += 1
        try:
            await self._settled.wait()
            if self._failure is not None:
                raise self._failure
            yield self._value[0]
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()
                if not self._settled.is_set():
                    self._scope.cancel()  # its only user does not want to wait for it
                with trio.CancelScope(shield=True):
                    await self._ended.wait()

    async def _host(self, open_it: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        try:
            with self._scope:
                async with open_it() as value:
                    self._value.append(value)
                    self._settled.set()
                    await self._unused.wait()
        except Exception as error:
            # A system task must not raise. Users that wait for the opening get it; for users who are past that
            # every call raises from now on, and the log says why.
            if self._settled.is_set():
                known = isinstance(error, EnvironmentFault)  # which says what happened, and what mends it
                _log.critical("the storage broke and is closed: %s", error, exc_info=None if known else error)
            self._failure = error
        except BaseException as error:
            if BaseExceptionGroup("", [error]).subgroup(KeyboardInterrupt) is None:
                raise
            # It hit redis-py or trio-asyncio, which nothing protects. Raised from here, it would end the run as an
            # internal error of trio. But this task is protected, so trio hands a signal on to the program's own task.
            signal.raise_signal(signal.SIGINT)
        finally:
            self._ended.set()
            self._settled.set()
