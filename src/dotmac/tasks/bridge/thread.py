"""A runtime in a thread of its own, for a host that is an asyncio program, or no event loop at all.

The thread ends with the runtime. It is a daemon, so a program that ends without stopping it does not hang; before
that it is stopped in a hurry, so that others need not wait for its lease to end:

- when the host's event loop is wound up (``asyncio.run`` closes asynchronous generators last, and one of them is ours);
- at the interpreter's exit, where no loop was wound up. What is still under way then is what it always is when a
  process dies: stored, and gone on with by whoever takes it over.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial

import trio

from ..errors import NotStarted
from ..runtime.handlers import Handlers
from ..runtime.hosting import RuntimeHandle
from .callers import ThreadWait
from .handlers import AsyncioHandlers
from .identity import runs_beside_its_host
from .runtime_loop import raise_cancellation

_LAST_MOMENT = 5.0  # seconds that the interpreter's exit waits for the runtime to sign off
_hosts = threading.Lock()  # a runtime that ends by itself may be followed by another one before its thread has ended
_log = logging.getLogger(__name__)


class RuntimeThread:
    """Runs a runtime; all is called by its host, from whichever thread.

    Args:
        hosting: The runtime.
        handlers: Its handlers.
        grace: Seconds that a cancelled handler may take to end in the host's event loop.
    """

    def __init__(self, hosting: RuntimeHandle, handlers: Handlers, grace: float) -> None:
        self._hosting = hosting
        self._home = hosting.home
        self._handlers = handlers
        self._grace = grace
        self._thread = threading.Thread(target=self._run, name="dotmac.tasks runtime", daemon=True)
        self._watch: AsyncGenerator[None, None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_loop: AsyncioHandlers | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self._over = False
        self._told_over: list[Callable[[], None]] = []
        self._failure: BaseException | None = None

    # --- from an event loop ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the runtime; async handlers run in the present event loop from now on.

        Raises what `RuntimeHandle.start` raises; no thread is left then.
        """
        self._loop = asyncio.get_running_loop()
        self._in_loop = AsyncioHandlers(self._loop, self._home, self._hurry, self._grace)
        with _hosts:
            self._handlers.host = self._in_loop
        self._begin()
        try:
            await self._home.run(self._hosting.start, undo=lambda _: self._hosting.stop(hurry=True))
        except BaseException as error:
            raise_cancellation(await self._until_over(), error)
            raise
        self._watch = self._stop_with_loop(self._in_loop)
        await anext(self._watch)

    async def stop(self, *, hurry: bool) -> None:
        """Stop the runtime and wait for the thread's end. A cancelled caller cuts the drain short."""
        self._stopping = True
        if self._watch is not None and not trio.lowlevel.in_trio_task() and asyncio.get_running_loop() is self._loop:
            with suppress(RuntimeError):  # the loop ends, and closes it in this very moment
                await self._watch.aclose()
        await self._end(hurry=hurry)

    async def _stop_with_loop(self, handlers: AsyncioHandlers) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if not self._stopping and not self._hosting.over:
                _log.warning("the event loop ends before the manager was stopped, so it is stopped in a hurry")
                with suppress(NotStarted):  # it ends by itself in this very moment
                    handlers.loop_ends()
                await self._end(hurry=True)

    async def _end(self, *, hurry: bool) -> None:
        self._give_up_dead_loop()
        try:
            with suppress(NotStarted):  # it has ended by itself
                await self._home.run(partial(self._hosting.stop, hurry=hurry))
        except BaseException as error:
            raise_cancellation(await self._until_over(), error)
            raise
        self._raise_end(await self._until_over())

    async def _until_over(self) -> BaseException | None:
        """Wait for the end of the thread, whatever happens; what the caller was cancelled with meanwhile."""
        wait = self._home.side().wait()
        self._tell_over(wait.notify)
        cancelled = await wait.until_notified(lambda: None)
        self._thread.join()  # it has nothing left to do
        return cancelled

    # --- from a thread --------------------------------------------------------------------------------------

    def start_blocking(self) -> None:
        """As `start`, for a host without an event loop: async handlers are trio functions then."""
        self._begin()
        try:
            self._home.run_from_thread(self._hosting.start)
        except BaseException as error:
            with suppress(NotStarted):  # it may have started in the moment of the interruption
                self._home.post(self._hurry)
            raise_cancellation(self._block_until_over(), error)
            raise

    def stop_blocking(self, *, hurry: bool) -> None:
        """As `stop`."""
        self._stopping = True
        self._give_up_dead_loop()
        try:
            with suppress(NotStarted):  # it has ended by itself
                self._home.run_from_thread(partial(self._hosting.stop, hurry=hurry))
        except BaseException as error:
            raise_cancellation(self._block_until_over(), error)
            raise
        self._raise_end(self._block_until_over())

    def _block_until_over(self) -> BaseException | None:
        wait = ThreadWait()
        interrupted = wait.block(lambda: self._tell_over(wait.notify), lambda: None)
        self._thread.join()
        return interrupted

    # --- its life -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._thread.start()
        atexit.register(self._sign_off)

    def _sign_off(self) -> None:
        """At the interpreter's exit: nobody can start or wait for anything any more."""
        self._give_up_dead_loop()
        with suppress(NotStarted):  # then there is nothing to sign off from
            self._home.post(self._hurry)
            self._thread.join(_LAST_MOMENT)

    def _give_up_dead_loop(self) -> None:
        """Handlers in an event loop that does not run any more would be waited for for ever."""
        if self._loop is not None and self._in_loop is not None and not self._loop.is_running():
            with suppress(NotStarted):
                self._home.post(self._in_loop.give_up)

    def _hurry(self) -> None:
        """In the trio run."""
        self._hosting.request_stop(hurry=True)

    def _tell_over(self, notify: Callable[[], None]) -> None:
        with self._lock:
            if not self._over:
                self._told_over.append(notify)
                return
        notify()

    def _run(self) -> None:
        try:
            trio.run(self._live)
        except BaseException as error:
            self._failure = error
        self._home.abandon(self._failure)
        with _hosts:
            if self._in_loop is not None and self._handlers.host is self._in_loop:
                self._handlers.host = None
        atexit.unregister(self._sign_off)
        with self._lock:
            self._over = True
        for notify in self._told_over:
            notify()

    def _raise_end(self, cancelled: BaseException | None) -> None:
        """Raise what the runtime, or the trio run itself, failed with, or what the caller was cancelled with."""
        try:
            self._hosting.raise_failure()
            if self._failure is not None:
                raise self._failure
            if cancelled is not None:
                raise cancelled
        except Exception as failure:
            raise_cancellation(cancelled, failure)
            raise
        finally:
            del cancelled  # it refers to this frame

    async def _live(self) -> None:
        runs_beside_its_host.set(True)
        self._home.open()
        await self._hosting.until_over()
        self._home.close()
        await self._home.vacant.wait()
