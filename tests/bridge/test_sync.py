"""The manager from threads that have no event loop."""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from bridge.hosts import PATIENCE, a_manager, block_until, bridge_calls, run_asyncio, runtime_threads
from bridge.test_bridged_facade import LONG, OPERATION, PARKED, SAGA, Noting, a_full_manager
from bridge.test_locks_in_loops import lose_unnoticed
from bridge.test_runtime_thread import BrokenStorage
from dotmac.tasks import (
    AlreadyStarted,
    BackgroundOperationsManager,
    LockLost,
    LockNotAcquired,
    LockReentered,
    MemoryStorage,
    NotStarted,
    SagaHistory,
    SagaNotFound,
    StorageUnavailable,
)
from dotmac.tasks.bridge.blocking import BlockingManager
from dotmac.tasks.errors import UsageError
from dotmac.tasks.storage.records import LockGrant, LockQueued, LockRequest

OF_THE_MIDDLEWARE = {
    "begin_claim", "finish_claim", "finish_claim_later", "abandon_claim", "leave_claim",
    "start_saga_under_claim", "start_ahead"
}  # fmt: skip
LIFE = {"start", "stop"}


def use_everything(sync: Any) -> None:
    saga = sync.create_saga_workflow(**SAGA)
    assert sync.execute_saga_workflow(saga.saga_id) is True
    assert sync.get_saga(saga.saga_id).status == "completed"
    assert sync.get_saga_history(saga.saga_id)[0].event == "saga_created"
    assert sync.extend_saga_history(SagaHistory(saga.saga_id)) == "completed"
    assert (len(sync.list_workers()), sync.handler_load().left_threads) == (1, [])
    assert sync.examine()
    handle = sync.start_saga(**SAGA)
    sync.add_saga_note(handle.saga_id, "seen", {"by": "ada"})
    assert sync.count_sagas()
    assert (handle.result().results, handle.status()) == ({"A": {"done": {}}}, "completed")
    assert sync.saga_handle(handle.saga_id).get().saga_id == handle.saga_id
    assert {saga.saga_id, handle.saga_id} <= {found.saga_id for found in sync.list_sagas(tenant_id="t").sagas}
    parked = sync.start_saga(**PARKED)
    assert parked.result().status == "failed"
    assert sync.retry_saga(parked.saga_id, "mended").result().status == "completed"
    long = sync.start_saga(**LONG)
    long.cancel("enough")
    assert long.result().error == "cancelled: enough"
    assert sync.cancel_saga(sync.start_saga(**LONG).saga_id).result().status == "compensated"
    key = sync.create_idempotency_key(**OPERATION)
    assert sync.complete_idempotent_operation(key.key, {"m": 1}).result == {"m": 1}
    assert sync.check_idempotency(key.key).status == "completed"
    assert [found.tenant_id for found in sync.list_idempotency_keys("t").keys] == ["t"]
    assert sync.run_idempotent(**{**OPERATION, "parameters": {"n": 2}}) == {"done": {"n": 2}}
    with sync.lock("a", ttl=5) as held:
        before = held.deadline
        held.extend(60)
        assert held.deadline > before + 40
        assert held.fence > 0
        assert not held.lost
        assert [lock.name for lock in sync.list_locks()] == ["a"]
        assert sync.inspect_lock("a").held is not None
    with sync.lock(["b", "a"]) as several:
        assert list(several) == ["a", "b"]
    assert sync.acquire_lock("a", 10)
    with sync.try_lock("a") as taken, sync.try_lock(["c"]) as free:
        assert taken is None
        assert free is not None
    sync.release_lock("a")


def test_every_method_of_the_manager_has_a_blocking_twin() -> None:
    with a_full_manager().sync as sync:
        noting: Any = Noting(sync)  # type: ignore[arg-type]
        use_everything(noting)
    methods = {
        name
        for name, value in inspect.getmembers(BackgroundOperationsManager)
        if inspect.iscoroutinefunction(value) and not name.startswith("_")
    } | {"lock", "try_lock", "saga_handle"}
    assert noting.used == methods - OF_THE_MIDDLEWARE - LIFE
    for name in methods - OF_THE_MIDDLEWARE:
        plain, blocking = getattr(BackgroundOperationsManager, name), getattr(BlockingManager, name)
        assert inspect.signature(plain).parameters.keys() == inspect.signature(blocking).parameters.keys(), name
        assert not inspect.iscoroutinefunction(blocking)
        assert blocking.__doc__


