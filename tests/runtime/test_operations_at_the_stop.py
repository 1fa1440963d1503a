"""Idempotent operations that are under way when their manager is stopped: what was done is known, so it is stored."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, ClaimLost, MemoryStorage, NotStarted
from runtime.nodes import Node, until

DRAIN = 5.0


class Mail:
    """An operation that takes its time, and what became of it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = 0
        self.sent = 0

    def register(self, manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("send", self._send)

    async def _send(self, _parameters: dict[str, Any]) -> int:
        self.began += 1
        await trio.sleep(self.seconds)
        self.sent += 1
        return self.sent


async def send(node: Node) -> Any:
    return await node.manager.run_idempotent(tenant_id="t", operation_type="send", parameters={})


async def test_one_that_ends_in_time_is_stored_and_not_done_again(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    mail = Mail(seconds=3)
    results: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def ask(node: Node) -> None:
            results.append(await send(node))

        async with Node(shared, mail.register, drain_timeout=DRAIN) as first:
            nursery.start_soon(ask, first)
            await until(lambda: mail.began)
        assert results == [1]
    async with Node(shared, mail.register) as second:
        assert await send(second) == 1
    assert mail.sent == 1


@pytest.mark.parametrize("hurry", [False, True], ids=["the drain", "a stop in a hurry"])
async def test_one_that_outlasts_the_drain_is_cut_off(
    autojump_clock: MockClock, shared: MemoryStorage, *, hurry: bool
) -> None:
    mail = Mail(seconds=60)
    async with trio.open_nursery() as nursery:

        async def ask(node: Node) -> None:
            with pytest.raises(ClaimLost):
                await send(node)

        node = Node(shared, mail.register, drain_timeout=DRAIN)
        await node.manager.start()
        nursery.start_soon(ask, node)
        await until(lambda: mail.began)
        before = trio.current_time()
        await node.manager.stop(hurry=hurry)
        assert trio.current_time() - before == pytest.approx(0 if hurry else DRAIN, abs=0.1)
    assert mail.sent == 0


async def test_a_second_stop_in_a_hurry_cuts_off_what_the_first_one_waits_for(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    mail = Mail(seconds=60)
    node = Node(shared, mail.register)
    await node.manager.start()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ClaimLost):
                await send(node)

        nursery.start_soon(ask)
        await until(lambda: mail.began)
        nursery.start_soon(node.manager.stop)
        await trio.sleep(1)
        before = trio.current_time()
        await node.manager.stop(hurry=True)
        assert trio.current_time() - before < 1


async def test_one_that_is_granted_too_late_is_not_begun(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    mail = Mail(seconds=3)
    async with Node(shared, mail.register) as other, trio.open_nursery() as nursery:

        async def fail(_parameters: dict[str, Any]) -> None:
            await trio.sleep(3)
            raise ValueError

        async def ask(node: Node, error: type[Exception]) -> None:
            with pytest.raises(error):
                await send(node)

        other.manager.register_operation_handler("send", fail, replace=True)
        nursery.start_soon(ask, other, ValueError)
        await trio.sleep(1)
        async with Node(shared, mail.register) as late:
            nursery.start_soon(ask, late, NotStarted)
            await trio.sleep(1)
    assert not mail.began
