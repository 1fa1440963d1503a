import math
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dotmac.tasks.actors import Inbox
from dotmac.tasks.errors import ActorDied, InboxFull, InvalidInput


async def test_messages_come_out_in_the_order_they_went_in() -> None:
    inbox = Inbox[int]()
    await inbox.put(1)
    inbox.put_nowait(2)
    await inbox.put(3)
    assert len(inbox) == 3
    assert [await inbox.get(), inbox.get_nowait(), await inbox.get()] == [1, 2, 3]


async def test_an_empty_inbox_would_block_and_a_full_one_says_so() -> None:
    inbox = Inbox[str](1)
    with pytest.raises(trio.WouldBlock):
        inbox.get_nowait()
    inbox.put_nowait("kept")
    with pytest.raises(InboxFull):
        inbox.put_nowait("refused")
    assert inbox.get_nowait() == "kept"
    assert len(inbox) == 0


def test_a_capacity_below_one_is_refused() -> None:
    for capacity in (0, -1, math.nan):
        with pytest.raises(InvalidInput):
            Inbox[int](capacity)


async def test_get_waits_for_a_message(nursery: trio.Nursery) -> None:
    inbox, got = Inbox[str](), []

    async def read() -> None:
        got.append(await inbox.get())

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    inbox.put_nowait("late")
    await wait_all_tasks_blocked()
    assert got == ["late"]


async def test_waiting_putters_are_served_in_turn_and_not_overtaken(nursery: trio.Nursery) -> None:
    inbox = Inbox[int](2)
    for number in range(6):
        nursery.start_soon(inbox.put, number)
        await wait_all_tasks_blocked()
    assert len(inbox) == 2
    got = []
    while len(inbox):
        got.append(inbox.get_nowait())
        if got[-1] < 3:
            with pytest.raises(InboxFull):  # the room belongs to whoever waits
                inbox.put_nowait(-1)
    assert got == list(range(6))


async def test_a_cancelled_put_that_waited_delivers_nothing(nursery: trio.Nursery) -> None:
    inbox = Inbox[str](1)
    inbox.put_nowait("first")
    with trio.CancelScope() as scope:
        nursery.start_soon(wait_then, scope.cancel)
        await inbox.put("cancelled")
    assert scope.cancelled_caught
    await wait_all_tasks_blocked()
    assert inbox.get_nowait() == "first"
    assert len(inbox) == 0


async def wait_then(action: Any) -> None:
    await wait_all_tasks_blocked()
    action()


async def test_a_put_admitted_and_cancelled_in_the_same_instant_was_delivered(nursery: trio.Nursery) -> None:
    inbox, returned = Inbox[str](1), []
    inbox.put_nowait("first")

    async def put() -> None:
        await inbox.put("second")
        returned.append(True)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(put)
            await wait_all_tasks_blocked()
            assert inbox.get_nowait() == "first"  # this admits the putter
            scope.cancel()
    assert returned == [True]
    assert inbox.get_nowait() == "second"


async def test_a_get_woken_and_cancelled_in_the_same_instant_loses_nothing() -> None:
    inbox, got = Inbox[str](), []

    async def read() -> None:
        got.append(await inbox.get())

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(read)
            await wait_all_tasks_blocked()
            inbox.put_nowait("message")
            scope.cancel()
    assert [*got, *([inbox.get_nowait()] if len(inbox) else [])] == ["message"]


async def test_a_cancelled_get_takes_nothing() -> None:
    inbox = Inbox[str]()
    inbox.put_nowait("kept")
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.get()
    assert inbox.get_nowait() == "kept"
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.get()
    inbox.put_nowait("after")  # nobody sleeps there any more who could be woken by mistake
    assert await inbox.get() == "after"


async def test_every_message_arrives_once_whichever_checkpoint_is_cancelled() -> None:
    for checkpoints in range(60):
        inbox = Inbox[int](2)
        got: list[int] = []
        put: list[int] = []

        async def write(inbox: Inbox[int] = inbox, put: list[int] = put) -> None:
            for number in range(10):
                await inbox.put(number)
                put.append(number)

        async def read(inbox: Inbox[int] = inbox, got: list[int] = got) -> None:
            while True:
                got.append(await inbox.get())

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(write)
                inner.start_soon(read)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        while len(inbox):
            got.append(inbox.get_nowait())
        assert got == put


