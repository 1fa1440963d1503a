import math
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dotmac.tasks.actors import ActorRef, Ask, Inbox, Reply
from dotmac.tasks.errors import ActorDied, AskTimeout, InboxFull, UsageError

Questions = Inbox[Any]


async def echo(inbox: Questions) -> None:
    with inbox:
        while True:
            match await inbox.get():
                case Ask(request, reply):
                    reply.send(request)


async def test_an_actor_is_told_and_asked(nursery: trio.Nursery) -> None:
    inbox: Questions = Inbox(name="echo")
    ref = ActorRef(inbox)
    nursery.start_soon(echo, inbox)
    await ref.tell("ignored")
    ref.tell_nowait("ignored")
    assert await ref.ask("hello", timeout=1) == "hello"
    assert (ref.name, ref.alive, repr(ref)) == ("echo", True, "<ActorRef echo>")
    nursery.cancel_scope.cancel()


async def test_tell_passes_on_what_the_inbox_says() -> None:
    inbox = Inbox[int](1)
    ref = ActorRef(inbox)
    await ref.tell(1)
    with pytest.raises(InboxFull):
        ref.tell_nowait(2)
    inbox.close()
    assert not ref.alive
    with pytest.raises(ActorDied):
        await ref.tell(3)


async def test_an_error_answered_is_raised_where_it_was_asked(nursery: trio.Nursery) -> None:
    inbox: Questions = Inbox()
    error = LookupError("no such thing")

    async def refuse() -> None:
        (await inbox.get()).reply.fail(error)

    nursery.start_soon(refuse)
    with pytest.raises(LookupError) as caught:
        await ActorRef(inbox).ask("thing", timeout=1)
    assert caught.value is error


async def test_a_question_not_answered_in_time_is_withdrawn(autojump_clock: trio.testing.MockClock) -> None:
    inbox: Questions = Inbox()
    with pytest.raises(AskTimeout):
        await ActorRef(inbox).ask("anyone?", timeout=3)
    assert trio.current_time() == pytest.approx(3)
    assert len(inbox) == 0


