"""What a server can do to its users, as contexts: inside it does it, afterwards it is well again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from support.processes import port_candidates
from support.servers import Server

Trouble = Callable[[Server], AbstractAsyncContextManager[None]]
KEYS = 10_000  # it answers after every 1024th that it loads


@asynccontextmanager
async def gone(server: Server) -> AsyncIterator[None]:
    await trio.to_thread.run_sync(server.kill)
    yield
    await trio.to_thread.run_sync(server.start)


@asynccontextmanager
async def paused(server: Server) -> AsyncIterator[None]:
    server.pause()
    yield
    server.resume()


@asynccontextmanager
async def full(server: Server) -> AsyncIterator[None]:
    server.cli("CONFIG", "SET", "maxmemory", "100kb")  # less than an empty server uses
    yield
    server.cli("CONFIG", "SET", "maxmemory", "0")


@asynccontextmanager
async def read_only(server: Server) -> AsyncIterator[None]:
    """A replica, of a primary that is not there: a real one would wipe the data."""
    server.cli("REPLICAOF", server.host, next(port_candidates()))
    yield
    server.cli("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def loading(server: Server) -> AsyncIterator[None]:
    """Restarted, and busy with its append-only file for as long as the body takes."""
    server.cli("EVAL", f"for i = 1, {KEYS} do redis.call('SET', 'ballast' .. i, i) end", 0)
    await trio.to_thread.run_sync(server.kill)
    configuration = server.folder / "server.conf"
    plain = configuration.read_text()
    configuration.write_text(f"{plain}key-load-delay 200\nloading-process-events-interval-bytes 1024\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, server.start)
        yield
        configuration.write_text(plain)


@asynccontextmanager
async def forbidden(server: Server) -> AsyncIterator[None]:
    """Somebody changed our user's permissions."""
    server.cli("ACL", "SETUSER", "default", "-evalsha")
    yield
    server.cli("ACL", "SETUSER", "default", "+evalsha")


TROUBLES: dict[str, Trouble] = {
    "gone": gone,
    "paused": paused,
    "full": full,
    "read-only": read_only,
    "loading": loading,
}
ALL_TROUBLES: dict[str, Trouble] = {**TROUBLES, "forbidden": forbidden}


# --- what passes without anybody noticing -------------------------------------------------------------------------


async def slow(server: Server) -> None:
    await trio.to_thread.run_sync(server.cli, "DEBUG", "SLEEP", "1")


async def connections_killed(server: Server) -> None:
    server.cli("CLIENT", "KILL", "TYPE", "normal")
    server.cli("CLIENT", "KILL", "TYPE", "pubsub")


async def scripts_flushed(server: Server) -> None:
    server.cli("SCRIPT", "FLUSH")


async def restarted(server: Server) -> None:
    await trio.to_thread.run_sync(server.kill)
    await trio.to_thread.run_sync(server.start)


HICCUPS: dict[str, Callable[[Server], Awaitable[None]]] = {
    "slow": slow,
    "connections killed": connections_killed,
    "scripts flushed": scripts_flushed,
    "restarted": restarted,
}
