"""Keeps a storage open and a runtime running beside the task that asked for it, until it is stopped.

It lives in a system task of the trio run, not in a nursery of the caller: `start` must return while the runtime goes
on, and an error in the caller's block must not arrive wrapped in a group because a nursery happened to be there. A
system task must not raise, so a failure (or the Ctrl-C that happened to hit a task of ours) is kept and raised where
the caller is: it cancels the caller's block, or comes out of `stop`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..bridge.runtime_loop import RuntimeLoop
from ..errors import NotStarted
from .environment import SagaEnvironment
from .idempotent import IdempotentOperations
from .request_claims import RequestClaims
from .runtime import Runtime
from .saga_service import SagaService
from .saga_steering import SagaSteering
from .telling import tell_storage

_log = logging.getLogger(__name__)


class RuntimeHandle:
    """One run of a runtime.

    Attributes:
        sagas: What can be asked of sagas.
        steering: What operators can do to them.
        operations: What can be asked of idempotent operations.
        requests: Claims of work that runs elsewhere.
        locks: What can be asked of locks.
        home: The trio run in which it lives.
    """

    def __init__(self, environment: SagaEnvironment) -> None:
        self._environment = environment
        if environment.storage.observer is None:  # one that the application installed stays
            environment.storage.observer = tell_storage
        self._runtime = Runtime(environment)
        self._scope = trio.CancelScope()
        self._blocks: set[trio.CancelScope] = set()
        self._settled = trio.Event()
        self._ended = trio.Event()
        self._failure: BaseException | None = None
        self.home = RuntimeLoop()
        self.sagas = SagaService(environment, self._runtime)
        self.steering = SagaSteering(environment, self._runtime)
        self.operations = IdempotentOperations(environment, self._runtime.claims)
        self.requests = RequestClaims(environment.storage, self._runtime.claims, self.sagas, self._runtime.background)
        self.locks = environment.locks

    @property
    def over(self) -> bool:
        """Whether it has ended, of itself or by `stop`."""
        return self._ended.is_set()

    async def start(self) -> None:
        """Open the storage, begin the worker's lease, start looking for work.

        Raises:
            EnvironmentFault: The storage cannot be used; nothing is left running.
        """
        self.home.open()
        trio.lowlevel.spawn_system_task(self._host, name="dotmac.tasks runtime")
        await self._wait_or_end(self._settled)
        if self._ended.is_set():
            self.raise_failure()
            raise NotStarted("the runtime ended while it was being started")

    async def stop(self, *, hurry: bool = False) -> None:
        """Drain and end; in a hurry, cut running attempts off. Raises what the runtime failed with, if it did."""
        self.request_stop(hurry=hurry)
        await self._wait_or_end(self._ended)
        self.raise_failure()

    def request_stop(self, *, hurry: bool) -> None:
        """As `stop`, without waiting for the end."""
        if self._ended.is_set():
            return
        if self._settled.is_set():
            self._runtime.request_stop(hurry=hurry)
        else:  # there is nothing to drain in what has yet to start
            self._scope.cancel()

    async def until_over(self) -> None:
        """Wait until it has ended."""
        await self._ended.wait()

    def raise_failure(self) -> None:
        """Raise what it failed with, if it did."""
        if self._failure is not None:
            raise self._failure

    async def _wait_or_end(self, event: trio.Event) -> None:
        """Wait; a caller who is cancelled meanwhile ends the runtime at once, so that nothing is left running."""
        try:
            await event.wait()
        except BaseException:
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._ended.wait()
            raise

    @asynccontextmanager
    async def block(self) -> AsyncIterator[None]:
        """A block of the caller that is cancelled if the runtime fails; what it failed with is raised then."""
        with trio.CancelScope() as scope:
            self._blocks.add(scope)
            try:
                yield
            finally:
                self._blocks.discard(scope)
        if scope.cancelled_caught:
            self.raise_failure()

    async def _host(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._environment.running.watch)  # outside of the scope: for as long as that takes
                with self._scope:
                    async with self._environment.storage.opened():
                        await self._runtime.run(task_status=self)
                nursery.cancel_scope.cancel()
        except BaseException as error:
            cancelled, failure = _split(error)
            if failure is not None:
                self._failure = _sole(failure)
                if self._settled.is_set():
                    _log.critical("the runtime failed and is not running any more", exc_info=failure)
            if cancelled is not None:
                raise cancelled from None
        finally:
            self._ended.set()
            self._settled.set()
            if self._failure is not None:
                for scope in self._blocks:
                    scope.cancel()
            self.home.close(self._failure)

    def started(self, _value: object = None) -> None:
        """Called by the supervisor when all of the runtime's parts have started (it takes us for a TaskStatus)."""
        self._settled.set()


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What belongs to trio (the end of the whole run), and what belongs to the caller, Ctrl-C included."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    return (error, None) if isinstance(error, trio.Cancelled) else (None, error)


def _sole(error: BaseException) -> BaseException:
    """The one error inside nested groups of one, or the error itself: a group of one tells nothing more."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
