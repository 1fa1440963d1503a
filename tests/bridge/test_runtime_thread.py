"""A manager behind the bridge starts, stops and fails as it does under trio, and holds up no program that ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import uvloop

from bridge.hosts import PATIENCE, a_manager, block_until, eventually, plain_loop, run_asyncio, runtime_threads
from bridge.test_bridged_facade import a_full_manager
from bridge.unstopped_program import the_manager
from dotmac.tasks import (
    AlreadyStarted,
    BackgroundOperationsManager,
    MemoryStorage,
    NotStarted,
    SagaHandle,
    StorageUnavailable,
)
from dotmac.tasks.bridge.thread import RuntimeThread
from dotmac.tasks.runtime.runtime import Runtime

Fail = Callable[[BackgroundOperationsManager], None]
WAITING: dict[str, Any] = {"tenant_id": "t", "workflow_type": "w", "steps": [{"name": "A", "operation": "wait"}]}


async def is_running(saga: SagaHandle) -> bool:
    return await saga.status() == "in_progress"


async def is_over(manager: BackgroundOperationsManager) -> bool:
    return not manager.is_running


async def has_sagas(manager: BackgroundOperationsManager) -> bool:
    return manager.is_running and bool((await manager.list_sagas()).sagas)


class BrokenStorage(MemoryStorage):
    def opened(self) -> Any:
        raise StorageUnavailable("not there")


class SlowStorage(MemoryStorage):
    """The first time it is opened."""

    slow = True

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        if self.slow:
            self.slow = False
            await trio.sleep_forever()
        async with super().opened():
            yield


def test_start_and_stop_and_start_again() -> None:
    async def main() -> None:
        manager = a_manager()
        await manager.stop()  # does nothing
        for _ in range(3):
            await manager.start()
            assert manager.is_running
            assert len(runtime_threads()) == 1
            with pytest.raises(AlreadyStarted):
                await manager.start()
            assert await manager.check_idempotency("nothing") is None
            await manager.stop()
            assert await is_over(manager)
            assert not runtime_threads()
            with pytest.raises(NotStarted):
                await manager.list_sagas()

    run_asyncio(main)


def test_two_who_start_it_at_once_start_it_once() -> None:
    async def main() -> None:
        manager = a_manager()
        starts = await asyncio.gather(manager.start(), manager.start(), return_exceptions=True)
        assert [type(error) for error in starts] == [type(None), AlreadyStarted]
        await manager.stop()

    run_asyncio(main)


def test_a_failed_start_raises_in_the_host_and_leaves_no_thread() -> None:
    async def main() -> None:
        manager = BackgroundOperationsManager(BrokenStorage())
        with pytest.raises(StorageUnavailable, match="not there"):
            await manager.start()
        assert not manager.is_running
        assert not runtime_threads()
        with pytest.raises(StorageUnavailable, match="not there"):
            await manager.__aenter__()

    run_asyncio(main)


def test_a_cancelled_start_leaves_no_thread() -> None:
    async def main() -> None:
        for turns in range(6):
            manager = a_manager()
            task = asyncio.create_task(manager.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                assert not manager.is_running
            else:  # it was faster
                await manager.stop()
            assert not runtime_threads()

    run_asyncio(main)


def test_a_start_that_is_cancelled_when_it_has_succeeded_is_undone() -> None:
    async def main() -> None:
        manager = a_manager()
        task = asyncio.create_task(manager.start())
        await asyncio.sleep(0)
        # The loop is blocked until the answer is on its way.
        block_until(lambda: manager._home._thread != 0 and manager._hosted()._settled.is_set())
        block_until(lambda: not manager._home._calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not manager.is_running
        assert not runtime_threads()

    run_asyncio(main)


def test_a_manager_that_is_stopped_while_it_starts_does_not_start() -> None:
    async def main() -> None:
        manager = a_manager()
        starting = asyncio.create_task(manager.start())
        await asyncio.sleep(0)
        await manager.stop()
        with pytest.raises(NotStarted):
            await starting
        assert not manager.is_running

    run_asyncio(main)


def test_a_start_that_fails_late_leaves_alone_what_was_started_meanwhile() -> None:
    async def main() -> None:
        manager = a_manager(SlowStorage())
        starting = asyncio.create_task(manager.start())
        await asyncio.sleep(0)
        stopping = asyncio.create_task(manager.stop())
        await asyncio.sleep(0)
        thread = manager._stopping[1]
        assert thread is not None
        block_until(lambda: not thread._thread.is_alive())  # and neither of the two has heard of it
        await manager.start()
        await stopping
        with pytest.raises(NotStarted):
            await starting
        assert manager.is_running
        await manager.stop()
        assert not runtime_threads()

    run_asyncio(main)


def test_a_failure_of_the_runtime_cancels_the_block_and_is_raised(fail: Fail, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        manager = a_full_manager()
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with manager:
                handle = await manager.start_saga(**WAITING)
                waiting = asyncio.create_task(handle.result())
                await handle.status()
                fail(manager)
                try:
                    await asyncio.sleep(PATIENCE)
                finally:
                    with pytest.raises(NotStarted) as raised:
                        await waiting
                    assert isinstance(raised.value.__cause__, ZeroDivisionError)
        assert not runtime_threads()

    run_asyncio(main)
    assert "the runtime failed and is not running any more" in caplog.text


def test_a_failure_of_the_runtime_comes_out_of_stop(fail: Fail, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        manager = a_manager()
        await manager.start()
        fail(manager)
        await eventually(lambda: is_over(manager))
        with pytest.raises(NotStarted):
            await manager.list_sagas()
        with pytest.raises(ZeroDivisionError):
            await manager.stop()
        assert not runtime_threads()
        await manager.start()  # it can be started anew
        await manager.stop()

    run_asyncio(main)
    assert "the runtime failed" in caplog.text


def test_a_cancelled_stop_is_cancelled_even_if_the_runtime_has_failed(
    fail: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        manager = a_manager()
        await manager.start()
        fail(manager)
        thread = manager._thread
        assert thread is not None
        block_until(lambda: not thread._thread.is_alive())
        stopping = asyncio.create_task(manager.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await stopping
        assert isinstance(raised.value.__cause__, ZeroDivisionError)

    run_asyncio(main)
    assert "the runtime failed" in caplog.text


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[BackgroundOperationsManager], None]:
    """Has the runtime of a manager fail in a way that nothing mends."""
    crashes: dict[Runtime, trio.Event] = {}
    plain_run = Runtime.run

    async def run(self: Runtime, *, task_status: trio.TaskStatus[object]) -> None:
        async def crash() -> None:
            await crashes[self].wait()
            raise ZeroDivisionError

        crashes[self] = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            await plain_run(self, task_status=task_status)
            nursery.cancel_scope.cancel()

    def fail(manager: BackgroundOperationsManager) -> None:
        manager._home.post(crashes[manager._hosted()._runtime].set)

    monkeypatch.setattr(Runtime, "run", run)
    return fail


def test_a_cancelled_stop_hurries_and_waits() -> None:
    async def main() -> None:
        manager = a_full_manager()
        await manager.start()
        handle = await manager.start_saga(**WAITING)
        await eventually(lambda: is_running(handle))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await manager.stop()  # would drain for 30 seconds
        assert not runtime_threads()

    run_asyncio(main)


def test_a_cancelled_block_stops_in_a_hurry() -> None:
    async def main() -> None:
        manager = a_full_manager()

        async def run() -> None:
            async with manager:
                handle = await manager.start_saga(**WAITING)
                await handle.result()

        task = asyncio.create_task(run())
        await eventually(lambda: has_sagas(manager))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not runtime_threads()

    run_asyncio(main)


def test_an_error_of_the_block_is_raised_as_it_is() -> None:
    async def main() -> None:
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as raised:
            async with a_manager():
                raise error
        assert raised.value is error

    run_asyncio(main)


def test_a_manager_behind_the_bridge_can_be_stopped_from_another_trio_run() -> None:
    async def main() -> None:
        manager = a_manager()
        await manager.start()
        await asyncio.to_thread(lambda: trio.run(manager.stop))
        assert not runtime_threads()

    run_asyncio(main)


def test_a_manager_in_a_trio_run_can_be_stopped_from_an_event_loop() -> None:
    async def main() -> None:
        manager = a_manager()
        await manager.start()
        await trio.to_thread.run_sync(lambda: run_asyncio(manager.stop))
        assert not manager.is_running

    trio.run(main)


def test_an_event_loop_that_ends_stops_its_manager(caplog: pytest.LogCaptureFixture) -> None:
    manager = a_full_manager()

    async def main() -> None:
        await manager.start()
        handle = await manager.start_saga(**WAITING)
        await eventually(lambda: is_running(handle))

    run_asyncio(main)
    assert not manager.is_running
    assert not runtime_threads()
    assert "the event loop ends before the manager was stopped" in caplog.text

    async def look() -> None:
        async with manager:
            (saga,) = (await manager.list_sagas()).sagas
            history = [entry.event for entry in await manager.get_saga_history(saga.saga_id)]
            assert "step_failed" in history  # its outcome is unknown, and it is tried again
            assert saga.status == "in_progress"
            await (await manager.cancel_saga(saga.saga_id)).result()

    run_asyncio(look)


@pytest.mark.parametrize("by", ["a generator's block", "hand"])
@pytest.mark.parametrize("make", [plain_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_an_event_loop_that_ends_with_the_managers_block_open_says_nothing_of_generators(
    make: Callable[[], asyncio.AbstractEventLoop], by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It closes all generators at once: of a fixture, say, or of a lifespan, and those that they are suspended in."""
    manager = a_manager()

    async def held() -> AsyncGenerator[None, None]:
        async with manager:
            yield

    kept = held()

    async def main() -> None:
        await (manager.__aenter__() if by == "hand" else anext(kept))

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())
    assert not manager.is_running
    assert "asyncio" not in {record.name for record in caplog.records}


