"""Handlers of an asyncio program run in its event loop, and end as they do under trio."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from bridge.hosts import (
    ASYNCIO_HOSTS,
    HOSTS,
    PATIENCE,
    Host,
    a_manager,
    block_until,
    eventually,
    plain_loop,
    run_asyncio,
    runtime_threads,
)
from dotmac.tasks import BackgroundOperationsManager, ClaimLost, HandlerContext, LockReentered, OperationFailed
from dotmac.tasks.bridge.thread import RuntimeThread
from dotmac.tasks.errors import UsageError

in_asyncio = pytest.mark.parametrize("host", ASYNCIO_HOSTS.values(), ids=ASYNCIO_HOSTS)
visible: ContextVar[str] = ContextVar("visible", default="nobody")


def saga(**step: Any) -> dict[str, Any]:
    return {"tenant_id": "t", "workflow_type": "w", "steps": [{"name": "A", "operation": "work", **step}]}


@in_asyncio
def test_an_async_handler_runs_in_the_loop_of_who_started_the_manager(host: Host[Any]) -> None:
    manager = a_manager()
    seen: list[tuple[object, threading.Thread]] = []

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any], context: HandlerContext) -> None:
        await asyncio.sleep(0)
        seen.append((asyncio.get_running_loop(), threading.current_thread()))

    @manager.register_compensation_handler("undo")
    async def undo(parameters: dict[str, Any]) -> None:
        await work(parameters, None)  # type: ignore[arg-type]

    @manager.register_operation_handler("refuse")
    async def refuse(parameters: dict[str, Any]) -> None:
        raise ValueError("no")

    async def program(manager: BackgroundOperationsManager) -> None:
        steps: list[dict[str, Any]] = [
            {"name": "A", "operation": "work", "compensation_operation": "undo"},
            {"name": "B", "operation": "refuse", "max_retries": 0},
        ]
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        outcome = await handle.result()
        assert outcome.status == "compensated"
        assert outcome.error == "step 'B' failed: ValueError: no"
        await manager.run_idempotent(tenant_id="t", operation_type="work")
        assert seen == [(asyncio.get_running_loop(), threading.current_thread())] * 3

    host(manager, program)


@in_asyncio
def test_a_plain_handler_runs_in_a_worker_thread(host: Host[Any]) -> None:
    manager = a_manager()

    @manager.register_operation_handler("work")
    def work(parameters: dict[str, Any]) -> str:
        assert asyncio._get_running_loop() is None
        return threading.current_thread().name

    async def program(manager: BackgroundOperationsManager) -> None:
        name = await manager.run_idempotent(tenant_id="t", operation_type="work")
        assert name not in (threading.current_thread().name, "dotmac.tasks runtime")

    host(manager, program)


@in_asyncio
def test_a_handler_sees_the_context_of_who_asked_for_it(host: Host[Any]) -> None:
    manager = a_manager()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> str:
        return visible.get()

    async def program(manager: BackgroundOperationsManager) -> None:
        visible.set("me")
        assert await manager.run_idempotent(tenant_id="t", operation_type="work") == "me"

    host(manager, program)


@in_asyncio
def test_a_time_out_cancels_the_handlers_task_and_waits_for_it(host: Host[Any]) -> None:
    manager = a_manager()
    events: list[str] = []

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            events.append("ended")
            raise

    @manager.register_compensation_handler("undo")
    async def undo(parameters: dict[str, Any], context: HandlerContext) -> None:
        events.append(f"undone, happened: {context.step_happened}")

    async def program(manager: BackgroundOperationsManager) -> None:
        handle = await manager.start_saga(**saga(timeout_seconds=0.05, max_retries=0, compensation_operation="undo"))
        outcome = await handle.result()
        assert outcome.status == "compensated"
        assert "StepTimedOut" in str(outcome.error)
        assert events == ["ended", "undone, happened: False"]

    host(manager, program)


@in_asyncio
def test_what_a_handler_returns_although_it_was_cancelled_counts(host: Host[Any]) -> None:
    manager = a_manager()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "it happened"
        return "never"

    async def program(manager: BackgroundOperationsManager) -> None:
        handle = await manager.start_saga(**saga(timeout_seconds=0.05, max_retries=0))
        outcome = await handle.result()
        assert outcome.results == {"A": "it happened"}

    host(manager, program)


@in_asyncio
def test_a_heartbeat_starts_the_time_out_again(host: Host[Any]) -> None:
    manager = a_manager()
    deadlines: list[Any] = []

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any], context: HandlerContext) -> str:
        for _ in range(8):
            await asyncio.sleep(0.2)
            context.heartbeat()
            deadlines.append(context.deadline)
        return "done"

    async def program(manager: BackgroundOperationsManager) -> None:
        handle = await manager.start_saga(**saga(timeout_seconds=1.2, max_retries=3))
        assert (await handle.result()).results == {"A": "done"}
        assert deadlines[-1] > deadlines[0]

    host(manager, program)


@in_asyncio
def test_a_handler_whose_task_somebody_else_cancelled_has_an_unknown_outcome(host: Host[Any]) -> None:
    manager = a_manager()
    happened: list[bool] = []

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    @manager.register_compensation_handler("undo")
    async def undo(parameters: dict[str, Any], context: HandlerContext) -> None:
        happened.append(context.step_happened)

    async def program(manager: BackgroundOperationsManager) -> None:
        handle = await manager.start_saga(**saga(max_retries=0, compensation_operation="undo"))
        outcome = await handle.result()
        assert "OutcomeUnknown: the handler's task was cancelled" in str(outcome.error)
        assert happened == [False]

    host(manager, program)


@in_asyncio
@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_no_error_ends_the_attempt_and_not_the_runtime(host: Host[Any], grouped: bool) -> None:
    class Grave(BaseException):
        pass

    manager = a_manager()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> None:
        raise BaseExceptionGroup("both", [Grave("own"), ValueError("other")]) if grouped else Grave("own")

    async def program(manager: BackgroundOperationsManager) -> None:
        outcome = await (await manager.start_saga(**saga(max_retries=1))).result()
        assert "OutcomeUnknown: the handler let" in str(outcome.error)
        assert "Grave('own')" in str(outcome.error)
        assert manager.is_running

    host(manager, program)


@in_asyncio
def test_a_handler_can_use_the_manager_and_its_steps_lock_is_its_own(host: Host[Any]) -> None:
    manager = a_manager()
    seen: list[object] = []

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any], context: HandlerContext) -> None:
        seen.append(context.lock_fence > 0)
        seen.extend(lock.name for lock in await manager.list_locks())
        with pytest.raises(LockReentered):
            async with manager.lock("invoice:7"):
                seen.append("never")

    async def program(manager: BackgroundOperationsManager) -> None:
        handle = await manager.start_saga(**saga(lock="invoice:{parameters.id}", parameters={"id": 7}))
        assert (await handle.result()).status == "completed", await manager.get_saga_history(handle.saga_id)
        assert seen == [True, "invoice:7"]

    host(manager, program)


@in_asyncio
def test_an_error_of_a_handler_comes_back_to_who_asked_for_it(host: Host[Any]) -> None:
    manager = a_manager()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> None:
        raise ValueError("here") from KeyError("why")

    async def program(manager: BackgroundOperationsManager) -> None:
        with pytest.raises(ValueError, match="here") as raised:
            await manager.run_idempotent(tenant_id="t", operation_type="work")
        assert isinstance(raised.value.__cause__, KeyError)
        with pytest.raises(ValueError, match="here"):
            await manager.run_idempotent(tenant_id="t", operation_type="work", store_errors=True)
        with pytest.raises(OperationFailed, match="here"):
            await manager.run_idempotent(tenant_id="t", operation_type="work")

    host(manager, program)


def test_a_handler_runs_in_a_task_of_a_factory_that_takes_no_context() -> None:
    manager = a_manager()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> str:
        return visible.get()

    async def program(manager: BackgroundOperationsManager) -> None:
        visible.set("me")
        asyncio.get_running_loop().set_task_factory(lambda loop, coroutine: asyncio.Task(coroutine, loop=loop))
        assert await manager.run_idempotent(tenant_id="t", operation_type="work") == "me"

    ASYNCIO_HOSTS["asyncio"](manager, program)


@in_asyncio
def test_a_handler_of_which_its_loop_makes_no_task_has_failed(host: Host[Any]) -> None:
    manager = a_manager()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> str:
        return "never"

    def broken(loop: asyncio.AbstractEventLoop, coroutine: Any, **_: Any) -> Any:
        raise ValueError("no tasks today")

    async def program(manager: BackgroundOperationsManager) -> None:
        asyncio.get_running_loop().set_task_factory(broken)
        with pytest.raises(ValueError, match="no tasks today"):
            await manager.run_idempotent(tenant_id="t", operation_type="work")
        asyncio.get_running_loop().set_task_factory(None)

    host(manager, program)


def test_handlers_that_were_registered_before_work_in_each_loop_that_starts_the_manager() -> None:
    manager = a_manager()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> int:
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop())

    async def program(manager: BackgroundOperationsManager) -> None:
        handle = await manager.start_saga(**saga())
        assert (await handle.result()).results == {"A": id(asyncio.get_running_loop())}

    for host in ASYNCIO_HOSTS.values():
        host(manager, program)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_handler_that_would_stop_its_own_manager_is_refused(host: Host[Any]) -> None:
    """It would wait for its own end. What it may stop is another one."""
    manager, another = a_manager(), a_manager()

    async def try_to_stop() -> None:
        with pytest.raises(UsageError, match="a handler cannot stop its own manager"):
            await manager.stop()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> str:
        await another.start()
        await another.stop()
        await try_to_stop()
        async with anyio.create_task_group() as group:
            group.start_soon(try_to_stop)
        return "done"

    @manager.register_operation_handler("plain")
    def plain(parameters: dict[str, Any]) -> str:
        with pytest.raises(UsageError, match="a handler cannot stop its own manager"):
            manager.sync.stop()
        return "done"

    async def program(manager: BackgroundOperationsManager) -> None:
        steps = [{"name": "A", "operation": "work"}, {"name": "B", "operation": "plain"}]
        outcome = await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
        assert outcome.results == {"A": "done", "B": "done"}
        assert await manager.run_idempotent(tenant_id="t", operation_type="work") == "done"
        assert manager.is_running

    host(manager, program)


def test_a_task_that_outlives_its_handler_can_stop_the_manager() -> None:
    async def main() -> None:
        manager, ended = a_manager(), asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def stop() -> None:
            await ended.wait()
            await manager.stop()

        @manager.register_operation_handler("work")
        async def work(parameters: dict[str, Any]) -> None:
            tasks.append(asyncio.create_task(stop()))

        await manager.start()
        await (await manager.start_saga(**saga())).result()
        ended.set()
        await tasks[0]
        assert not manager.is_running

    run_asyncio(main)


def test_a_thread_that_ends_late_leaves_the_host_of_the_next_runtime_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first runtime has ended by itself, the second one is started before the thread of the first has ended."""
    manager, go_on = a_manager(), threading.Event()
    plain_live = RuntimeThread._live

    async def end_late(self: RuntimeThread) -> None:
        await plain_live(self)
        assert go_on.wait(PATIENCE)

    async def main() -> str:
        @manager.register_operation_handler("work")
        async def work(parameters: dict[str, Any]) -> str:
            return threading.current_thread().name

        async def is_over() -> bool:
            return not manager.is_running

        monkeypatch.setattr(RuntimeThread, "_live", end_late)
        await manager.start()
        first = manager._thread
        assert first is not None
        first._home.post(first._hurry)
        await eventually(is_over)
        monkeypatch.setattr(RuntimeThread, "_live", plain_live)
        await manager.start()
        go_on.set()
        await asyncio.to_thread(first._thread.join)
        name: str = await manager.run_idempotent(tenant_id="t", operation_type="work")
        await manager.stop()
        return name

    assert run_asyncio(main) == threading.current_thread().name
    assert not caplog.records  # the end of the loop is none of the first one's business any more


