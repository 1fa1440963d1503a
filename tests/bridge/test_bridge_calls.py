"""What crosses with a call (context, result, error, cancellation) and what is left of it afterwards (nothing)."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import pytest
import trio

from bridge.hosts import (
    ASYNCIO_HOSTS,
    ELSEWHERE,
    Host,
    a_manager,
    block_until,
    bridge_calls,
    eventually,
    run_asyncio,
    under_another_trio,
)
from bridge.test_bridged_facade import Holder, a_full_manager
from dotmac.tasks import BackgroundOperationsManager, NotStarted, SagaNotFound
from dotmac.tasks.bridge.runtime_loop import RuntimeLoop
from dotmac.tasks.facade.claims import KeyedRequest

visible: ContextVar[str] = ContextVar("visible", default="nobody")

elsewhere = pytest.mark.parametrize("host", ELSEWHERE.values(), ids=ELSEWHERE)
in_asyncio = pytest.mark.parametrize("host", ASYNCIO_HOSTS.values(), ids=ASYNCIO_HOSTS)


def inside(manager: BackgroundOperationsManager, function: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
    """Call it in the manager's trio run, as the manager's methods are."""
    home: RuntimeLoop = manager._home
    return home.run(function)


@elsewhere
def test_a_call_sees_the_callers_context(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        async def look() -> str:
            seen = visible.get()
            visible.set("changed there")
            return seen

        async def one(name: str) -> None:
            visible.set(name)
            assert await inside(manager, look) == name
            assert visible.get() == name

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(one, f"caller {number}")

    host(a_manager(), program)


def test_the_context_of_the_first_caller_is_not_kept() -> None:
    class Request:
        pass

    request: ContextVar[Request] = ContextVar("request")
    seen: list[weakref.ref[Request]] = []

    async def main() -> None:
        manager = a_manager()

        async def first() -> None:
            request.set(mine := Request())
            seen.append(weakref.ref(mine))
            await manager.start()

        await asyncio.create_task(first())
        for _ in range(3):
            await manager.list_locks()
        gc.collect()
        assert seen[0]() is None
        await manager.stop()

    run_asyncio(main)


@elsewhere
def test_an_error_keeps_its_type_its_cause_and_where_it_was_raised(host: Host[Any]) -> None:
    async def break_inside() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    async def program(manager: BackgroundOperationsManager) -> None:
        with pytest.raises(ValueError, match="second") as raised:
            await inside(manager, break_inside)
        assert isinstance(raised.value.__cause__, KeyError)
        names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
        assert names[-1] == "break_inside"
        assert "program" in names
        with pytest.raises(SagaNotFound, match="no saga"):
            await manager.get_saga("nothing")

    host(a_manager(), program)


@elsewhere
def test_a_cancelled_caller_waits_until_the_call_has_ended(host: Host[Any]) -> None:
    ended: list[str] = []

    async def linger() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            ended.append("there")

    async def program(manager: BackgroundOperationsManager) -> None:
        with anyio.move_on_after(0.05) as scope:
            await inside(manager, linger)
        assert scope.cancelled_caught
        assert ended == ["there"]
        assert not bridge_calls(manager)

    host(a_manager(), program)


@in_asyncio
def test_a_caller_who_is_cancelled_twice_still_waits(host: Host[Any]) -> None:
    ended: list[str] = []
    begun, go_on = trio.Event(), trio.Event()

    async def linger() -> None:
        try:
            begun.set()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await go_on.wait()
            ended.append("there")

    async def program(manager: BackgroundOperationsManager) -> None:
        task = asyncio.ensure_future(inside(manager, linger))
        await inside(manager, begun.wait)
        for _ in range(3):
            task.cancel("enough")
            await asyncio.sleep(0)
            await inside(manager, trio.lowlevel.checkpoint)
            assert not task.done()
        manager._home.post(go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["there"]

    host(a_manager(), program)


async def fail_at_the_end() -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        raise ValueError("while it ended") from None


@in_asyncio
def test_an_error_that_ends_a_cancelled_call_is_not_hidden(host: Host[Any], caplog: pytest.LogCaptureFixture) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(0.05):
                await inside(manager, fail_at_the_end)
        assert raised.value.__cause__ is not None
        assert isinstance(raised.value.__cause__.__cause__, ValueError)
        assert "ended with an error: ValueError('while it ended')" in caplog.text

    host(a_manager(), program)


def test_another_trio_run_raises_the_error_of_a_cancelled_call_and_cancels_again() -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        with trio.move_on_after(0.05) as scope:
            with pytest.raises(ValueError, match="while it ended"):
                await inside(manager, fail_at_the_end)
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught

    under_another_trio(a_manager(), program)


async def cancel_too_late(manager: BackgroundOperationsManager, call: Awaitable[Any]) -> None:
    """Cancel a call whose result is on its way back: the event loop is blocked until it has ended there."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    block_until(lambda: not bridge_calls(manager) and not manager._home._bag._calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_asyncio
