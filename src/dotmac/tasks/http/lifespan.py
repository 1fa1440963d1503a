"""The runtime's life inside an app: it starts before the app does, and ends after it.

A host that sends no lifespan gets the runtime at its first request. One that the app runs itself (started before, or
in a lifespan of its own) is left alone.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from ..errors import DotmacTasksError, EnvironmentFault, StorageUnavailable

if TYPE_CHECKING:
    from ..manager import BackgroundOperationsManager
    from .asgi import ASGIApp, Message, Receive, Scope, Send
    from .state import Work

_STARTED = ("lifespan.startup.complete", "lifespan.startup.failed")
_ENDINGS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
_PATIENCE = 5.0  # seconds for a start; a client that hangs is no better served than one that is refused
_RESTART_AFTER = 1.0  # seconds between two tries to start
_GRACE = 3.0  # seconds for the endings of requests that were cut off
_log = logging.getLogger(__name__)


class OpenExchanges:
    """The requests of an app whose endings are not stored yet."""

    def __init__(self) -> None:
        self._open: set[Work] = set()
        self._none_left: anyio.Event | None = None

    @contextmanager
    def noting(self, work: Work) -> Iterator[None]:
        """Have `drain` wait for the inside."""
        self._open.add(work)
        try:
            yield
        finally:
            self._open.discard(work)
            if self._none_left is not None and not self._open:
                self._none_left.set()

    async def drain(self, seconds: float) -> None:
        """Wait until the open ones have ended.

        Args:
            seconds: Bound of the wait. Handlers that run on are cut off then, and their endings have 3 s.
        """
        await self._wait(seconds)
        for work in tuple(self._open):
            work.cut_off()
        await self._wait(_GRACE)

    async def _wait(self, seconds: float) -> None:
        if self._open:
            self._none_left = anyio.Event()
            with anyio.move_on_after(seconds):
                await self._none_left.wait()


class RuntimeLife:
    """Starts and stops a manager for an app.

    Args:
        manager: Whose runtime it is.

    Attributes:
        exchanges: What the stop of the manager waits for.
    """

    def __init__(self, manager: BackgroundOperationsManager) -> None:
        self._manager = manager
        self.exchanges = OpenExchanges()
        self._starting: anyio.Event | None = None
        self._warned = False
        self._failure: EnvironmentFault | None = None
        self._failed_at = -math.inf

    @property
    def is_ready(self) -> bool:
        """Whether the runtime runs, and not only begins to."""
        return self._starting is None and self._manager.is_running

    async def ensure_started(self) -> None:
        """Start the runtime unless it runs; callers meanwhile wait for the one start.

        After a failed start, one caller in each second tries again. The others fail at once.

        Raises:
            EnvironmentFault: The storage cannot be used, or does not answer for 5 s.
        """
        self._warn_of_memory()
        while not self.is_ready:
            since_failure = anyio.current_time() - self._failed_at
            if self._failure is not None and (self._starting or 0 <= since_failure < _RESTART_AFTER):
                raise StorageUnavailable(f"the runtime could not be started: {self._failure}") from self._failure
            if self._starting is not None:
                await self._starting.wait()
                continue
            self._starting = started = anyio.Event()
            try:
                await self._start()
            finally:
                self._starting = None
                started.set()

    async def _start(self) -> None:
        try:
            with anyio.move_on_after(_PATIENCE):
                await self._manager.start()
            if not self._manager.is_running:
                raise StorageUnavailable(f"the runtime could not be started within {_PATIENCE:g} s")
        except EnvironmentFault as error:
            self._failure, self._failed_at = error, anyio.current_time()
            raise
        self._failure = None

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app's lifespan inside the runtime's."""
        self._warn_of_memory()
        span = _Lifespan(self._manager, self.exchanges, receive, send)
        try:
            await app(scope, span.receive, span.send)
        except BaseException as error:
            if error is not span.failed:  # that one was told to the server already, as the protocol has it
                raise
        finally:
            with anyio.CancelScope(shield=True):
                await span.stop()

    def _warn_of_memory(self) -> None:
        if self._manager.in_memory_by_default and not self._warned:
            _log.warning(
                "everything is in memory and ends with this process; set REDIS_URL, or give a storage: several "
                "processes (workers of uvicorn or hypercorn) do not share it, so each of them runs a request once"
            )
        self._warned = True


class _Lifespan:
    """The messages between a server and an app, with the runtime's start and stop in their places."""

    def __init__(
        self, manager: BackgroundOperationsManager, exchanges: OpenExchanges, receive: Receive, send: Send
    ) -> None:
        self._manager = manager
        self._exchanges = exchanges
        self._receive = receive
        self._send = send
        self._started_ahead = False
        self._started_here = False
        self.failed: Exception | None = None

    async def receive(self) -> Message:
        """The server's next message; the runtime is started before the app hears of the startup.

        So the app's startup can use the manager. It can start the manager, too, which takes the runtime over.
        """
        message = await self._receive()
        if message["type"] == "lifespan.startup" and not self._manager.is_running:
            await self._start()
        elif message["type"] == "lifespan.shutdown":
            # A server may have cancelled handlers just now, and the app's own lifespan may stop the manager.
            await self._drain()
        return message

    async def send(self, message: Message) -> None:
        """The app's message; the runtime is stopped before the server hears that the app has ended."""
        if message["type"] in _STARTED:
            self._settle()
        elif message["type"] in _ENDINGS:
            await self.stop()
        if self.failed is None:  # the server has its answer already
            await self._send(message)

    async def _start(self) -> None:
        try:
            await self._manager.start_ahead()
        except DotmacTasksError as error:
            self.failed = error
            _log.critical("the runtime could not be started: %s", error)
            told = "".join(traceback.format_exception_only(error)).strip()
            await self._send({"type": "lifespan.startup.failed", "message": told})
            raise
        self._started_ahead = True

    def _settle(self) -> None:
        if self._started_ahead:
            self._started_ahead = False
            self._started_here = self._manager.settle_start()

    async def stop(self) -> None:
        """Stop the runtime, if it was started here and is not the app's."""
        self._settle()
        if self._started_here:
            self._started_here = False
            await self._drain()
            await self._manager.stop()

    async def _drain(self) -> None:
        await self._exchanges.drain(self._manager.settings.drain_timeout)
