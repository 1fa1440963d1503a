"""Waits that could never end are refused at once, and no other is."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    HandlerContext,
    IdempotencyInProgress,
    MemoryStorage,
    WouldDeadlock,
)

Act = Callable[[HandlerContext], Awaitable[Any]]


@asynccontextmanager
async def ending_within(seconds: float) -> AsyncIterator[None]:
    """Fail after this time, without a deadline that the code inside could see."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        yield
        assert not nursery.cancel_scope.cancel_called
        nursery.cancel_scope.cancel()


async def rests(_context: HandlerContext) -> None:
    await trio.sleep(1)


class Stage:
    """A manager whose operation ``act`` does what the test says under the parameter ``do``."""

    def __init__(self) -> None:
        self.manager = BackgroundOperationsManager(MemoryStorage())
        self.acts: dict[str, Act] = {}
        self.refused: dict[str, str] = {}
        self.manager.register_operation_handler("act", self._act)

    async def _act(self, parameters: dict[str, Any], context: HandlerContext) -> Any:
        try:
            return await self.acts[parameters["do"]](context)
        except WouldDeadlock as error:
            self.refused[parameters["do"]] = str(error)
            raise

    async def start(self, do: str, **step: Any) -> Any:
        steps = [{"name": do, "operation": "act", "parameters": {"do": do}, "max_retries": 0, **step}]
        return await self.manager.start_saga(tenant_id="t", workflow_type=do, steps=steps)

    async def run(self, do: str, **options: Any) -> Any:
        return await self.manager.run_idempotent(tenant_id="t", operation_type="act", parameters={"do": do}, **options)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize("way", ["handle", "execute", "with a time-out"])
async def test_a_handler_that_waits_for_its_own_saga(autojump_clock: MockClock, stage: Stage, way: str) -> None:
    async def waits(context: HandlerContext) -> None:
        assert context.saga_id is not None
        if way == "execute":
            await stage.manager.execute_saga_workflow(context.saga_id)
        with trio.move_on_after(5):
            await stage.manager.saga_handle(context.saga_id).result()

    stage.acts["waits"] = waits
    async with stage.manager:
        handle = await stage.start("waits")
        with trio.fail_after(1):
            assert not (await handle.result()).completed
    assert f"the wait for the end of saga {handle.saga_id} would never end" in stage.refused["waits"]


async def test_an_operation_that_runs_itself(autojump_clock: MockClock, stage: Stage) -> None:
    stage.acts["a"] = lambda _context: stage.run("a")
    async with stage.manager:
        with trio.fail_after(1), pytest.raises(WouldDeadlock, match="'act' under key"):
            await stage.run("a")
        stage.acts["a"] = lambda _context: stage.run("a", wait=0)
        with pytest.raises(IdempotencyInProgress):
            await stage.run("a")
        stage.acts["a"] = lambda _context: stage.run("b")
        stage.acts["b"] = rests
        assert await stage.run("a") is None


async def test_operations_that_run_each_other(autojump_clock: MockClock, stage: Stage) -> None:
    def runs(there: str) -> Act:
        return lambda _context: stage.run(there)

    stage.acts = {"a": runs("b"), "b": runs("c"), "c": runs("a")}
    async with stage.manager, ending_within(1):
        with pytest.raises(WouldDeadlock):
            await stage.run("a")


async def test_operations_of_two_tasks_that_run_each_other(autojump_clock: MockClock, stage: Stage) -> None:
    both = trio.Event()
    begun: list[str] = []

    async def runs(here: str, there: str) -> None:
        begun.append(here)
        if len(begun) == 2:
            both.set()
        await both.wait()
        if len(begun) == 2:
            await stage.run(there)

    async def tolerant(do: str) -> None:
        try:
            await stage.run(do)
        except WouldDeadlock:
            begun.append("refused")

    stage.acts = {"a": lambda _context: runs("a", "b"), "b": lambda _context: runs("b", "a")}
    async with stage.manager, ending_within(5), trio.open_nursery() as nursery:
        nursery.start_soon(tolerant, "a")
        nursery.start_soon(tolerant, "b")
    (message,) = stage.refused.values()
    assert message.count("the run of 'act'") == 2


async def test_a_child_that_waits_for_its_parent(autojump_clock: MockClock, stage: Stage) -> None:
    parent: list[Any] = []

    async def begets(_context: HandlerContext) -> None:
        child = await stage.start("child")
        assert not (await child.result()).completed

    async def waits(_context: HandlerContext) -> None:
        await parent[0].result()

    stage.acts = {"parent": begets, "child": waits}
    async with stage.manager:
        parent.append(await stage.start("parent"))
        with trio.fail_after(1):
            assert (await parent[0].result()).completed
    assert list(stage.refused) == ["child"]
    assert f"the end of saga {parent[0].saga_id}, which waits for the end of saga" in stage.refused["child"]