@pytest.mark.parametrize("stopped_by", ["thread", "another event loop", "another trio run"])
def test_a_manager_whose_event_loop_does_not_run_any_more_can_be_stopped(stopped_by: str) -> None:
    """What its handlers would do there is given up, and not gone on with should the loop run again."""
    manager, loop = a_full_manager(), plain_loop()

    async def main() -> None:
        await manager.start()
        handle = await manager.start_saga(**WAITING)
        await eventually(lambda: is_running(handle))
        await eventually(is_working)

    async def is_working() -> bool:
        return len(asyncio.all_tasks()) > 1

    loop.run_until_complete(main())
    if stopped_by == "thread":
        manager.sync.stop(hurry=True)
    elif stopped_by == "another event loop":
        run_asyncio(lambda: manager.stop(hurry=True))
    else:
        trio.run(lambda: manager.stop(hurry=True))
    assert not runtime_threads()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert not asyncio.all_tasks(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.redis
@pytest.mark.parametrize("kind", ["asyncio.run", "loop left open", "loop closed", "thread"])
def test_a_program_that_ends_without_a_stop_neither_hangs_nor_loses_anything(kind: str, tmp_path: Path) -> None:
    program = Path(__file__).with_name("unstopped_program.py")
    ended = subprocess.run(
        [sys.executable, str(program), kind, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    saga_id = next(line for line in ended.stdout.splitlines() if line != "handler")

    async def main() -> None:
        manager = the_manager(str(tmp_path))

        @manager.register_operation_handler("work")
        async def work(parameters: dict[str, Any]) -> str:
            return "done here"

        async with manager:
            outcome = await manager.saga_handle(saga_id).result()
            assert outcome.status == "completed"

    run_asyncio(main)


def test_ctrl_c_reaches_the_main_thread_and_the_manager_is_stopped() -> None:
    async def main() -> None:
        async with a_full_manager() as manager:
            handle = await manager.start_saga(**WAITING)
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
            await handle.result()

    with pytest.raises(KeyboardInterrupt), asyncio.Runner(loop_factory=plain_loop) as runner:
        runner.run(main())
    assert not runtime_threads()


def test_a_thread_that_fails_tells_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fault of the runtime's: trio itself gave up."""
    plain_live = RuntimeThread._live

    async def fail_at_once(self: RuntimeThread) -> None:
        raise ZeroDivisionError

    async def fail_later(self: RuntimeThread) -> None:
        await plain_live(self)
        raise ZeroDivisionError

    async def main() -> None:
        manager = a_manager()
        for start in (manager.start, lambda: asyncio.to_thread(manager.sync.start)):
            monkeypatch.setattr(RuntimeThread, "_live", fail_at_once)
            with pytest.raises(NotStarted) as raised:
                await start()
            assert isinstance(raised.value.__cause__, ZeroDivisionError)
            assert not manager.is_running
            monkeypatch.setattr(RuntimeThread, "_live", fail_later)
            await start()
            with pytest.raises(ZeroDivisionError):
                await manager.stop()
        await manager.start()
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(manager.sync.stop)

    run_asyncio(main)


def test_a_loop_that_was_closed_is_not_called(caplog: pytest.LogCaptureFixture) -> None:
    """Its task waited for a saga; the saga goes on, and its end has nobody to go to."""
    manager = a_full_manager()
    loop = plain_loop()

    async def wait(saga_id: str) -> None:
        await manager.saga_handle(saga_id).result()

    with manager.sync as sync:
        handle = sync.start_saga(**WAITING)
        task = loop.create_task(wait(handle.saga_id))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        handle.cancel()
        assert handle.result().status == "compensated"
    assert "an event loop was closed before it was told" in caplog.text
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_trio_run_that_ends_without_a_stop_ends_the_calls_of_others() -> None:
    manager = a_manager()
    begun = threading.Event()
    raised: list[BaseException] = []

    def wait_elsewhere() -> None:
        async def begin() -> None:
            begun.set()
            await trio.sleep_forever()

        try:
            run_asyncio(lambda: manager._home.run(begin))
        except NotStarted as error:
            raised.append(error)

    waiting = threading.Thread(target=wait_elsewhere)

    async def main() -> None:
        await manager.start()
        waiting.start()
        assert await trio.to_thread.run_sync(begun.wait, PATIENCE)

    trio.run(main)
    waiting.join(PATIENCE)
    assert [str(error) for error in raised] == ["the manager was stopped"]
    with pytest.raises(NotStarted):
        manager.sync.list_locks()


def test_who_stops_it_while_it_is_stopped_waits_too_and_can_hurry() -> None:
    async def main() -> None:
        manager = a_full_manager()
        await manager.start()
        handle = await manager.start_saga(**WAITING)
        await eventually(lambda: is_running(handle))
        draining = asyncio.create_task(manager.stop())  # for 30 seconds
        await eventually(lambda: is_over(manager))
        with pytest.raises(AlreadyStarted, match="still being stopped"):
            await manager.start()
        with pytest.raises(AlreadyStarted, match="still being stopped"):
            await asyncio.to_thread(manager.sync.start)
        await asyncio.gather(asyncio.to_thread(manager.sync.stop, hurry=True), manager.stop())
        await draining
        assert not runtime_threads()

    run_asyncio(main)
