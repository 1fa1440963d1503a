"""Lists of idempotency records on every storage: all of them, of one tenant or of any, page by page."""

from __future__ import annotations

import pytest

from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.key_records import RecordHead
from dotmac.tasks.storage.protocol import StorageProtocol
from storage.stored import COMPLETED, LONG, RUNNING, claim, done, let_time_pass, lock, new_record, put_saga

ODD = ("key", "ключ", "a:k:b", "{x}", "*?[a]\\", "with space", "}:k:", "line\nbreak", "x" * 300)


async def _pages(storage: StorageProtocol, tenant_id: str | None, limit: int) -> list[RecordHead]:
    """All pages put together."""
    found: list[RecordHead] = []
    cursor: str | None = None
    for _ in range(1000):
        page = await storage.list_records(tenant_id, limit, cursor)
        assert len(page.records) <= limit
        found += page.records
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("the list does not end")


async def test_nothing_is_listed_where_no_record_is(storage: StorageProtocol) -> None:
    await put_saga(storage)
    await storage.request_lock(lock("a"))
    page = await storage.list_records(None, 10)
    assert (page.records, page.cursor) == ([], None)


@pytest.mark.parametrize("limit", [1, 3, 12, 13, 100])
async def test_every_record_is_on_one_page(storage: StorageProtocol, limit: int) -> None:
    for number in range(12):
        await storage.create_record(new_record(f"key-{number}", tenant_id=f"t{number % 3}"))
    for tenant_id in (None, "t0", "t1", "t"):
        listed = [record.key for record in await _pages(storage, tenant_id, limit)]
        wanted = {f"key-{n}" for n in range(12) if tenant_id in (None, f"t{n % 3}")}
        assert (set(listed), len(listed)) == (wanted, len(wanted))


@pytest.mark.parametrize("limit", [1, 100])
async def test_keys_are_any_text(storage: StorageProtocol, limit: int) -> None:
    for key in ODD:
        await storage.create_record(new_record(key))
    assert sorted(record.key for record in await _pages(storage, None, limit)) == sorted(ODD)


async def test_a_head_tells_how_the_record_stands(storage: StorageProtocol) -> None:
    await storage.create_record(new_record("pending", user_id="u"))
    await claim(storage, "claimed")
    await claim(storage, "done")
    await storage.complete_record(done("done"))
    meta = await put_saga(storage, owner="w1", key=new_record("saga"))
    heads = {head.key: head for head in await _pages(storage, None, 10)}
    assert heads.keys() == {"pending", "claimed", "done", "saga"}
    for key, head in heads.items():
        record = await storage.get_record(key)
        assert record is not None
        for name in RecordHead.__struct_fields__:
            assert getattr(head, name) == getattr(record, name), (key, name)
    assert (heads["pending"].status, heads["pending"].user_id) == (OperationStatus.PENDING, "u")
    assert (heads["claimed"].status, heads["claimed"].owner, heads["claimed"].claims) == (RUNNING, "owner-a", 1)
    assert heads["done"].status is COMPLETED
    assert heads["saga"].saga_id == meta.saga_id


async def test_what_has_expired_is_not_listed(storage: StorageProtocol, tick: float) -> None:
    await storage.create_record(new_record("short", ttl=tick))
    await storage.create_record(new_record("long", ttl=LONG))
    await let_time_pass(storage, 2 * tick)
    assert [record.key for record in await _pages(storage, None, 10)] == ["long"]


@pytest.mark.parametrize("limit", [1, 7, 50])
async def test_what_stays_is_listed_while_others_come_and_go(storage: StorageProtocol, limit: int) -> None:
    for number in range(60):
        await storage.create_record(new_record(f"stays-{number}"))
        await claim(storage, f"goes-{number}")
    seen: list[str] = []
    cursor: str | None = None
    turn = 0
    while True:
        page = await storage.list_records(None, limit, cursor)
        seen += [record.key for record in page.records if record.key.startswith("stays")]
        cursor = page.cursor
        if cursor is None:
            break
        if turn < 60:
            await storage.abandon_claim(f"goes-{turn}", "a")
            await storage.create_record(new_record(f"comes-{turn}"))
        turn += 1
    assert set(seen) == {f"stays-{number}" for number in range(60)}
