import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.stage import Stage, deaf, run_and
from dotmac.tasks.actors import ActorRef, Ask, Inbox, Supervisor
from dotmac.tasks.errors import ActorDied


async def crash(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def test_a_spawned_child_runs_with_its_arguments_and_tells_its_end(nursery: trio.Nursery) -> None:
    supervisor, ran, ended = Supervisor("top"), list[int](), list[BaseException | None]()
    await nursery.start(supervisor.run)

    async def work(number: int) -> None:
        ran.append(number)

    supervisor.spawn("work", work, 7, on_exit=ended.append)
    await wait_all_tasks_blocked()
    assert (ran, ended) == ([7], [None])
    await supervisor.stop()


async def test_the_crash_of_one_harms_no_other_and_is_told_once(nursery: trio.Nursery, stage: Stage) -> None:
    supervisor, ended = Supervisor("top", [stage.child("a")], report=stage.report), list[BaseException | None]()
    await nursery.start(supervisor.run)
    told, reported = ValueError(), KeyError()
    survivor = trio.Event()

    async def survive() -> None:
        await supervisor.stopping.wait()
        survivor.set()

    supervisor.spawn("survivor", survive)
    supervisor.spawn("told", crash, told, on_exit=ended.append)
    supervisor.spawn("reported", crash, reported)
    await wait_all_tasks_blocked()
    assert ended == [told]
    assert stage.reported == [("top/reported", reported)]
    assert stage.take_log() == "+a"
    await supervisor.stop()
    assert survivor.is_set()


async def test_a_callback_that_fails_is_reported_and_harms_nobody(nursery: trio.Nursery, stage: Stage) -> None:
    supervisor, error = Supervisor("top", report=stage.report), ValueError()

    def broken(_: BaseException | None) -> None:
        raise error

    await nursery.start(supervisor.run)
    supervisor.spawn("child", trio.lowlevel.checkpoint, on_exit=broken)
    await wait_all_tasks_blocked()
    assert stage.reported == [("top/child", error)]
    await supervisor.stop()


async def test_spawned_children_end_before_the_others_and_by_cancellation_at_their_deadline(
    nursery: trio.Nursery, stage: Stage, autojump_clock: MockClock
) -> None:
    supervisor = Supervisor("top", [stage.child("a")], spawned_shutdown_seconds=4)
    ended: list[BaseException | None] = []

    def note(ending: BaseException | None) -> None:
        ended.append(ending)
        stage.log.append("-light")

    await nursery.start(supervisor.run)
    supervisor.spawn("deaf", deaf, on_exit=note)
    supervisor.spawn("polite", supervisor.stopping.wait, on_exit=note)
    await wait_all_tasks_blocked()
    await supervisor.stop()
    assert trio.current_time() == pytest.approx(4)
    assert stage.take_log() == "+a -light -light -a"
    assert ended[0] is None
    assert isinstance(ended[1], trio.Cancelled)


async def test_nothing_is_spawned_once_the_stop_was_asked_for(nursery: trio.Nursery) -> None:
    supervisor = Supervisor("top")
    await nursery.start(supervisor.run)
    supervisor.request_stop()
    with pytest.raises(ActorDied):
        supervisor.spawn("late", deaf)
    await supervisor.stop()
    with pytest.raises(ActorDied):
        supervisor.spawn("later", deaf)


async def test_what_ends_the_process_passes_through_spawned_children_too(stage: Stage) -> None:
    supervisor = Supervisor("top", [stage.child("a")], report=stage.report)
    ended: list[BaseException | None] = []
    mixed = BaseExceptionGroup("both", [ValueError("failure"), KeyboardInterrupt()])
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_and(supervisor, lambda: supervisor.spawn("interrupted", crash, mixed, on_exit=ended.append))
    assert caught.group_contains(KeyboardInterrupt)
    assert not caught.group_contains(ValueError)  # that part was told
    assert isinstance(ended[0], ExceptionGroup)
    assert stage.take_log() == "+a -a"


async def test_ten_thousand_actors_live_at_once_and_each_answers(nursery: trio.Nursery) -> None:
    supervisor = Supervisor("crowd")
    await nursery.start(supervisor.run)
    exits: list[BaseException | None] = []

    async def actor(number: int, inbox: Inbox[Ask[int, int] | None]) -> None:
        with inbox:
            while True:
                message = await inbox.get()
                if message is None:
                    return
                message.reply.send(message.request + number)

    refs = []
    for number in range(10_000):
        inbox = Inbox[Ask[int, int] | None](10)
        refs.append(ActorRef(inbox))
        supervisor.spawn("actor", actor, number, inbox, on_exit=exits.append)
    await wait_all_tasks_blocked()
    assert len(nursery.child_tasks) == 1
    assert [await ref.ask(1, timeout=math.inf) for ref in refs] == list(range(1, 10_001))
    for ref in refs:
        ref.tell_nowait(None)
    await wait_all_tasks_blocked()
    assert exits == [None] * 10_000
    await supervisor.stop()
