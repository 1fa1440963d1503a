"""What a storage refuses or warns of before it promises anything, on real servers set up the wrong way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio

from degradation.troubles import TROUBLES
from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.errors import StorageMisconfigured, StorageRefused, StorageUnavailable
from dotmac.tasks.storage.redis import RedisStorage
from support.processes import port_candidates
from support.servers import Server, standalone

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_is_refused_with_the_setting_to_change(server: Server, policy: str) -> None:
    server.cli("CONFIG", "SET", "maxmemory-policy", policy)
    manager = BackgroundOperationsManager(RedisStorage(server.url))
    with pytest.raises(StorageMisconfigured, match=f"{policy}.*CONFIG SET maxmemory-policy noeviction"):
        await manager.start()
    server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    async with manager:
        pass


@pytest.mark.parametrize("lacks", ["resetchannels", "-publish"])
async def test_a_user_whose_scripts_would_fail_behind_their_writes_is_refused(server: Server, lacks: str) -> None:
    server.cli("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all", lacks)
    storage = RedisStorage(server.url, username="mute", password="secret")  # noqa: S106 - of this test
    with pytest.raises(StorageMisconfigured, match="PUBLISH: NOPERM"):
        async with storage.opened():
            raise AssertionError
    server.cli("ACL", "SETUSER", "mute", "&*", "+publish")
    async with storage.opened():
        pass


async def test_a_server_without_an_append_only_file_is_warned_of(
    binary: Path | None, caplog: pytest.LogCaptureFixture
) -> None:
    with standalone(binary=binary) as forgetful, caplog.at_level(logging.WARNING):
        async with RedisStorage(forgetful.url).opened():
            pass
    assert "CONFIG SET appendonly yes" in caplog.text


async def test_a_server_with_an_append_only_file_is_not_warned_of(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with RedisStorage(server.url).opened():
            pass
    assert not caplog.records


async def test_another_number_of_partitions_is_refused(server: Server) -> None:
    async with RedisStorage(server.url, "mine", partitions=4).opened():
        pass
    with pytest.raises(StorageMisconfigured, match=r"created with 4 partitions.*pass partitions=4"):
        async with RedisStorage(server.url, "mine", partitions=8).opened():
            raise AssertionError
    async with RedisStorage(server.url, "mine").opened():
        pass


async def test_a_format_of_another_version_is_refused(server: Server) -> None:
    server.cli("HSET", "{mine:ns}", "format", "99", "partitions", "16")
    with pytest.raises(StorageMisconfigured, match="format 99"):
        async with RedisStorage(server.url, "mine").opened():
            raise AssertionError


@pytest.mark.parametrize("kind", ["full", "read-only"])
async def test_a_server_that_takes_no_writes_can_still_be_looked_at(
    server: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def another() -> BackgroundOperationsManager:
        return BackgroundOperationsManager(RedisStorage(server.url, socket_timeout=1.0), works=False)

    async with another() as submitting:
        steps = [{"name": "charge", "operation": "charge"}]
        handle = await submitting.start_saga(tenant_id="acme", workflow_type="order", steps=steps)
    async with TROUBLES[kind](server):
        async with another() as looking:
            assert [saga.saga_id for saga in (await looking.list_sagas()).sagas] == [handle.saga_id]
            assert (await looking.get_saga(handle.saga_id)).steps[0].name == "charge"
        working = BackgroundOperationsManager(RedisStorage(server.url, socket_timeout=1.0))
        with pytest.raises(StorageRefused, match=r"is full|is read-only"):
            await working.start()
    assert not [record for record in caplog.records if record.exc_info]  # raised, and not logged as well


async def test_a_server_that_is_not_there_is_said_to_be_unavailable() -> None:
    port = next(port_candidates())
    manager = BackgroundOperationsManager(RedisStorage(f"redis://127.0.0.1:{port}/0", socket_timeout=0.5))
    with trio.fail_after(15), pytest.raises(StorageUnavailable, match=str(port)):
        await manager.start()
