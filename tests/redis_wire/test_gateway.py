"""The client as callers see it: replies, types, ways in, refusals, and its end."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from dotmac.tasks.errors import (
    InternalError,
    InvalidInput,
    StorageMisconfigured,
    StorageRefused,
    StorageUnavailable,
)
from dotmac.tasks.storage.redis.gateway import RedisClient, open_client
from dotmac.tasks.storage.redis.options import RedisOptions
from dotmac.tasks.storage.redis.script import Script
from redis_wire.wire_helpers import at_rest, client_of, eventually
from support.servers import DEBIAN_REDIS, Server, needs_debian_redis, standalone

pytestmark = pytest.mark.redis
SECRET = "hush-hush"  # noqa: S105 - it protects nothing


async def test_bytes_in_bytes_out(shared_server: Server, host: str) -> None:
    async with client_of(shared_server.url, loop_host=host) as client:
        assert await client.execute("SET", f"bytes-{host}", b"\x00\xff\r\n") == b"OK"
        assert await client.execute("GET", f"bytes-{host}") == b"\x00\xff\r\n"
        assert await client.execute("GET", "absent") is None


async def test_speaks_resp3(shared_server: Server) -> None:
    async with client_of(shared_server.url) as client:
        await client.execute("DEL", "h", "z")
        await client.execute("HSET", "h", "a", 1)
        await client.execute("ZADD", "z", 1.5, "m")
        assert await client.execute("HGETALL", "h") == {b"a": b"1"}
        assert await client.execute("ZSCORE", "z", "m") == 1.5
        assert await client.run(Script("inf", "redis.setresp(3) return {double=math.huge}")) == math.inf


async def test_replies_go_to_their_callers(shared_server: Server, host: str) -> None:
    async with client_of(shared_server.url, loop_host=host) as client:

        async def caller(name: int) -> None:
            for turn in range(100):
                assert await client.execute("ECHO", f"{name}-{turn}") == f"{name}-{turn}".encode()

        async with trio.open_nursery() as nursery:
            for name in range(100):
                nursery.start_soon(caller, name)
        await at_rest(client)


async def test_large_values_pass_a_full_socket_buffer(shared_server: Server, host: str) -> None:
    async with client_of(shared_server.url, loop_host=host) as client:

        async def caller(name: int) -> None:
            value = bytes([name]) * 1_000_000
            assert await client.execute("ECHO", value) == value

        async with trio.open_nursery() as nursery:
            for name in range(20):
                nursery.start_soon(caller, name)


async def test_unix_socket(shared_server: Server, host: str) -> None:
    async with client_of(shared_server.unix_url, loop_host=host) as client:
        assert await client.execute("PING") == b"PONG"


async def test_database_number(shared_server: Server) -> None:
    async with client_of(shared_server.url.removesuffix("0") + "5") as five, client_of(shared_server.url) as zero:
        await five.execute("SET", "only-in-five", 1)
        assert await zero.execute("GET", "only-in-five") is None
    async with client_of(shared_server.url.removesuffix("0") + "99") as none:
        with pytest.raises(StorageMisconfigured, match="database number"):
            await none.execute("PING")


@needs_debian_redis
async def test_tls(host: str) -> None:
    with standalone(tls=True, binary=DEBIAN_REDIS) as server:
        async with client_of(server.url, loop_host=host) as client:

            async def caller(name: int) -> None:
                value = bytes([name]) * 200_000
                assert await client.execute("ECHO", value) == value

            async with trio.open_nursery() as nursery:
                for name in range(20):
                    nursery.start_soon(caller, name)
        async with client_of(server.url.partition("?")[0], loop_host=host) as stranger:
            with pytest.raises(StorageMisconfigured, match="certificate"):
                await stranger.execute("PING")
        missing = RedisOptions.from_url(server.url, tls_options={"ssl_ca_certs": "/missing.pem"}, loop_host=host)
        async with open_client(missing) as client:
            with pytest.raises(StorageMisconfigured, match=r"files for TLS .*ssl_ca_certs"):
                await client.execute("PING")


async def test_acl_user_and_what_he_may_not() -> None:
    with standalone(acl=["user default off", f"user app on >{SECRET} ~app:* +@all -flushall"]) as server:
        server.username, server.password = "app", SECRET
        async with client_of(server.url) as client:
            assert await client.execute("SET", "app:k", 1) == b"OK"
            with pytest.raises(StorageMisconfigured, match="ACL SETUSER"):
                await client.execute("FLUSHALL")
            with pytest.raises(StorageMisconfigured, match="ACL SETUSER"):
                await client.execute("SET", "other", 1)


@pytest.mark.parametrize("login", ["", f":{SECRET}@", f"app:{SECRET}@"])
async def test_wrong_credentials_say_so_at_once_and_are_not_shown(login: str, host: str) -> None:
    with standalone(password="another") as server:  # noqa: S106 - it protects nothing
        url = f"redis://{login}{server.host}:{server.port}"
        async with client_of(url, loop_host=host, socket_timeout=60) as client:
            with trio.fail_after(20), pytest.raises(StorageMisconfigured, match="redis_url") as refused:
                await client.execute("PING")
            assert SECRET not in str(refused.value)
            assert SECRET not in str(client.status())
            assert refused.value.__cause__ is None


async def test_credentials_mended_on_the_server_are_taken(server: Server) -> None:
    server.cli("CONFIG", "SET", "requirepass", "another")
    server.password = "another"  # noqa: S105 - it protects nothing
    async with client_of(f"redis://:word@{server.host}:{server.port}") as client:
        with pytest.raises(StorageMisconfigured):
            await client.execute("PING")
        server.cli("CONFIG", "SET", "requirepass", "word")
        server.password = "word"  # noqa: S105 - it protects nothing
        while True:  # tries in the meantime may still find the old state
            try:
                assert await client.execute("PING") == b"PONG"
                break
            except StorageMisconfigured:
                continue


async def test_unknown_command_is_our_bug(shared_server: Server) -> None:
    async with client_of(shared_server.url) as client:
        with pytest.raises(InternalError, match="unknown command"):
            await client.execute("NOSUCH", "x")
        with pytest.raises(InvalidInput):
            await client.execute("SET", "k", None)  # type: ignore[arg-type]  # what the test is about


async def test_readonly_replica_is_refused_after_the_deadline(server: Server) -> None:
    server.cli("REPLICAOF", "127.0.0.1", "1")
    async with client_of(server.url, socket_timeout=30) as client:
        await client.execute("PING")
        with pytest.raises(StorageRefused, match="read-only"):
            await client.execute("SET", "k", 1, timeout=0.5)


async def test_readonly_replica_is_not_connected_to_anew_for_each_try(server: Server) -> None:
    async def write(client: RedisClient) -> None:
        with pytest.raises((StorageRefused, StorageUnavailable), match="READONLY"):
            await client.execute("SET", "k", 1, timeout=1)

    server.cli("REPLICAOF", "127.0.0.1", "1")
    async with client_of(server.url) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(write, client)
        assert client.status()[0].connections < 5, "it is looked for anew now and then, not at each try"


async def test_replica_that_becomes_master_is_found_within_the_deadline(server: Server) -> None:
    server.cli("REPLICAOF", "127.0.0.1", "1")
    async with client_of(server.url, socket_timeout=30) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.execute, "SET", "k", 1)
        await eventually(lambda: client.status()[0].connections > 1)  # it has complained, and looked again
        await trio.to_thread.run_sync(server.cli, "REPLICAOF", "NO", "ONE")


async def test_every_primary_of_one_server_is_that_server(shared_server: Server) -> None:
    async with client_of(shared_server.url) as client:
        assert await client.on_every_primary("ECHO", "x") == {f"{shared_server.host}:{shared_server.port}": b"x"}
        with pytest.raises(InternalError):
            await client.on_every_primary("NOSUCH")


async def test_busy_server_is_waited_for(server: Server) -> None:
    endless = Script("endless", "while true do end")
    async with client_of(server.url, socket_timeout=20) as client, client_of(server.url) as other:
        await client.execute("CONFIG", "SET", "busy-reply-threshold", 50)

        async def run_endless() -> None:
            with pytest.raises(InternalError, match="killed"):
                await client.run(endless)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_endless)
            refusal = None
            while refusal is None:  # until the script runs
                try:
                    await other.execute("PING", timeout=0.5)
                except StorageRefused as refused:
                    refusal = str(refused)
                except StorageUnavailable:
                    continue  # busy with the script already, and not yet for so long that it says so
            assert "SCRIPT KILL" in refusal
            nursery.start_soon(other.execute, "SET", "after", 1)
            assert await other.execute("SCRIPT", "KILL", timeout=5) == b"OK"


async def test_exceptions_of_the_body_pass_unwrapped(shared_server: Server, host: str) -> None:
    async def fail(url: str, seconds: float) -> None:
        async with client_of(url, loop_host=host, socket_timeout=seconds) as client:
            await client.execute("PING")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail(shared_server.url, 30)
    with pytest.raises(StorageUnavailable):
        await fail("redis://127.0.0.1:1", 0.1)


async def test_cancelled_body_can_still_clean_up(shared_server: Server, host: str) -> None:
    cleaned = False
    with trio.CancelScope() as scope:
        async with client_of(shared_server.url, loop_host=host) as client:
            await client.execute("PING")
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    cleaned = await client.execute("PING") == b"PONG"
    assert scope.cancelled_caught
    assert cleaned


async def test_opened_and_closed_at_once(shared_server: Server, host: str) -> None:
    async with client_of(shared_server.url, loop_host=host):
        pass
    with trio.CancelScope() as scope:
        scope.cancel()
        async with client_of(shared_server.url, loop_host=host):
            pass


async def test_close_with_calls_in_flight_fails_them(server: Server, host: str) -> None:
    failed = 0

    async def caller() -> None:
        nonlocal failed
        with pytest.raises(StorageUnavailable, match="closed"):
            await client.execute("GET", "k", repeatable=True)
        failed += 1

    async with trio.open_nursery() as nursery:
        async with client_of(server.url, loop_host=host) as client:
            await client.execute("PING")
            server.pause()
            for _ in range(50):
                nursery.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StorageUnavailable, match="closed"):
            await client.execute("PING")
        with pytest.raises(StorageUnavailable, match="closed"):
            async with client.watch("c"):
                pass
    server.resume()
    assert failed == 50
