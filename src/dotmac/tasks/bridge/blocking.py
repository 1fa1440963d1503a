"""The façade for threads: the manager's methods, blocking."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, overload

from ..facade.locks import DEFAULT_TTL, LockMethods, Names
from ..facade.operations import OperationMethods
from ..facade.sagas import SagaMethods
from ..handle import SagaHandle
from ..models import Finding, OperationStatus, SagaOutcome, SagaWorkflow
from .bridged import abandoned_hook
from .callers import refuse_event_loops
from .locks import BlockingContext, BlockingLock, blocking_lock, blocking_locks
from .runtime_loop import RuntimeLoop, Undo

if TYPE_CHECKING:
    from ..manager import BackgroundOperationsManager

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingManager, P], T]:
    """The method of the manager, as one that blocks. An interruption (Ctrl-C) cancels it, and waits for its end."""
    undo = abandoned_hook(method)

    @functools.wraps(method)
    def call(self: BlockingManager, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(
            lambda: method(self._manager, *args, **kwargs),
            None if undo is None else lambda result: undo(self._manager, result, *args, **kwargs),
        )

    return call


def _giving_handle(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, SagaHandle]],
) -> Callable[Concatenate[BlockingManager, P], BlockingSagaHandle]:
    """The same for a method that gives a saga's handle."""

    @functools.wraps(method)
    def call(self: BlockingManager, /, *args: P.args, **kwargs: P.kwargs) -> BlockingSagaHandle:
        return BlockingSagaHandle(self._run(lambda: method(self._manager, *args, **kwargs)))

    return call


class BlockingManager:
    """What `manager.sync` is: the manager's methods with the same arguments, results and errors.

    They can be called from any thread that runs no event loop, while the manager runs in whichever host. A program
    without an event loop starts it here: ``with manager.sync:``. Async handlers run under trio then.

    Raises `UsageError` in an event loop, and `NotStarted` while the manager does not run.
    """

    def __init__(self, manager: BackgroundOperationsManager) -> None:
        self._manager = manager

    create_idempotency_key = _blocking(OperationMethods.create_idempotency_key)
    check_idempotency = _blocking(OperationMethods.check_idempotency)
    list_idempotency_keys = _blocking(OperationMethods.list_idempotency_keys)
    complete_idempotent_operation = _blocking(OperationMethods.complete_idempotent_operation)
    run_idempotent = _blocking(OperationMethods.run_idempotent)
    create_saga_workflow = _blocking(SagaMethods.create_saga_workflow)
    execute_saga_workflow = _blocking(SagaMethods.execute_saga_workflow)
    start_saga = _giving_handle(SagaMethods.start_saga)
    get_saga = _blocking(SagaMethods.get_saga)
    get_saga_history = _blocking(SagaMethods.get_saga_history)
    extend_saga_history = _blocking(SagaMethods.extend_saga_history)
    add_saga_note = _blocking(SagaMethods.add_saga_note)
    list_sagas = _blocking(SagaMethods.list_sagas)
    count_sagas = _blocking(SagaMethods.count_sagas)
    list_workers = _blocking(SagaMethods.list_workers)
    handler_load = _blocking(SagaMethods.handler_load)
    retry_saga = _giving_handle(SagaMethods.retry_saga)
    cancel_saga = _giving_handle(SagaMethods.cancel_saga)
    acquire_lock = _blocking(LockMethods.acquire_lock)
    release_lock = _blocking(LockMethods.release_lock)
    list_locks = _blocking(LockMethods.list_locks)
    inspect_lock = _blocking(LockMethods.inspect_lock)

    def saga_handle(self, saga_id: str) -> BlockingSagaHandle:
        """A handle for a saga that was started earlier or elsewhere."""
        return BlockingSagaHandle(self._manager.saga_handle(saga_id))

    @overload
    def lock(
        self, name: str, *, ttl: float = ..., wait: float | None = ...
    ) -> AbstractContextManager[BlockingLock]: ...

    @overload
    def lock(
        self, name: Names, *, ttl: float = ..., wait: float | None = ...
    ) -> AbstractContextManager[dict[str, BlockingLock]]: ...

    def lock(
        self, name: str | Names, *, ttl: float = DEFAULT_TTL, wait: float | None = None
    ) -> AbstractContextManager[Any]:
        """As the manager's `lock`: ``with manager.sync.lock("invoice:42") as held: held.fence``.

        A thread cannot be cancelled: where the lock is lost, `LockLost` is raised when the block is left. Look at
        ``held.lost`` in between, and have the guarded resource compare the fence.
        """
        context = self._manager.lock(name, ttl=ttl, wait=wait)
        adapt: Callable[..., Any] = blocking_lock if isinstance(name, str) else blocking_locks
        return BlockingContext(self._home, lambda: context, adapt)

    @overload
    def try_lock(self, name: str, *, ttl: float = ...) -> AbstractContextManager[BlockingLock | None]: ...

    @overload
    def try_lock(self, name: Names, *, ttl: float = ...) -> AbstractContextManager[dict[str, BlockingLock] | None]: ...

    def try_lock(self, name: str | Names, *, ttl: float = DEFAULT_TTL) -> AbstractContextManager[Any]:
        """As the manager's `try_lock`."""
        context = self._manager.try_lock(name, ttl=ttl)
        adapt: Callable[..., Any] = blocking_lock if isinstance(name, str) else blocking_locks
        return BlockingContext(
            self._home, lambda: context, lambda held, home, stay: None if held is None else adapt(held, home, stay)
        )

    def examine(self) -> list[Finding]:
        """See the manager's `examine`; here the manager has to run."""
        return self._run(self._manager.examine)

    # --- its life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the manager in a thread of its own, for a program without an event loop. See its `start`."""
        refuse_event_loops()
        self._manager._start_blocking()  # noqa: SLF001 - the other half of one façade

    def stop(self, *, hurry: bool = False) -> None:
        """See the manager's `stop`, which can have been started anywhere."""
        refuse_event_loops()
        self._stop(hurry=hurry)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop(hurry=kind is not None and not issubclass(kind, Exception))

    def _stop(self, *, hurry: bool) -> None:
        self._manager._stop_blocking(hurry=hurry)  # noqa: SLF001 - as above

    def _home(self) -> RuntimeLoop:
        return self._manager._home  # noqa: SLF001 - as above

    def _run(self, function: Callable[[], Coroutine[Any, Any, T]], undo: Undo[T] | None = None) -> T:
        refuse_event_loops()
        return self._home().run_from_thread(function, undo)


class BlockingSagaHandle:
    """A `SagaHandle` for threads.

    Attributes:
        saga_id: Keep it to find the saga again after this process is gone.
    """

    def __init__(self, handle: SagaHandle) -> None:
        self.saga_id = handle.saga_id
        self._handle = handle

    def __repr__(self) -> str:
        return f"<BlockingSagaHandle {self.saga_id}>"

    def result(self) -> SagaOutcome:
        """See `SagaHandle.result`."""
        return self._run(self._handle.result)

    def status(self) -> OperationStatus:
        """See `SagaHandle.status`."""
        return self._run(self._handle.status)

    def get(self) -> SagaWorkflow:
        """See `SagaHandle.get`."""
        return self._run(self._handle.get)

    def cancel(self, reason: str = "") -> None:
        """See `SagaHandle.cancel`."""
        self._run(lambda: self._handle.cancel(reason))

    def _run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        refuse_event_loops()
        return self._handle._home.run_from_thread(function)  # noqa: SLF001 - the other half of one handle
