"""What a server loses of acknowledged data is an ERROR that names the likely cause."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import trio

from degradation.house import House, house, until
from degradation.test_remedies import carry_out
from dotmac.tasks.errors import ClaimLost, LockLost
from dotmac.tasks.observability.prometheus import PrometheusMetrics
from dotmac.tasks.storage.redis import RedisStorage
from support.servers import Server, standalone
from support.standalone import ErrorReply

SETTING = ("CONFIG", "SET", "maxmemory-policy")


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.message for record in caplog.records if record.levelno == logging.ERROR]


@pytest.fixture
def metrics() -> Iterator[PrometheusMetrics]:
    made = PrometheusMetrics()
    remove = made.install()
    yield made
    remove()


def lost(errors: Callable[[], list[str]], kind: str, *words: str) -> bool:
    return any(f" {kind}(s)" in told and all(word in told for word in words) for told in errors())


async def run_into_the_loss(home: House, break_it: Callable[[], object]) -> None:
    """A saga is in its only step while `break_it` runs; then the step ends."""
    await home.start("a")
    await until(lambda: home.begun)
    break_it()
    home.gate.set()


async def test_flushed_sagas_and_workers_are_reported_with_the_command(
    server: Server, errors: Any, metrics: PrometheusMetrics
) -> None:
    async with house(server, worker_lease=3.0) as home:
        await run_into_the_loss(home, lambda: server.cli("FLUSHALL"))
        await until(lambda: lost(errors, "saga", "FLUSHALL"))
        await until(lambda: lost(errors, "worker", "FLUSHALL"))
        await until(lambda: home.worker is not None)
    assert b'dotmac_tasks_storage_losses_total{kind="saga"} 1.0' in metrics.text()


async def test_an_evicting_server_is_named_with_its_setting_and_its_count(server: Server, errors: Any) -> None:
    def evict() -> None:
        server.cli(*SETTING, "allkeys-lru")
        server.cli("CONFIG", "SET", "maxmemory", "100kb")
        with suppress(ErrorReply):  # all else is evicted first, and that does not suffice
            server.cli("SET", "one", "more")
        server.cli("CONFIG", "SET", "maxmemory", "0")

    async with house(server, worker_lease=3.0) as home:
        await run_into_the_loss(home, evict)
        await until(lambda: lost(errors, "saga", "allkeys-lru", "evicted"))
        storage = RedisStorage(server.url, "house")
        found = [finding for finding in await storage.examine() if finding.check == "eviction"]
        assert "allkeys-lru" in found[0].message
        server.cli(*SETTING, "noeviction")
        found = [finding for finding in await storage.examine() if finding.check == "eviction"]
        assert "sagas may be missing" in found[0].message


async def test_a_restart_without_the_data_is_named(server: Server, errors: Any) -> None:
    async with house(server, worker_lease=10.0) as home:
        await home.start("a")
        await until(lambda: home.begun)
        await trio.to_thread.run_sync(server.kill)
        await trio.to_thread.run_sync(start_without_data, server)
        home.gate.set()
        await until(lambda: lost(errors, "saga", "restart or a failover"))


def start_without_data(server: Server) -> None:
    for file in server.folder.rglob("appendonly*.*"):
        file.unlink()
    server.start()


async def test_keys_that_a_command_deleted_show_no_other_cause(server: Server, errors: Any) -> None:
    async with house(server, worker_lease=30.0) as home:
        saga_id = (await home.start("a")).saga_id
        await until(lambda: home.begun)
        server.cli("DEL", *server.cli("KEYS", f"*{saga_id}*"))
        home.gate.set()
        await until(lambda: lost(errors, "saga", "a command may have deleted"))


async def test_a_running_saga_is_missed_before_its_step_ends(server: Server, errors: Any) -> None:
    async with house(server, worker_lease=1.5) as home:
        saga_id = (await home.start("a")).saga_id
        await until(lambda: home.begun)
        async with RedisStorage(server.url, "house").opened():
            delete_what_is_kept_of(saga_id, server)
            await until(lambda: lost(errors, "saga"), 60.0)
        assert not home.ended
        home.gate.set()


async def test_a_saga_that_vanishes_with_its_workers_lease_is_missed(server: Server, errors: Any) -> None:
    async with house(server, worker_lease=1.0) as home:
        saga_id = (await home.start("a")).saga_id
        await until(lambda: home.begun)
        await trio.to_thread.run_sync(server.kill)
        await until(lambda: home.cut)
        await trio.to_thread.run_sync(start_without_data, server)
        await until(lambda: lost(errors, "saga", saga_id))
        home.gate.set()


def delete_what_is_kept_of(saga_id: str, server: Server) -> None:
    """Delete the saga's keys and what lists it, in one script: a worker may add to the lists at any time."""
    script = """
        for _, key in ipairs(redis.call('KEYS', '*')) do
            if key:find(ARGV[1], 1, true) or key:sub(-6) == ':owned' then redis.call('DEL', key) end
        end
    """
    server.cli("EVAL", script, 0, saga_id)


