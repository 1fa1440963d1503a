"""Acknowledged means what the operator asked for: carried out, on disk, or on replicas."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import trio

from dotmac.tasks.errors import InvalidInput, StorageMisconfigured, StorageUnavailable
from dotmac.tasks.storage.records import SagaFilter
from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import LONG, RUNNING, adoption, claim, done, entry, lock, new_record, new_saga, put_saga
from support.processes import wait_until
from support.servers import DEBIAN_REDIS, Server, needs_debian_redis, standalone

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def everysec() -> Iterator[Server]:
    """A server whose writes reach the disk within a second, so not before its replies."""
    with standalone("appendfsync everysec", aof=True) as server:
        yield server


def _storage(server: Server, **options: Any) -> RedisStorage:
    return RedisStorage(server.url, prefix=f"test-{uuid4().hex[:8]}", **options)


def _calls(server: Server, command: str) -> int:
    """How often the server was asked this."""
    for line in str(server.cli("INFO", "commandstats")).splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.partition("calls=")[2].partition(",")[0])
    return 0


async def test_writes_wait_for_the_disk_together(everysec: Server) -> None:
    storage = _storage(everysec, durability="fsync")
    before = _calls(everysec, "waitaof")
    async with storage.opened():

        async def one() -> None:
            meta = await put_saga(storage, owner="w1")
            assert (await storage.append(entry(meta, RUNNING))).cancel is None

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)
        assert len((await storage.list_sagas(SagaFilter(), 1000)).sagas) == 100
    waits = _calls(everysec, "waitaof") - before
    # 201 writes (one opens the namespace), in far fewer rounds of the disk: a write that arrives waits for the next.
    assert 2 <= waits <= 60


async def test_reads_do_not_wait_for_the_disk(everysec: Server) -> None:
    storage = _storage(everysec, durability="fsync")
    async with storage.opened():
        meta = await put_saga(storage, owner="w1")
        before = _calls(everysec, "waitaof")
        assert await storage.load_saga(meta.saga_id) is not None
        assert await storage.saga_meta(meta.saga_id) is not None
        assert _calls(everysec, "waitaof") == before


async def test_a_server_that_syncs_before_it_answers_needs_no_barrier() -> None:
    with standalone("appendfsync always", aof=True) as server:
        async with (storage := _storage(server, durability="fsync")).opened():
            await put_saga(storage, owner="w1")
        assert _calls(server, "waitaof") == 0


async def test_without_an_append_only_file_durability_on_disk_is_refused_with_the_remedy() -> None:
    with standalone() as server, pytest.raises(StorageMisconfigured, match="CONFIG SET appendonly yes"):
        async with _storage(server, durability="fsync").opened():
            pass


@needs_debian_redis
async def test_a_server_without_waitaof_is_refused_with_the_remedy() -> None:
    with (
        standalone("appendfsync everysec", aof=True, binary=DEBIAN_REDIS) as server,
        pytest.raises(StorageMisconfigured, match="CONFIG SET appendfsync always"),
    ):
        async with _storage(server, durability="fsync").opened():
            pass


async def test_too_few_replicas_are_refused_with_the_number(everysec: Server) -> None:
    with pytest.raises(StorageMisconfigured, match=r"asks for 2 replicas, .* has 0"):
        async with _storage(everysec, durability="replica", replicas=2).opened():
            pass


async def test_a_write_that_no_replica_has_is_not_acknowledged_and_can_be_sent_again() -> None:
    with standalone(aof=True) as primary, standalone() as replica:
        replica.cli("REPLICAOF", primary.host, str(primary.port))
        wait_until(lambda: "state=online" in str(primary.cli("INFO", "replication")), what="the replica follows")
        async with _storage(primary, durability="replica", socket_timeout=30.0).opened():
            pass  # a replica that has just come takes its time for its first word
        storage = _storage(primary, durability="replica", socket_timeout=1.0)
        async with storage.opened():
            meta = await put_saga(storage, owner="w1")
            begun = entry(meta, RUNNING)
            replica.pause()
            with pytest.raises(StorageUnavailable):
                await storage.append(begun)
            replica.resume()
            with trio.fail_after(20):
                while True:
                    try:
                        await storage.append(begun)
                        break
                    except StorageUnavailable:
                        await trio.sleep(0.05)
            record = await storage.load_saga(meta.saga_id)
            assert record is not None
            assert [line.entry_id for line in record.journal][1:] == [begun.entry_id]


async def test_what_is_sent_again_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A WAIT speaks of its connection's writes: one behind a repetition that wrote nothing would say nothing."""
    same = uuid4()
    monkeypatch.setattr("dotmac.tasks.storage.redis.records.uuid4", lambda: same)
    with standalone(aof=True) as primary, standalone() as replica:
        replica.cli("REPLICAOF", primary.host, str(primary.port))
        wait_until(lambda: "state=online" in str(primary.cli("INFO", "replication")), what="the replica follows")
        storage = _storage(primary)
        async with storage.opened():
            owned, released = await put_saga(storage, owner="w1"), await put_saga(storage, owner="w1")
            created, begun, adopted = new_saga(storage, owner="w1"), entry(owned), adoption(owned)
            sent: dict[str, Callable[[], Awaitable[object]]] = {
                "create_record": lambda: storage.create_record(new_record("created")),
                "claim_record": lambda: claim(storage),
                "renew_claim": lambda: storage.renew_claim("key", "a", LONG),
                "complete_record": lambda: storage.complete_record(done()),
                "create_saga": lambda: storage.create_saga(created),
                "append": lambda: storage.append(begun),
                "release_saga": lambda: storage.release_saga(released.saga_id, released.epoch, None),
                "adopt_saga": lambda: storage.adopt_saga(adopted),
                "request_lock": lambda: storage.request_lock(lock("a")),
                "extend_lock": lambda: storage.extend_lock("lock", "a", LONG),
            }
            for verb, send in sent.items():
                await send()
                before = _offset(primary)
                await send()
                assert _offset(primary) > before, verb


