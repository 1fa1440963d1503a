"""What is sent in one turn of a loop, or of the trio run, goes together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from bridge.hosts import run_asyncio
from dotmac.tasks.bridge.call_queue import CallQueue
from dotmac.tasks.bridge.callers import AsyncioCaller
from dotmac.tasks.bridge.runtime_loop import RuntimeLoop
from dotmac.tasks.errors import NotStarted


class Call:
    """Notes what becomes of it."""

    def __init__(self, told: list[str], name: str, *, fails: bool = False) -> None:
        self._told = told
        self._name = name
        self._fails = fails

    def send(self) -> None:
        if self._fails:
            raise NotStarted("it is over")
        self._told.append(f"{self._name} sent")

    def give_up(self) -> None:
        self._told.append(f"{self._name} given up")


def test_calls_of_one_turn_of_a_loop_go_together() -> None:
    told: list[str] = []

    async def main() -> None:
        side = AsyncioCaller(asyncio.get_running_loop(), CallQueue(lambda _deliver: None))
        for call in (Call(told, "a"), Call(told, "b", fails=True), Call(told, "c")):
            side.send(call)
        assert told == []
        await asyncio.sleep(0)
        assert told == ["a sent", "b given up", "c sent"]
        side.send(Call(told, "d"))
        await asyncio.sleep(0)
        assert told[3:] == ["d sent"]

    run_asyncio(main)


class FakeLoop:
    """A loop that is woken."""

    def __init__(self) -> None:
        self.wakes: list[Callable[[], None]] = []
        self.closed = False
        self.says_so = True

    def is_closed(self) -> bool:
        return self.closed and self.says_so

    def call_soon_threadsafe(self, call: Callable[[], None], **_: Any) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.wakes.append(call)


def side_of(loop: FakeLoop) -> Any:
    home = RuntimeLoop()
    home.open()
    return home._side_of(loop)  # type: ignore[arg-type]


async def test_a_loop_is_woken_once_for_all_who_have_something_for_it_in_one_turn_of_the_trio_run() -> None:
    loop, told = FakeLoop(), []
    side = side_of(loop)

    async def tell(number: int) -> None:
        side.post(lambda: told.append(number))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(tell, number)
    await trio.testing.wait_all_tasks_blocked()
    assert told == []
    [wake] = loop.wakes
    wake()
    assert sorted(told) == list(range(5))


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_loop_that_is_closed_is_told_nothing(says_so: bool, caplog: pytest.LogCaptureFixture) -> None:
    loop = FakeLoop()
    loop.closed, loop.says_so = True, says_so
    side_of(loop).post(lambda: None)
    await trio.testing.wait_all_tasks_blocked()
    assert "an event loop was closed before it was told" in caplog.text
