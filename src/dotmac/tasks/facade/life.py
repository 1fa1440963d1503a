"""Starting and stopping."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

import trio

from ..errors import AlreadyStarted, NotStarted
from ..models import Finding
from ..runtime.environment import SagaEnvironment
from ..runtime.hosting import Hosting


class Hosted:
    """Has a runtime while it is started."""

    def __init__(self, environment: SagaEnvironment) -> None:
        self._environment = environment
        self._hosting: Hosting | None = None
        self._stopping: Hosting | None = None
        self._entered = AsyncExitStack()

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor ended by a failure."""
        return self._hosting is not None and not self._hosting.over

    async def start(self) -> None:
        """Connect, and run in the background of this trio run until `stop`.

        Raises:
            AlreadyStarted: It is running.
            EnvironmentFault: The storage cannot be used; nothing is left running.
        """
        if self.is_running:
            raise AlreadyStarted("the manager is running already")
        hosting = Hosting(self._environment)
        self._hosting = hosting
        try:
            await hosting.start()
        except BaseException:
            self._hosting = None
            raise

    async def stop(self, *, hurry: bool = False) -> None:
        """Let running attempts finish (for `drain_timeout` seconds), hand the rest over, disconnect.

        Nothing stored is touched; sagas that are not at their end go on in other processes, or at the next start.
        Stopping a manager that is not running does nothing. While it stops already, this waits with the first call.

        Args:
            hurry: Cut running attempts off at once, also those that an earlier call still waits for.
        """
        await self._stop(hurry=hurry)

    async def examine(self) -> list[Finding]:
        """Look the storage over: what is well, what is not, and what mends it. The manager need not be running."""
        return await self._environment.storage.examine()

    async def __aenter__(self) -> Self:
        await self._entered.enter_async_context(self._running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._entered.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        await self.start()
        hurry = False
        try:
            async with self._hosted().block():
                yield
        except BaseException as error:
            # Cancelled, or Ctrl-C: whoever wants out does not want to wait for a drain.
            hurry = not isinstance(error, Exception)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._stop(hurry=hurry)

    async def _stop(self, *, hurry: bool) -> None:
        hosting, self._hosting = self._hosting or self._stopping, None
        if hosting is None:
            return
        self._stopping = hosting
        try:
            await hosting.stop(hurry=hurry)
        finally:
            if self._stopping is hosting:
                self._stopping = None

    def _hosted(self) -> Hosting:
        if self._hosting is None or self._hosting.over:
            raise NotStarted("the manager is not running; use 'async with manager:' or 'await manager.start()'")
        return self._hosting