async def test_a_late_answer_is_dropped(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    inbox: Questions = Inbox()
    done = trio.Event()

    async def slow() -> None:
        question = await inbox.get()
        await trio.sleep(10)
        question.reply.send("too late")
        question.reply.fail(ValueError("later still"))
        done.set()

    nursery.start_soon(slow)
    with pytest.raises(AskTimeout):
        await ActorRef(inbox).ask("quick!", timeout=1)
    await done.wait()


async def test_only_the_first_answer_counts(nursery: trio.Nursery) -> None:
    inbox: Questions = Inbox()

    async def answer_twice() -> None:
        reply: Reply[str] = (await inbox.get()).reply
        reply.send("first")
        reply.send("second")

    nursery.start_soon(answer_twice)
    assert await ActorRef(inbox).ask("?", timeout=1) == "first"


async def test_a_zero_timeout_asks_nobody_in_vain() -> None:
    inbox: Questions = Inbox()
    with pytest.raises(AskTimeout):
        await ActorRef(inbox).ask("?", timeout=0)
    assert len(inbox) == 0


async def test_the_wait_for_room_counts_against_the_timeout(autojump_clock: trio.testing.MockClock) -> None:
    inbox: Questions = Inbox(1)
    inbox.put_nowait("in the way")
    with pytest.raises(AskTimeout):
        await ActorRef(inbox).ask("?", timeout=2)
    assert inbox.get_nowait() == "in the way"
    assert len(inbox) == 0


async def test_all_who_asked_learn_at_once_that_the_actor_died(nursery: trio.Nursery) -> None:
    inbox: Questions = Inbox(2)
    ref, cause, died = ActorRef(inbox), RuntimeError("crash"), []

    async def ask(number: int) -> None:
        with pytest.raises(ActorDied) as caught:
            await ref.ask(number, timeout=math.inf)
        assert caught.value.__cause__ is cause
        died.append(number)

    async def actor() -> None:
        with suppress(RuntimeError), inbox:
            await inbox.get()  # taken out and never answered; two are queued, one waits for room
            await wait_all_tasks_blocked()
            raise cause

    for number in range(4):
        nursery.start_soon(ask, number)
    await wait_all_tasks_blocked()
    await actor()
    await wait_all_tasks_blocked()
    assert sorted(died) == [0, 1, 2, 3]


async def test_an_answer_given_before_the_death_still_counts(nursery: trio.Nursery) -> None:
    inbox: Questions = Inbox()

    async def answer_and_die() -> None:
        with inbox:
            (await inbox.get()).reply.send("last words")

    nursery.start_soon(answer_and_die)
    assert await ActorRef(inbox).ask("?", timeout=1) == "last words"


async def test_a_caller_cancelled_while_asking_leaves_nothing_behind() -> None:
    inbox: Questions = Inbox(1)
    for _ in range(3):
        async with trio.open_nursery() as asking:
            for number in range(3):  # one queued, two waiting for room
                asking.start_soon(ActorRef(inbox).ask, number, math.inf)
            await wait_all_tasks_blocked()
            assert len(inbox) == 1
            asking.cancel_scope.cancel()
        assert len(inbox) == 0
    inbox.put_nowait("room")
    assert inbox.get_nowait() == "room"
    assert not inbox._questions
    assert not inbox._putters


async def test_withdrawing_a_question_makes_room_for_the_next_in_turn(nursery: trio.Nursery) -> None:
    inbox: Questions = Inbox(2)
    inbox.put_nowait("first")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as asking:
            asking.start_soon(ActorRef(inbox).ask, "withdrawn", math.inf)
            await wait_all_tasks_blocked()
            nursery.start_soon(inbox.put, "waiting")
            await wait_all_tasks_blocked()
            scope.cancel()
    assert [inbox.get_nowait(), inbox.get_nowait()] == ["first", "waiting"]


async def test_an_answer_given_in_the_instant_of_cancellation_is_received() -> None:
    inbox: Questions = Inbox()
    got = []

    async def ask() -> None:
        got.append(await ActorRef(inbox).ask("?", timeout=math.inf))

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await wait_all_tasks_blocked()
            inbox.get_nowait().reply.send("answer")
            scope.cancel()
    assert got == ["answer"]


async def test_cancelling_after_any_number_of_checkpoints_leaves_the_inbox_usable() -> None:
    for checkpoints in range(30):
        inbox: Questions = Inbox(1)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as everybody:
                for number in range(3):
                    everybody.start_soon(ActorRef(inbox).ask, number, math.inf)
                everybody.start_soon(answer_some, inbox)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert len(inbox) == 0
        assert not inbox._questions
        assert not inbox._putters
        assert inbox._sleeper is None


async def answer_some(inbox: Questions) -> None:
    for _ in range(2):
        question = await inbox.get()
        await trio.lowlevel.checkpoint()
        question.reply.send(question.request)
    await inbox.get()  # the third question is taken out and left
    await trio.sleep_forever()


async def test_a_question_answered_by_the_hook_itself_is_answered() -> None:
    inbox: Questions = Inbox()
    inbox.on_arrival = lambda: inbox.get_nowait().reply.send("at once")
    async with trio.open_nursery() as asking:  # a task of its own: here the hook makes the asker the reader

        async def ask() -> None:
            assert await ActorRef(inbox).ask("?", timeout=1) == "at once"

        asking.start_soon(ask)


async def test_asking_oneself_is_refused() -> None:
    inbox: Questions = Inbox(name="narcissus")
    inbox.put_nowait("start")
    await inbox.get()
    with pytest.raises(UsageError, match="narcissus asks itself"):
        await ActorRef(inbox).ask("who is it?", timeout=math.inf)


async def test_only_an_exception_can_be_an_answer() -> None:
    with pytest.raises(TypeError, match="KeyboardInterrupt"):
        Reply[int]().fail(KeyboardInterrupt())  # type: ignore[arg-type]  # what the check is there for
