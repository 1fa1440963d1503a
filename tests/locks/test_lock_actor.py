"""How a lock goes from holder to holder: order, hand-over, wake-ups, and what faults leave behind. Virtual time."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dotmac.tasks import LockLost, LockNotAcquired, MemoryStorage, NotStarted, StorageRefused, StorageUnavailable
from dotmac.tasks.errors import ActorDied
from dotmac.tasks.runtime.lock_actor import LONGEST_TURN, MOST_HANDOVERS, PLACE
from dotmac.tasks.runtime.lock_tools import SIGN_OFF
from locks.history import Visit, check
from runtime.nodes import Node, Wire, at_call, lose_reply, refuse
from storage.stored import lock

LOCK_VERBS = frozenset({"request_lock", "extend_lock", "free_lock"})


class Log:
    """Who was inside, in order; checked for exclusion and rising fences."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self._moment = itertools.count()

    async def visit(self, node: Node, who: str = "", seconds: float = 0.0, **options: Any) -> None:
        async with node.manager.lock("a", **options) as held:
            entered = next(self._moment)
            await trio.sleep(seconds)
            self.visits.append(Visit(held.fence, entered, next(self._moment), who))

    @property
    def order(self) -> list[str]:
        check(self.visits)
        return [visit.who for visit in self.visits]


@pytest.fixture
def log() -> Log:
    return Log()


def _clean(shared: MemoryStorage) -> bool:
    """Whether the storage has no owner and no place in a queue."""
    now = shared.now()
    return all(
        (entry.token is None or entry.until <= now) and all(waiter.until <= now for waiter in entry.queue.values())
        for entry in shared._locks.values()
    )


async def test_tasks_of_one_process_are_served_in_order_of_arrival(node: Node, log: Log) -> None:
    names = [str(number) for number in range(300)]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(log.visit, node, name)
            await wait_all_tasks_blocked()
    assert log.order == names


async def test_processes_are_served_in_order_of_arrival(node: Node, shared: MemoryStorage, log: Log) -> None:
    """Case 10."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node(shared, lambda _: None)) for _ in range(8)]
        async with trio.open_nursery() as nursery, node.manager.lock("a"):
            for number, each in enumerate(nodes):
                nursery.start_soon(log.visit, each, str(number))
                await trio.sleep(0.01)
        assert log.order == [str(number) for number in range(8)]


async def test_a_crowd_of_one_process_costs_a_few_requests_not_one_each(node: Node, log: Log) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(10 * MOST_HANDOVERS):
            nursery.start_soon(log.visit, node, str(number))
    assert len(log.order) == 10 * MOST_HANDOVERS
    assert sum(node.wire.calls.count(verb) for verb in LOCK_VERBS) <= 15


async def test_one_process_keeps_the_lock_for_a_bounded_number_of_holders(node: Node, other: Node, log: Log) -> None:
    """However many wait here and go on coming: the other process's waiter is not starved."""
    served = False

    async def come_again() -> None:
        while not served:
            await log.visit(node, "crowd", 0.0001)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(come_again)
        await trio.sleep(0.01)
        before = len(log.visits)
        with trio.fail_after(5):
            await log.visit(other, "other")
        served = True
    assert log.order.index("other") - before <= 2 * MOST_HANDOVERS


async def test_one_process_keeps_the_lock_for_a_bounded_time(node: Node, other: Node, log: Log) -> None:
    """Long bodies: from then on each hand-over gives the other processes their turn."""
    body = LONGEST_TURN * 1.5
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(log.visit, node, "crowd", body)
        await trio.sleep(0.01)
        nursery.start_soon(log.visit, other, "other", body)
    assert log.order.index("other") <= 2


async def test_a_lease_too_short_for_the_next_holder_is_not_handed_over(node: Node, log: Log) -> None:
    lasted: list[float] = []

    async def patient() -> None:
        async with node.manager.lock("a", ttl=60) as held:
            lasted.append(held.deadline - trio.current_time())

    async with trio.open_nursery() as nursery, node.manager.lock("a", ttl=1):
        nursery.start_soon(patient)
        await trio.sleep(0.05)
    assert lasted == [pytest.approx(57, abs=0.5)]


async def test_a_lease_too_long_for_the_next_holder_is_not_handed_over(node: Node, shared: MemoryStorage) -> None:
    """Should the process die, others would wait for it."""
    lasted: list[float] = []

    async def hold(ttl: float) -> None:
        async with node.manager.lock("a", ttl=ttl):
            lasted.append(shared._locks["a"].until - shared.now())

    async with trio.open_nursery() as nursery, node.manager.lock("a", ttl=3600):
        for ttl in (3600, 1, 3600):
            nursery.start_soon(hold, ttl)
            await wait_all_tasks_blocked()
    assert lasted == [pytest.approx(3600), pytest.approx(1), pytest.approx(3600)]


