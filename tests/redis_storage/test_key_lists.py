"""Lists of idempotency records where the keys lie on several nodes, beside others, or are many."""

from __future__ import annotations

from uuid import uuid4

import pytest
import trio

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.storage.key_records import NewRecord
from dotmac.tasks.storage.redis import RedisStorage, key_search
from support.servers import cluster, standalone

pytestmark = pytest.mark.redis


async def _filled(storage: RedisStorage, count: int, tenant_id: str = "t") -> set[str]:
    keys = {uuid4().hex for _ in range(count)}
    for key in keys:
        await storage.create_record(NewRecord(key, tenant_id, None, "op", "print", None, 1000.0))
    return keys


async def _listed(storage: RedisStorage, limit: int = 7, tenant_id: str | None = None) -> tuple[list[str], int]:
    """The keys, and on how many pages they were."""
    found: list[str] = []
    cursor, pages = None, 0
    while True:
        page = await storage.list_records(tenant_id, limit, cursor)
        found += [record.key for record in page.records]
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            return sorted(found), pages


async def test_records_of_all_nodes_of_a_cluster_are_listed() -> None:
    with cluster(3) as nodes:
        storage = RedisStorage(nodes.url.replace("redis://", "redis+cluster://"), partitions=5)
        async with storage.opened():
            keys = await _filled(storage, 40)
            assert (await _listed(storage))[0] == sorted(keys)


async def test_records_of_a_slot_that_was_moved_are_listed_at_once() -> None:
    with cluster(3) as nodes:
        storage = RedisStorage(nodes.url.replace("redis://", "redis+cluster://"), partitions=1)
        async with storage.opened():
            keys = await _filled(storage, 20)
            slot = storage.layout.partitions[0].slot
            target = nodes.other_than(nodes.owner_of(slot))
            await trio.to_thread.run_sync(nodes.migrate, slot, target)
            assert (await _listed(storage, 100))[0] == sorted(keys)


@pytest.mark.parametrize("limit", [1, 20, 70])
async def test_what_stays_is_listed_although_what_was_shown_goes(limit: int) -> None:
    """Where keys are gone, a step that is made again goes further than it did."""
    with standalone() as server:
        storage = RedisStorage(server.url)
        async with storage.opened():
            stays = await _filled(storage, 20 * limit + 100)
            seen: set[str] = set()
            page = await storage.list_records(None, limit)
            while page.cursor is not None:
                shown = [record.key for record in page.records]
                seen.update(shown)
                for key in shown[::3]:
                    await storage.delete_record(key)
                    stays.discard(key)
                page = await storage.list_records(None, limit, page.cursor)
            assert stays <= seen | {record.key for record in page.records}


async def test_namespaces_whose_names_look_alike_are_kept_apart() -> None:
    with standalone() as server:
        for prefix in ("a", "a*", "*", "a:p00", "[a]", "a?", "aa"):
            async with RedisStorage(server.url, prefix).opened():
                pass
        kept = {}
        for prefix in ("a", "a*", "*", "a:p00", "[a]", "a?", "aa"):
            storage = RedisStorage(server.url, prefix)
            async with storage.opened():
                kept[prefix] = await _filled(storage, 3)
        for prefix, keys in kept.items():
            storage = RedisStorage(server.url, prefix)
            async with storage.opened():
                assert (await _listed(storage))[0] == sorted(keys)


async def test_a_page_does_not_look_through_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant with few keys among many: pages are empty until they are found, and none takes long."""
    monkeypatch.setattr(key_search, "_STEP", 20)
    monkeypatch.setattr(key_search, "_MOST_STEPS", 2)
    with standalone() as server:
        storage = RedisStorage(server.url)
        async with storage.opened():
            await _filled(storage, 400)
            rare = await _filled(storage, 2, "rare")
            found, pages = await _listed(storage, tenant_id="rare")
            assert found == sorted(rare)
            assert pages > 5


@pytest.mark.parametrize(
    "cursor", ["", "x", "1", "1.2", "1.2.", "-1.0.0.", "1.x.0.", "9999.0.0.", f"0.{2**64}.0.", f"0.0.{2**64}."]
)
async def test_a_cursor_that_no_page_gave_is_refused(cursor: str) -> None:
    with standalone() as server:
        storage = RedisStorage(server.url)
        async with storage.opened():
            with pytest.raises(InvalidInput, match="cursor"):
                await storage.list_records(None, 10, cursor)
