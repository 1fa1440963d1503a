"""Tasks that carry out one call after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import outcome
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dotmac.tasks.bridge import task_pool as module
from dotmac.tasks.bridge.task_pool import PoolTask, TaskPool

who: ContextVar[str] = ContextVar("who", default="nobody")


class Job:
    """Notes where it is carried out."""

    def __init__(self, function: Callable[[], Awaitable[Any]] = trio.lowlevel.checkpoint) -> None:
        self.context = copy_context()
        self.function = function
        self.result: outcome.Outcome[Any] | None = None
        self.ended = trio.Event()
        self.task: trio.lowlevel.Task | None = None

    async def carry_out(self) -> Any:
        self.task = trio.lowlevel.current_task()
        await self.function()
        return who.get()

    def over(self, result: outcome.Outcome[Any] | None) -> None:
        self.result = result
        self.ended.set()


async def carried(carriers: TaskPool, load: Job, then: Callable[[PoolTask], None] = lambda _: None) -> Job:
    carrier = carriers.carry(load)
    await wait_all_tasks_blocked()
    then(carrier)
    await load.ended.wait()
    await wait_all_tasks_blocked()
    return load


async def fails() -> None:
    raise ZeroDivisionError


async def test_one_task_carries_one_after_the_other_each_in_its_own_context() -> None:
    carriers = TaskPool()
    tasks = set()
    for name in ("a", "b", "c"):
        who.set(name)
        load = await carried(carriers, Job())
        assert load.result == outcome.Value(name)
        tasks.add(load.task)
    assert len(tasks) == 1
    assert [len(task.context) for task in tasks if task is not None] == [0]  # no caller's is kept
    carriers.close()


async def test_at_the_same_time_each_has_a_task_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PARKED", 3)
    carriers = TaskPool()
    loads = [Job() for _ in range(5)]
    for load in loads:
        carriers.carry(load)
    for load in loads:
        await load.ended.wait()
    assert len({load.task for load in loads}) == 5
    await wait_all_tasks_blocked()
    assert len(carriers.parked) == 3
    carriers.close()
    await wait_all_tasks_blocked()
    assert not carriers.parked


@pytest.mark.parametrize("cancelled", [True, False])
async def test_who_was_cancelled_or_raised_carries_no_other(cancelled: bool) -> None:
    carriers = TaskPool()
    load = Job(trio.sleep_forever if cancelled else fails)
    await carried(carriers, load, PoolTask.cancel if cancelled else lambda _: None)
    if cancelled:
        assert load.result is None
    else:
        assert isinstance(load.result, outcome.Error)
        assert isinstance(load.result.error, ZeroDivisionError)
    assert not carriers.parked
    other = await carried(carriers, Job())
    assert other.result == outcome.Value("nobody")
    assert other.task is not load.task
    carriers.close()


async def test_a_result_that_comes_in_spite_of_a_cancellation_counts() -> None:
    async def heedless() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.01)

    carriers = TaskPool()
    load = await carried(carriers, Job(heedless), PoolTask.cancel)
    assert load.result == outcome.Value("nobody")
    assert not carriers.parked


async def test_what_is_under_way_when_no_more_is_taken_ends_and_is_the_last() -> None:
    carriers = TaskPool()
    go = trio.Event()

    def close(_carrier: PoolTask) -> None:
        carriers.close()
        go.set()

    load = await carried(carriers, Job(go.wait), close)
    assert load.result == outcome.Value("nobody")
    assert not carriers.parked


def test_the_end_of_the_run_ends_them() -> None:
    carriers, busy = TaskPool(), Job(trio.sleep_forever)

    async def run() -> None:
        await carried(carriers, Job())
        carriers.carry(Job())
        await wait_all_tasks_blocked()
        assert len(carriers.parked) == 1
        carriers.carry(busy)
        await wait_all_tasks_blocked()

    trio.run(run)
    assert not carriers.parked
    assert isinstance(busy.result, outcome.Error)
    assert isinstance(busy.result.error, trio.Cancelled)