@pytest.mark.parametrize("parent_lock", ["of the step", "in the handler"])
@pytest.mark.parametrize("child_lock", ["of the step", "in the handler"])
async def test_a_parent_under_a_lock_that_its_child_needs(
    autojump_clock: MockClock, stage: Stage, parent_lock: str, child_lock: str
) -> None:
    async def begets(_context: HandlerContext) -> None:
        if parent_lock == "of the step":
            await beget()
        else:
            async with stage.manager.lock("L"):
                await beget()

    async def beget() -> None:
        child = await stage.start("child", **({"lock": "L"} if child_lock == "of the step" else {}))
        assert not (await child.result()).completed

    async def needs(_context: HandlerContext) -> None:
        if child_lock == "in the handler":
            async with stage.manager.lock("L"):
                pass

    stage.acts = {"parent": begets, "child": needs}
    async with stage.manager:
        step = {"lock": "L"} if parent_lock == "of the step" else {}
        parent = await stage.start("parent", timeout_seconds=600, **step)
        with trio.fail_after(2):
            assert (await parent.result()).completed


@pytest.mark.parametrize("seconds", [None, 2])
async def test_a_program_that_waits_under_a_lock_for_a_saga_that_needs_it(
    autojump_clock: MockClock, stage: Stage, seconds: float | None
) -> None:
    stage.acts["a"] = rests
    async with stage.manager, ending_within(5):
        async with stage.manager.lock("L"):
            handle = await stage.start("a", lock="L")
            with trio.move_on_after(math.inf if seconds is None else seconds):
                outcome = await handle.result()
        if seconds is None:
            assert "WouldDeadlock: the wait for the lock 'L', which waits for the end of saga" in outcome.error
        else:
            assert (await handle.result()).completed


async def test_waits_that_can_end_are_left_alone(autojump_clock: MockClock, stage: Stage) -> None:
    parent: list[Any] = []
    seen: list[str] = []

    async def begets(_context: HandlerContext) -> None:
        child = await stage.start("child")  # without waiting for it
        seen.append(child.saga_id)

    async def waits(_context: HandlerContext) -> None:
        assert (await parent[0].result()).completed

    stage.acts = {"parent": begets, "child": waits}
    async with stage.manager:
        parent.append(await stage.start("parent"))
        assert (await parent[0].result()).completed
        assert (await stage.manager.saga_handle(seen[0]).result()).completed
    assert stage.refused == {}


@pytest.mark.parametrize("seconds", [None, 60])
async def test_a_parent_whose_wait_has_a_time_out_is_not_accused(
    autojump_clock: MockClock, stage: Stage, seconds: float | None
) -> None:
    parent: list[Any] = []

    async def begets(_context: HandlerContext) -> None:
        child = await stage.start("child")
        with trio.move_on_after(50):  # longer than the worker's lease
            await child.result()

    async def waits(_context: HandlerContext) -> None:
        await parent[0].result()

    stage.acts = {"parent": begets, "child": waits}
    async with stage.manager:
        parent.append(await stage.start("parent", timeout_seconds=seconds))
        assert (await parent[0].result()).completed
    assert stage.refused == {}


@pytest.mark.parametrize("lock", ["of the step", "in the handler"])
async def test_a_saga_that_is_cancelled_waits_no_more(autojump_clock: MockClock, stage: Stage, lock: str) -> None:
    async def takes(_context: HandlerContext) -> None:
        async with stage.manager.lock("L"):
            pass

    stage.acts["takes"] = takes
    async with stage.manager, ending_within(5), stage.manager.lock("L"):
        handle = await stage.start("takes", **({"lock": "L"} if lock == "of the step" else {}))
        await trio.sleep(1)
        await handle.cancel("not needed")
        assert (await handle.result()).status == "compensated"
    assert stage.refused == {}


async def test_a_task_that_a_handler_leaves_behind_may_wait_for_the_saga(
    autojump_clock: MockClock, stage: Stage
) -> None:
    ended: list[Any] = []

    async def leaves(context: HandlerContext) -> None:
        assert context.saga_id is not None
        nursery.start_soon(tell, context.saga_id)
        await trio.sleep(1)

    async def tell(saga_id: str) -> None:
        ended.append(await stage.manager.saga_handle(saga_id).result())

    stage.acts["leaves"] = leaves
    async with stage.manager, trio.open_nursery() as nursery:
        await (await stage.start("leaves")).result()
    assert [outcome.completed for outcome in ended] == [True]


async def test_locks_taken_in_opposite_orders(autojump_clock: MockClock, stage: Stage) -> None:
    refused: list[WouldDeadlock] = []

    async def takes(first: str, second: str) -> None:
        try:
            async with stage.manager.lock(first):
                await trio.sleep(1)
                async with stage.manager.lock(second):
                    pass
        except WouldDeadlock as error:
            refused.append(error)

    async with stage.manager:
        async with ending_within(5), trio.open_nursery() as nursery:
            nursery.start_soon(takes, "A", "B")
            nursery.start_soon(takes, "B", "A")
        async with ending_within(5), trio.open_nursery() as nursery:
            nursery.start_soon(takes, "A", "B")
            nursery.start_soon(takes, "C", "A")
    assert len(refused) == 1
    assert "the lock" in str(refused[0])
