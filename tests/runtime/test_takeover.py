"""A process dies: another one adopts what it ran, and goes on where the journal ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, OperationStatus, OutcomeUnknown, RetryPolicy
from runtime.nodes import Ledger, Node, step, until

SLOW = RetryPolicy(initial_delay=30, max_delay=30, jitter=False, max_retries=2)

AT_ONCE = RetryPolicy(initial_delay=0)


def in_a_step(ledger: Ledger) -> list[dict[str, Any]]:
    ledger.hold["b"] = trio.Event()
    return [step("a"), step("b"), step("c")]


def waiting_for_a_retry(ledger: Ledger) -> list[dict[str, Any]]:
    ledger.failing["b"] = ValueError("not yet")
    return [step("a"), step("b", retry=SLOW), step("c")]


def compensating(ledger: Ledger) -> list[dict[str, Any]]:
    ledger.failing["c"] = ValueError("no")
    ledger.hold["undo b"] = trio.Event()
    return [step("a"), step("b"), step("c", max_retries=0)]


def waiting_to_compensate(ledger: Ledger) -> list[dict[str, Any]]:
    ledger.failing = {"c": ValueError("no"), "undo b": ValueError("not yet")}
    return [step("a"), step("b", compensation_retry=SLOW), step("c", max_retries=0)]


def in_a_thread_of_retriable_steps(ledger: Ledger) -> list[dict[str, Any]]:
    ledger.hold["c"] = trio.Event()
    return [step("a"), step("b", kind="pivot"), step("c", kind="retriable")]


@pytest.mark.parametrize(
    ("prepare", "at", "effects"),
    [
        (in_a_step, "b", ["a", "b", "c"]),
        (waiting_for_a_retry, "b", ["a", "b", "c"]),
        (compensating, "undo b", ["a", "b", "undo b", "undo a"]),
        (waiting_to_compensate, "undo b", ["a", "b", "undo b", "undo a"]),
        (in_a_thread_of_retriable_steps, "c", ["a", "b", "c"]),
    ],
)
async def test_another_process_finishes_the_saga(
    autojump_clock: MockClock, shared: MemoryStorage, prepare: Callable[..., Any], at: str, effects: list[str]
) -> None:
    ledger = Ledger()
    steps = prepare(ledger)
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        saga_id = (await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).saga_id
        await until(lambda: at in ledger.entered)
        await trio.sleep(1)
        killed_at = trio.current_time()
        await first.kill()
        ledger.hold.clear()
        ledger.failing.pop(at, None)
        await second.manager.saga_handle(saga_id).result()
        assert trio.current_time() - killed_at < 15 + 1 + 30
        saga = await second.manager.get_saga(saga_id)
        assert saga.epoch == 2
        history = await second.manager.get_saga_history(saga_id)
        (adopted,) = [line for line in history if line.event == "saga_adopted"]
        assert adopted.details["previous"] != adopted.details["worker"]
    assert ledger.effects == effects
    assert saga.status is (OperationStatus.COMPENSATED if "undo a" in effects else OperationStatus.COMPLETED)


async def test_an_attempt_cut_off_with_its_worker_uses_up_no_retry(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["b"] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        steps = [step("a"), step("b", max_retries=0)]
        saga_id = (await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).saga_id
        await until(lambda: "b" in ledger.entered)
        await first.kill()
        ledger.hold.clear()
        assert (await second.manager.saga_handle(saga_id).result()).completed
        made = (await second.manager.get_saga(saga_id)).steps[1]
    assert (made.attempts, made.retry_count) == (2, 0)
    assert len(ledger.tokens["b"]) == 1


async def test_a_compensation_cut_off_with_its_worker_uses_up_no_retry(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["undo a"] = trio.Event()
    ledger.failing["b"] = ValueError("no")
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        once = RetryPolicy(max_retries=0)
        steps = [step("a", compensation_retry=once), step("b", max_retries=0)]
        saga_id = (await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).saga_id
        await until(lambda: "undo a" in ledger.entered)
        await first.kill()
        ledger.hold.clear()
        outcome = await second.manager.saga_handle(saga_id).result()
    assert outcome.status is OperationStatus.COMPENSATED
    assert ledger.effects == ["a", "undo a"]


async def test_an_attempt_cut_off_with_its_worker_is_undone_once_the_step_fails(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["b"] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        steps = [step("a"), step("b", max_retries=0)]
        saga_id = (await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).saga_id
        await until(lambda: "b" in ledger.entered)
        await first.kill()
        ledger.failing["b"] = ValueError("no")
        ledger.hold.clear()
        assert not (await second.manager.saga_handle(saga_id).result()).completed
    assert ledger.effects == ["a", "undo b", "undo a"]


async def lose_workers(
    shared: MemoryStorage, ledger: Ledger, saga_id: str, at: str, count: int, **settings: Any
) -> list[str]:
    """Run the saga in one process after the other, each of which dies at this handler; gives their workers' ids."""
    lost = []
    for _ in range(count):
        before = ledger.entered.count(at)
        async with Node(shared, ledger.register, **settings) as node:
            await until(lambda: ledger.entered.count(at) > before)  # noqa: B023 - awaited at once
            lost.append(node.worker.worker_id)
            await node.kill()
    return lost