def test_threads_of_an_asyncio_program() -> None:
    async def main() -> None:
        async with a_full_manager() as manager:
            await asyncio.gather(*(asyncio.to_thread(use_everything, manager.sync) for _ in range(1)))

    run_asyncio(main)


def test_threads_of_a_trio_program() -> None:
    async def main() -> None:
        async with a_full_manager() as manager:
            await trio.to_thread.run_sync(use_everything, manager.sync)

    trio.run(main)


def test_many_threads_at_once() -> None:
    counted = 0

    def count(manager: BackgroundOperationsManager) -> None:
        nonlocal counted
        for _ in range(20):
            with manager.sync.lock("counter"):
                before = counted
                manager.sync.check_idempotency("nothing")
                counted = before + 1

    manager = a_manager()
    with manager.sync, ThreadPoolExecutor(10) as pool:
        for ended in [pool.submit(count, manager) for _ in range(10)]:
            ended.result(PATIENCE)
    assert counted == 200


def test_it_is_refused_in_event_loops() -> None:
    async def main() -> None:
        async with a_manager() as manager:
            with pytest.raises(UsageError, match="await the manager's own method"):
                manager.sync.list_locks()
            with pytest.raises(UsageError), manager.sync.lock("a"):
                raise AssertionError
            with pytest.raises(UsageError):
                a_manager().sync.start()
            with pytest.raises(UsageError):
                manager.sync.saga_handle("s").status()

    run_asyncio(main)
    trio.run(main)


def test_it_starts_once_and_stops_and_starts_again() -> None:
    manager = a_manager()
    with pytest.raises(NotStarted):
        manager.sync.list_locks()
    manager.sync.stop()  # does nothing
    for _ in range(2):
        manager.sync.start()
        with pytest.raises(AlreadyStarted):
            manager.sync.start()
        manager.sync.stop()
        assert not runtime_threads()
    broken = BackgroundOperationsManager(BrokenStorage())
    with pytest.raises(StorageUnavailable, match="not there"):
        broken.sync.start()
    assert not runtime_threads()