async def test_who_does_not_wait_is_told_at_once_though_others_here_wait_already(node: Node, other: Node) -> None:
    async with trio.open_nursery() as nursery, other.manager.lock("a"):
        nursery.start_soon(Log().visit, node)
        await trio.sleep(0.3)
        before = trio.current_time()
        async with node.manager.try_lock("a") as mine:
            assert mine is None
        assert trio.current_time() == before  # virtual time: it goes on only where somebody waits for it


async def test_every_wake_message_lost_costs_a_bounded_delay(
    node: Node, other: Node, shared: MemoryStorage, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 11."""
    monkeypatch.setattr(shared, "publish", lambda _topic: None)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(log.visit, node, f"n{number}", 0.2)
            nursery.start_soon(log.visit, other, f"o{number}", 0.2)
    assert len(log.order) == 10
    assert trio.current_time() - began < 10 * 1.3


async def test_without_an_ear_for_messages_waiters_poll(node: Node, other: Node, log: Log) -> None:
    """The connection for messages is gone: `watch` fails, all else works."""
    broken = True

    @asynccontextmanager
    async def watch(_topic: str) -> AsyncIterator[Any]:
        if broken:
            raise StorageUnavailable("no messages")
        yield

    other.wire.watch = watch  # type: ignore[method-assign,assignment] # breaks this wire's messages
    async with trio.open_nursery() as nursery:
        async with node.manager.lock("a"):
            nursery.start_soon(log.visit, other, "other")
            await trio.sleep(3)
            (info,) = await node.manager.list_locks()
            assert info.waiters == 1
        with trio.fail_after(1.1):
            while not log.visits:  # noqa: ASYNC110 - announced by nothing
                await trio.sleep(0.05)


async def test_a_holder_that_crashed_is_waited_for_until_its_lease_ends(shared: MemoryStorage, node: Node) -> None:
    """Case 9."""
    dead = Node(shared, lambda _: None)
    async with dead:
        await shared.request_lock(lock("of the dead one", name="a", lease=7.0))
        began = trio.current_time()
        async with node.manager.lock("a"):
            assert 6.9 < trio.current_time() - began < 7.2


async def test_a_head_waiter_that_crashed_holds_up_others_for_no_longer_than_its_place_lasts(
    shared: MemoryStorage, node: Node, other: Node, log: Log
) -> None:
    """Case 9."""
    async with trio.open_nursery() as nursery:
        async with node.manager.lock("a"):
            await shared.request_lock(lock("of a dead process", name="a", wait=PLACE))
            nursery.start_soon(log.visit, other, "other")
            await trio.sleep(1)
        began = trio.current_time()
        while not log.visits:  # noqa: ASYNC110 - announced by nothing
            await trio.sleep(0.05)
    assert trio.current_time() - began <= PLACE


async def test_all_waiters_crashed_and_the_next_one_gets_it(shared: MemoryStorage, node: Node, log: Log) -> None:
    """Case 9."""
    await shared.request_lock(lock("dead holder", name="a", lease=2.0))
    for number in range(20):
        await shared.request_lock(lock(f"dead {number}", name="a", wait=PLACE))
    began = trio.current_time()
    await log.visit(node)
    assert trio.current_time() - began <= PLACE + 1


async def test_a_killed_process_leaves_its_lock_to_its_lease(shared: MemoryStorage, other: Node, node: Node) -> None:
    """Case 9: nothing of the dead one is heard, so nothing is assumed of it."""
    ended: list[str] = []

    async def hold() -> None:
        async with node.manager.lock("a", ttl=5.0):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run, hold)
        await trio.sleep(1)
        began = trio.current_time()
        await node.kill()
        async with other.manager.lock("a"):
            ended.append("other")
        assert 2.0 < trio.current_time() - began < 5.2
    assert ended == ["other"]


async def test_a_storm_of_cancellations_starves_nobody_and_leaves_nothing(
    node: Node, other: Node, shared: MemoryStorage, log: Log
) -> None:
    """Case 10: 1,000 waiters give up at random moments; those who stay are served."""
    dice = random.Random(4)

    async def fickle(process: Node) -> None:
        with trio.move_on_after(dice.uniform(0, 3)):
            await log.visit(process, "fickle", dice.uniform(0, 0.01))

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(fickle, (node, other)[number % 2])
            if number % 50 == 0:
                nursery.start_soon(log.visit, (node, other)[number % 3 == 0], "patient", 0.01)
    assert log.order.count("patient") == 20
    await trio.sleep(0.1)
    assert _clean(shared)
    assert not node.manager._hosted().locks._actors


@pytest.mark.parametrize("crowded", [False, True])
async def test_cancelled_at_every_moment_of_an_acquisition_nothing_is_left(
    node: Node, other: Node, shared: MemoryStorage, log: Log, crowded: bool
) -> None:
    """Case 7: after each number of scheduler steps, alone and behind somebody else."""
    reached = 0
    for steps in range(60):
        async with AsyncExitStack() as stack:
            if crowded:
                await stack.enter_async_context(other.manager.lock("a"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.visit, node, "cancelled")
                for _ in range(steps):
                    await trio.lowlevel.cancel_shielded_checkpoint()
                nursery.cancel_scope.cancel()
        with trio.fail_after(0.5):
            await log.visit(other, "after")
        reached = max(reached, log.visits.count(log.visits[-1]))
        await trio.sleep(0.01)
        assert _clean(shared), steps
        assert not node.manager._hosted().locks._actors
    check(log.visits)
    assert any(visit.who == "cancelled" for visit in log.visits) is not crowded


async def test_cancelled_in_the_body_the_lock_is_free_at_once(node: Node, other: Node, shared: MemoryStorage) -> None:
    """Case 8."""
    with trio.CancelScope() as scope:
        async with node.manager.lock("a"):
            scope.cancel()
            await trio.sleep_forever()
    assert _clean(shared)


@pytest.mark.parametrize("verb", sorted(LOCK_VERBS))
@pytest.mark.parametrize("fault", [refuse, lose_reply])
async def test_one_fault_at_every_request_of_a_life(
    shared: MemoryStorage, other: Node, node: Node, verb: str, fault: Any, log: Log
) -> None:
    """Cases 7, 16, 18: whatever was lost, nobody believes to hold what it does not, and nothing stays taken."""
    for k in range(4):
        node.wire.fault = at_call(k, fault, frozenset({verb}))
        failed = 0
        for _ in range(6):
            try:
                await log.visit(node, "faulty", 0.8, ttl=1.0)
            except (StorageUnavailable, LockLost):
                failed += 1
        node.wire.fault = None
        assert failed <= 1
        # A release that was lost is made good by the end of the lease.
        with trio.fail_after(1.5):
            await log.visit(other, "other")
        await trio.sleep(1.5)
        assert _clean(shared)
    check(log.visits)


async def test_errors_of_the_storage_reach_every_waiter_as_what_they_are(node: Node, shared: MemoryStorage) -> None:
    """Case 18: typed, and never taken for a grant."""
    caught: list[Exception] = []

    async def attempt() -> None:
        try:
            async with node.manager.lock("a"):
                raise AssertionError("never")
        except StorageRefused as error:
            caught.append(error)

    async def full(_wire: Wire, verb: str, call: Callable[[], Any]) -> Any:
        if verb == "request_lock":
            raise StorageRefused("OOM")
        return await call()

    node.wire.fault = full
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(attempt)
    node.wire.fault = None
    assert len({id(error) for error in caught}) == 5
    assert _clean(shared)


async def test_a_bug_in_a_locks_actor_hurts_that_lock_only(node: Node, other: Node) -> None:
    class Bug(Exception):
        pass

    async def buggy(_wire: Wire, verb: str, call: Callable[[], Any]) -> Any:
        if verb == "request_lock":
            raise Bug
        return await call()

    async def waiter() -> None:
        with pytest.raises(ActorDied) as caught:
            async with node.manager.lock("a"):
                pass
        assert isinstance(caught.value.__cause__, Bug)

    async with node.manager.lock("b"):
        async with other.manager.lock("a"), trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            nursery.start_soon(waiter)
            await trio.sleep(0.5)
            node.wire.fault = buggy
        node.wire.fault = None
        async with node.manager.lock("a"):
            assert len(await node.manager.list_locks()) == 2


async def test_a_manager_that_stops_cancels_its_bodies_and_frees_their_locks(shared: MemoryStorage, node: Node) -> None:
    stopping = Node(shared, lambda _: None)
    seen: list[type] = []

    async def body() -> None:
        try:
            async with stopping.manager.lock("a"):
                await trio.sleep_forever()
        except LockLost as error:
            seen.append(type(error))

    async def waiter() -> None:
        try:
            async with stopping.manager.lock("a"):
                pass
        except NotStarted as error:
            seen.append(type(error))

    async with trio.open_nursery() as nursery:
        async with stopping:
            nursery.start_soon(body)
            await wait_all_tasks_blocked()
            nursery.start_soon(waiter)
            await wait_all_tasks_blocked()
        began = trio.current_time()
        async with node.manager.lock("a"):
            assert trio.current_time() - began < 0.1
    assert sorted(kind.__name__ for kind in seen) == ["LockLost", "NotStarted"]
    assert _clean(shared)


async def test_after_everything_no_task_and_no_watch_is_left(shared: MemoryStorage, node: Node) -> None:
    """Case 22: the watches that outlive a wait end with the manager."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with Node(shared, lambda _: None) as short, trio.open_nursery() as nursery, node.manager.lock("a"):
        nursery.start_soon(Log().visit, short)
        await trio.sleep(0.5)
    await trio.sleep(0.1)
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert not [topic for topic in shared._watches if topic.startswith("lock:")]
    assert _clean(shared)


async def _restless(process: Node, dice: random.Random, log: Log) -> None:
    while True:
        lease, wait = dice.choice([0.3, 1.0]), dice.choice([None, 0, 0.5])
        try:
            await log.visit(process, "", dice.uniform(0, 0.3), ttl=lease, wait=wait)
        except (StorageUnavailable, LockLost, LockNotAcquired, NotStarted):
            await trio.sleep(0.01)


async def _live(process: Node, dice: random.Random, log: Log) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_restless, process, dice, log)


