"""What happens before a handler is called: limits, queues, threads that outlive their attempts."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, InvalidInput, MemoryStorage, NotStarted, OperationStatus
from dotmac.tasks.models import LimitInfo
from dotmac.tasks.runtime import permits
from runtime.nodes import Ledger, Node, at_call, lose_reply, steps, until

COMPLETED, COMPENSATED = OperationStatus.COMPLETED, OperationStatus.COMPENSATED


class Meter:
    """Handlers of operation ``work``: how many run at once, and in which order they began."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.began: list[Any] = []
        self.leave = trio.Event()

    async def work(self, parameters: dict[str, Any]) -> None:
        self.began.append(parameters.get("n"))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.leave.wait()
            await trio.sleep(0.1)
        finally:
            self.inside -= 1


@pytest.fixture
def meter() -> Meter:
    return Meter()


def work(n: int | str = 0, **fields: Any) -> dict[str, Any]:
    return {"name": "s", "operation": "work", "parameters": {"n": n}, "max_retries": 0, **fields}


async def start(node: Node, step: dict[str, Any], **options: Any) -> Any:
    return await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step], **options)


async def load(node: Node) -> dict[str, LimitInfo]:
    return {limit.name: limit for limit in (await node.manager.handler_load()).limits}


def with_work(meter: Meter, **options: Any) -> Callable[[BackgroundOperationsManager], None]:
    def register(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("work", meter.work, **options)

    return register


# --- limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "options"), [({"max_running": 3}, {}), ({}, {"concurrency": 3})], ids=["process", "operation"]
)
async def test_handlers_beyond_a_limit_wait_in_order_of_arrival(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter, settings: Any, options: Any
) -> None:
    meter.leave.set()
    async with Node(shared, with_work(meter, **options), **settings) as node:
        handles = [await start(node, work(n, timeout_seconds=0.15)) for n in range(30)]
        for handle in handles:
            assert (await handle.result()).completed
            assert (await handle.get()).steps[0].attempts == 1
    assert (meter.most, sorted(meter.began)) == (3, list(range(30)))
    assert all(abs(place - n) < 3 for place, n in enumerate(meter.began))  # three begin in the same instant


async def test_a_higher_priority_is_served_first(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    async with Node(shared, with_work(meter, concurrency=1)) as node:
        handles = [await start(node, work(n), priority=priority) for n, priority in enumerate((0, 0, 5, 9, 5))]
        meter.leave.set()
        for handle in handles:
            assert (await handle.result()).completed
    assert meter.began == [0, 3, 2, 4, 1]


async def test_a_full_operation_does_not_delay_another(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, meter: Meter
) -> None:
    async with Node(shared, ledger.register, max_running=3) as node:
        with_work(meter, concurrency=2)(node.manager)
        handles = [await start(node, work(n)) for n in range(5)]
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps("a", "b"))
        assert (await handle.result()).completed
        seen = await load(node)
        assert seen["work"] == LimitInfo("work", 2, 2, 3, {"work": 2})
        assert seen["max_running"] == LimitInfo("max_running", 3, 2, 0, {"work": 2})
        meter.leave.set()
        for handle in handles:
            assert (await handle.result()).completed
    assert meter.most == 2


async def test_compensations_have_a_concurrency_of_their_own(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    async def fail(_parameters: Any) -> None:
        raise ValueError

    async def nothing(_parameters: Any) -> None:
        pass

    meter.leave.set()
    async with Node(shared, lambda _: None) as node:
        node.manager.register_operation_handler("do", nothing)
        node.manager.register_operation_handler("fail", fail)
        node.manager.register_compensation_handler("undo", meter.work, concurrency=2)
        saga: list[dict[str, Any]] = [
            {"name": "a", "operation": "do", "compensation_operation": "undo"},
            {"name": "b", "operation": "fail", "max_retries": 0},
        ]
        handles = [await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=saga) for _ in range(8)]
        for handle in handles:
            assert (await handle.result()).status is COMPENSATED
    assert meter.most == 2


