"""Connections break: what was not sent is sent later, what was sent is repeated only where that is safe."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from dotmac.tasks.errors import StorageRefused, StorageUnavailable
from dotmac.tasks.storage.redis.gateway import RedisClient
from redis_wire.wire_helpers import ECHO, at_rest, client_of, eventually
from support.proxy import Fault, FaultProxy
from support.servers import Server, standalone

pytestmark = pytest.mark.redis


def upstream_of(server: Server) -> tuple[str, int]:
    return server.host, server.port


async def test_lost_reply_of_a_repeatable_call_is_asked_for_again(server: Server, host: str) -> None:
    async with FaultProxy(upstream_of(server)) as proxy, client_of(proxy.url, loop_host=host) as client:
        assert await client.run(ECHO, ["runs"], ["first"]) == b"first"
        proxy.script(Fault.LOSE_REPLY)
        assert await client.run(ECHO, ["runs"], ["again"]) == b"again"
        assert await client.execute("GET", "runs") == b"3"
        assert client.status()[0].connections == 2


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.DROP_REQUEST, Fault.CUT_REPLY])
async def test_lost_reply_of_any_other_call_is_told(server: Server, host: str, fault: Fault) -> None:
    async with FaultProxy(upstream_of(server)) as proxy, client_of(proxy.url, loop_host=host) as client:
        await client.execute("PING")
        proxy.script(fault)
        with pytest.raises(StorageUnavailable, match="may or may not have been carried out"):
            await client.execute("INCR", "counter")
        assert await client.execute("GET", "counter") == (None if fault is Fault.DROP_REQUEST else b"1")


async def test_nothing_is_repeated_against_the_will(server: Server) -> None:
    async with FaultProxy(upstream_of(server)) as proxy, client_of(proxy.url, retry_on_timeout=False) as client:
        await client.run(ECHO, ["runs"], ["first"])
        proxy.script(Fault.LOSE_REPLY)
        with pytest.raises(StorageUnavailable):
            await client.run(ECHO, ["runs"], ["again"])


async def test_a_second_try_without_an_answer_tells_why_there_was_a_first(server: Server, host: str) -> None:
    async with (
        FaultProxy(upstream_of(server)) as proxy,
        client_of(proxy.url, loop_host=host, socket_timeout=0.5) as client,
    ):
        await client.execute("SCRIPT", "FLUSH")
        proxy.script(Fault.NONE, Fault.STALL_REPLY)
        with pytest.raises(StorageUnavailable, match=r"did not answer echo .* before that, it said: NOSCRIPT"):
            await client.run(ECHO, ["runs"], ["first"])


async def test_every_second_reply_lost_and_each_call_answered(server: Server, host: str) -> None:
    async with FaultProxy(upstream_of(server)) as proxy, client_of(proxy.url, loop_host=host) as client:
        await client.run(ECHO, ["runs"], ["first"])
        for turn in range(20):
            proxy.script(Fault.CUT_REPLY)
            assert await client.run(ECHO, ["runs"], [f"turn {turn}"]) == f"turn {turn}".encode()
        await at_rest(client)


async def test_repeated_calls_keep_their_order(server: Server, host: str) -> None:
    async with FaultProxy(upstream_of(server)) as proxy:
        async with client_of(proxy.url, loop_host=host, socket_timeout=30) as client, trio.open_nursery() as nursery:
            await client.execute("PING")
            proxy.script(Fault.STALL_REQUEST)
            for name in range(20):
                nursery.start_soon(_push, client, name)
                await trio.testing.wait_all_tasks_blocked()
            await eventually(lambda: client.status()[0].unanswered == 20 and Fault.STALL_REQUEST in proxy.history)
            proxy.drop_all()
        assert server.cli("LRANGE", "order", 0, -1) == [str(name) for name in range(20)]


async def _push(client: RedisClient, name: int) -> None:
    await client.execute("RPUSH", "order", name, repeatable=True)


async def test_silent_connection_is_given_up_and_the_rest_repeated(server: Server, host: str) -> None:
    async with (
        FaultProxy(upstream_of(server)) as proxy,
        client_of(proxy.url, loop_host=host, socket_timeout=0.5) as client,
    ):
        await client.execute("PING", timeout=30)
        proxy.script(Fault.STALL_REPLY)
        with pytest.raises(StorageUnavailable, match="did not answer"):
            await client.execute("PING")
        assert await client.execute("PING", timeout=30) == b"PONG"
        assert client.status()[0].connections == 2


async def test_what_was_not_sent_is_sent_when_the_server_is_there(server: Server, host: str) -> None:
    server.kill()
    async with client_of(server.url, loop_host=host, socket_timeout=30) as client, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(client.execute, "INCR", "counter")
        await eventually(lambda: "refused" in str(client.status()[0].trouble) or client.status()[0].trouble)
        await trio.to_thread.run_sync(server.start)
    assert server.cli("GET", "counter") == "100"


async def test_absent_server_is_told_after_the_deadline(host: str) -> None:
    async with client_of("redis://127.0.0.1:1", loop_host=host, socket_timeout=1) as client:
        with pytest.raises(StorageUnavailable, match=r"127.0.0.1:1 did not answer PING within 1 s.*127.0.0.1:1"):
            await client.execute("PING")


class Storm:
    """Callers that count in Redis and beside it, through whatever happens."""

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self.answered = self.unknown = 0
        self.over = False

    async def caller(self, name: int) -> None:
        turn = 0
        while not self.over:
            turn += 1
            said = f"{name}-{turn}"
            assert await self.client.run(ECHO, ["runs"], [said], timeout=30) == said.encode()
            self.answered += 1

    async def careful_caller(self) -> None:
        while not self.over:
            try:
                await self.client.execute("INCR", "counter", timeout=30)
            except StorageUnavailable:
                self.unknown += 1
            else:
                self.answered += 1

    async def more(self, calls: int) -> None:
        goal = self.answered + calls
        await eventually(lambda: self.answered >= goal)


async def test_client_kill_in_a_storm_loses_and_mixes_nothing(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client, trio.open_nursery() as nursery:
        storm = Storm(client)
        for name in range(50):
            nursery.start_soon(storm.caller, name)
        for _ in range(10):
            await storm.more(200)
            server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await storm.more(200)
        storm.over = True
    assert int(server.cli("GET", "runs")) >= storm.answered


async def test_kill_and_restart_of_the_server_lose_nothing_acknowledged(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client, trio.open_nursery() as nursery:
        storm = Storm(client)
        for name in range(20):
            nursery.start_soon(storm.caller, name)
        for _ in range(3):
            await storm.more(100)
            server.kill()
            await trio.to_thread.run_sync(server.start)
        await storm.more(100)
        storm.over = True
    assert int(server.cli("GET", "runs")) >= storm.answered


async def test_what_is_not_repeatable_is_counted_at_most_once(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client, trio.open_nursery() as nursery:
        storm = Storm(client)
        for _ in range(20):
            nursery.start_soon(storm.careful_caller)
        for _ in range(10):
            await storm.more(100)
            server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await storm.more(100)
        storm.over = True
    counted = int(server.cli("GET", "counter"))
    assert storm.answered <= counted <= storm.answered + storm.unknown


async def test_sleeping_server_is_outlived(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host, socket_timeout=0.3) as client:
        await client.execute("PING", timeout=30)
        with pytest.raises(StorageUnavailable):
            await client.execute("DEBUG", "SLEEP", "1.5")
        with pytest.raises(StorageUnavailable):
            await client.execute("PING")
        assert await client.execute("PING", timeout=30) == b"PONG"


async def test_a_process_that_stood_still_finds_the_replies_that_came_meanwhile(
    server: Server, host: str, mock_clock: trio.testing.MockClock
) -> None:
    async def ask(client: RedisClient, text: str) -> None:
        assert await client.execute("ECHO", text) == text.encode()

    async with client_of(server.url, loop_host=host, socket_timeout=30) as client:
        await client.execute("PING")
        for number in range(10):  # which of two tasks runs first afterwards is a matter of chance
            async with trio.open_nursery() as nursery:
                server.pause()
                nursery.start_soon(ask, client, str(number))
                await trio.testing.wait_all_tasks_blocked()
                assert client.status()[0].unanswered
                server.resume()
                server.cli("PING")  # so it has answered what came before
                mock_clock.jump(60)
        assert client.status()[0].connections == 1


async def test_loading_server_is_waited_for() -> None:
    # Small steps, or it would answer nobody while it loads; slow ones, or it would be over before it is seen.
    steps = ("loading-process-events-interval-bytes 1024", "key-load-delay 200")
    with standalone("enable-debug-command yes", *steps) as server:
        server.cli("DEBUG", "POPULATE", 10_000, "key", 100)
        async with client_of(server.url, socket_timeout=60) as client, trio.open_nursery() as nursery:
            await client.execute("PING")
            nursery.start_soon(trio.to_thread.run_sync, server.cli, "DEBUG", "RELOAD")
            refusal = None
            with trio.fail_after(30):
                while refusal is None:
                    try:
                        await client.execute("GET", "key:1", timeout=0.1)
                    except StorageRefused as refused:
                        refusal = str(refused)
                    except StorageUnavailable:
                        continue
            assert "loading" in refusal
            assert await client.execute("DBSIZE") == 10_000


async def test_garbage_on_the_wire_is_a_lost_connection(server: Server, host: str) -> None:
    first = True

    async def speak(stream: trio.SocketStream) -> None:
        # Who hangs up with something unread resets the connection.
        async with stream:
            with suppress(trio.BrokenResourceError):
                await answer(stream)

    async def answer(stream: trio.SocketStream) -> None:
        nonlocal first
        if first:
            first = False
            while data := await stream.receive_some():
                for line in data.split(b"*")[1:]:
                    await stream.send_all(b"%1\r\n+proto\r\n:3\r\n" if b"HELLO" in line else b"+OK\r\n")
                    if b"GET" in line:
                        await stream.send_all(b"?garbage\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, speak, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with client_of(f"redis://127.0.0.1:{port}", loop_host=host) as client:
            assert await client.execute("GET", "k") == b"OK"
            with pytest.raises(StorageUnavailable):
                await client.execute("SET", "k", 1, timeout=0.5)
        nursery.cancel_scope.cancel()


async def test_greeting_that_is_not_answered_leaves_time_for_another(server: Server, host: str) -> None:
    async with FaultProxy(upstream_of(server)) as proxy:
        proxy.script(Fault.STALL_REQUEST)
        async with client_of(proxy.url, loop_host=host, socket_timeout=2) as client:
            assert await client.execute("PING") == b"PONG"