def test_a_caller_who_deals_with_the_error_of_a_call_is_cancelled_all_the_same(host: Host[Any]) -> None:
    """The error is on its way back when he is cancelled; asyncio will not do that again."""

    async def fail() -> None:
        raise ValueError("there")

    async def program(manager: BackgroundOperationsManager) -> None:
        async def try_once() -> None:
            with suppress(ValueError):
                await inside(manager, fail)

        await cancel_too_late(manager, try_once())

    host(a_manager(), program)


@in_asyncio
def test_a_cancellation_goes_before_the_error_of_undoing_what_came_too_late(host: Host[Any]) -> None:
    async def fail(_result: object) -> None:
        raise ValueError("it cannot be undone")

    async def program(manager: BackgroundOperationsManager) -> None:
        await cancel_too_late(manager, manager._home.run(trio.lowlevel.checkpoint, undo=fail))

    host(a_manager(), program)


def _claim_of(answer: Any) -> Any:
    assert answer.claim is not None
    return answer.claim


@in_asyncio
def test_a_claim_that_was_granted_too_late_is_given_back(host: Host[Any]) -> None:
    request = KeyedRequest(
        record_key="k", tenant_id="t", user_id=None, operation_type="o", fingerprint="f", ttl=60.0, lease=30.0
    )

    async def program(manager: BackgroundOperationsManager) -> None:
        await cancel_too_late(manager, manager.begin_claim(request, Holder()))
        assert not manager._hosted()._runtime.claims._held
        answer = await manager.begin_claim(request, Holder())
        assert answer.outcome == "granted"
        assert answer.claim is not None
        await manager.finish_claim(answer.claim, b"1")
        await cancel_too_late(manager, manager.begin_claim(request, Holder()))  # done: there is nothing to give back

    host(a_manager(), program)


@in_asyncio
def test_a_lock_that_was_taken_too_late_is_given_back(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        await cancel_too_late(manager, manager.acquire_lock("a", 60))
        assert await manager.list_locks() == []
        assert await manager.acquire_lock("a", 60)
        await cancel_too_late(manager, manager.acquire_lock("a", 60))
        assert [lock.name for lock in await manager.list_locks()] == ["a"]

    host(a_manager(), program)


@in_asyncio
def test_a_call_that_changes_nothing_of_ones_own_is_just_cancelled(host: Host[Any]) -> None:
    async def program(manager: BackgroundOperationsManager) -> None:
        await cancel_too_late(manager, manager.list_sagas())

    host(a_manager(), program)


@elsewhere
def test_a_thousand_cancellations_leave_nothing_running(host: Host[Any]) -> None:
    chance = random.Random(7)

    async def program(manager: BackgroundOperationsManager) -> None:
        handle = await manager.start_saga(
            tenant_id="t", workflow_type="w", steps=[{"name": "A", "operation": "wait"}], idempotency_key="k"
        )

        async def hold() -> None:
            async with manager.lock(f"lock {chance.randrange(5)}", ttl=30):
                await anyio.sleep(chance.random() * 0.002)

        calls: list[Callable[[], Awaitable[Any]]] = [
            handle.result,
            handle.status,
            hold,
            manager.list_sagas,
            partial(manager.check_idempotency, "nothing"),
            partial(manager.run_idempotent, tenant_id="t", operation_type="wait", parameters={"n": 1}),
        ]

        async def one(number: int) -> None:
            with anyio.move_on_after(chance.random() * 0.02):
                await calls[number % len(calls)]()

        for _ in range(10):
            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(one, number)
        assert not bridge_calls(manager)
        assert await manager.list_locks() == []
        assert await handle.status() == "in_progress"
        await handle.cancel()
        assert (await handle.result()).status == "compensated"

    host(a_full_manager(), program)


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
@elsewhere
def test_thousands_of_calls_at_once(host: Host[Any], count: int) -> None:
    answers: list[object] = []

    async def program(manager: BackgroundOperationsManager) -> None:
        async def one() -> None:
            answers.append(await manager.check_idempotency("nothing"))

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one)

    host(a_manager(), program)
    assert answers == [None] * count