def _offset(server: Server) -> int:
    """How much the server has told its replicas."""
    return int(str(server.cli("INFO", "replication")).partition("master_repl_offset:")[2].partition("\r")[0])


async def test_connections_that_are_cut_lose_no_held_reply(everysec: Server) -> None:
    storage = _storage(everysec, durability="fsync", socket_timeout=30.0)
    async with storage.opened():
        done: list[str] = []

        async def one() -> None:
            meta = await put_saga(storage, owner="w1")
            await storage.append(entry(meta, RUNNING))
            done.append(meta.saga_id)

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(one)
            for _ in range(10):
                await trio.sleep(0.02)
                everysec.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for saga_id in done:
            record = await storage.load_saga(saga_id)
            assert record is not None
            assert len(record.journal) == 2
        assert len(done) == 60


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"durability": "eventually"}, "durability"),
        ({"replicas": 0}, "replicas"),
        ({"fsync": "never"}, "fsync"),
        ({"partitions": 0}, "partitions"),
        ({"partitions": 1000}, "partitions"),
        ({"prefix": "with {braces}"}, "prefix"),
        ({"redis_url": "http://localhost"}, "redis_url"),
        ({"socket_timeout": -1.0}, "socket_timeout"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        RedisStorage(**options)  # type: ignore[arg-type]  # wrong ones are the point
    assert refused.value.field == field


async def test_a_server_that_may_throw_data_away_is_refused_with_the_remedy() -> None:
    with (
        standalone("maxmemory 100mb", "maxmemory-policy allkeys-lru", aof=True) as server,
        pytest.raises(StorageMisconfigured, match="CONFIG SET maxmemory-policy noeviction"),
    ):
        async with _storage(server).opened():
            pass


async def test_a_server_that_forgets_when_it_stops_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with standalone() as server, caplog.at_level(logging.WARNING):
        async with _storage(server).opened():
            pass
    assert "CONFIG SET appendonly yes" in caplog.text


async def test_the_number_of_partitions_is_fixed_when_the_namespace_is_created(everysec: Server) -> None:
    prefix = f"test-{uuid4().hex[:8]}"
    async with RedisStorage(everysec.url, prefix=prefix, partitions=4).opened():
        pass
    with pytest.raises(StorageMisconfigured, match="created with 4 partitions"):
        async with RedisStorage(everysec.url, prefix=prefix, partitions=8).opened():
            pass
    as_it_is = RedisStorage(everysec.url, prefix=prefix)
    async with as_it_is.opened():
        assert len(as_it_is.layout.partitions) == 4
