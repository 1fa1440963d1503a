"""What the body of a lock can rely on, and what its caller sees when it ends. Virtual time, one or two processes."""

# ruff: noqa: PT012 - what raises is the end of a lock's body, so the body stands inside

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dotmac.tasks import (
    InvalidInput,
    LockLost,
    LockNotAcquired,
    LockReentered,
    MemoryStorage,
    NotStarted,
    StorageUnavailable,
)
from dotmac.tasks.metrics import register_metrics_hooks
from runtime.nodes import Node
from storage.stored import lock


def _let_pass(seconds: float) -> None:
    """Time that passes without a checkpoint: a loop of the body, a host that was suspended."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds)


async def _names(node: Node) -> list[str]:
    return [info.name for info in await node.manager.list_locks()]


async def test_a_lock_is_held_inside_and_free_outside(node: Node, other: Node) -> None:
    async with node.manager.lock("a") as held:
        (info,) = await other.manager.list_locks()
        assert (info.name, info.fence, info.waiters) == ("a", held.fence, 0)
        assert held.name == "a"
        assert 0 < held.deadline - trio.current_time() < 10.0
    assert await _names(node) == []


async def test_the_lease_is_renewed_for_as_long_as_the_body_runs(node: Node, other: Node) -> None:
    async with node.manager.lock("a", ttl=1.0) as held:
        for _ in range(100):
            await trio.sleep(0.33)
            assert held.deadline > trio.current_time()
        async with other.manager.try_lock("a") as mine:
            assert mine is None


async def test_many_leases_are_renewed_at_once(node: Node) -> None:
    async with node.manager.lock([f"l{number}" for number in range(50)], ttl=3.0):
        node.wire.calls.clear()
        await trio.sleep(1.05)
        assert node.wire.calls.count("extend_lock") == 50
        await trio.sleep(8)
        assert node.wire.calls.count("extend_lock") <= 50 * 9


@pytest.mark.parametrize("away", [False, True])
async def test_a_lock_that_is_given_up_while_it_is_renewed_is_no_lost_one(
    node: Node, away: bool, caplog: pytest.LogCaptureFixture
) -> None:
    asked, freed = trio.Event(), trio.Event()

    async def late(_wire: Any, verb: str, call: Any) -> Any:
        if verb == "extend_lock":
            asked.set()
            await freed.wait()
            if away:
                raise StorageUnavailable("no answer")
        return await call()

    node.wire.fault = late
    async with node.manager.lock("a", ttl=3.0):
        await asked.wait()
    freed.set()
    await wait_all_tasks_blocked()
    assert "could not be renewed" not in caplog.text


async def test_a_lease_that_cannot_be_renewed_cancels_the_body_before_it_ends(
    node: Node, other: Node, shared: MemoryStorage
) -> None:
    """Case 6."""
    began = trio.current_time()
    with pytest.raises(LockLost, match="'a'"):
        async with node.manager.lock("a", ttl=3.0):
            node.wire.away = True
            await trio.sleep_forever()
    assert 2.5 < trio.current_time() - began <= 3.0 + 1.0
    node.wire.away = False


async def test_nobody_else_is_inside_while_a_body_without_its_storage_is(node: Node, other: Node) -> None:
    """Case 6: the other one gets it only after the first was told that it is lost."""
    inside: list[str] = []

    async def first() -> None:
        with pytest.raises(LockLost):
            async with node.manager.lock("a", ttl=3.0):
                inside.append("first")
                node.wire.away = True
                try:
                    await trio.sleep_forever()
                finally:
                    inside.remove("first")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(0.5)
        async with other.manager.lock("a"):
            assert inside == []
    node.wire.away = False


async def test_a_lease_that_the_storage_forgot_cancels_the_body_at_the_next_renewal(
    node: Node, shared: MemoryStorage
) -> None:
    began = trio.current_time()
    with pytest.raises(LockLost):
        async with node.manager.lock("a", ttl=3.0):
            shared._locks.clear()
            await trio.sleep_forever()
    assert trio.current_time() - began < 1.5


async def test_a_body_that_ends_too_late_is_told_though_it_met_no_checkpoint(node: Node) -> None:
    """Case 5, seen from inside: time passes and the body does not notice."""
    with pytest.raises(LockLost):
        async with node.manager.lock("a", ttl=1.0):
            _let_pass(2.0)


async def test_a_late_body_is_cancelled_at_its_first_checkpoint(node: Node) -> None:
    """Case 5."""
    reached = False
    with pytest.raises(LockLost):
        async with node.manager.lock("a", ttl=1.0):
            _let_pass(2.0)
            await trio.lowlevel.checkpoint()
            reached = True
    assert not reached


async def test_an_extension_that_comes_too_late_does_not_revive_the_body(node: Node) -> None:
    """Case 4."""

    async def slow(_wire: Any, verb: str, call: Any) -> Any:
        answer = await call()
        if verb == "extend_lock":
            await trio.sleep(5)
        return answer

    with pytest.raises(LockLost):
        async with node.manager.lock("a", ttl=1.0):
            node.wire.fault = slow
            await trio.sleep_forever()
    node.wire.fault = None


async def test_the_bodys_own_error_and_the_loss_are_both_reported(node: Node) -> None:
    """Case 19."""
    with pytest.raises(ExceptionGroup) as caught:
        async with node.manager.lock("a", ttl=1.0):
            node.wire.away = True
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("the body's own")
    own, loss = caught.value.exceptions
    assert isinstance(own, ValueError)
    assert isinstance(loss, LockLost)
    node.wire.away = False


async def test_the_bodys_own_error_passes_as_it_is_where_nothing_was_lost(node: Node) -> None:
    """Case 19."""
    with pytest.raises(ValueError, match="own") as caught:
        async with node.manager.lock("a"):
            raise ValueError("own")
    assert caught.value.__context__ is None
    assert await _names(node) == []


async def test_cancelled_from_outside_passes_even_if_the_lease_is_lost_as_well(node: Node) -> None:
    with trio.move_on_after(5) as limit:
        async with node.manager.lock("a", ttl=1.0):
            node.wire.away = True
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
            await trio.lowlevel.checkpoint()
    assert limit.cancelled_caught
    node.wire.away = False


async def test_the_same_task_cannot_take_a_lock_twice(node: Node) -> None:
    """Case 20."""
    async with node.manager.lock("a"):
        with pytest.raises(LockReentered, match="'a'"):
            async with node.manager.lock("a"):
                pass
        with pytest.raises(LockReentered):
            async with node.manager.try_lock(["b", "a"]):
                pass
        assert await _names(node) == ["a"]
    async with node.manager.lock("a"):
        pass


async def test_a_task_of_the_body_waits_like_anybody_else(node: Node) -> None:
    """Case 20: whether its parent waits for it cannot be known, so it is no re-entry."""
    fences = []

    async def child() -> None:
        async with node.manager.lock("a") as held:
            fences.append(held.fence)

    async with trio.open_nursery() as nursery, node.manager.lock("a") as held:
        fences.append(held.fence)
        nursery.start_soon(child)
        await wait_all_tasks_blocked()
    assert fences == sorted(set(fences))
    assert len(fences) == 2


async def test_wait_ends_the_waiting_and_leaves_nothing_behind(node: Node, other: Node, shared: MemoryStorage) -> None:
    async with node.manager.lock("a"):
        for manager in (node.manager, other.manager):
            for wait in (0, 0.5, 7):
                with trio.fail_after(wait + 1.1), pytest.raises(LockNotAcquired):
                    async with _in_another_task(manager, wait):
                        pass
        await trio.sleep(0.1)
        (info,) = await other.manager.list_locks()
        assert info.waiters == 0


def _in_another_task(manager: Any, wait: float) -> Any:
    return _Elsewhere(manager, wait)


class _Elsewhere:
    """Waits for the lock in a task of its own, because the present one holds it."""

    def __init__(self, manager: Any, wait: float) -> None:
        self._manager, self._wait = manager, wait

    async def __aenter__(self) -> None:
        failure: list[Exception] = []

        async def attempt() -> None:
            try:
                async with self._manager.lock("a", wait=self._wait):
                    pass
            except LockNotAcquired as error:
                failure.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt)
        if failure:
            raise failure[0]

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_try_lock_gives_none_where_the_lock_is_not_free(node: Node, other: Node) -> None:
    async with node.manager.try_lock("a") as mine:
        assert mine is not None
        async with other.manager.try_lock("a") as theirs:
            assert theirs is None
        async with other.manager.try_lock(["b", "a"]) as both:
            assert both is None
        assert await _names(node) == ["a"]
    with pytest.raises(LockNotAcquired, match="raised by the body"):
        async with node.manager.try_lock("a"):
            raise LockNotAcquired("raised by the body")


async def test_several_locks_are_taken_in_sorted_order(node: Node, shared: MemoryStorage) -> None:
    """Case 21."""
    async with node.manager.lock(["c", "a", "b", "a"]) as held:
        assert list(held) == ["a", "b", "c"]
        assert await _names(node) == ["a", "b", "c"]
        assert held.deadline <= held["c"].deadline
        await held.extend(20)
    assert await _names(node) == []


async def test_several_locks_are_given_back_if_one_is_not_granted(node: Node, other: Node) -> None:
    """Case 21."""
    async with other.manager.lock("b"):
        with pytest.raises(LockNotAcquired, match="'b'"):
            async with node.manager.lock(["a", "b", "c"], wait=2):
                pass
        assert await _names(node) == ["b"]


async def test_crossing_wishes_for_several_locks_do_not_block_each_other(node: Node, other: Node) -> None:
    """Case 21."""
    done = []

    async def worker(process: Node, names: list[str]) -> None:
        for _ in range(20):
            async with process.manager.lock(names):
                await trio.lowlevel.checkpoint()
        done.append(names)

    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            for names in (["a", "b"], ["b", "a"], ["c", "a"], ["b", "c", "a"]):
                nursery.start_soon(worker, node, names)
                nursery.start_soon(worker, other, names)
    assert len(done) == 8


async def test_losing_several_locks_is_reported_for_each(node: Node) -> None:
    """Cases 19 and 21: one flat group, whatever else happened."""
    with pytest.raises(ExceptionGroup) as caught:
        async with node.manager.lock(["a", "b"], ttl=1.0):
            node.wire.away = True
            await trio.sleep_forever()
    assert [type(error) for error in caught.value.exceptions] == [LockLost, LockLost]
    node.wire.away = False


async def test_the_first_of_several_locks_may_be_lost_while_the_next_is_waited_for(node: Node, other: Node) -> None:
    """Case 21."""

    async def no_renewals(_wire: Any, verb: str, call: Any) -> Any:
        if verb == "extend_lock":
            raise LockLost("gone")
        return await call()

    async with other.manager.lock("b"):
        node.wire.fault = no_renewals
        with pytest.raises(LockLost, match="'a'"):
            async with node.manager.lock(["a", "b"], ttl=1.0):
                raise AssertionError("the body must not run")
        node.wire.fault = None
    await trio.sleep(0.01)  # who lost a lock does not wait until it is given up
    assert await _names(node) == []


async def test_a_held_lock_can_be_extended(node: Node, shared: MemoryStorage) -> None:
    async with node.manager.lock("a", ttl=1.0) as held:
        await held.extend(60)
        assert held.deadline - trio.current_time() == pytest.approx(57, abs=0.1)
        node.wire.away = True
        await trio.sleep(50)  # as long as it was asked for, even without its storage
        node.wire.away = False
    with pytest.raises(LockLost):
        await held.extend(1)


async def test_extending_a_lost_lock_ends_the_body(node: Node, shared: MemoryStorage) -> None:
    """Case 4."""
    with pytest.raises(LockLost):
        async with node.manager.lock("a", ttl=10.0) as held:
            shared._locks.clear()
            await held.extend(10)
            raise AssertionError("the body must be cancelled")
    assert await _names(node) == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": []}, "name"),
        ({"name": ["a", 3]}, "name"),
        ({"name": "a", "ttl": 0}, "ttl"),
        ({"name": "a", "ttl": math.nan}, "ttl"),
        ({"name": "a", "ttl": "10"}, "ttl"),
        ({"name": "a", "wait": -1}, "wait"),
        ({"name": "a", "wait": True}, "wait"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(node: Node, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        node.manager.lock(**arguments)
    assert refused.value.field == field


async def test_a_body_that_ended_in_time_is_not_lost_though_the_manager_stops_before_its_lock_is_free(
    shared: MemoryStorage, node: Node
) -> None:
    async def slow(_wire: Any, verb: str, call: Any) -> Any:
        if verb == "free_lock":
            await trio.sleep(0.2)
        return await call()

    async def hold() -> None:
        async with stopping.manager.lock("a"):
            pass
        ended.append("well")

    stopping, ended = Node(shared, lambda _: None), list[str]()
    async with trio.open_nursery() as nursery, stopping:
        stopping.wire.fault = slow
        nursery.start_soon(hold)
        await trio.sleep(0.1)
    assert ended == ["well"]
    assert await _names(node) == []


@pytest.mark.parametrize("ttl", ["60", timedelta(seconds=60), math.nan, math.inf, 0, -5, True])
async def test_an_extension_that_makes_no_sense_is_refused_and_hurts_no_lock(node: Node, ttl: Any) -> None:
    async with node.manager.lock("a", ttl=1.0) as held, node.manager.lock(["b", "c"], ttl=1.0) as several:
        before = held.deadline
        for each in (held, several):
            with pytest.raises(InvalidInput) as refused:
                await each.extend(ttl)
            assert refused.value.field == "ttl"
        assert held.deadline == before
        await trio.sleep(5)
    assert node.manager.is_running


async def test_a_stopped_manager_has_no_locks(shared: MemoryStorage) -> None:
    stopped = Node(shared, lambda _: None)
    with pytest.raises(NotStarted):
        async with stopped.manager.lock("a"):
            pass
    assert await shared.list_locks(10) == []


async def test_the_seeds_calls_have_an_owner(node: Node, other: Node) -> None:
    """Case 3."""
    assert await node.manager.acquire_lock("a", timeout_seconds=30) is True
    assert await node.manager.acquire_lock("a", timeout_seconds=30) is False
    assert await other.manager.acquire_lock("a", timeout_seconds=30) is False
    with pytest.raises(LockLost):
        await other.manager.release_lock("a")
    assert await _names(node) == ["a"]
    await node.manager.release_lock("a")
    assert await _names(node) == []
    with pytest.raises(LockLost):
        await node.manager.release_lock("a")


async def test_a_late_release_leaves_the_new_owner_alone(node: Node, other: Node) -> None:
    """Case 3."""
    assert await node.manager.acquire_lock("a", timeout_seconds=1)
    await trio.sleep(2)
    async with other.manager.lock("a") as held:
        with pytest.raises(LockLost):
            await node.manager.release_lock("a")
        (info,) = await node.manager.list_locks()
        assert info.fence == held.fence


async def test_locks_that_ended_by_themselves_are_not_remembered(node: Node) -> None:
    assert await node.manager.acquire_lock("long", timeout_seconds=60)
    for number in range(1000):
        assert await node.manager.acquire_lock(f"once:{number}", timeout_seconds=0.05)
        await trio.sleep(0.01)
    assert len(node.manager._hosted().locks._taken) <= 101
    await node.manager.release_lock("long")


async def test_a_taken_lock_whose_answer_was_lost_is_given_back(node: Node, shared: MemoryStorage) -> None:
    """Cases 7 and 16."""

    async def cancelled_after(_wire: Any, verb: str, call: Any) -> Any:
        answer = await call()
        if verb == "request_lock":
            scope.cancel()
            await trio.lowlevel.checkpoint()
        return answer

    node.wire.fault = cancelled_after
    with trio.CancelScope() as scope:
        await node.manager.acquire_lock("a", timeout_seconds=30)
    assert scope.cancelled_caught
    node.wire.fault = None
    assert await _names(node) == []


async def test_hooks_are_told(node: Node, shared: MemoryStorage) -> None:
    told: list[tuple[str, str, list[str]]] = []

    def hook(point: str) -> Any:
        return lambda name, tenant, details: told.append((point, name, sorted(details)))

    points = ("lock_acquired", "lock_failed", "lock_lost")
    unregister = register_metrics_hooks(**{f"{point}_hook": hook(point) for point in points})
    with pytest.raises(LockLost):
        async with node.manager.lock("a", ttl=1.0):
            shared._locks.clear()
            await trio.sleep_forever()
    await shared.request_lock(lock("somebody", name="b"))
    async with node.manager.try_lock("b"):
        pass
    unregister()
    await shared.free_lock("b", "somebody")
    assert told == [
        ("lock_acquired", "a", ["fence", "seconds"]),
        ("lock_lost", "a", ["fence"]),
        ("lock_failed", "b", ["error"]),
    ]


async def test_a_body_that_does_not_heed_its_cancellation_holds_up_nobody_for_longer_than_its_lease(
    node: Node,
) -> None:
    """A thread or a shield: it must be told that it was too late, and others must not wait for it."""
    order: list[str] = []

    async def stubborn() -> None:
        with pytest.raises(LockLost):
            async with node.manager.lock("a", ttl=2.0):
                node.wire.fault = _no_extensions
                with trio.CancelScope(shield=True):
                    await trio.sleep(20)
                order.append("stubborn")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stubborn)
        await trio.sleep(0.1)
        async with node.manager.lock("a"):
            order.append("next")
    assert order == ["next", "stubborn"]


async def _no_extensions(_wire: Any, verb: str, call: Any) -> Any:
    if verb == "extend_lock":
        raise LockLost("gone")
    return await call()


def test_the_clock_of_deadlines_is_trios() -> None:
    """`held.deadline` can be given to ``trio.move_on_at`` as it is."""

    async def main() -> None:
        async with Node(MemoryStorage(), lambda _: None) as node, node.manager.lock("a", ttl=30) as held:
            assert held.deadline == pytest.approx(trio.current_time() + 28.5, abs=1)
            assert held.deadline != pytest.approx(time.time(), rel=1e-6)

    trio.run(main)
