"""Starting and stopping."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from threading import RLock
from types import TracebackType
from typing import Self
from weakref import WeakSet

import trio
from anyio import CapacityLimiter, to_thread

from ..bridge.bridged import BridgedContext
from ..bridge.runtime_loop import RuntimeLoop
from ..bridge.thread import RuntimeThread
from ..errors import AlreadyStarted, NotStarted, UsageError
from ..models import Finding
from ..runtime.environment import SagaEnvironment
from ..runtime.hosting import RuntimeHandle
from ..runtime.inside_handlers import refuse_inside

_LEFT_BEHIND = "the manager was started before this process was forked off; make another one here"
_everywhere: WeakSet[Lifecycle] = WeakSet()


class Lifecycle:
    """Has a runtime while it is started: in the trio run that started it, or in a thread of its own."""

    def __init__(self, environment: SagaEnvironment) -> None:
        self._environment = environment
        self._hosting: RuntimeHandle | None = None
        self._thread: RuntimeThread | None = None
        self._stopping: tuple[RuntimeHandle | None, RuntimeThread | None] = (None, None)
        self._ahead: RuntimeHandle | None = None
        self._block: BridgedContext[None]
        self._left_behind = False
        self._changing = RLock()  # threads may start and stop it at the same time
        _everywhere.add(self)

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor ended by a failure."""
        hosting = self._hosting  # looked at once: another thread may stop it meanwhile
        return hosting is not None and not hosting.over

    def leave_work_to_others(self) -> None:
        """Run no sagas in this process from the next start on, as a manager made with ``works=False``.

        Raises:
            AlreadyStarted: The manager is running.
        """
        if self.is_running:
            raise AlreadyStarted("the manager is running; whether it runs sagas is decided before the start")
        self._environment = replace(self._environment, works=False)

    async def start(self) -> None:
        """Connect, and run in the background until `stop`.

        Called from trio, it runs in the background of this trio run. Called from asyncio, it runs in a thread of its
        own, and async handlers run in the event loop that it was started in.

        Raises:
            AlreadyStarted: It is running, or being stopped.
            UsageError: It runs in a process from which this one was forked off.
            EnvironmentFault: The storage cannot be used; nothing is left running.
        """
        if self.is_running and self._ahead is self._hosting:
            self._ahead = None
            return
        threaded = not trio.lowlevel.in_trio_task()
        hosting, thread = self._begin(threaded=threaded)
        try:
            await (hosting if thread is None else thread).start()
        except BaseException:
            self._forget(hosting)
            raise

    async def start_ahead(self) -> None:
        """As `start`, for somebody who may do that himself in a moment: his `start` takes over what runs already.

        Until `settle_start` is called. Whoever took it over stops it.
        """
        await self.start()
        self._ahead = self._hosting

    def settle_start(self) -> bool:
        """From now on, who starts it again is refused as ever. Whether nobody took over what was started ahead."""
        ahead, self._ahead = self._ahead, None
        return ahead is not None

    async def stop(self, *, hurry: bool = False) -> None:
        """Let running attempts finish (for `drain_timeout` seconds), hand the rest over, disconnect.

        Nothing stored is touched; sagas that are not at their end go on in other processes, or at the next start.
        Stopping a manager that is not running does nothing. While it stops already, this waits with the first call.
        Cancelling it cuts it short; it still waits for the end.

        Args:
            hurry: Cut running attempts off at once, also those that an earlier call still waits for.

        Raises:
            UsageError: A handler of this manager calls it, or a task of that handler: it would wait for itself.
        """
        await self._stop(hurry=hurry)

    async def examine(self) -> list[Finding]:
        """Look the storage over: what is well, what is not, and what mends it. The manager need not be running."""
        examine = self._environment.storage.examine
        if self.is_running:
            return await self._home.run(examine)
        if trio.lowlevel.in_trio_task():
            return await examine()
        return await to_thread.run_sync(trio.run, examine, limiter=CapacityLimiter(1))  # waits for no other thread

    # No generator: an event loop that is wound up closes those at once, in whichever order, and this one would be
    # closed by it in the midst of being left.

    async def __aenter__(self) -> Self:
        await self.start()
        block = BridgedContext(self, self._hosted().block, lambda nothing, _crossed: nothing)
        try:
            await block.__aenter__()
        except BaseException as error:  # Ctrl-C too: it runs, and nobody would stop it
            await self._leave(error)
            raise
        self._block = block
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            dealt_with = await self._block.__aexit__(kind, error, trace)
        except BaseException as raised:  # likewise
            await self._leave(raised)
            raise
        await self._leave(None if dealt_with else error)
        return dealt_with

    async def _leave(self, error: BaseException | None) -> None:
        """Stop it at the end of its block, which ended with this."""
        # Cancelled, or Ctrl-C: whoever wants out does not want to wait for a drain.
        hurry = error is not None and not isinstance(error, Exception)
        with _shield():
            await self._stop(hurry=hurry)

    async def _stop(self, *, hurry: bool) -> None:
        with self._being_stopped() as (hosting, thread):
            if thread is not None:
                await thread.stop(hurry=hurry)
            elif hosting is not None and hosting.home.is_here:
                await hosting.stop(hurry=hurry)
            elif hosting is not None:
                with suppress(NotStarted):  # it has ended by itself
                    await hosting.home.run(partial(hosting.stop, hurry=hurry))
                hosting.raise_failure()

    def _start_blocking(self) -> None:
        """As `start`, for a thread without an event loop."""
        hosting, thread = self._begin(threaded=True)
        try:
            if thread is not None:
                thread.start_blocking()
        except BaseException:
            self._forget(hosting)
            raise

    def _stop_blocking(self, *, hurry: bool) -> None:
        """As `_stop`, for a thread without an event loop."""
        with self._being_stopped() as (hosting, thread):
            if thread is not None:
                thread.stop_blocking(hurry=hurry)
            elif hosting is not None:
                with suppress(NotStarted):  # it has ended by itself
                    hosting.home.run_from_thread(partial(hosting.stop, hurry=hurry))
                hosting.raise_failure()

    @contextmanager
    def _being_stopped(self) -> Iterator[tuple[RuntimeHandle | None, RuntimeThread | None]]:
        """The runtime that is to be stopped, or is stopped already by an earlier call; inside, it is."""
        refuse_inside(self._environment.handlers)
        with self._changing:
            hosting, thread = self._forget(self._hosting)
            if hosting is None:
                hosting, thread = self._stopping
            self._stopping = hosting, thread
        try:
            yield hosting, thread
        finally:
            with self._changing:
                if self._stopping[0] is hosting:
                    self._stopping = None, None

    def _begin(self, *, threaded: bool) -> tuple[RuntimeHandle, RuntimeThread | None]:
        """Make a runtime that is to be started next. Raises AlreadyStarted."""
        if self._left_behind:
            raise UsageError(_LEFT_BEHIND)
        with self._changing:
            if self.is_running:
                raise AlreadyStarted("the manager is running already")
            stopping, _ = self._stopping
            if stopping is not None and not stopping.over:
                raise AlreadyStarted("the manager is still being stopped: wait for that before it is started again")
            self._environment.handlers.host = None  # of a runtime that ended by itself, and whose thread may still end
            self._hosting = hosting = RuntimeHandle(self._environment)
            grace = self._environment.settings.cancel_grace
            self._thread = RuntimeThread(hosting, self._environment.handlers, grace) if threaded else None
            return hosting, self._thread

    def _forget(self, forgotten: RuntimeHandle | None) -> tuple[RuntimeHandle | None, RuntimeThread | None]:
        """Have this runtime no more, if it is the present one; gives what there was."""
        with self._changing:
            if self._hosting is not forgotten:  # somebody stopped it, and started another one
                return None, None
            hosting, self._hosting = self._hosting, None
            thread, self._thread = self._thread, None
            return hosting, thread

    def _hosted(self) -> RuntimeHandle:
        if self._left_behind:
            raise NotStarted(_LEFT_BEHIND)
        hosting = self._hosting  # looked at once, as above
        if hosting is None or hosting.over:
            raise NotStarted("the manager is not running; use 'async with manager:' or 'await manager.start()'")
        return hosting

    @property
    def _home(self) -> RuntimeLoop:
        return self._hosted().home

    def _forked(self) -> None:
        """In a child of the process: the thread of the runtime is not here, so waiting for it would never end."""
        self._changing = RLock()  # a thread that is not here may have had it
        if self._hosting is not None or self._stopping[0] is not None:
            self._left_behind = True
            self._hosting = self._thread = None
            self._stopping = None, None


def _shield() -> AbstractContextManager[object]:
    """Keeps cancellations off under trio. Elsewhere, a call that crosses over waits for its end by itself."""
    return trio.CancelScope(shield=True) if trio.lowlevel.in_trio_task() else nullcontext()


def _after_fork() -> None:
    for hosted in _everywhere:
        hosted._forked()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