async def test_one_reader_at_a_time(nursery: trio.Nursery) -> None:
    inbox = Inbox[int]()
    nursery.start_soon(inbox.get)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await inbox.get()
    inbox.put_nowait(1)


async def test_a_woken_reader_whose_message_is_gone_goes_on_waiting(nursery: trio.Nursery) -> None:
    inbox, got = Inbox[str](), []

    async def read() -> None:
        got.append(await inbox.get())

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    inbox.put_nowait("taken")
    assert inbox.get_nowait() == "taken"
    await wait_all_tasks_blocked()
    assert got == []
    inbox.put_nowait("given")
    await wait_all_tasks_blocked()
    assert got == ["given"]


async def test_the_hook_is_called_after_each_arrival_even_of_those_that_waited(nursery: trio.Nursery) -> None:
    seen: list[int] = []
    inbox = Inbox[str](1)
    inbox.on_arrival = lambda: seen.append(len(inbox))
    inbox.put_nowait("a")
    assert seen == [1]
    nursery.start_soon(inbox.put, "b")
    await wait_all_tasks_blocked()
    assert seen == [1]
    inbox.get_nowait()
    assert seen == [1, 1]


async def test_the_hook_lets_an_arrival_cut_short_a_piece_of_work(nursery: trio.Nursery) -> None:
    inbox = Inbox[str]()
    log: list[str] = []

    async def actor() -> None:
        with trio.CancelScope() as work:
            inbox.on_arrival = work.cancel
            if not len(inbox):
                await trio.sleep_forever()
        log.append(await inbox.get())

    nursery.start_soon(actor)
    await wait_all_tasks_blocked()
    await inbox.put("urgent")
    await wait_all_tasks_blocked()
    assert log == ["urgent"]


async def test_after_close_nothing_goes_in_or_out() -> None:
    inbox, cause = Inbox[int](name="counter"), ValueError("why")
    inbox.put_nowait(1)
    inbox.close(cause)
    inbox.close(KeyError("a second close changes nothing"))
    assert inbox.closed
    assert len(inbox) == 0
    for use in (lambda: inbox.put_nowait(2), inbox.get_nowait):
        with pytest.raises(ActorDied, match="counter") as caught:
            use()
        assert caught.value.__cause__ is cause
    for wait in (lambda: inbox.put(2), inbox.get, lambda: inbox.ask("?", timeout=1)):
        with pytest.raises(ActorDied) as caught:
            await wait()
        assert caught.value.__cause__ is cause


async def test_close_wakes_the_reader_and_all_waiting_putters(nursery: trio.Nursery) -> None:
    full, empty, died = Inbox[int](1), Inbox[int](), []
    full.put_nowait(0)

    async def expect_death(wait: Any) -> None:
        with pytest.raises(ActorDied) as caught:
            await wait()
        died.append(caught.value.__cause__)

    nursery.start_soon(expect_death, empty.get)
    for number in range(3):
        nursery.start_soon(expect_death, lambda number=number: full.put(number))
    await wait_all_tasks_blocked()
    cause = RuntimeError()
    full.close(cause)
    empty.close(cause)
    await wait_all_tasks_blocked()
    assert died == [cause] * 4


async def test_a_put_admitted_before_the_close_does_not_fail(nursery: trio.Nursery) -> None:
    inbox, done = Inbox[int](1), trio.Event()
    inbox.put_nowait(0)

    async def put() -> None:
        await inbox.put(1)
        done.set()

    nursery.start_soon(put)
    await wait_all_tasks_blocked()
    inbox.get_nowait()
    inbox.close()
    await done.wait()


async def test_the_actor_that_reads_closes_it_with_its_failure() -> None:
    inbox, error = Inbox[int](), ValueError()
    with pytest.raises(ValueError), inbox:  # noqa: PT011  # this very error is looked at below
        raise error
    with pytest.raises(ActorDied) as caught:
        inbox.put_nowait(1)
    assert caught.value.__cause__ is error


async def test_cancellation_is_not_kept_as_the_cause_of_an_end() -> None:
    inbox = Inbox[int]()
    with trio.CancelScope() as scope, inbox:
        scope.cancel()
        await inbox.get()
    with pytest.raises(ActorDied) as caught:
        inbox.put_nowait(1)
    assert caught.value.__cause__ is None
