"""What a handler lets out ends its attempt: not its worker, not the runtime, not the program, unless a signal came."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import sniffio
import trio

from bridge.hosts import HOSTS, PATIENCE, Host, a_manager
from dotmac.tasks import (
    BackgroundOperationsManager,
    MemoryStorage,
    NonRetryableError,
    OperationFailed,
    OperationStatus,
    OutcomeUnknown,
)
from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.metrics import register_attempt_hook, register_metrics_hooks
from runtime.nodes import Node

COMPENSATED, COMPLETED = OperationStatus.COMPENSATED, OperationStatus.COMPLETED


class Grave(BaseException):
    """Neither an error nor the end of the program."""


def stored_cancellation() -> BaseException:
    """A cancellation of a trio run that is over."""
    caught: list[BaseException] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                caught.append(error)
                raise

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    thread.join()
    return caught[0]


EXITS: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "Cancelled": stored_cancellation,
    "Grave": Grave,
    "group": lambda: BaseExceptionGroup("of a nursery", [SystemExit(3), ValueError("x"), GeneratorExit()]),
}
each_exit = pytest.mark.parametrize("make", EXITS.values(), ids=EXITS)
each_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)


@each_exit
@each_host
def test_an_exit_ends_its_attempt_with_an_unknown_outcome(host: Host[Any], make: Callable[[], BaseException]) -> None:
    manager = a_manager()
    undone: list[bool] = []
    left = [make() for _ in range(3)]

    async def leave(_parameters: Any, context: Any) -> str:
        if left:
            raise left.pop()
        return "done"

    async def undo(_parameters: Any, context: Any) -> None:
        if len(undone) < 2:
            undone.append(context.step_happened)
            raise make()

    manager.register_operation_handler("leave", leave)
    manager.register_compensation_handler("undo", undo)

    async def program(manager: BackgroundOperationsManager) -> None:
        once = {"max_retries": 0}
        steps = [{"name": "s", "operation": "leave", "compensation_operation": "undo", "retry": once}]
        steps[0]["compensation_retry"] = {"max_retries": 9, "initial_delay": 0.001}
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        outcome = await handle.result()
        assert (outcome.status, undone) == (COMPENSATED, [False, False])
        assert "OutcomeUnknown: the handler let" in str(outcome.error)
        with pytest.raises(OutcomeUnknown, match="the handler let") as raised:
            await manager.run_idempotent(tenant_id="t", operation_type="leave")
        assert type(raised.value.__cause__) is type(make())
        left.clear()
        assert await manager.run_idempotent(tenant_id="t", operation_type="leave") == "done"
        assert manager.is_running

    host(manager, program)


@each_exit
def test_an_exit_leaves_the_runtime_thread_of_a_blocking_manager_alone(make: Callable[[], BaseException]) -> None:
    manager = a_manager()

    @manager.register_operation_handler("leave")
    async def leave(_parameters: Any) -> None:
        raise make()

    with manager.sync as sync:
        steps = [{"name": "s", "operation": "leave", "max_retries": 0}]
        assert sync.start_saga(tenant_id="t", workflow_type="w", steps=steps).result().status is COMPENSATED
        with pytest.raises(OutcomeUnknown):
            sync.run_idempotent(tenant_id="t", operation_type="leave")
        assert manager.is_running


@each_exit
async def test_an_exit_of_a_hook_is_logged_and_harms_nothing(
    make: Callable[[], BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def leave(*_args: Any) -> Any:
        raise make()

    async def work(_parameters: Any) -> str:
        return "done"

    manager = a_manager()
    manager.register_operation_handler("work", work)
    unregister = [
        register_metrics_hooks(saga_step_completed_hook=leave, idempotency_key_created_hook=leave),
        register_attempt_hook(leave),
        register_attempt_hook(lambda _context: leave),
    ]
    try:
        async with manager:
            steps = [{"name": "s", "operation": "work"}]
            handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
            assert (await handle.result()).results == {"s": "done"}
            assert await manager.run_idempotent(tenant_id="t", operation_type="work") == "done"
    finally:
        for take_out in unregister:
            take_out()
    assert len([record for record in caplog.records if "a hook for" in record.message]) == 4


def only(work: Callable[..., Any]) -> Callable[[BackgroundOperationsManager], None]:
    def register(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("op", work)

    return register


async def test_an_exit_in_a_nursery_that_is_cut_off_ends_the_attempt_only(shared: MemoryStorage) -> None:
    async def work(_parameters: Any) -> None:
        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                sys.exit(3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    async with Node(shared, only(work)) as node:
        steps = [{"name": "s", "operation": "op", "timeout_seconds": 0.05, "max_retries": 1}]
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        outcome = await handle.result()
        assert node.manager.is_running
        assert (await handle.get()).steps[0].attempts == 2
    assert outcome.status is COMPENSATED
    assert "SystemExit" in str(outcome.error)


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_sigterm() -> Iterator[None]:
    def leave(*_args: Any) -> None:
        sys.exit(7)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


def interrupt_in(code: str) -> Callable[[Any], Any]:
    """A handler in which a signal arrives: while its own code runs, or while it waits."""

    async def handler(_parameters: Any) -> None:
        number = signal.SIGTERM if "SIGTERM" in code else signal.SIGINT
        if "later" in code:
            main = threading.main_thread().ident
            assert main is not None
            threading.Timer(0.02, signal.pthread_kill, [main, number]).start()
        else:
            signal.raise_signal(number)
        library = trio if sniffio.current_async_library() == "trio" else asyncio
        await library.sleep(PATIENCE)

    return handler


@pytest.mark.parametrize("how", ["saga", "operation"])
@pytest.mark.parametrize("code", ["SIGINT", "SIGINT later"])
@pytest.mark.parametrize("host", [HOSTS["trio"], HOSTS["asyncio"]], ids=["trio", "asyncio"])
def test_ctrl_c_ends_the_program(host: Host[Any], code: str, how: str) -> None:
    _assert_ended_by(KeyboardInterrupt, host, code, how)


@pytest.mark.usefixtures("own_sigterm")
@pytest.mark.parametrize("how", ["saga", "operation"])
def test_the_exit_of_a_signal_handler_ends_the_program(how: str) -> None:
    _assert_ended_by(SystemExit, HOSTS["trio"], "SIGTERM", how)


def _assert_ended_by(kind: type[BaseException], host: Host[Any], code: str, how: str) -> None:
    manager = a_manager()
    manager.register_operation_handler("op", interrupt_in(code))

    async def program(manager: BackgroundOperationsManager) -> None:
        if how == "saga":
            steps = [{"name": "s", "operation": "op"}]
            await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
        else:
            await manager.run_idempotent(tenant_id="t", operation_type="op")

    with pytest.raises(kind):
        host(manager, program)


# --- errors and results that cannot be looked at ----------------------------------------------------------------------


def broken(name: str, base: type[Exception] = ValueError, raised: type[BaseException] = RuntimeError) -> Exception:
    """An error that raises when this attribute is asked for."""

    def fail(self: object, *_args: Any) -> Any:
        raise raised("not you")

    value = fail if name in {"__str__", "__repr__", "with_traceback"} else property(fail)
    error = type("BrokenError", (base,), {name: value})()
    assert isinstance(error, Exception)
    return error


def nested(message: str, error: Exception) -> Exception:
    """An error in more groups than Python has room for calls."""
    for _ in range(2 * sys.getrecursionlimit()):
        error = ExceptionGroup(message, [error])
    return error


BROKEN = {
    "class": lambda: broken("__class__"),
    "notes": lambda: broken("__notes__"),
    "notes that exit": lambda: broken("__notes__", raised=SystemExit),
    "str": lambda: broken("__str__"),
    "str that exits": lambda: broken("__str__", raised=SystemExit),
    "repr": lambda: broken("__repr__", raised=KeyboardInterrupt),
    "cause": lambda: broken("__cause__"),
    "context": lambda: broken("__context__"),
    "traceback": lambda: broken("__traceback__"),
    "traceback setter": lambda: broken("with_traceback"),
    "deep group": lambda: nested("BrokenError", ValueError("x")),
    "group": lambda: ExceptionGroup("both", [broken("__class__"), KeyError("x")]),
    "base": type("BrokenError", (BaseException,), {"__class__": property(lambda self: 1 / 0)}),
}


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_an_error_that_cannot_be_looked_at_is_an_error_of_its_handler(
    make: Callable[[], BaseException], plain: bool
) -> None:
    for host in (HOSTS["trio"], HOSTS["asyncio"]):
        manager = a_manager()

        def work(_parameters: Any) -> None:
            raise make()

        async def async_work(parameters: Any) -> None:
            work(parameters)

        manager.register_operation_handler("op", work if plain else async_work)

        async def program(manager: BackgroundOperationsManager) -> None:
            retry = {"max_retries": 2, "initial_delay": 0.001}
            steps = [{"name": "s", "operation": "op", "retry": retry, "lock": "mine", "timeout_seconds": PATIENCE}]
            handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
            outcome = await handle.result()
            saga = await handle.get()
            assert (outcome.status, saga.steps[0].attempts) == (COMPENSATED, 3)
            assert "BrokenError" in str(outcome.error)
            with suppress(Exception):  # the handler's error, or the one that stands for it
                await manager.run_idempotent(tenant_id="t", operation_type="op", store_errors=True)
            with pytest.raises(OperationFailed, match="BrokenError"):
                await manager.run_idempotent(tenant_id="t", operation_type="op")

        host(manager, program)


async def test_what_a_broken_error_means_is_seen_in_its_class(shared: MemoryStorage) -> None:
    async def work(parameters: Any) -> None:
        raise broken("__class__", NonRetryableError if parameters["final"] else TimeoutError)

    async with Node(shared, only(work)) as node:
        for final, attempts, pivot_status in ((True, 1, COMPENSATED), (False, 2, OperationStatus.FAILED)):
            step = {"name": "s", "operation": "op", "kind": "pivot", "parameters": {"final": final}}
            retry = {"max_retries": 1, "initial_delay": 0.001}
            handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step | {"retry": retry}])
            await handle.result()
            saga = await handle.get()
            assert (saga.steps[0].attempts, saga.status) == (attempts, pivot_status)


@pytest.mark.parametrize("final", [True, False])
async def test_what_a_deeply_nested_error_means_is_seen_in_its_innermost_errors(
    shared: MemoryStorage, final: bool
) -> None:
    async def work(_parameters: Any) -> None:
        raise nested("deep", NonRetryableError("no") if final else TimeoutError())

    async with Node(shared, only(work)) as node:
        retry = {"max_retries": 1, "initial_delay": 0.001}
        steps = [{"name": "s", "operation": "op", "kind": "pivot", "retry": retry}]
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        status = (await handle.result()).status
        attempts = (await handle.get()).steps[0].attempts
    assert (status, attempts) == ((COMPENSATED, 1) if final else (OperationStatus.FAILED, 2))


class BrokenResult:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("not you")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


async def test_a_result_that_cannot_be_looked_at_is_one_that_cannot_be_stored(shared: MemoryStorage) -> None:
    async def work(_parameters: Any) -> Any:
        return BrokenResult()

    async with Node(shared, only(work)) as node:
        steps = [{"name": "s", "operation": "op"}]
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        assert "InvalidInput: result: cannot be read: RuntimeError" in str((await handle.result()).error)
        assert (await handle.get()).steps[0].attempts == 1
        with pytest.raises(InvalidInput, match="cannot be read"):
            await node.manager.run_idempotent(tenant_id="t", operation_type="op")