def _unlucky(dice: random.Random) -> Any:
    """One request in fifteen is refused, loses its answer, or takes long; the others take a little."""

    async def choose(wire: Wire, verb: str, call: Callable[[], Any]) -> Any:
        roll = dice.random()
        if verb in LOCK_VERBS and roll < 0.02:
            return await refuse(wire, verb, call)
        if verb in LOCK_VERBS and roll < 0.04:
            return await lose_reply(wire, verb, call)
        await trio.sleep(dice.uniform(0, 1) if roll < 0.07 else dice.uniform(0, 0.02))
        return await call()

    return choose


async def test_a_lock_that_nobody_could_give_up_is_told_with_the_reason(
    shared: MemoryStorage, node: Node, other: Node, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(_wire: Wire, verb: str, carry_out: Callable[[], Any]) -> Any:
        if verb == "free_lock":
            await trio.sleep_forever()
        return await carry_out()

    async with other.manager.lock("a"):
        node.wire.fault = never
        with trio.move_on_after(3):
            async with node.manager.lock("a"):
                pytest.fail("somebody else has it")
        await trio.sleep(SIGN_OFF + 1)
    assert f"could not be given up, its lease will end by itself: no answer within {SIGN_OFF:g} s" in caplog.text


@pytest.mark.parametrize("seed", range(15))
async def test_a_random_life_of_processes_that_die(shared: MemoryStorage, node: Node, seed: int) -> None:
    """Case 1 and 13: exclusion and rising fences over deaths, lost replies, lost leases and hand-overs."""
    dice, log = random.Random(seed), Log()
    for _life in range(3):
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            nodes = [await stack.enter_async_context(Node(shared, lambda _: None)) for _ in range(3)]
            for each in nodes:
                each.wire.fault = _unlucky(dice)
                nursery.start_soon(each.run, partial(_live, each, dice, log))
            await trio.sleep(10)
            await nodes[0].kill()
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
    assert len(log.visits) > 30
    check(log.visits)


async def test_granted_in_the_moment_in_which_the_wait_was_over_it_is_held_or_not_but_never_both(
    node: Node, shared: MemoryStorage
) -> None:
    """The actor grants to a waiter that has been cancelled already and could not say so yet."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)

    async def impatient() -> None:
        try:
            async with node.manager.lock("a", wait=LONGEST_TURN / 2) as held:
                await trio.sleep(0.01)
                (info,) = await node.manager.list_locks()
                assert info.fence <= held.fence < info.fence + MOST_HANDOVERS
        except LockNotAcquired:
            pass

    async def holder(nursery: trio.Nursery) -> None:
        async with node.manager.lock("a"):
            nursery.start_soon(impatient)
            await trio.sleep(LONGEST_TURN / 4)
            clock.jump(LONGEST_TURN / 2)  # the wait is over in the very moment in which we leave

    for _ in range(40):  # who runs first is drawn by trio
        async with trio.open_nursery() as nursery, node.manager.lock("a"):
            nursery.start_soon(holder, nursery)  # it queues, so that the actor serves it and the next one
            await trio.sleep(0.01)
        await trio.sleep(1)
        assert _clean(shared)


@pytest.mark.parametrize("crowded", [False, True])
async def test_a_lost_body_is_told_at_once_even_if_its_storage_is_away(node: Node, other: Node, crowded: bool) -> None:
    """Case 6: whether it came by the short way or through the queue."""
    ended: list[float] = []

    async def lose() -> None:
        with pytest.raises(LockLost):  # noqa: PT012 - what raises is the end of the lock's body
            async with node.manager.lock("a", ttl=3.0) as held:
                node.wire.away = True
                ended.append(held.deadline)
                await trio.sleep_forever()
        ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        if crowded:
            async with other.manager.lock("a"):
                nursery.start_soon(lose)
                await trio.sleep(0.5)
        else:
            nursery.start_soon(lose)
    node.wire.away = False
    assert ended[1] - ended[0] < 0.1
