"""A caller may give up at any moment: his reply is dropped in its place, and never given to another."""

from __future__ import annotations

import random
from collections import deque

import pytest
import trio
import trio.testing

from dotmac.tasks.errors import StorageUnavailable
from dotmac.tasks.storage.redis.alarm import Alarm
from dotmac.tasks.storage.redis.gateway import RedisClient
from redis_wire.wire_helpers import ECHO, at_rest, client_of
from support.servers import Server

pytestmark = pytest.mark.redis
CALLERS = 100
TURNS = 150


class Chaos:
    """Callers that are cancelled at random moments of their calls, and check every reply that they get."""

    def __init__(self, client: RedisClient, seed: int) -> None:
        self.client = client
        self.random = random.Random(seed)
        self.running: deque[trio.CancelScope] = deque()
        self.cancelled = self.answered = 0
        self.callers = CALLERS
        self.progress = trio.Event()

    async def caller(self, name: int) -> None:
        for turn in range(TURNS):
            with trio.CancelScope() as scope:
                self.running.append(scope)
                said = f"{name}-{turn}"
                if turn % 3:
                    assert await self.client.execute("ECHO", said) == said.encode()
                else:
                    assert await self.client.run(ECHO, ["runs"], [said]) == said.encode()
                self.answered += 1
                self.progress.set()
            self.cancelled += scope.cancelled_caught
        self.callers -= 1
        self.progress.set()

    async def cancel(self) -> None:
        while self.callers:
            for _ in range(self.random.randrange(CALLERS)):
                if self.running:
                    self.running.popleft().cancel()
            for _ in range(self.random.randrange(4)):
                await trio.lowlevel.checkpoint()
            if self.callers and self.random.random() < 0.5:
                # Let replies in: where they come through another thread, we could cancel faster than any of them comes.
                self.progress = trio.Event()
                await self.progress.wait()


@pytest.mark.parametrize("enough", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_thousands_of_random_cancellations(shared_server: Server, host: str, enough: int) -> None:
    cancelled = answered = 0
    async with client_of(shared_server.url, loop_host=host, window=CALLERS // 2) as client:
        await client.execute("PING")
        for seed in range(100):
            chaos = Chaos(client, seed)
            async with trio.open_nursery() as nursery:
                for name in range(CALLERS):
                    nursery.start_soon(chaos.caller, name)
                nursery.start_soon(chaos.cancel)
            assert chaos.cancelled + chaos.answered == CALLERS * TURNS
            cancelled += chaos.cancelled
            answered += chaos.answered
            if min(cancelled, answered) >= enough:
                break
        assert min(cancelled, answered) >= enough
        await at_rest(client)
        assert [link.connections for link in client.status()] == [1]


async def test_cancelled_before_it_is_sent_is_not_sent(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client:
        await client.execute("PING")
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.execute("SET", "k", "never")
        assert await client.execute("GET", "k") is None


async def test_calls_given_up_while_disconnected_leave_nothing(host: str) -> None:
    async with client_of("redis://127.0.0.1:1", loop_host=host, window=10) as client, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(client.execute, "PING")
        await trio.testing.wait_all_tasks_blocked()
        assert client.status()[0].queued == 50
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await at_rest(client)


async def test_deadline_is_kept_and_says_where_and_how_long(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client:
        await client.execute("PING")
        server.pause()
        with pytest.raises(StorageUnavailable, match=rf":{server.port} did not answer GET within 0.05 s \(sent"):
            await client.execute("GET", "k", timeout=0.05)
        server.resume()
        assert await client.execute("ECHO", "next") == b"next"  # the late reply went to nobody


async def test_short_deadline_among_long_ones_is_kept(server: Server) -> None:
    async with client_of(server.url, socket_timeout=30) as client, trio.open_nursery() as nursery:
        await client.execute("PING")
        server.pause()
        nursery.start_soon(client.execute, "PING")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(10), pytest.raises(StorageUnavailable):
            await client.execute("PING", timeout=0.05)
        server.resume()


async def test_full_window_makes_callers_wait_in_order_and_counts_as_time(server: Server, host: str) -> None:
    order: list[int] = []
    async with client_of(server.url, loop_host=host, window=2, socket_timeout=30) as client:
        await client.execute("PING")
        server.pause()

        async def caller(name: int) -> None:
            await client.execute("RPUSH", "order", name)
            order.append(name)

        async with trio.open_nursery() as nursery:
            for name in range(10):
                nursery.start_soon(caller, name)
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(StorageUnavailable, match="2 commands are under way"):
                await client.execute("PING", timeout=0.05)
            assert client.status()[0].unanswered == 2
            server.resume()
        assert await client.execute("LRANGE", "order", 0, -1) == [str(name).encode() for name in range(10)]


async def test_alarm_rings_at_the_nearest_time(autojump_clock: trio.testing.MockClock) -> None:
    alarm = Alarm()
    rang: list[float] = []

    def ring() -> float:
        rang.append(trio.current_time() - start)
        return start + 7 if len(rang) == 1 else float("inf")

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.keep_ringing, ring)
        await trio.sleep(1)
        alarm.advance(start + 5)
        alarm.advance(start + 3)
        await trio.sleep(100)
        assert rang == [3, 7]
        nursery.cancel_scope.cancel()