def test_a_handler_whose_loop_is_gone_has_not_failed() -> None:
    """The loop is closed under the runtime's feet: it stops, and the saga is as it was."""
    manager = a_manager()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> str:
        return "never"

    loop = plain_loop()
    loop.run_until_complete(manager.start())
    loop.close()
    handle = manager.sync.start_saga(**saga())
    thread = manager._thread
    assert thread is not None
    thread._thread.join(PATIENCE)
    assert not manager.is_running
    with manager.sync as sync:  # async handlers run under trio now
        assert sync.saga_handle(handle.saga_id).result().results == {"A": "never"}


@pytest.mark.parametrize("begun", [True, False])
def test_who_waits_for_a_handler_whose_loop_is_closed_meanwhile_is_told(begun: bool) -> None:
    """Whether its task ran, or was to be made when the loop would be woken up."""
    manager = a_manager()
    inside = threading.Event()

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> None:
        inside.set()
        await asyncio.sleep(PATIENCE)

    async def is_inside() -> bool:
        return inside.is_set()

    loop = plain_loop()
    loop.run_until_complete(manager.start())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(manager.sync.run_idempotent, tenant_id="t", operation_type="work")
        if begun:
            loop.run_until_complete(eventually(is_inside))
        else:
            block_until(lambda: manager._home.queue_for(loop)._woken)
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        assert isinstance(asked.exception(PATIENCE), ClaimLost)  # as in every stop in a hurry
    manager.sync.stop()
    assert not runtime_threads()