async def test_idempotent_operations_are_under_the_same_limits(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    meter.leave.set()
    async with Node(shared, with_work(meter, concurrency=2), max_running=3) as node, trio.open_nursery() as nursery:
        for n in range(10):
            run = partial(node.manager.run_idempotent, tenant_id="t", operation_type="work", parameters={"n": n})
            nursery.start_soon(run)
    assert (meter.most, sorted(meter.began)) == (2, list(range(10)))


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_a_bad_concurrency_is_refused_by_name(value: Any) -> None:
    manager = BackgroundOperationsManager(MemoryStorage())
    for register in (manager.register_operation_handler, manager.register_compensation_handler):
        with pytest.raises(InvalidInput) as refused:
            register("work", print, concurrency=value)
        assert refused.value.field == "concurrency"


@pytest.mark.parametrize("name", ["max_running", "sync_handler_threads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_a_bad_limit_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        BackgroundOperationsManager(MemoryStorage(), **{name: value})
    assert refused.value.field == name


async def test_calls_of_a_handler_that_is_replaced_still_count(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    async with Node(shared, with_work(meter, concurrency=1)) as node:
        first = await start(node, work(1))
        with_work(meter, concurrency=2, replace=True)(node.manager)
        second, third = await start(node, work(2)), await start(node, work(3))
        await until(lambda: meter.began == [1, 2])
        meter.leave.set()
        for handle in (first, second, third):
            assert (await handle.result()).completed
    assert meter.most == 2


# --- waiting is no attempt --------------------------------------------------------------------------------------


async def test_creation_and_first_attempt_are_one_append_while_permits_are_free(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    meter.leave.set()
    async with Node(shared, with_work(meter, concurrency=1)) as node:
        assert (await (await start(node, work())).result()).completed
        assert [verb for verb in node.wire.calls if verb in ("create_saga", "append")] == ["create_saga", "append"]


async def test_a_saga_that_waits_for_a_permit_shows_no_attempt_and_can_be_cancelled(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    async with Node(shared, with_work(meter, concurrency=1)) as node:
        first, second, third = [await start(node, work(n)) for n in range(3)]
        await trio.sleep(100)
        saga = await second.get()
        assert (saga.status, saga.steps[0].attempts) == (OperationStatus.IN_PROGRESS, 0)
        assert "step_started" not in [line.event for line in await node.manager.get_saga_history(saga.saga_id)]
        await second.cancel("enough")
        assert (await second.result()).status is COMPENSATED
        meter.leave.set()
        assert (await first.result()).completed
        assert (await third.result()).completed
    assert meter.began == [0, 2]


async def test_the_deadline_of_a_saga_ends_its_wait_for_a_permit(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    async with Node(shared, with_work(meter, concurrency=1)) as node:
        await start(node, work(1))
        outcome = await (await start(node, work(2), timeout_seconds=5)).result()
        assert (outcome.status, meter.began) == (COMPENSATED, [1])
        assert "out of time" in (outcome.error or "")
        meter.leave.set()


async def test_a_stop_hands_waiting_sagas_over_at_once(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    here, there = Meter(), meter
    there.leave.set()
    async with Node(shared, with_work(there)) as other, Node(shared, with_work(here, concurrency=1)) as node:
        first, second = await start(node, work(1)), await start(node, work(2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.manager.stop)
            assert (await other.manager.saga_handle(second.saga_id).result()).completed
            assert (here.began, there.began) == ([1], [2])
            here.leave.set()
        assert (await other.manager.saga_handle(first.saga_id).result()).completed
    assert there.began == [2]


async def test_a_stop_ends_the_wait_of_an_idempotent_operation_and_frees_its_key(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    request: dict[str, Any] = {"tenant_id": "t", "operation_type": "work", "parameters": {"n": 2}}
    refused: list[bool] = []

    async def ask(node: Node) -> None:
        with pytest.raises(NotStarted):
            await node.manager.run_idempotent(**request)
        refused.append(True)
        meter.leave.set()

    async with trio.open_nursery() as nursery, Node(shared, with_work(meter, concurrency=1)) as node:
        nursery.start_soon(
            lambda: node.manager.run_idempotent(tenant_id="t", operation_type="work", parameters={"n": 1})
        )
        await until(lambda: meter.began == [1])
        nursery.start_soon(ask, node)
        await trio.sleep(1)
        await node.manager.stop()
    assert (refused, meter.began) == ([True], [1])
    async with Node(shared, with_work(meter)) as node:
        await node.manager.run_idempotent(**request, wait=0)
    assert meter.began == [1, 2]


async def test_a_creation_whose_answer_was_lost_holds_no_permit(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    meter.leave.set()
    async with Node(shared, with_work(meter, concurrency=1)) as node:
        node.wire.fault = at_call(0, lose_reply, frozenset({"create_saga"}))
        with pytest.raises(Exception, match="answer was lost"):
            await start(node, work(1))
        assert (await (await start(node, work(2))).result()).completed
        await until(lambda: sorted(meter.began) == [1, 2])
        await until(lambda: not len(node.worker.sagas))
        assert (await load(node))["max_running"].running == 0
    assert meter.most == 1


# --- handlers that wait for handlers ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["result", "execute", "run_idempotent"])
async def test_plain_parents_do_not_hold_the_threads_that_their_children_need(shared: MemoryStorage, way: str) -> None:
    numbers = itertools.count()

    def parent(_parameters: Any) -> int:
        child: dict[str, Any] = {
            "tenant_id": "t",
            "workflow_type": "child",
            "steps": [{"name": "c", "operation": "child"}],
        }
        if way == "result":
            return int(sync.start_saga(**child).result().results["c"])
        if way == "execute":
            saga = sync.create_saga_workflow(**child)
            assert sync.execute_saga_workflow(saga.saga_id)
            return 1
        return int(sync.run_idempotent(tenant_id="t", operation_type="child", parameters={"n": next(numbers)}))

    async with Node(shared, lambda _: None, sync_handler_threads=2, max_running=3) as node:
        sync = node.manager.sync
        node.manager.register_operation_handler("parent", parent, concurrency=4)
        node.manager.register_operation_handler("child", lambda _parameters: 1, concurrency=1)
        with trio.fail_after(60):
            handles = [await start(node, {"name": "p", "operation": "parent"}) for _ in range(12)]
            for handle in handles:
                assert (await handle.result()).completed
        assert {limit.running for limit in (await load(node)).values()} == {0}


@pytest.mark.parametrize("way", ["result", "run_idempotent", "lock"])
async def test_async_parents_do_not_hold_the_permits_that_their_children_need(
    autojump_clock: MockClock, shared: MemoryStorage, way: str
) -> None:
    async def parent(parameters: dict[str, Any]) -> None:
        manager = node.manager
        if way == "result":
            assert (await (await start(node, {"name": "c", "operation": "child"})).result()).completed
        elif way == "run_idempotent":
            await manager.run_idempotent(tenant_id="t", operation_type="child", parameters=parameters)
        else:
            async with manager.lock("account:1"):
                assert (await (await start(node, {"name": "c", "operation": "child"})).result()).completed

    async def child(_parameters: Any) -> None:
        await trio.sleep(0.1)

    async with Node(shared, lambda _: None, max_running=2) as node:
        node.manager.register_operation_handler("parent", parent)
        node.manager.register_operation_handler("child", child)
        with trio.fail_after(600):
            handles = [
                await start(node, {"name": "p", "operation": "parent", "parameters": {"n": n}}) for n in range(10)
            ]
            for handle in handles:
                assert (await handle.result()).completed
        assert (await load(node))["max_running"].running == 0


# --- threads that outlive their attempts ------------------------------------------------------------------------


@pytest.fixture
def leave() -> Any:
    event = threading.Event()
    yield event
    event.set()


async def test_threads_that_are_left_behind_do_not_starve_other_operations(
    shared: MemoryStorage, leave: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def hang(_parameters: Any) -> None:
        leave.wait()

    async with Node(shared, lambda _: None, sync_handler_threads=1) as node:
        node.manager.register_operation_handler("hang", hang)
        node.manager.register_operation_handler("quick", lambda _parameters: "done")
        retry = {"max_retries": 3, "initial_delay": 0.01}
        hanging = await start(node, {"name": "s", "operation": "hang", "timeout_seconds": 0.02, "retry": retry})
        assert (await hanging.result()).status is COMPENSATED
        quick = await start(node, {"name": "s", "operation": "quick"})
        with trio.fail_after(10):
            assert (await quick.result()).completed
        left = (await node.manager.handler_load()).left_threads
        assert [(thread.operation, thread.subject) for thread in left] == [("hang", hanging.saga_id)] * 4
        assert all(thread.seconds >= 0.02 for thread in left)
        warnings = [record.getMessage() for record in caplog.records if "goes on after its attempt" in record.message]
        assert len(warnings) == 4
        assert f"'hang' ({hanging.saga_id})" in warnings[0]
        leave.set()
        with trio.fail_after(10):
            while (await node.manager.handler_load()).left_threads:  # noqa: ASYNC110 - a thread's end
                await trio.sleep(0.01)


async def test_an_operation_with_too_many_left_threads_waits_for_their_end(
    shared: MemoryStorage, leave: threading.Event, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permits, "MOST_LEFT_THREADS", 2)

    def hang(_parameters: Any) -> None:
        leave.wait()

    async with Node(shared, lambda _: None, sync_handler_threads=2) as node:
        node.manager.register_operation_handler("hang", hang)
        node.manager.register_operation_handler("quick", lambda _parameters: "done")
        step = {"name": "s", "operation": "hang", "max_retries": 0, "timeout_seconds": 0.02}
        for _ in range(2):
            assert (await (await start(node, step)).result()).status is COMPENSATED
        held_back = await start(node, step | {"timeout_seconds": None})
        with trio.fail_after(10):
            assert (await (await start(node, {"name": "s", "operation": "quick"})).result()).completed
        assert (await held_back.get()).steps[0].attempts == 0
        assert [record.levelname for record in caplog.records if "gets no more threads" in record.message] == ["ERROR"]
        leave.set()
        with trio.fail_after(10):
            assert (await held_back.result()).completed


async def test_a_full_pool_is_logged_once_with_the_operations_that_fill_it(
    shared: MemoryStorage, leave: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    def hang(_parameters: Any) -> None:
        leave.wait()

    async with Node(shared, lambda _: None, sync_handler_threads=2) as node:
        node.manager.register_operation_handler("hang", hang)
        handles = [await start(node, {"name": "s", "operation": "hang"}) for _ in range(10)]
        with trio.fail_after(10):
            while (await load(node))["sync_handler_threads"].waiting != 8:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
        leave.set()
        for handle in handles:
            assert (await handle.result()).completed
    (told,) = [record for record in caplog.records if "is full" in record.message]
    assert told.levelname == "WARNING"
    assert told.getMessage() == "sync_handler_threads is full: 2 handlers run, others wait. It is held by hang (2)"


async def test_workers_report_full_limits_and_left_threads(shared: MemoryStorage, leave: threading.Event) -> None:
    def hang(_parameters: Any) -> None:
        leave.wait()

    async with Node(shared, lambda _: None, sync_handler_threads=1, worker_lease=0.3) as node:
        (worker,) = await node.manager.list_workers()
        assert worker.troubles == ()
        node.manager.register_operation_handler("hang", hang)
        cut_off = await start(node, {"name": "s", "operation": "hang", "timeout_seconds": 0.02, "max_retries": 0})
        assert (await cut_off.result()).status is COMPENSATED
        handles = [await start(node, {"name": "s", "operation": "hang"}) for _ in range(3)]
        with trio.fail_after(10):
            while len((await node.manager.list_workers())[0].troubles) < 2:  # noqa: ASYNC110 - a renewal brings them
                await trio.sleep(0.01)
        full, left = [finding for finding in await node.manager.examine() if finding.check == "handlers"]
        assert "sync_handler_threads is full: 1 handlers run, 2 wait. It is held by hang (1)" in full.message
        assert f"1 threads outlived their attempts, the longest of hang ({cut_off.saga_id}, " in left.message
        leave.set()
        for handle in handles:
            assert (await handle.result()).completed
        with trio.fail_after(10):
            while (await node.manager.list_workers())[0].troubles:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)


async def test_a_permit_that_is_granted_as_another_handler_begins_to_wait_loses_none(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    """Handlers end and begin to wait in the same instants."""

    async def quick(_parameters: Any) -> None:
        await trio.lowlevel.checkpoint()

    async with Node(shared, lambda _: None) as node, trio.open_nursery() as nursery:
        node.manager.register_operation_handler("quick", quick, concurrency=1)
        node.manager.register_operation_handler("also", quick, concurrency=2)

        async def one_after_the_other(n: int) -> None:
            for k in range(20):
                handle = await node.manager.start_saga(
                    tenant_id="t",
                    workflow_type="w",
                    steps=[{"name": f"{i}", "operation": ("quick", "also")[(n + i) % 2]} for i in range(1 + k % 3)],
                )
                assert (await handle.result()).completed

        nursery.cancel_scope.deadline = trio.current_time() + 600
        for n in range(6):
            nursery.start_soon(one_after_the_other, n)
    assert not nursery.cancel_scope.cancelled_caught


async def test_handlers_that_give_up_waiting_leave_nothing_in_the_queue(
    autojump_clock: MockClock, shared: MemoryStorage, meter: Meter
) -> None:
    async with Node(shared, with_work(meter, concurrency=1)) as node:
        first, second = await start(node, work()), await start(node, work())
        for _ in range(200):
            await (await start(node, work(), timeout_seconds=0.1)).result()
        (queue,) = node.manager._environment.permits.queues.values()
        assert len(queue._heap) < 70
        meter.leave.set()
        for handle in (first, second):
            assert (await handle.result()).completed
