"""Each remedy in a refusal of the server is carried out as it stands, and the write succeeds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from degradation.house import until
from degradation.test_remedies import PREFIX, carry_out, complaints, refusal
from degradation.troubles import full, read_only
from dotmac.tasks.storage.redis import RedisStorage
from support.servers import DEBIAN_REDIS, Server, needs_debian_redis, standalone
from support.standalone import ErrorReply

Refusing = Callable[[Server], AbstractAsyncContextManager[None]]
MIB = 1 << 20


@asynccontextmanager
async def without_replicas(server: Server) -> AsyncIterator[None]:
    server.cli("CONFIG", "SET", "min-replicas-to-write", "1")
    yield


@asynccontextmanager
async def without_a_disk(server: Server) -> AsyncIterator[None]:
    """A snapshot fails, since a folder has its name."""
    blocker = server.folder / server.cli("CONFIG", "GET", "dbfilename")[1]
    blocker.unlink(missing_ok=True)
    blocker.mkdir()
    server.cli("CONFIG", "SET", "save", "3600 1000000")
    server.cli("BGSAVE")
    await until(lambda: "rdb_last_bgsave_status:err" in server.cli("INFO", "persistence"))
    blocker.rmdir()
    yield
    await until(lambda: "rdb_last_bgsave_status:ok" in server.cli("INFO", "persistence"))


@asynccontextmanager
async def in_a_script(server: Server) -> AsyncIterator[None]:
    def loop() -> None:
        with suppress(ErrorReply):
            server.cli("EVAL", "while true do end", 0)

    server.cli("CONFIG", "SET", "busy-reply-threshold", "10")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, loop)
        await until(lambda: _is_busy(server))
        yield


def _is_busy(server: Server) -> bool:
    try:
        server.cli("PING")
    except ErrorReply as error:
        return "BUSY" in str(error)
    return False


REFUSALS: dict[str, Refusing] = {
    "OOM": full,
    "MISCONF": without_a_disk,
    "BUSY": in_a_script,
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_the_command_in_a_refusal_ends_it(server: Server, code: str) -> None:
    storage = RedisStorage(server.url, PREFIX, socket_timeout=0.5)
    async with REFUSALS[code](server):
        told = str(await refusal(storage))
        assert code in told
        carry_out(server, told, BYTES=64 * MIB)
        await until_accepted(storage)


async def until_accepted(storage: RedisStorage) -> None:
    """The remedy may take the server a moment."""
    with trio.fail_after(20):
        while await refusal(storage) is not None:  # noqa: ASYNC110 - states of a server have no event
            await trio.sleep(0.02)


@pytest.mark.parametrize("choice", ["attach", "lower"])
async def test_either_way_out_of_missing_replicas_ends_the_refusal(server: Server, choice: str) -> None:
    storage = RedisStorage(server.url, PREFIX, socket_timeout=0.5)
    async with without_replicas(server):
        told = str(await refusal(storage))
        assert "NOREPLICAS" in told
        attach, lower = told.split(", or ask for fewer: ")
        with standalone() as replica:
            if choice == "attach":
                carry_out(replica, attach, HOST=server.host, PORT=server.port)
            else:
                carry_out(server, lower)
            await until_accepted(storage)


async def test_a_replica_is_promoted_as_the_refusal_of_a_start_says(server: Server) -> None:
    async with read_only(server):
        promoting = [str(finding.remedy) for finding in await complaints(RedisStorage(server.url, PREFIX))]
        (remedy,) = [each for each in promoting if "NO ONE" in each]
        carry_out(server, remedy)
        await until_accepted(RedisStorage(server.url, PREFIX, socket_timeout=0.5))


async def test_what_the_doctor_says_to_attach_is_a_replica(server: Server) -> None:
    storage = RedisStorage(server.url, PREFIX)
    with standalone() as replica:
        (remedy,) = [str(each.remedy) for each in await complaints(storage) if each.check == "replication"]
        carry_out(replica, remedy)
        await until(lambda: "state=online" in server.cli("INFO", "replication"))
        assert "replication" not in [each.check for each in await complaints(storage)]


async def test_what_durability_by_replicas_says_to_attach_is_enough(server: Server) -> None:
    storage = RedisStorage(server.url, PREFIX, durability="replica", socket_timeout=0.5)
    told = str(await refusal(storage))
    with standalone() as replica:
        carry_out(replica, told)
        await until_accepted(storage)


async def test_evictions_are_forgotten_as_the_doctor_says(server: Server) -> None:
    server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.cli("SET", "evicted", "1")
    async with full(server):
        with suppress(ErrorReply):
            server.cli("SET", "one", "more")
    server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    storage = RedisStorage(server.url, PREFIX)
    (finding,) = [each for each in await complaints(storage) if each.check == "eviction"]
    carry_out(server, str(finding.remedy))
    assert "eviction" not in [each.check for each in await complaints(storage)]


@pytest.mark.parametrize(
    ("broken", "field", "repair"),
    [("snapshot", "rdb_last_bgsave_status", "BGSAVE"), ("rewrite", "aof_last_bgrewrite_status", "BGREWRITEAOF")],
)
async def test_a_failed_save_is_repeated_as_the_doctor_says(
    server: Server, broken: str, field: str, repair: str
) -> None:
    blocker = await _break_saving(server, broken, field)
    storage = RedisStorage(server.url, PREFIX)
    (finding,) = [each for each in await complaints(storage) if each.check == "persistence"]
    assert repair in str(finding.remedy)
    blocker.rmdir()
    carry_out(server, str(finding.remedy))
    await until(lambda: f"{field}:ok" in server.cli("INFO", "persistence"))
    assert "persistence" not in [each.check for each in await complaints(storage)]


async def _break_saving(server: Server, broken: str, field: str) -> Path:
    """Make a save fail by a folder with the name of its file; the folder."""
    path, command = server.folder / str(server.cli("CONFIG", "GET", "dbfilename")[1]), "BGSAVE"
    if broken == "rewrite":
        folder = server.folder / server.cli("CONFIG", "GET", "appenddirname")[1]
        path, command = _next_base(folder), "BGREWRITEAOF"
    path.unlink(missing_ok=True)
    path.mkdir()
    server.cli(command)
    await until(lambda: f"{field}:err" in server.cli("INFO", "persistence"))
    return path


def _next_base(folder: Path) -> Path:
    """Where the next rewrite puts its base file."""
    (base,) = [file.name for file in folder.iterdir() if ".base." in file.name]
    name, number, *rest = base.rsplit(".", 3)
    return folder / ".".join([name, str(int(number) + 1), *rest])


@needs_debian_redis
async def test_a_server_without_waitaof_keeps_writes_as_the_refusal_says() -> None:
    with standalone("appendonly yes", binary=DEBIAN_REDIS) as server:
        storage = RedisStorage(server.url, PREFIX, durability="fsync")
        told = str(await refusal(storage))
        assert "too old for WAITAOF" in told
        carry_out(server, told)
        assert await refusal(storage) is None