async def pending(shared: MemoryStorage, *steps: dict[str, Any]) -> str:
    manager = BackgroundOperationsManager(shared, works=False)
    async with manager:
        return (await manager.start_saga(tenant_id="t", workflow_type="w", steps=list(steps))).saga_id


async def test_a_step_that_keeps_losing_its_worker_is_parked_naming_it_and_the_workers(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["b"] = trio.Event()
    saga_id = await pending(shared, step("a"), step("b"))
    lost = await lose_workers(shared, ledger, saga_id, "b", 5)
    async with Node(shared, ledger.register) as healthy:
        outcome = await healthy.manager.saga_handle(saga_id).result()
        assert outcome.status is OperationStatus.FAILED
        assert outcome.open_items == (
            f"step 'b' was given up: 5 workers in a row were lost while it ran ({', '.join(lost)})",
        )
        assert ledger.effects == ["a"]
        assert ledger.entered.count("b") == 5
        ledger.hold.clear()
        await healthy.manager.retry_saga(saga_id)
        assert (await healthy.manager.saga_handle(saga_id).result()).completed
    assert len(ledger.tokens["b"]) == 1


async def test_a_saga_parked_for_lost_workers_can_be_turned_back(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["b"] = trio.Event()
    saga_id = await pending(shared, step("a"), step("b"))
    await lose_workers(shared, ledger, saga_id, "b", 2, max_worker_losses=2)
    async with Node(shared, ledger.register, max_worker_losses=2) as healthy:
        assert (await healthy.manager.saga_handle(saga_id).result()).status is OperationStatus.FAILED
        await healthy.manager.cancel_saga(saga_id, "no further try")
        outcome = await healthy.manager.saga_handle(saga_id).result()
    assert (outcome.status, outcome.error) == (OperationStatus.COMPENSATED, "no further try")
    assert ledger.effects == ["a", "undo b", "undo a"]


async def test_a_compensation_that_keeps_losing_its_worker_is_an_open_item_and_the_others_go_on(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["undo b"] = trio.Event()
    ledger.failing["c"] = ValueError("no")
    saga_id = await pending(shared, step("a"), step("b"), step("c", max_retries=0))
    await lose_workers(shared, ledger, saga_id, "undo b", 3, max_worker_losses=3)
    async with Node(shared, ledger.register, max_worker_losses=3) as healthy:
        outcome = await healthy.manager.saga_handle(saga_id).result()
    (item,) = outcome.open_items
    assert item.startswith("compensation of step 'b' did not succeed: 3 workers in a row were lost while it ran")
    assert ledger.effects == ["a", "b", "undo a"]


async def test_steps_that_are_lost_with_the_culprit_are_not_given_up_with_it(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    innocent = [str(number) for number in range(5)]
    ledger.hold = {name: trio.Event() for name in ("poison", *innocent)}
    ids = {name: await pending(shared, step(name)) for name in ("poison", *innocent)}
    for deaths in range(1, 60):
        entered = len(ledger.entered)
        async with Node(shared, ledger.register) as node:
            saga = None
            with trio.move_on_after(300):
                while "poison" not in ledger.entered[entered:]:
                    if deaths > 3:  # alone: an innocent one ends once its turn has come
                        for name in set(ledger.entered[entered:]) - {"poison"}:
                            ledger.hold[name].set()
                    saga = await node.manager.get_saga(ids["poison"])
                    if saga.status.is_final:
                        break
                    await trio.sleep(0.1)
                await until(lambda: deaths > 3 or len(ledger.entered) - entered == 6)  # noqa: B023 - awaited at once
            if saga is not None and saga.status.is_final:
                break
            await node.kill()
    assert ledger.entered.count("poison") == 5
    for name in innocent:
        ledger.hold[name].set()
    async with Node(shared, ledger.register) as healthy:
        for name in innocent:
            assert (await healthy.manager.saga_handle(ids[name]).result()).completed
        assert (await healthy.manager.get_saga(ids["poison"])).status is OperationStatus.FAILED


async def test_a_parked_saga_stays_parked_when_its_process_dies(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["p"] = OutcomeUnknown("who knows")
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        steps = [step("a"), step("p", kind="pivot", max_retries=0)]
        saga_id = (await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).saga_id
        outcome = await second.manager.saga_handle(saga_id).result()
        await first.kill()
        await trio.sleep(100)
        saga = await second.manager.get_saga(saga_id)
        assert (saga.status, tuple(saga.open_items)) == (OperationStatus.FAILED, outcome.open_items)
        ledger.failing.clear()
        await second.manager.retry_saga(saga_id)
        assert (await second.manager.saga_handle(saga_id).result()).completed
    assert ledger.effects == ["a", "p"]


async def test_a_saga_that_was_only_created_is_nobody_s_to_take_over(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        saga = await first.manager.create_saga_workflow("t", "w", [step("a")])
        await first.kill()
        await trio.sleep(100)
        assert ledger.entered == []
        assert await second.manager.execute_saga_workflow(saga.saga_id)


async def test_the_most_urgent_sagas_are_taken_over_first(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    lanes = 32  # that many are adopted at once, and some more have yet to reach their handler
    names = [str(number) for number in range(150)]
    ledger.hold = {name: trio.Event() for name in names}
    async with Node(shared, ledger.register) as first:
        for name in random.Random(1).sample(names, len(names)):
            await first.manager.start_saga(
                tenant_id="t", workflow_type="w", steps=[step(name, retry=AT_ONCE)], priority=int(name)
            )
        await until(lambda: len(ledger.entered) == len(names))
        await first.kill()
        ledger.entered.clear()
        async with Node(shared, ledger.register):
            await until(lambda: len(ledger.entered) == len(names))
            ranks = [len(names) - 1 - int(name) for name in ledger.entered]
            for event in ledger.hold.values():
                event.set()
    assert all(rank < place + 2 * lanes for place, rank in enumerate(ranks))


async def test_a_takeover_is_spread_among_those_who_live(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    # Who finds them first takes 100 a look, and pauses for a quarter of the interval at least. So after four looks the
    # other one, which looks once an interval at least, has looked too.
    names = [str(number) for number in range(500)]
    ledger.hold = {name: trio.Event() for name in names}
    async with Node(shared, ledger.register) as first:
        for name in names:
            await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step(name)])
        await until(lambda: len(ledger.entered) == len(names))
        async with Node(shared, ledger.register) as second, Node(shared, ledger.register) as third:
            await first.kill()
            ledger.entered.clear()
            await until(lambda: len(ledger.entered) == len(names))
            shares = [len(node.worker.sagas) for node in (second, third)]
            for event in ledger.hold.values():
                event.set()
            assert sum(shares) == len(names)
            assert min(shares) > 0
    assert sorted(ledger.effects) == sorted(names)


async def test_a_process_that_slept_through_its_lease_writes_nothing_more(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    """As after SIGSTOP: the storage hears nothing of it for a while, then it wakes up and goes on."""
    ledger.hold["b"] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        saga_id = (
            await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b"), step("c")])
        ).saga_id
        await until(lambda: "b" in ledger.entered)
        first.worker._scope.deadline = float("inf")  # no clock of its own ran meanwhile
        first.wire.fault = asleep
        await until(lambda: ledger.entered.count("b") == 2)
        first.wire.fault = None
        ledger.hold["b"].set()
        assert (await second.manager.saga_handle(saga_id).result()).completed
        await trio.sleep(60)
        saga = await second.manager.get_saga(saga_id)
    assert saga.epoch == 2
    assert (ledger.effects.count("a"), ledger.effects.count("c")) == (1, 1)


async def asleep(wire: Any, _verb: str, call: Any) -> Any:
    while wire.fault is asleep:  # noqa: ASYNC110 - it is to wake late
        await trio.sleep(0.5)
    return await call()


async def test_a_journal_that_cannot_be_read_harms_nobody_else(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a newer version of the library wrote it."""
    async with Node(shared, ledger.register) as node:
        bad = await node.manager.create_saga_workflow("t", "w", [step("a")])
        entry = shared._sagas[bad.saga_id].journal[0]
        shared._sagas[bad.saga_id].journal[0] = type(entry)(
            0, entry.at, 0, entry.entry_id, b'[{"e":"from_the_future"}]'
        )
        shared._set_due(bad.saga_id, shared.now())
        await trio.sleep(3600)
        good = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("b")])
        assert (await good.result()).completed
    assert "cannot be read" in caplog.text
    assert len(shared._sagas[bad.saga_id].journal) < 30  # tried again ever more rarely
    assert [line.levelname for line in caplog.records if "is left to other workers" in line.message] == ["ERROR"]
