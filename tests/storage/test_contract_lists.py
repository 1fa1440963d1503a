"""Lists of sagas on every storage: newest first, filtered, page by page without gap or double."""

from __future__ import annotations

import itertools

import pytest

from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import SAGA_STATUSES, SagaFilter, SagaMeta
from storage.stored import (
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    UNDOING,
    UNDONE,
    adoption,
    entry,
    head,
    let_time_pass,
    put_saga,
)

EVERYTHING = SagaFilter()


async def _pages(storage: StorageProtocol, where: SagaFilter, limit: int) -> list[SagaMeta]:
    """All pages put together."""
    found: list[SagaMeta] = []
    cursor: str | None = None
    for _ in range(1000):
        page = await storage.list_sagas(where, limit, cursor)
        assert len(page.sagas) <= limit
        found += page.sagas
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("the list does not end")


async def _many(storage: StorageProtocol, tick: float) -> list[SagaMeta]:
    """Sagas of two tenants, two types and four statuses; the newest first."""
    made = []
    choices = itertools.product(["t1", "t2"], ["order", "refund"], [None, COMPLETED, FAILED, UNDONE])
    for tenant, kind, status in choices:
        meta = await put_saga(storage, owner="w1", tenant_id=tenant, workflow_type=kind, status=RUNNING)
        if status is not None:
            await storage.append(entry(meta, status))
        made.append(await head(storage, meta.saga_id))
        await let_time_pass(storage, tick / 50)  # ids of one millisecond have no order among them
    return made[::-1]


async def test_nothing_is_listed_where_nothing_is(storage: StorageProtocol) -> None:
    page = await storage.list_sagas(EVERYTHING, 10)
    assert (page.sagas, page.cursor) == ([], None)


@pytest.mark.parametrize("limit", [1, 3, 16, 17, 100])
async def test_the_newest_come_first_over_all_pages(storage: StorageProtocol, tick: float, limit: int) -> None:
    made = await _many(storage, tick)
    assert await _pages(storage, EVERYTHING, limit) == made


async def test_counts_are_those_of_the_list(storage: StorageProtocol, tick: float) -> None:
    assert await storage.count_sagas() == dict.fromkeys(SAGA_STATUSES, 0)
    made = await _many(storage, tick)
    counts = await storage.count_sagas()
    assert counts == {status: sum(meta.status is status for meta in made) for status in SAGA_STATUSES}
    assert sum(counts.values()) == len(made)


async def test_filters_alone_and_combined(storage: StorageProtocol, tick: float) -> None:
    made = await _many(storage, tick)
    tenants, kinds = [None, "t1", "t2", "t"], [None, "order", "refund", "ord"]
    for tenant, kind, status in itertools.product(tenants, kinds, [None, *OperationStatus]):
        expected = [
            meta
            for meta in made
            if tenant in (None, meta.tenant_id) and kind in (None, meta.workflow_type) and status in (None, meta.status)
        ]
        where = SagaFilter(tenant, status, kind)
        assert await _pages(storage, where, 3) == expected, where


async def test_lists_by_the_time_of_creation(storage: StorageProtocol, tick: float) -> None:
    made = await _many(storage, tick)
    times = [meta.created_at for meta in made]
    for after, before in itertools.product([None, times[0], times[len(times) // 2], times[-1]], repeat=2):
        expected = [
            meta
            for meta in made
            if (after is None or meta.created_at >= after) and (before is None or meta.created_at < before)
        ]
        for where in (
            SagaFilter(created_after=after, created_before=before),
            SagaFilter("t1", None, None, after, before),
        ):
            wanted = [meta for meta in expected if where.tenant_id in (None, meta.tenant_id)]
            assert await _pages(storage, where, 3) == wanted, where


async def test_a_saga_moves_between_the_lists_of_its_statuses(storage: StorageProtocol) -> None:
    saga_id = (await put_saga(storage)).saga_id

    async def lists_with_it() -> list[OperationStatus]:
        return [s for s in OperationStatus if (await storage.list_sagas(SagaFilter(status=s), 10)).sagas]

    assert await lists_with_it() == [PENDING]
    await storage.adopt_saga(adoption(await head(storage, saga_id)))
    assert await lists_with_it() == [PENDING]
    for status in (RUNNING, UNDOING, RUNNING, UNDOING, FAILED):
        await storage.append(entry(await head(storage, saga_id), status))
        assert await lists_with_it() == [status]
    await storage.adopt_saga(adoption(await head(storage, saga_id)))  # an operator lets the parked saga go on
    await storage.append(entry(await head(storage, saga_id), UNDOING))
    assert await lists_with_it() == [UNDOING]
    await storage.append(entry(await head(storage, saga_id), COMPLETED))
    assert await lists_with_it() == [COMPLETED]


async def test_no_gap_and_no_double_while_sagas_are_added(storage: StorageProtocol, tick: float) -> None:
    made = [meta.saga_id for meta in await _many(storage, tick)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await storage.list_sagas(EVERYTHING, 3, cursor)
        seen += [meta.saga_id for meta in page.sagas]
        cursor = page.cursor
        if cursor is None:
            break
        await put_saga(storage)
        await let_time_pass(storage, tick / 50)
    assert seen == made  # later ones are newer than every page that follows


async def test_no_gap_and_no_double_while_sagas_are_forgotten(storage: StorageProtocol, tick: float) -> None:
    made = [meta.saga_id for meta in await _many(storage, tick)]
    ending = await put_saga(storage, owner="w1")
    await storage.append(entry(ending, COMPLETED, retention=tick))
    first = await storage.list_sagas(EVERYTHING, 1)
    assert [meta.saga_id for meta in first.sagas] == [ending.saga_id]
    await let_time_pass(storage, 2 * tick)
    assert (await storage.purge(10)).sagas == 1  # what the cursor points at is gone
    rest = await storage.list_sagas(EVERYTHING, 100, first.cursor)
    assert [meta.saga_id for meta in rest.sagas] == made