def test_calls_under_way_end_when_the_manager_is_stopped() -> None:
    async def main() -> None:
        manager = a_full_manager()
        await manager.start()
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[{"name": "A", "operation": "wait"}])
        waiting = asyncio.ensure_future(handle.result())
        await handle.status()
        await manager._stop(hurry=True)
        with pytest.raises(NotStarted, match="stopped"):
            await waiting
        with pytest.raises(NotStarted):
            await handle.status()
        with pytest.raises(NotStarted, match="not running"):
            await manager.list_sagas()

    run_asyncio(main)


def test_a_manager_in_a_trio_run_serves_other_loops_in_other_threads() -> None:
    async def abroad(manager: BackgroundOperationsManager) -> list[Any]:
        async with manager.lock("a"):
            return [await manager.check_idempotency("nothing"), (await manager.list_sagas()).sagas]

    async def main() -> None:
        async with a_manager() as manager:
            for _ in range(2):
                found = await trio.to_thread.run_sync(lambda: run_asyncio(lambda: abroad(manager)))
                assert found == [None, []]
                found = await trio.to_thread.run_sync(lambda: trio.run(abroad, manager))
                assert found == [None, []]

    trio.run(main)


def test_a_call_that_waits_in_another_loop_ends_with_the_managers_trio_run() -> None:
    async def abroad(manager: BackgroundOperationsManager, begun: trio.Event) -> None:
        task = asyncio.ensure_future(inside(manager, trio.sleep_forever))
        await manager.list_sagas()
        manager._home.post(begun.set)
        with pytest.raises(NotStarted):
            await task

    async def main() -> None:
        manager, begun = a_manager(), trio.Event()
        async with trio.open_nursery() as nursery:
            await manager.start()
            nursery.start_soon(trio.to_thread.run_sync, lambda: run_asyncio(lambda: abroad(manager, begun)))
            await begun.wait()
            await manager.stop()

    trio.run(main)


def test_a_trio_run_that_is_the_guest_of_an_event_loop_is_told_from_its_host() -> None:
    """Both are in one thread."""

    async def guest(manager: BackgroundOperationsManager, ready: asyncio.Event, leave: trio.Event) -> None:
        async with manager:
            assert await manager.list_locks() == []
            ready.set()
            await leave.wait()

    async def main() -> None:
        loop, manager = asyncio.get_running_loop(), a_manager()
        ready, leave, ended = asyncio.Event(), trio.Event(), loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            manager,
            ready,
            leave,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        await ready.wait()
        assert await manager.check_idempotency("nothing") is None
        async with manager.lock("a"):
            assert [lock.name for lock in await manager.list_locks()] == ["a"]
        manager._home.post(leave.set)
        (await ended).unwrap()

    run_asyncio(main)


@elsewhere
def test_the_holder_of_a_claim_is_told_in_its_own_thread(host: Host[Any]) -> None:
    told: list[tuple[str, int]] = []

    class Noting:
        def granted_for(self, seconds: float) -> None:
            told.append(("granted", threading.get_ident()))

        def lose(self) -> None:
            told.append(("lost", threading.get_ident()))

    request = KeyedRequest(
        record_key="k", tenant_id="t", user_id=None, operation_type="o", fingerprint="f", ttl=60.0, lease=0.5
    )

    async def renewed() -> bool:
        return len(told) > 1

    async def lost() -> bool:
        return told[-1][0] == "lost"

    async def program(manager: BackgroundOperationsManager) -> None:
        claim = _claim_of(await manager.begin_claim(request, Noting()))
        await eventually(renewed)
        await inside(manager, lambda: manager.storage.abandon_claim("k", claim.held.token))
        await eventually(lost)
        await manager.leave_claim(claim)
        assert {thread for _, thread in told} == {threading.get_ident()}

    host(a_manager(), program)