@pytest.fixture
def _hasty_switches() -> Iterator[None]:
    """Threads take turns so often that each moment is between two of somebody's steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_switches")
def test_threads_that_start_it_stop_it_and_use_it_at_the_same_time() -> None:
    """One of them starts it, all who stop it wait for its end, and who uses it is served or told that it is over."""

    def at_once(*actions: Callable[[], object]) -> list[BaseException | None]:
        together = threading.Barrier(len(actions))

        def act(action: Callable[[], object]) -> None:
            together.wait(PATIENCE)
            action()

        with ThreadPoolExecutor(len(actions)) as pool:
            return [future.exception(PATIENCE) for future in [pool.submit(act, action) for action in actions]]

    for _ in range(30):
        sync = a_manager().sync
        started = at_once(*[sync.start] * 4)
        assert sorted(type(error).__name__ for error in started) == ["AlreadyStarted"] * 3 + ["NoneType"]
        *stopped, used, looked = at_once(sync.stop, sync.stop, sync.list_locks, sync.list_workers)
        assert stopped == [None, None]
        assert all(error is None or type(error) is NotStarted for error in (used, looked))
        assert not runtime_threads()


def test_a_manager_of_any_host_can_be_stopped_from_a_thread() -> None:
    async def main() -> None:
        manager = a_manager()
        await manager.start()
        await asyncio.to_thread(manager.sync.stop)
        assert not runtime_threads()

    async def trio_main() -> None:
        manager = a_manager()
        await manager.start()
        await trio.to_thread.run_sync(manager.sync.stop)
        assert not manager.is_running

    run_asyncio(main)
    trio.run(trio_main)


def test_errors_come_as_they_are() -> None:
    with a_manager().sync as sync:
        with pytest.raises(SagaNotFound):
            sync.get_saga("nothing")
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as raised, sync.lock("a"):
            raise error
        assert raised.value is error
        assert sync.list_locks() == []
        assert sync.acquire_lock("a", 60)
        with pytest.raises(LockNotAcquired), sync.lock("a", wait=0):
            raise AssertionError


def test_a_thread_is_not_let_in_twice() -> None:
    with a_manager().sync as sync, sync.lock("a"), pytest.raises(LockReentered), sync.lock("a"):
        raise AssertionError


def test_a_context_that_threads_share_is_refused_to_all_but_the_first() -> None:
    with a_manager().sync as sync, ThreadPoolExecutor(1) as pool:
        context = sync.lock("a")
        with context:
            error = pool.submit(context.__enter__).exception(PATIENCE)
            assert isinstance(error, UsageError)
            assert [lock.name for lock in sync.list_locks()] == ["a"]
        assert not sync.list_locks()


def test_a_lost_lock_is_told_when_the_block_is_left() -> None:
    manager = a_manager()
    with manager.sync as sync:
        with pytest.raises(LockLost), sync.lock("a") as held:  # noqa: PT012
            lose_unnoticed(manager)
            while not held.lost:
                time.sleep(0.001)
            with pytest.raises(LockLost):
                held.extend(20)
        with pytest.raises(ExceptionGroup) as raised, sync.lock("b"):  # noqa: PT012
            lose_unnoticed(manager, "b")
            raise ValueError("mine")
        assert [type(error) for error in raised.value.exceptions] == [ValueError, LockLost]


def test_ctrl_c_ends_a_call_and_waits_for_its_end() -> None:
    """The main thread blocks in a call; what the signal raises comes out of it, and nothing goes on there."""
    manager = a_full_manager()
    with manager.sync as sync:
        handle = sync.start_saga(**LONG)
        assert sync.acquire_lock("a", 60)
        main = threading.main_thread().ident
        assert main is not None
        for call in (handle.result, sync.lock("a").__enter__):
            timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                call()
            timer.join()
        assert not bridge_calls(manager)
        assert [lock.waiters for lock in sync.list_locks()] == [0]
        handle.cancel()


class Interrupting(MemoryStorage):
    """Has the main thread interrupted in the moment in which it is granted a lock."""

    manager: BackgroundOperationsManager

    async def request_lock(self, request: LockRequest) -> LockGrant | LockQueued:
        answer = await super().request_lock(request)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        block_until(lambda: bool(self.manager._home._bag._calls))  # the call is cancelled, and does not know yet
        return answer


def test_ctrl_c_when_a_lock_has_just_been_taken_gives_it_back() -> None:
    storage = Interrupting()
    storage.manager = manager = a_manager(storage)
    with manager.sync as sync:
        with pytest.raises(KeyboardInterrupt):
            sync.acquire_lock("a", 60)
        assert sync.list_locks() == []


def test_ctrl_c_in_a_body_gives_its_lock_up() -> None:
    with a_manager().sync as sync:
        with pytest.raises(KeyboardInterrupt), sync.lock("a"):
            raise KeyboardInterrupt
        assert sync.list_locks() == []


def interrupt_next_call(manager: BackgroundOperationsManager, *, woken: bool) -> None:
    """Ctrl-C while the next call is sent to the runtime's thread, before or after it is woken."""
    bag: Any = manager._home._bag
    plain_wake = bag._wake

    def wake(deliver: Any) -> None:
        bag._wake = plain_wake
        if woken:
            plain_wake(deliver)
        raise KeyboardInterrupt

    bag._wake = wake


@pytest.mark.parametrize("woken", [False, True])
def test_ctrl_c_while_a_call_is_sent_ends_it_and_waits_for_its_end(woken: bool) -> None:
    manager = a_manager()
    with manager.sync as sync:
        interrupt_next_call(manager, woken=woken)
        with pytest.raises(KeyboardInterrupt):
            sync.list_locks()
        interrupt_next_call(manager, woken=woken)
        with pytest.raises(KeyboardInterrupt), sync.lock("a"):
            raise AssertionError
        assert sync.list_locks() == []
        with pytest.raises(KeyboardInterrupt), sync.lock("a"):
            interrupt_next_call(manager, woken=woken)
        assert sync.list_locks() == []
        assert not bridge_calls(manager)


def test_ctrl_c_while_a_call_is_sent_too_late_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = a_manager()
    with manager.sync:
        home = manager._home
    attempts: list[int] = []

    def post(_call: object) -> None:
        attempts.append(1)
        raise KeyboardInterrupt if len(attempts) == 1 else home.gone()

    monkeypatch.setattr(home, "post", post)
    with pytest.raises(KeyboardInterrupt) as raised:
        home.run_from_thread(trio.lowlevel.checkpoint)
    assert isinstance(raised.value.__cause__, NotStarted)


def test_a_body_that_outlives_the_runtime_has_lost_its_lock() -> None:
    manager = a_manager()
    manager.sync.start()
    with pytest.raises(LockLost), manager.sync.lock("a"):
        manager.sync.stop()
    manager.sync.start()
    with pytest.raises(ExceptionGroup) as raised, manager.sync.lock("a"):  # noqa: PT012
        manager.sync.stop()
        raise ValueError("mine")
    assert [type(error) for error in raised.value.exceptions] == [ValueError, LockLost]
