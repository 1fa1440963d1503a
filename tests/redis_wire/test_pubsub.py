"""Messages wake watchers; a lost connection wakes them too, because a message may have been missed."""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing

from dotmac.tasks.errors import StorageMisconfigured, StorageUnavailable
from redis_wire.wire_helpers import client_of, eventually
from support.processes import port_candidates
from support.proxy import Fault, FaultProxy
from support.servers import Server, standalone

pytestmark = pytest.mark.redis


def subscribers(server: Server, channel: str) -> int:
    return int(server.cli("PUBSUB", "NUMSUB", channel)[1])


async def test_message_after_entering_is_never_missed(shared_server: Server, host: str) -> None:
    async with client_of(shared_server.url, loop_host=host) as client:
        for turn in range(50):
            channel = f"missed-{host}-{turn}"
            async with client.watch(channel) as watch:
                assert await client.execute("PUBLISH", channel, "x") == 1
                with trio.fail_after(10):
                    await watch.wait()


async def test_hints_coalesce_and_do_not_stay(shared_server: Server) -> None:
    async with client_of(shared_server.url) as client, client.watch("coalesce") as watch:
        for _ in range(5):
            await client.execute("PUBLISH", "coalesce", "x")
        await watch.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.move_on_after(0.05) as nothing:
            await watch.wait()
            await watch.wait()
        assert nothing.cancelled_caught


async def test_many_watchers_share_one_subscription_and_the_last_ends_it(shared_server: Server, host: str) -> None:
    channel = f"shared-{host}"
    woken = 0

    async def watcher(ready: trio.Event) -> None:
        nonlocal woken
        async with client.watch(channel) as watch:
            ready.set()
            await watch.wait()
            woken += 1

    async with client_of(shared_server.url, loop_host=host) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                ready = trio.Event()
                nursery.start_soon(watcher, ready)
                await ready.wait()
            assert subscribers(shared_server, channel) == 1
            await client.execute("PUBLISH", channel, "x")
        assert woken == 20
        await eventually(lambda: subscribers(shared_server, channel) == 0)


async def test_coming_and_going_at_once_ends_subscribed(shared_server: Server, host: str) -> None:
    channel = f"flicker-{host}"
    async with client_of(shared_server.url, loop_host=host) as client, client.watch("other"):
        for _ in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                async with client.watch(channel):
                    pass
            async with client.watch(channel) as watch:
                assert await client.execute("PUBLISH", channel, "x") == 1
                with trio.fail_after(10):
                    await watch.wait()
        await eventually(lambda: subscribers(shared_server, channel) == 0)


async def test_reconnect_subscribes_again_and_wakes_everybody(server: Server, host: str) -> None:
    async with (
        client_of(server.url, loop_host=host) as client,
        client.watch("a") as first,
        client.watch("b") as second,
    ):
        for _ in range(3):
            server.cli("CLIENT", "KILL", "TYPE", "pubsub")
            with trio.fail_after(10):
                await first.wait()
                await second.wait()
            assert await client.execute("PUBLISH", "a", "x") == 1
            with trio.fail_after(10):
                await first.wait()


async def test_restart_of_the_server_wakes_everybody(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client, client.watch("a") as watch:
        server.kill()
        await trio.to_thread.run_sync(server.start)
        with trio.fail_after(20):
            await watch.wait()
        assert subscribers(server, "a") == 1


async def test_silent_connection_is_noticed(server: Server, host: str) -> None:
    async with (
        FaultProxy((server.host, server.port)) as proxy,
        client_of(proxy.url, loop_host=host, socket_timeout=0.5) as client,
        client.watch("a") as watch,
    ):
        proxy.randomize(1, {Fault.STALL_REPLY: 1.0})
        await eventually(lambda: Fault.STALL_REPLY in proxy.history)
        proxy.calm()
        with trio.fail_after(20):
            await watch.wait()


async def test_a_server_that_refuses_to_say_it_lives_is_listened_to_all_the_same(server: Server, host: str) -> None:
    def refused_pings() -> int:
        found = re.search(r"cmdstat_ping:.*rejected_calls=(\d+)", server.cli("INFO", "commandstats"))
        return int(found[1]) if found else 0

    def listener() -> str:
        return str(server.cli("CLIENT", "LIST", "TYPE", "pubsub")).partition(" ")[0]

    server.cli("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.cli("REPLICAOF", server.host, next(port_candidates()))
    async with client_of(server.url, loop_host=host, socket_timeout=0.5) as client, client.watch("a") as watch:
        first = listener()
        await eventually(lambda: refused_pings() > 2)
        assert listener() == first
        server.cli("PUBLISH", "a", "x")
        with trio.fail_after(20):
            await watch.wait()


async def test_absent_server_is_told_when_entering(host: str) -> None:
    async with client_of("redis://127.0.0.1:1", loop_host=host, socket_timeout=1) as client:
        with pytest.raises(StorageUnavailable, match=r"127.0.0.1:1"):
            async with client.watch("a"):
                pass


async def test_channel_that_is_not_allowed_is_told_when_entering() -> None:
    with standalone(acl=["user default off", "user app on >word ~* +@all &mine:*"]) as server:
        server.username, server.password = "app", "word"
        async with client_of(server.url) as client, client.watch("mine:a") as watch:
            with pytest.raises(StorageMisconfigured, match="SUBSCRIBE theirs"):
                async with client.watch("theirs"):
                    pass
            await client.execute("PUBLISH", "mine:a", "x")
            await watch.wait()


async def test_wrong_password_is_told_when_entering() -> None:
    with standalone(password="word") as server:  # noqa: S106 - it protects nothing
        async with client_of(f"redis://:no@{server.host}:{server.port}", socket_timeout=30) as client:
            with trio.fail_after(10), pytest.raises(StorageMisconfigured):
                async with client.watch("a"):
                    pass


async def test_end_of_the_client_ends_waiting(shared_server: Server, host: str) -> None:
    async def watcher(ready: trio.Event) -> None:
        async with client.watch("end") as watch:
            ready.set()
            with pytest.raises(StorageUnavailable, match="closed"):
                await watch.wait()

    async with trio.open_nursery() as nursery, client_of(shared_server.url, loop_host=host) as client:
        ready = trio.Event()
        nursery.start_soon(watcher, ready)
        await ready.wait()


async def test_refused_channel_is_asked_for_again_once_it_is_allowed() -> None:
    with standalone(acl=["user default on nopass ~* +@all resetchannels"]) as server:
        async with client_of(server.url) as client:
            with pytest.raises(StorageMisconfigured):
                async with client.watch("a"):
                    pass
            server.cli("ACL", "SETUSER", "default", "&*")
            async with client.watch("a") as watch:
                assert await client.execute("PUBLISH", "a", "x") == 1
                await watch.wait()
