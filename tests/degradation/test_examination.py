"""What the examination of a storage finds, on real servers and on what servers may report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, Finding, MemoryStorage, Verdict
from dotmac.tasks.storage.redis import RedisStorage
from dotmac.tasks.storage.redis.judging import judge, on_node
from support.processes import port_candidates
from support.servers import Server

CHECKS = ["connection", "version", "persistence", "eviction", "memory", "replication", "clock", "latency",
          "namespace", "journals", "missing handlers", "scripts", "messages", "handlers"]  # fmt: skip
GIB = 1 << 30
HEALTHY = {
    "valkey_version": "8.1.0",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "maxmemory_policy": "noeviction",
    "used_memory": str(GIB),
    "maxmemory": str(4 * GIB),
    "total_system_memory": str(8 * GIB),
    "connected_slaves": "1",
    "slave0": "ip=10.0.0.2,port=6379,state=online,offset=1,lag=1",
    "slave_expires_tracked_keys": "0",
}


async def examined(storage: Any) -> dict[str, Finding]:
    with trio.fail_after(30):
        findings: list[Finding] = await BackgroundOperationsManager(storage=storage).examine()
    return {finding.check: finding for finding in findings}


@pytest.mark.redis
async def test_each_thing_is_looked_at_and_told(server: Server) -> None:
    found = await examined(RedisStorage(server.url))
    assert list(found) == CHECKS
    assert not [finding for finding in found.values() if finding.verdict is Verdict.PROBLEM]
    assert "does not exist yet; it will have 16 partitions" in found["namespace"].message
    assert server.cli("KEYS", "*") == []  # looking changes nothing
    async with RedisStorage(server.url, partitions=4).opened():
        pass
    assert "format 1, 4 partitions" in (await examined(RedisStorage(server.url)))["namespace"].message


@pytest.mark.redis
async def test_a_server_that_the_storage_would_refuse_is_examined_and_mended_by_the_remedy(server: Server) -> None:
    server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.cli("CONFIG", "SET", "appendonly", "no")
    found = await examined(RedisStorage(server.url))
    assert found["eviction"].verdict is Verdict.PROBLEM
    assert found["persistence"].verdict is Verdict.ADVICE
    for check in ("eviction", "persistence"):
        command, _, rewrite = (found[check].remedy or "").partition(" && ")
        assert rewrite.endswith("CONFIG REWRITE")
        prefix = f"redis-cli -h {server.host} -p {server.port} "
        assert command.startswith(prefix)
        server.cli(*command.removeprefix(prefix).split())
    found = await examined(RedisStorage(server.url))
    assert found["eviction"].verdict is Verdict.OK
    assert found["persistence"].verdict is Verdict.OK


@pytest.mark.redis
async def test_what_does_not_fit_the_namespace_is_told(server: Server) -> None:
    async with RedisStorage(server.url, partitions=4).opened():
        pass
    asked = (await examined(RedisStorage(server.url, partitions=8)))["namespace"]
    assert (asked.verdict, asked.remedy) == (Verdict.PROBLEM, "pass partitions=4, or leave it out")
    server.cli("HSET", "{dotmac_tasks:ns}", "format", "99")
    assert "format 99" in (await examined(RedisStorage(server.url)))["namespace"].message


@pytest.mark.redis
async def test_a_user_without_rights_is_told_what_is_missing(server: Server) -> None:
    server.cli("ACL", "SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-script")
    found = await examined(RedisStorage(server.url, username="poor", password="secret"))  # noqa: S106 - of this test
    assert found["scripts"].verdict is Verdict.PROBLEM
    assert found["scripts"].remedy == "redis-cli ACL SETUSER USER '+script|load' +evalsha"
    refused = await examined(RedisStorage(server.url, username="poor", password="wrong"))  # noqa: S106 - of this test
    assert list(refused) == ["connection"]
    assert "user and password" in (refused["connection"].remedy or "")


@pytest.mark.redis
async def test_a_replica_is_no_place_to_write_to(server: Server) -> None:
    server.cli("REPLICAOF", "127.0.0.1", "1")
    found = (await examined(RedisStorage(server.url)))["replication"]
    assert found.verdict is Verdict.PROBLEM
    assert found.message.startswith("it is a replica of 127.0.0.1:1")
    assert (found.remedy or "").startswith("point the URL at 127.0.0.1:1; ")
    server.cli(*(found.remedy or "").split()[-3:])
    assert (await examined(RedisStorage(server.url)))["replication"].verdict is Verdict.ADVICE


@pytest.mark.redis
@pytest.mark.parametrize(
    ("lacks", "verdict"),
    [("resetchannels", Verdict.PROBLEM), ("-publish", Verdict.PROBLEM), ("-subscribe", Verdict.ADVICE)],
)
async def test_a_user_without_channels_is_told_what_to_grant(server: Server, lacks: str, verdict: Verdict) -> None:
    server.cli("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "&*", "+@all", lacks)
    storage = RedisStorage(server.url, username="deaf", password="secret")  # noqa: S106 - of this test
    found = (await examined(storage))["messages"]
    assert found.verdict is verdict
    grant = (found.remedy or "").removeprefix("redis-cli ").replace(" USER ", " deaf ").replace("'", "")
    server.cli(*grant.split())
    assert (await examined(storage))["messages"].verdict is Verdict.OK


async def test_a_server_that_is_not_there_is_one_finding() -> None:
    port = next(port_candidates())
    found = await examined(RedisStorage(f"redis://u:secret@127.0.0.1:{port}/0", socket_timeout=0.5))
    assert list(found) == ["connection"]
    assert found["connection"].verdict is Verdict.PROBLEM
    assert found["connection"].remedy == (
        f"redis-cli -h 127.0.0.1 -p {port} PING (shows whether it can be reached from here)"
    )
    assert "secret" not in repr(found)


@pytest.mark.redis
async def test_an_embedded_server_is_examined(tmp_path: Path) -> None:
    found = await examined(RedisStorage.embedded(tmp_path / "data"))
    assert list(found) == CHECKS
    assert not [finding for finding in found.values() if finding.verdict is Verdict.PROBLEM]


@pytest.mark.redis
async def test_what_delays_the_handlers_of_a_worker_is_told(server: Server) -> None:
    storage = RedisStorage(server.url)
    async with storage.opened():
        await storage.register_worker("w1", 60, {"troubles": "charge is full"})
        found = (await examined(RedisStorage(server.url)))["handlers"]
        assert (found.verdict, found.message, found.node) == (Verdict.ADVICE, "charge is full", "w1")
        await storage.retire_worker("w1")
        found = (await examined(RedisStorage(server.url)))["handlers"]
        assert (found.verdict, found.node) == (Verdict.OK, "")


async def test_memory_says_what_it_is() -> None:
    found = await examined(MemoryStorage())
    assert found["persistence"].verdict is Verdict.ADVICE


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "words"),
    [
        ({"valkey_version": "7.0"}, "version", "ok", "Valkey 7.0"),
        ({"valkey_version": "6.2.7"}, "version", "problem", "too old"),
        ({"aof_enabled": "0"}, "persistence", "advice", "no append-only file"),
        ({"aof_last_write_status": "err"}, "persistence", "problem", "cannot be written"),
        ({"aof_last_bgrewrite_status": "err"}, "persistence", "problem", "could not be rewritten"),
        ({"rdb_last_bgsave_status": "err"}, "persistence", "problem", "snapshot failed"),
        ({"maxmemory_policy": "volatile-ttl"}, "eviction", "problem", "volatile-ttl"),
        ({"maxmemory": "0"}, "memory", "advice", "without a limit"),
        ({"used_memory": str(int(3.5 * GIB))}, "memory", "advice", "3584 of 4096 MiB"),
        ({"used_memory": str(4 * GIB)}, "memory", "problem", "refuses writes"),
        ({"connected_slaves": "0"}, "replication", "advice", "no replica"),
        ({"slave0": "ip=10.0.0.2,port=6379,state=online,offset=1,lag=11"}, "replication", "advice", "1 of 1"),
        ({"slave0": "ip=10.0.0.2,port=6379,state=wait_bgsave,offset=1,lag=0"}, "replication", "advice", "not online"),
    ],
)
def test_what_a_server_reports_is_judged(changes: dict[str, str], check: str, verdict: str, words: str) -> None:
    assert {finding.verdict for finding in judge("h:6379", HEALTHY, "everysec")} == {Verdict.OK}
    found = {finding.check: finding for finding in judge("h:6379", HEALTHY | changes, "everysec")}
    assert found[check].verdict == verdict
    assert words in found[check].message
    assert (found[check].remedy is None) == (verdict == "ok")
    assert [name for name, finding in found.items() if finding.verdict is not Verdict.OK] == [check] * (verdict != "ok")


def test_a_server_that_never_syncs_is_told() -> None:
    found = {finding.check: finding for finding in judge("h:6379", HEALTHY, "no")}
    assert found["persistence"].remedy == "redis-cli -h h -p 6379 CONFIG SET appendfsync everysec"
    unread = {finding.check: finding for finding in judge("h:6379", HEALTHY, None)}
    assert unread["persistence"].verdict is Verdict.OK


def test_a_command_names_its_node() -> None:
    assert on_node("10.0.0.1:6380", "PING") == "redis-cli -h 10.0.0.1 -p 6380 PING"
    assert on_node("[::1]:6380", "PING") == "redis-cli -h ::1 -p 6380 PING"
    assert on_node("unix:/run/valkey.sock", "PING") == "redis-cli -s /run/valkey.sock PING"
    assert on_node("sentinel service main", "PING") == "redis-cli PING"
