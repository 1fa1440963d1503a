"""Scripts: found by content, loaded where they are missing, kept to one slot."""

from __future__ import annotations

import hashlib
import re

import pytest
import trio

from dotmac.tasks.errors import InternalError, InvalidInput, StorageRefused, StorageUnavailable
from dotmac.tasks.storage.redis.script import Script, common_slot
from redis_wire.wire_helpers import ECHO, client_of
from support.servers import Server

pytestmark = pytest.mark.redis


def test_slot_is_that_of_the_tag() -> None:
    assert common_slot(["{a}x", b"{a}y", "z{a}"]) == common_slot(["a"])
    assert common_slot([]) == 0
    assert common_slot(["{}x", "{}x"]) == common_slot(["{}x"])


@pytest.mark.parametrize("keys", [["{a}1", "{b}1"], ["a", "b"], ["{}a", "{}b"]])
def test_keys_of_several_slots_are_refused(keys: list[str]) -> None:
    with pytest.raises(InvalidInput, match="slots"):
        common_slot(keys)


def test_script_is_named_by_its_content() -> None:
    assert Script("x", "return 1").sha.decode() == hashlib.sha1(b"return 1", usedforsecurity=False).hexdigest()
    assert "return 1" not in repr(Script("x", "return 1"))


async def test_runs_and_loads_where_missing(shared_server: Server, host: str) -> None:
    async with client_of(shared_server.url, loop_host=host) as client:
        script = Script("sum", f"-- {host}\nreturn ARGV[1] + ARGV[2]")
        assert await client.run(script, args=[2, "3"]) == 5
        assert await client.run(script, args=[b"1", 1]) == 2


async def test_survives_script_flush_in_a_storm(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client:

        async def storm(name: int) -> None:
            for turn in range(100):
                assert await client.run(ECHO, ["runs"], [f"{name}-{turn}"]) == f"{name}-{turn}".encode()

        async with trio.open_nursery() as nursery:
            for name in range(20):
                nursery.start_soon(storm, name)
            for _ in range(30):
                await client.execute("SCRIPT", "FLUSH")
        assert await client.execute("GET", "runs") == b"2000"  # NOSCRIPT means: not run; so once each


async def test_broken_script_is_our_bug(shared_server: Server) -> None:
    async with client_of(shared_server.url) as client:
        with pytest.raises(InternalError, match=r"half.*Error compiling"):
            await client.run(Script("half", "return ("))
        with pytest.raises(InternalError, match=r"thrower.*on purpose"):
            await client.run(Script("thrower", "return redis.error_reply('ERR on purpose')"))
        await client.execute("SET", "wrong", 1)
        with pytest.raises(InternalError, match="WRONGTYPE"):
            await client.run(Script("typed", "return redis.call('LPUSH', KEYS[1], 1)"), ["wrong"])
        assert await client.execute("PING") == b"PONG"


async def test_full_server_refuses_a_script(server: Server) -> None:
    async with client_of(server.url) as client:
        await client.execute("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StorageRefused, match="maxmemory"):
            await client.run(ECHO, ["k"], ["x"])


async def test_server_that_never_gets_to_know_a_script_was_too_slow_and_is_no_bug(shared_server: Server) -> None:
    """As when it is restarted again and again, or so late that the load falls outside of the call's time.

    The time may be over between two tries or while the last one waits; the reason is told in both cases.
    """
    script = Script("unlucky", "return 'loaded in vain'")
    script.loader = ECHO.loader  # so that every load is one of something else
    async with client_of(shared_server.url) as client:
        with pytest.raises(StorageUnavailable, match=r"unlucky within 0\.3 s.*NOSCRIPT") as caught:
            await client.run(script, timeout=0.3)
        assert re.search(r"no time was left to load it|before that, it said: NOSCRIPT", str(caught.value))
        assert await client.execute("PING") == b"PONG"
