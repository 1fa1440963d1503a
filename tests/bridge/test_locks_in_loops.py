"""A lock's body in an event loop ends as it does under trio, however it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
import uvloop

from bridge.hosts import (
    ASYNCIO_HOSTS,
    ELSEWHERE,
    HOSTS,
    PATIENCE,
    Host,
    a_manager,
    block_until,
    bridge_calls,
    eventually,
    plain_loop,
    run_asyncio,
)
from dotmac.tasks import BackgroundOperationsManager, LockLost, LockNotAcquired, LockReentered
from dotmac.tasks.errors import UsageError

everywhere = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
in_asyncio = pytest.mark.parametrize("host", ASYNCIO_HOSTS.values(), ids=ASYNCIO_HOSTS)


async def lose(manager: BackgroundOperationsManager, name: str) -> None:
    """Have a lock lost, as if its storage had said so."""
    home, service = manager._home, manager._environment.locks

    async def lose() -> None:
        ticket = service._shortcuts.ticket(name)
        assert ticket is not None
        assert ticket.tenure is not None
        ticket.tenure.lose()

    await (lose() if home.is_here else home.run(lose))


async def lose_from_a_task(manager: BackgroundOperationsManager, name: str, body: Callable[[], Any]) -> None:
    """Run the body under the lock, and lose the lock when it waits."""
    async with anyio.create_task_group() as group:
        started = anyio.Event()

        async def lose_it() -> None:
            await started.wait()
            await lose(manager, name)

        group.start_soon(lose_it)
        async with manager.lock(name):
            started.set()
            await body()


@everywhere
def test_a_lost_lock_cancels_the_body(host: Host[Any]) -> None:
    seen: list[str] = []

    async def body() -> None:
        try:
            await anyio.sleep(PATIENCE)
        finally:
            seen.append("cancelled")

    async def program(manager: BackgroundOperationsManager) -> None:
        with pytest.raises(ExceptionGroup) as raised:
            await lose_from_a_task(manager, "a", body)
        assert [type(error) for error in raised.value.exceptions] == [LockLost]
        assert seen == ["cancelled"]
        await anyio.lowlevel.checkpoint()  # no cancellation is left over

    host(a_manager(), program)


@everywhere
def test_an_error_of_a_body_whose_lock_is_lost_is_not_hidden(host: Host[Any]) -> None:
    async def body() -> None:
        try:
            await anyio.sleep(PATIENCE)
        finally:
            raise ValueError("mine")

    async def program(manager: BackgroundOperationsManager) -> None:
        with pytest.raises(ExceptionGroup) as raised:
            await lose_from_a_task(manager, "a", body)
        (both,) = raised.value.exceptions
        assert isinstance(both, ExceptionGroup)
        assert [type(error) for error in both.exceptions] == [ValueError, LockLost]

    host(a_manager(), program)


@everywhere
def test_a_body_that_ends_well_after_its_lock_was_lost_is_told(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        async def body() -> None:
            with anyio.CancelScope(shield=True):
                await lose(manager, "a")

        with pytest.raises(LockLost):
            async with manager.lock("a"):
                await body()

    host(a_manager(), program)


@in_asyncio
def test_extending_a_lost_lock_ends_the_body_with_one_error(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        with pytest.raises(LockLost):  # noqa: PT012
            async with manager.lock("a") as held:
                lose_unnoticed(manager)
                await held.extend(20)
        with pytest.raises(LockLost, match="not held any more"):
            await held.extend(20)

    host(a_manager(), program)


@everywhere
def test_the_bodys_own_error_is_raised_as_it_is(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as raised:
            async with manager.lock("a"):
                raise error
        assert raised.value is error
        assert await manager.list_locks() == []

    host(a_manager(), program)


@everywhere
def test_a_lock_that_is_not_granted(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        assert await manager.acquire_lock("a", 60)
        for wait in (0, 0.05):
            with pytest.raises(LockNotAcquired):
                async with manager.lock("a", wait=wait):
                    raise AssertionError
        with pytest.raises(LockNotAcquired, match="mine"):  # noqa: PT012
            async with manager.try_lock("a") as held:
                assert held is None
                raise LockNotAcquired("mine")

    host(a_manager(), program)


@everywhere
@pytest.mark.parametrize("kind", ["lock", "try_lock"])
def test_a_context_that_tasks_share_is_refused_to_all_but_the_first_and_holds_nothing_then(
    host: Host[Any], kind: str
) -> None:
    """It looks as if it could be kept and shared like a lock of asyncio or trio, but it knows of one block."""

    async def program(manager: BackgroundOperationsManager) -> None:
        for names in ("a", ["a", "b"]):
            context: Any = getattr(manager, kind)(names)
            async with context:
                async with anyio.create_task_group() as group:
                    group.start_soon(refused, context)
                assert await manager.list_locks()
            assert not await manager.list_locks()
            await refused(context)
            assert not await manager.list_locks()

    async def refused(context: Any) -> None:
        with pytest.raises(UsageError, match="each block needs a context of its own"):
            await context.__aenter__()

    host(a_manager(), program)


@everywhere
def test_who_holds_a_lock_is_not_let_in_again_but_others_wait(host: Host[Any]) -> None:
    inside: list[int] = []

    async def program(manager: BackgroundOperationsManager) -> None:
        async def one(number: int) -> None:
            async with manager.lock("a"):
                inside.append(number)
                assert len(inside) == 1
                await anyio.sleep(0.001)
                with pytest.raises(LockReentered):
                    async with manager.lock("a"):
                        raise AssertionError
                inside.remove(number)

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(one, number)

    host(a_manager(), program)


@everywhere
def test_waiting_for_a_lock_can_be_cancelled(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        async with manager.lock("a"), anyio.create_task_group() as group:

            async def other() -> None:
                with anyio.move_on_after(0.05):
                    async with manager.lock("a"):
                        raise AssertionError

            group.start_soon(other)
        assert await manager.list_locks() == []

    host(a_manager(), program)


@in_asyncio
def test_a_cancellation_from_outside_goes_on_even_if_the_lock_is_lost_as_well(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        for also_lost in (False, True):
            inside = asyncio.Event()

            async def hold(inside: asyncio.Event) -> None:
                async with manager.lock("a"):
                    inside.set()
                    await asyncio.sleep(PATIENCE)

            task = asyncio.create_task(hold(inside))
            await inside.wait()
            if also_lost:
                lose_unnoticed(manager)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: no_locks(manager))  # what was lost is given up in the background

    host(a_manager(), program)


async def no_locks(manager: BackgroundOperationsManager) -> bool:
    return not await manager.list_locks()


def lose_unnoticed(manager: BackgroundOperationsManager, name: str = "a") -> None:
    """Have a lock lost, while the event loop cannot hear of it."""
    ended = threading.Event()
    manager._home.post(lambda: _lose_now(manager, name, ended))
    assert ended.wait(PATIENCE)


def _lose_now(manager: BackgroundOperationsManager, name: str, ended: threading.Event) -> None:
    ticket = manager._environment.locks._shortcuts.ticket(name)
    assert ticket is not None
    assert ticket.tenure is not None
    ticket.tenure.lose()
    ended.set()


@in_asyncio
def test_a_cancellation_while_a_body_is_left_goes_before_errors(host: Host[Any]) -> None:
    """The errors of the body, of the lock, and of both."""

    async def program(manager: BackgroundOperationsManager) -> None:
        for fails, is_lost in ((True, False), (False, True), (True, True)):
            go_on = asyncio.Event()

            async def hold(fails: bool, is_lost: bool, go_on: asyncio.Event) -> None:
                async with manager.lock("a"):
                    await go_on.wait()
                    if is_lost:
                        lose_unnoticed(manager)
                    if fails:
                        raise ValueError("mine")

            task = asyncio.create_task(hold(fails, is_lost, go_on))
            await eventually(lambda: is_held(manager))
            go_on.set()
            await asyncio.sleep(0)
            block_until(lambda: not bridge_calls(manager))  # it has been left, and the task does not know yet
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as raised:
                await task
            expected = ExceptionGroup if fails and is_lost else ValueError if fails else LockLost
            assert isinstance(raised.value.__cause__, expected)
            await eventually(lambda: no_locks(manager))

    host(a_manager(), program)


async def is_held(manager: BackgroundOperationsManager) -> bool:
    return bool(await manager.list_locks())


@in_asyncio
def test_an_asyncio_time_out_around_a_body_is_one(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), manager.lock("a"):
                await asyncio.sleep(PATIENCE)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert await manager.list_locks() == []

    host(a_manager(), program)


async def is_waited_for(manager: BackgroundOperationsManager) -> bool:
    return [lock.waiters for lock in await manager.list_locks()] == [1]


def grant_unheard(manager: BackgroundOperationsManager, *, lose_it: bool = False) -> None:
    """Give the lock "a" to who waits for it, while the present thread is blocked and so cannot hear of it."""
    granted = threading.Event()

    async def grant() -> None:
        await manager.release_lock("a")
        actor = manager._environment.locks._actors["a"]
        while actor.holder is None:  # noqa: ASYNC110 - nobody sends an event
            await trio.sleep(0.001)
        if lose_it:
            assert actor.holder.tenure is not None
            actor.holder.tenure.lose()
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        granted.set()

    def begin() -> None:
        trio.lowlevel.spawn_system_task(grant)

    manager._home.post(begin)
    assert granted.wait(PATIENCE)


@in_asyncio
def test_a_grant_that_comes_too_late_for_a_cancelled_task_is_given_up(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        async def hold() -> None:
            async with manager.lock("a"):
                raise AssertionError

        assert await manager.acquire_lock("a", 60)
        task = asyncio.create_task(hold())
        await eventually(lambda: is_waited_for(manager))
        grant_unheard(manager)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: no_locks(manager))
        assert not bridge_calls(manager)

    host(a_manager(), program)


@in_asyncio
def test_stopping_the_manager_cancels_bodies_with_lock_lost(host: Host[Any]) -> None:
    async def main() -> None:
        manager = a_manager()
        await manager.start()
        inside = asyncio.Event()

        async def hold() -> None:
            async with manager.lock("a"):
                inside.set()
                await asyncio.sleep(PATIENCE)

        task = asyncio.create_task(hold())
        await inside.wait()
        await manager.stop()
        with pytest.raises(LockLost):
            await task

    run_asyncio(main)


def test_a_body_that_does_not_heed_its_cancellation_does_not_hold_up_the_stop() -> None:
    async def main() -> None:
        manager = a_manager()
        await manager.start()
        inside, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def hold(error: Exception | None) -> None:
            async with manager.lock("a" if error is None else "b"):
                inside.release()
                try:
                    await asyncio.sleep(PATIENCE)
                except asyncio.CancelledError:
                    await go_on.wait()
                    if error is not None:
                        raise error from None

        tasks = [asyncio.create_task(hold(None)), asyncio.create_task(hold(ValueError("mine")))]
        for _ in tasks:
            await inside.acquire()
        await manager.stop()
        go_on.set()
        with pytest.raises(LockLost):
            await tasks[0]
        with pytest.raises(ExceptionGroup) as raised:
            await tasks[1]
        assert [type(error) for error in raised.value.exceptions] == [ValueError, LockLost]

    run_asyncio(main)


@everywhere
def test_all_that_a_bodys_tasks_raise_is_told(host: Host[Any]) -> None:
    async def body() -> None:
        async def fail_when_cancelled() -> None:
            try:
                await anyio.sleep(PATIENCE)
            finally:
                raise ValueError("mine")

        async with anyio.create_task_group() as group:
            group.start_soon(fail_when_cancelled)
            group.start_soon(anyio.sleep, PATIENCE)

    async def program(manager: BackgroundOperationsManager) -> None:
        with pytest.raises(ExceptionGroup) as raised:
            await lose_from_a_task(manager, "a", body)
        assert raised.value.subgroup(ValueError)
        assert raised.value.subgroup(LockLost)
        assert not raised.value.subgroup(lambda error: not isinstance(error, ValueError | LockLost | ExceptionGroup))
        await eventually(lambda: no_locks(manager))

    host(a_manager(), program)


@pytest.mark.parametrize("host", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_lock_that_is_lost_before_its_body_hears_of_it_runs_no_body(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        async def hold() -> None:
            async with manager.lock("a"):
                raise AssertionError

        assert await manager.acquire_lock("a", 60)
        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012
            async with anyio.create_task_group() as group:
                group.start_soon(hold)
                await eventually(lambda: is_waited_for(manager))
                grant_unheard(manager, lose_it=True)
        assert [type(error) for error in raised.value.exceptions] == [LockLost]

    host(a_manager(), program)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("make", [plain_loop, uvloop.new_event_loop], ids=ASYNCIO_HOSTS)
def test_a_body_whose_loop_was_closed_holds_no_lock(
    make: Callable[[], asyncio.AbstractEventLoop], waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody cancelled its task first, as asyncio.run does; other loops and threads share its manager."""
    manager = a_manager()
    loop = make()
    inside = asyncio.Event()

    async def hold() -> None:
        async with manager.lock("a"):
            inside.set()
            await asyncio.sleep(PATIENCE)

    body = hold()

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(body)
        await (eventually(lambda: is_waited_for(manager)) if waits else inside.wait())
        return task

    with manager.sync as sync:
        assert not waits or sync.acquire_lock("a", 60)
        task = loop.run_until_complete(begin())
        loop.close()
        if waits:
            sync.release_lock("a")
        with sync.lock("a", wait=PATIENCE):
            pass
        body.close()  # as the garbage collector does
    assert "an event loop was closed in the midst of a block" in caplog.text
    task._log_destroy_pending = False  # type: ignore[attr-defined]
