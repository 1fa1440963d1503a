"""What a supervisor does in peace: start, stop, restart, give up. Phases that collide are in test_supervisor_races."""

import math
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.stage import Stage, deaf, policy
from dotmac.tasks.actors import (
    ChildSpec,
    Restart,
    Strategy,
    Supervisor,
    current_child,
)
from dotmac.tasks.errors import ActorDied, InvalidInput, RestartsExceeded, UsageError

# --- start and stop -------------------------------------------------------------------------------------------


async def test_children_start_in_order_and_stop_in_reverse(nursery: trio.Nursery, stage: Stage) -> None:
    supervisor = Supervisor("top", [stage.child(name) for name in "abcdef"])
    assert await nursery.start(supervisor.run) is supervisor
    assert stage.take_log() == "+a +b +c +d +e +f"
    assert supervisor.child_names == tuple("abcdef")
    await supervisor.stop()
    assert stage.take_log() == "-f -e -d -c -b -a"
    assert not nursery.child_tasks


async def test_a_child_with_a_handshake_holds_up_the_next_until_it_has_started(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    async def slow() -> None:
        await trio.sleep(5)
        stage.log.append("ready")
        current_child().started()
        await current_child().stopping.wait()

    supervisor = Supervisor("top", [ChildSpec("slow", slow, handshake=True), stage.child("next")])
    await nursery.start(supervisor.run)
    assert trio.current_time() == pytest.approx(5)
    assert stage.take_log() == "ready +next"
    await supervisor.stop()


async def test_a_child_that_fails_before_it_started_fails_the_start(nursery: trio.Nursery, stage: Stage) -> None:
    async def broken() -> None:
        raise ValueError("no configuration")

    children = [stage.child("a"), ChildSpec("broken", broken, handshake=True), stage.child("c")]
    supervisor = Supervisor("top", children, report=stage.report)
    with pytest.raises(ValueError, match="no configuration"):
        await supervisor.run()
    assert stage.take_log() == "+a -a"
    assert stage.reported == []  # whoever runs the supervisor has the error, and is not told twice


async def test_a_child_that_does_not_heed_the_stop_is_cancelled_at_its_deadline(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    children = [stage.child("a"), ChildSpec("deaf", deaf, shutdown_seconds=7), ChildSpec("b", deaf, shutdown_seconds=0)]
    supervisor = Supervisor("top", children)
    await nursery.start(supervisor.run)
    await supervisor.stop()
    assert trio.current_time() == pytest.approx(7)
    assert stage.take_log() == "+a -a"


async def test_a_child_without_a_deadline_gets_all_the_time_it_needs(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def thorough() -> None:
        await current_child().stopping.wait()
        await trio.sleep(10_000)

    supervisor = Supervisor("top", [ChildSpec("thorough", thorough, shutdown_seconds=math.inf)])
    await nursery.start(supervisor.run)
    await supervisor.stop()
    assert trio.current_time() == pytest.approx(10_000)


async def test_a_child_can_have_the_stop_called_back(nursery: trio.Nursery) -> None:
    async def child() -> None:
        asked = trio.Event()
        current_child().on_stop(asked.set)
        await asked.wait()
        late: list[str] = []
        current_child().on_stop(lambda: late.append("at once"))
        assert late == ["at once"]

    supervisor = Supervisor("top", [ChildSpec("child", child, shutdown_seconds=math.inf)])
    await nursery.start(supervisor.run)
    await supervisor.stop()


async def test_stopping_again_or_after_the_end_does_nothing(nursery: trio.Nursery, stage: Stage) -> None:
    supervisor = Supervisor("top", [stage.child("a")])
    await nursery.start(supervisor.run)
    supervisor.request_stop()
    await supervisor.stop()
    await supervisor.stop()
    assert supervisor.stopping.is_set()


async def test_what_has_not_been_run_cannot_be_used_and_what_runs_cannot_be_run(nursery: trio.Nursery) -> None:
    supervisor = Supervisor("top")
    with pytest.raises(UsageError):
        supervisor.request_stop()
    with pytest.raises(UsageError):
        supervisor.spawn("child", deaf)
    with pytest.raises(UsageError):
        await supervisor.start_child(ChildSpec("child", deaf))
    with pytest.raises(UsageError):
        current_child()
    await nursery.start(supervisor.run)
    with pytest.raises(UsageError):
        await supervisor.run()
    await supervisor.stop()


def test_impossible_children_are_refused() -> None:
    with pytest.raises(InvalidInput):
        Supervisor("top", [ChildSpec("same", deaf), ChildSpec("same", deaf)])
    with pytest.raises(InvalidInput):
        ChildSpec("child", deaf, shutdown_seconds=-1)


async def test_a_supervisor_can_run_again_after_its_end(nursery: trio.Nursery, stage: Stage) -> None:
    supervisor = Supervisor("top", [stage.child("a")])
    for _ in range(2):
        await nursery.start(supervisor.run)
        await supervisor.start_child(stage.child("more"))
        await supervisor.stop()
        assert stage.take_log() == "+a +more -more -a"


# --- restarts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "error", "restarted"),
    [
        (Restart.PERMANENT, None, True),
        (Restart.PERMANENT, ValueError(), True),
        (Restart.TRANSIENT, None, False),
        (Restart.TRANSIENT, ValueError(), True),
        (Restart.TEMPORARY, None, False),
        (Restart.TEMPORARY, ValueError(), False),
    ],
)
async def test_which_endings_are_followed_by_a_restart(
    nursery: trio.Nursery,
    stage: Stage,
    autojump_clock: MockClock,
    restart: Restart,
    error: Exception | None,
    restarted: bool,
) -> None:
    supervisor = Supervisor("top", [stage.child("a", restart)], policy=policy(), report=stage.report)
    await nursery.start(supervisor.run)
    stage.end("a", error)
    await trio.sleep(2)
    assert stage.take_log() == ("+a -a +a" if restarted else "+a -a")
    assert supervisor.child_names == (("a",) if restarted else ())
    assert stage.reported == ([("top/a", error)] if error else [])
    await supervisor.stop()


@pytest.mark.parametrize(
    ("strategy", "log"),
    [
        (Strategy.ONE_FOR_ONE, "-b +b"),
        (Strategy.ONE_FOR_ALL, "-b -d -c -a +a +b +c +d"),
        (Strategy.REST_FOR_ONE, "-b -d -c +b +c +d"),
    ],
)
async def test_who_is_restarted_with_the_one_that_failed(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock, strategy: Strategy, log: str
) -> None:
    children = [stage.child(name) for name in "abcd"]
    supervisor = Supervisor("top", children, policy=policy(strategy), report=stage.report)
    await nursery.start(supervisor.run)
    stage.take_log()
    stage.end("b", ValueError())
    await trio.sleep(2)
    assert stage.take_log() == log
    await supervisor.stop()
    assert stage.take_log() == "-d -c -b -a"


async def test_a_temporary_child_of_a_restarted_group_is_stopped_for_good(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    children = [stage.child("a"), stage.child("guest", Restart.TEMPORARY), stage.child("c", Restart.TRANSIENT)]
    supervisor = Supervisor("top", children, policy=policy(Strategy.ONE_FOR_ALL), report=stage.report)
    await nursery.start(supervisor.run)
    stage.take_log()
    stage.end("a", ValueError())
    await trio.sleep(2)
    assert stage.take_log() == "-a -c -guest +a +c"
    assert supervisor.child_names == ("a", "c")
    await supervisor.stop()


async def test_the_wait_grows_with_failures_in_a_row_and_shrinks_after_a_long_life(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    starts: list[float] = []

    async def failing() -> None:
        starts.append(trio.current_time())
        if len(starts) == 6:
            await trio.sleep(100)
        raise ValueError

    supervisor = Supervisor("top", [ChildSpec("failing", failing)], policy=policy(), report=stage.report)
    await nursery.start(supervisor.run)
    await trio.sleep(124.5)
    waits = [after - before for before, after in pairwise(starts)]
    assert waits == pytest.approx([1, 2, 4, 8, 8, 101])
    await supervisor.stop()


async def test_too_many_restarts_end_the_supervisor_after_stopping_the_others(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    error = ValueError("hopeless")

    async def hopeless() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    children = [stage.child("a"), ChildSpec("hopeless", hopeless), stage.child("c")]
    with pytest.raises(RestartsExceeded, match="top gave up at hopeless: more than 3") as caught:
        await Supervisor("top", children, policy=policy(restarts=3), report=stage.report).run()
    assert caught.value.__cause__ is error
    assert stage.take_log() == "+a +c -c -a"
    assert len(stage.reported) == 4


async def test_a_child_that_only_returns_too_often_leaves_no_cause(autojump_clock: MockClock) -> None:
    async def returns() -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(RestartsExceeded) as caught:
        await Supervisor("top", [ChildSpec("returns", returns)], policy=policy(restarts=1)).run()
    assert caught.value.__cause__ is None


async def test_a_failure_to_start_again_is_a_failure_like_any_other(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    attempts: list[float] = []

    async def stubborn() -> None:
        attempts.append(trio.current_time())
        if len(attempts) in {2, 3}:
            raise ValueError("not yet")
        current_child().started()
        if len(attempts) == 1:
            raise KeyError
        await current_child().stopping.wait()

    children = [ChildSpec("stubborn", stubborn, handshake=True), stage.child("b")]
    supervisor = Supervisor("top", children, policy=policy(Strategy.ONE_FOR_ALL), report=stage.report)
    await nursery.start(supervisor.run)
    await trio.sleep(20)
    assert attempts == pytest.approx([0, 1, 3, 7])
    assert stage.take_log() == "+b -b +b"
    await supervisor.stop()


# --- dynamic children -------------------------------------------------------------------------------------------


async def test_children_come_and_go(nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock) -> None:
    supervisor = Supervisor("top", [stage.child("a")], policy=policy(), report=stage.report)
    await nursery.start(supervisor.run)
    await supervisor.start_child(stage.child("b"))
    with pytest.raises(UsageError, match="has a child b already"):
        await supervisor.start_child(stage.child("b"))
    await supervisor.stop_child("a")
    with pytest.raises(UsageError, match="no child a"):
        await supervisor.stop_child("a")
    assert stage.take_log() == "+a +b -a"
    stage.end("b", ValueError())
    await trio.sleep(2)
    assert stage.take_log() == "-b +b"
    await supervisor.stop()
    with pytest.raises(ActorDied):
        await supervisor.start_child(stage.child("c"))
    with pytest.raises(ActorDied):
        await supervisor.stop_child("b")


async def test_a_child_added_that_cannot_start_is_not_kept(nursery: trio.Nursery, stage: Stage) -> None:
    async def broken() -> None:
        raise LookupError("nothing there")

    supervisor = Supervisor("top", report=stage.report)
    await nursery.start(supervisor.run)
    with pytest.raises(LookupError, match="nothing there"):
        await supervisor.start_child(ChildSpec("broken", broken, handshake=True))
    assert supervisor.child_names == ()
    await supervisor.stop()


async def test_a_child_that_fails_while_it_is_stopped_tells_who_stopped_it(nursery: trio.Nursery, stage: Stage) -> None:
    async def sore_loser() -> None:
        await current_child().stopping.wait()
        raise ValueError("not fair")

    supervisor = Supervisor("top", [ChildSpec("loser", sore_loser)], report=stage.report)
    await nursery.start(supervisor.run)
    with pytest.raises(ValueError, match="not fair"):
        await supervisor.stop_child("loser")
    assert supervisor.child_names == ()
    await supervisor.stop()


async def test_a_child_that_waits_for_its_restart_can_be_stopped(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    supervisor = Supervisor("top", [stage.child("a"), stage.child("b")], policy=policy(wait=60), report=stage.report)
    await nursery.start(supervisor.run)
    stage.end("a", ValueError())
    await wait_all_tasks_blocked()
    await supervisor.stop_child("a")
    assert supervisor.child_names == ("b",)
    stage.end("b", ValueError())
    await wait_all_tasks_blocked()
    await supervisor.stop()
    assert trio.current_time() == 0
    assert stage.take_log() == "+a +b -a -b"


async def test_a_child_may_add_siblings_once_it_has_started_and_is_refused_before(
    nursery: trio.Nursery, stage: Stage
) -> None:
    refused: list[UsageError] = []

    async def parent() -> None:
        try:
            await supervisor.start_child(stage.child("early"))
        except UsageError as error:
            refused.append(error)
        current_child().started()
        await supervisor.start_child(stage.child("sibling"))
        await current_child().stopping.wait()

    supervisor = Supervisor("top", [ChildSpec("parent", parent, handshake=True)])
    await nursery.start(supervisor.run)
    await wait_all_tasks_blocked()
    assert len(refused) == 1
    assert supervisor.child_names == ("parent", "sibling")
    await supervisor.stop()


# --- supervisors of supervisors ---------------------------------------------------------------------------------


async def test_a_supervisor_can_be_a_child(nursery: trio.Nursery, stage: Stage) -> None:
    inner = Supervisor("inner", [stage.child("b"), stage.child("c")])
    outer = Supervisor("outer", [stage.child("a"), inner.child_spec(), stage.child("d")])
    await nursery.start(outer.run)
    assert stage.take_log() == "+a +b +c +d"
    await outer.stop()
    assert stage.take_log() == "-d -c -b -a"


async def test_giving_up_is_a_failure_to_the_parent_who_starts_the_whole_subtree_anew(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    inner = Supervisor("inner", [stage.child("b"), stage.child("c")], policy=policy(restarts=0), report=stage.report)
    outer = Supervisor("outer", [stage.child("a"), inner.child_spec()], policy=policy(), report=stage.report)
    await nursery.start(outer.run)
    error = ValueError()
    stage.end("b", error)
    await trio.sleep(2)
    assert stage.take_log() == "+a +b +c -b -c +b +c"
    assert [name for name, _ in stage.reported] == ["inner/b", "outer/inner"]
    assert isinstance(stage.reported[1][1], RestartsExceeded)
    assert stage.reported[1][1].__cause__ is error
    await outer.stop()


async def test_stopping_one_supervisor_among_others_leaves_the_others(nursery: trio.Nursery, stage: Stage) -> None:
    inner = Supervisor("inner", [stage.child("b")])
    outer = Supervisor("outer", [stage.child("a"), inner.child_spec()])
    await nursery.start(outer.run)
    await outer.stop_child("inner")
    assert stage.take_log() == "+a +b -b"
    assert outer.child_names == ("a",)
    await outer.stop()
