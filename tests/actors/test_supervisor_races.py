"""What a supervisor does when phases collide: crashes meet stops, stops meet restarts, cancellation meets all."""

import math
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.stage import Stage, deaf, policy, run_and
from dotmac.tasks.actors import ChildSpec, Strategy, Supervisor, current_child
from dotmac.tasks.errors import ActorDied, RestartsExceeded, UsageError


def failing_at_stop(error: BaseException) -> ChildSpec:
    async def run() -> None:
        await current_child().stopping.wait()
        raise error

    return ChildSpec("failing", run)


# --- crashes meet each other ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "restarts"), [(Strategy.ONE_FOR_ONE, 2), (Strategy.ONE_FOR_ALL, 1), (Strategy.REST_FOR_ONE, 2)]
)
async def test_two_children_that_crash_at_the_same_instant_both_come_back(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock, strategy: Strategy, restarts: int
) -> None:
    # As many restarts are allowed as are needed at most; that of a whole group counts once.
    children = [stage.child(name) for name in "abc"]
    supervisor = Supervisor("top", children, policy=policy(strategy, restarts), report=stage.report)
    await nursery.start(supervisor.run)
    stage.take_log()
    stage.end("a", ValueError())
    stage.end("b", KeyError())
    await trio.sleep(10)
    assert sorted(name for name, _ in stage.reported) == ["top/a", "top/b"]
    started = stage.take_log().split()
    assert {"+a", "+b"} <= set(started)
    assert started.count("+a") == started.count("-a") == started.count("+b") == started.count("-b") == 1
    await supervisor.stop()


async def test_a_crash_in_the_instant_of_giving_up_is_told_with_the_cause(nursery: trio.Nursery, stage: Stage) -> None:
    first, second = ValueError("first"), KeyError("second")
    supervisor = Supervisor("top", [stage.child("a"), stage.child("b")], policy=policy(restarts=0), report=stage.report)
    caught: list[RestartsExceeded] = []

    async def run() -> None:
        try:
            await supervisor.run()
        except RestartsExceeded as error:
            caught.append(error)

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    stage.end("a", first)
    stage.end("b", second)
    await wait_all_tasks_blocked()
    cause = caught[0].__cause__
    assert isinstance(cause, ExceptionGroup)
    assert set(cause.exceptions) == {first, second}