async def test_lost_claims_and_locks_are_reported(server: Server, errors: Any) -> None:
    async with house(server, worker_lease=30.0) as home:
        manager, inside = home.manager, trio.Event()

        async def hold() -> None:
            async with manager.lock("l", ttl=1.0):
                inside.set()
                await trio.sleep_forever()

        async def run() -> None:
            await manager.run_idempotent(tenant_id="t", operation_type="act")

        async def fails(call: Callable[[], Awaitable[None]], error: type[Exception]) -> None:
            with pytest.raises(error):
                await call()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, hold, LockLost)
            nursery.start_soon(fails, run, ClaimLost)
            await inside.wait()
            await until(lambda: home.begun)
            server.cli("FLUSHALL")
        await until(lambda: lost(errors, "lock") and lost(errors, "claim"))


async def test_a_setting_that_breaks_a_promise_is_an_error_once_and_its_mending_is_told(
    server: Server, errors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(server, worker_lease=30.0):
        server.cli(*SETTING, "volatile-lru")
        for _ in range(2):
            await reconnect(server)
        await until(lambda: [told for told in errors() if "volatile-lru" in told])
        assert len([told for told in errors() if "volatile-lru" in told]) == 1
        server.cli(*SETTING, "noeviction")
        await reconnect(server)
        await until(lambda: "keeps its promises again (eviction)" in caplog.text)


async def reconnect(server: Server) -> None:
    before = server.cli("INFO", "stats").split("total_connections_received:")[1].split()[0]
    server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await until(
        lambda: int(server.cli("INFO", "stats").split("total_connections_received:")[1].split()[0]) > int(before) + 3
    )


async def test_a_missing_replica_is_attached_as_the_watch_says(server: Server, errors: Any, caplog: Any) -> None:
    storage = RedisStorage(server.url, "house", durability="replica")
    with standalone() as replica:
        replica.cli("REPLICAOF", server.host, server.port)
        await until(lambda: "state=online" in server.cli("INFO", "replication"))
        async with storage.opened():
            replica.cli("REPLICAOF", "NO", "ONE")
            await until(lambda: "connected_slaves:0" in server.cli("INFO", "replication"))
            await look_again(storage)
            (told,) = [each for each in errors() if "fewer than 1 replicas" in each]
            carry_out(replica, told)
            await until(lambda: "state=online" in server.cli("INFO", "replication"))
            await look_again(storage)
            assert "keeps its promises again (replicas)" in caplog.text


async def look_again(storage: RedisStorage) -> None:
    """Have the watch look now, not at the end of its interval."""
    assert storage._server_watch is not None
    await storage._server_watch.review()


@pytest.mark.parametrize(("durability", "value"), [("fsync", "everysec"), ("server", "no")])
async def test_a_changed_appendfsync_is_an_error_until_the_remedy_is_run(
    server: Server, errors: Any, caplog: Any, durability: Any, value: str
) -> None:
    storage = RedisStorage(server.url, "house", durability=durability)
    async with storage.opened():
        server.cli("CONFIG", "SET", "appendfsync", value)
        await look_again(storage)
        (told,) = [each for each in errors() if "appendfsync" in each]
        carry_out(server, told)
        await look_again(storage)
        assert "keeps its promises again (appendfsync)" in caplog.text


async def test_a_clock_that_was_set_forward_is_an_error(server: Server, errors: Any) -> None:
    storage = RedisStorage(server.url, "house")
    async with storage.opened():
        watch = storage._server_watch
        assert watch is not None
        for node, sight in watch._seen.items():
            watch._seen[node] = replace(sight, ahead=sight.ahead - 60.0)
        await look_again(storage)
        assert [told for told in errors() if "was set forward by 60.0 s" in told]