async def test_a_crash_while_a_sibling_is_being_restarted_is_dealt_with_afterwards(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    async def slow() -> None:
        await trio.sleep(5)
        stage.log.append("slow")
        current_child().started()
        if stage.log == ["slow"]:
            await trio.sleep(7)
            raise ValueError
        await current_child().stopping.wait()

    children = [ChildSpec("slow", slow, handshake=True), stage.child("b")]
    supervisor = Supervisor("top", children, policy=policy(), report=stage.report)
    await nursery.start(supervisor.run)  # at 5; slow fails at 12, is restarted at 13, and works at 18
    await trio.sleep(10)
    stage.end("b", KeyError())  # at 15
    await trio.sleep(5)
    assert stage.take_log() == "slow +b -b slow +b"
    await supervisor.stop()


async def test_a_crash_while_the_group_is_being_stopped_is_covered_by_its_restart(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    async def lingering() -> None:
        await current_child().stopping.wait()
        await trio.sleep(3)

    children = [stage.child("a"), stage.child("b"), ChildSpec("lingering", lingering)]
    supervisor = Supervisor("top", children, policy=policy(Strategy.ONE_FOR_ALL, 1), report=stage.report)
    await nursery.start(supervisor.run)
    stage.end("a", ValueError())
    await trio.sleep(1)
    stage.end("b", KeyError())
    await trio.sleep(10)
    assert stage.take_log() == "+a +b -a -b +a +b"
    assert [name for name, _ in stage.reported] == ["top/a", "top/b"]
    await supervisor.stop()


async def test_in_a_group_the_longest_back_off_stands(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    children = [stage.child("a"), stage.child("b")]
    supervisor = Supervisor("top", children, policy=policy(Strategy.REST_FOR_ONE), report=stage.report)
    await nursery.start(supervisor.run)
    for wait in (1, 2, 4):
        stage.end("b", ValueError())
        await trio.sleep(wait + 0.5)
    stage.take_log()
    stage.end("b", ValueError())  # b waits 8 seconds now
    await wait_all_tasks_blocked()
    stage.end("a", ValueError())  # alone, a would wait 1
    await trio.sleep(7.5)
    assert stage.take_log() == "-b -a"
    await trio.sleep(1)
    assert stage.take_log() == "+a +b"
    await supervisor.stop()


# --- crashes meet the stop --------------------------------------------------------------------------------------


async def test_a_crash_during_the_shutdown_does_not_keep_the_others_from_stopping_and_is_raised(stage: Stage) -> None:
    error = ValueError("at the last moment")
    supervisor = Supervisor("top", [stage.child("a"), failing_at_stop(error), stage.child("c")], report=stage.report)
    with pytest.raises(ExceptionGroup) as caught:
        await run_and(supervisor, supervisor.request_stop)
    assert caught.group_contains(ValueError, match="at the last moment")
    assert stage.take_log() == "+a +c -c -a"
    assert stage.reported == [("top/failing", error)]


async def test_a_crash_in_the_instant_of_the_stop_is_raised_and_not_restarted(stage: Stage) -> None:
    supervisor = Supervisor("top", [stage.child("a")], report=stage.report)

    def end_and_stop() -> None:
        stage.end("a", ValueError("just then"))
        supervisor.request_stop()

    with pytest.raises(ExceptionGroup) as caught:
        await run_and(supervisor, end_and_stop)
    assert caught.group_contains(ValueError, match="just then")
    assert stage.take_log() == "+a -a"


# --- the stop meets starts --------------------------------------------------------------------------------------


async def test_the_stop_does_not_wait_for_a_child_that_has_yet_to_start(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    hanging = ChildSpec("hanging", deaf, handshake=True, shutdown_seconds=2)
    supervisor = Supervisor("top", [stage.child("a"), hanging, stage.child("c")])
    nursery.start_soon(supervisor.run)
    await wait_all_tasks_blocked()
    await supervisor.stop()
    assert trio.current_time() == pytest.approx(2)
    assert stage.take_log() == "+a -a"


async def test_the_stop_calls_off_a_restart_that_hangs(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    lives: list[float] = []

    async def run() -> None:
        lives.append(trio.current_time())
        if len(lives) == 1:
            current_child().started()
            raise ValueError
        await trio.sleep_forever()

    supervisor = Supervisor("top", [ChildSpec("hanging", run, handshake=True)], policy=policy(), report=stage.report)
    await nursery.start(supervisor.run)
    await trio.sleep(3)
    await supervisor.stop()
    assert lives == pytest.approx([0, 1])
    assert trio.current_time() == pytest.approx(8)


async def test_whoever_is_starting_a_child_when_the_stop_comes_is_told(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    supervisor = Supervisor("top")
    await nursery.start(supervisor.run)
    told: list[str] = []

    async def start(name: str) -> None:
        try:
            await supervisor.start_child(ChildSpec(name, deaf, handshake=True))
        except ActorDied:
            told.append(name)

    nursery.start_soon(start, "in progress")
    await wait_all_tasks_blocked()
    nursery.start_soon(start, "queued")
    await wait_all_tasks_blocked()
    await supervisor.stop()
    assert sorted(told) == ["in progress", "queued"]


async def test_a_child_that_wants_a_sibling_during_the_shutdown_is_refused_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    refused = trio.Event()

    async def run() -> None:
        await current_child().stopping.wait()
        try:
            await supervisor.start_child(ChildSpec("late", deaf))
        except ActorDied:
            refused.set()

    supervisor = Supervisor("top", [ChildSpec("child", run)])
    await nursery.start(supervisor.run)
    await supervisor.stop()
    assert refused.is_set()
    assert trio.current_time() == 0


async def test_cancelling_who_starts_or_stops_a_child_leaves_it_supervised_or_gone(
    nursery: trio.Nursery, stage: Stage
) -> None:
    for checkpoints in range(12):
        supervisor = Supervisor("top", [stage.child("a")])
        await nursery.start(supervisor.run)
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_after, checkpoints, scope)
            await supervisor.start_child(stage.child("b"))
            await supervisor.stop_child("a")
            await trio.sleep_forever()
        await supervisor.stop()
        log = stage.take_log().split()
        assert log.count("+b") == log.count("-b") <= 1
        assert log.count("+a") == log.count("-a") == 1


async def cancel_after(checkpoints: int, scope: trio.CancelScope) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


# --- cancellation from outside, and what ends the process -------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_ends_the_supervisor_and_is_never_restarted(
    stage: Stage, kind: type[BaseException]
) -> None:
    supervisor = Supervisor("top", [stage.child("a"), stage.child("b")], report=stage.report)
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_and(supervisor, lambda: stage.end("a", kind()))
    assert caught.group_contains(kind)
    assert sorted(stage.take_log().split()) == ["+a", "+b", "-a", "-b"]
    assert stage.reported == []


async def test_a_failure_in_one_group_with_an_interrupt_is_split_and_neither_is_lost(stage: Stage) -> None:
    mixed = BaseExceptionGroup("both", [ValueError("failure"), KeyboardInterrupt()])
    supervisor = Supervisor("top", [stage.child("a")], report=stage.report)
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_and(supervisor, lambda: stage.end("a", mixed))
    assert caught.group_contains(KeyboardInterrupt)
    assert caught.group_contains(ValueError, match="failure")
    assert stage.take_log() == "+a -a"


async def test_a_failure_in_the_clean_up_of_a_cancelled_child_comes_out_beside_the_cancellation(stage: Stage) -> None:
    async def fails_cleaning_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async def fails_beside_its_cancellation() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(fails_cleaning_up)
            inner.start_soon(deaf)

    children = [ChildSpec("plain", fails_cleaning_up), ChildSpec("group", fails_beside_its_cancellation)]
    supervisor = Supervisor("top", children, report=stage.report)
    with pytest.raises(ExceptionGroup) as caught, trio.CancelScope() as scope:
        await run_and(supervisor, scope.cancel)
    assert len([error for error in leaves(caught.value) if isinstance(error, ValueError)]) == 2
    assert sorted(name for name, _ in stage.reported) == ["top/group", "top/plain"]


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in leaves(part)]
    return [error]


async def eventful_life(supervisor: Supervisor, stage: Stage) -> None:
    """Takes a supervisor through all its phases, with no wait in real or virtual time."""
    inner = Supervisor("inner", [stage.child("x"), stage.child("y")])
    await supervisor.start_child(inner.child_spec())
    supervisor.spawn("light", supervisor.stopping.wait)
    stage.end("b", ValueError())
    await trio.lowlevel.checkpoint()
    stage.end("a", ValueError())
    with suppress(UsageError):  # c may have gone
        await supervisor.stop_child("c")
    await supervisor.start_child(stage.child("d"))
    await supervisor.stop()


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_whenever_it_is_ended_everything_that_began_has_ended(
    autojump_clock: MockClock, strategy: Strategy, how: str
) -> None:
    for checkpoints in range(70):
        stage = Stage()
        children = [stage.child(name) for name in "abc"]
        supervisor = Supervisor("top", children, policy=policy(strategy, wait=0), report=stage.report)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, supervisor, stage, nursery)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            if how == "stopped":
                with suppress(UsageError):  # it has not even begun to run
                    await supervisor.stop()
            nursery.cancel_scope.cancel()
        log = stage.take_log().split()
        assert sorted(entry[1:] for entry in log if entry[0] == "+") == sorted(
            entry[1:] for entry in log if entry[0] == "-"
        )
        assert all(isinstance(error, ValueError) for _, error in stage.reported)


async def live(supervisor: Supervisor, stage: Stage, nursery: trio.Nursery) -> None:
    with suppress(ActorDied):  # the stop came first
        nursery.start_soon(run_quietly, supervisor)
        while not stage.log or stage.log[-1] != "+c":
            await trio.lowlevel.checkpoint()
        await eventful_life(supervisor, stage)


async def run_quietly(supervisor: Supervisor) -> None:
    try:
        await supervisor.run()
    except* ValueError:
        pass  # the crashes that the stop caught up with


async def test_a_cancelled_supervisor_cancels_children_that_have_no_deadline(autojump_clock: MockClock) -> None:
    supervisor = Supervisor("top", [ChildSpec("child", deaf, shutdown_seconds=math.inf)])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.request_stop()
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert supervisor.stopping.is_set()
