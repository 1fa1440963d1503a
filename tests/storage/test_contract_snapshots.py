"""Snapshots on every storage: kept for the owner only, and read with what they do not cover."""

from __future__ import annotations

import pytest
from msgspec import Raw

from dotmac.tasks.saga.snapshots import SNAPSHOT_FORMAT
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import SagaMeta, Snapshot
from storage.stored import COMPLETED, adoption, entry, head, let_time_pass, put_saga, whole


async def long_journal(storage: StorageProtocol, entries: int = 20) -> SagaMeta:
    """A saga whose journal is too long for one reply, anywhere."""
    meta = await put_saga(storage, owner="w1")
    for _ in range(entries):
        await storage.append(entry(await head(storage, meta.saga_id), events=b'["' + b"x" * 5000 + b'"]'))
    return await head(storage, meta.saga_id)


def snapshot(length: int, form: int = SNAPSHOT_FORMAT) -> Snapshot:
    return Snapshot(form, length, {0: 3, 4: 7}, Raw(b'{"any":"thing"}'))


async def test_an_adoption_reads_the_snapshot_and_what_it_does_not_hold(storage: StorageProtocol) -> None:
    meta = await long_journal(storage)
    await storage.keep_snapshot(meta.saga_id, 1, snapshot(5))
    await storage.keep_snapshot(meta.saga_id, 1, snapshot(18))
    record = await storage.adopt_saga(adoption(meta))
    assert record.snapshot is not None
    assert (record.snapshot.length, record.snapshot.results) == (18, {0: 3, 4: 7})
    assert bytes(record.snapshot.state) == b'{"any":"thing"}'
    assert [line.sequence for line in record.journal] == [0, 3, 7, 18, 19, 20, 21]
    assert len((await whole(storage, meta.saga_id)).journal) == 22


async def test_a_snapshot_of_another_format_is_passed_over(storage: StorageProtocol) -> None:
    meta = await long_journal(storage)
    await storage.keep_snapshot(meta.saga_id, 1, snapshot(18, SNAPSHOT_FORMAT + 1))
    record = await storage.adopt_saga(adoption(meta))
    assert record.snapshot is None
    assert record.journal == (await whole(storage, meta.saga_id)).journal


@pytest.mark.parametrize("how", ["another epoch", "no owner", "no saga"])
async def test_only_the_owner_keeps_a_snapshot(storage: StorageProtocol, how: str) -> None:
    meta = await long_journal(storage)
    if how == "another epoch":
        await storage.keep_snapshot(meta.saga_id, 2, snapshot(18))
    elif how == "no owner":
        await storage.release_saga(meta.saga_id, 1, None)
        await storage.keep_snapshot(meta.saga_id, 1, snapshot(18))
    else:
        await storage.keep_snapshot(storage.new_saga_id(), 1, snapshot(18))
    assert (await storage.adopt_saga(adoption(meta))).snapshot is None


async def test_a_forgotten_saga_leaves_no_snapshot(storage: StorageProtocol, tick: float) -> None:
    meta = await long_journal(storage, 1)
    await storage.keep_snapshot(meta.saga_id, 1, snapshot(1))
    await storage.append(entry(meta, COMPLETED, retention=tick))
    await let_time_pass(storage, 2 * tick)
    assert (await storage.purge(10)).sagas == 1
    again = await put_saga(storage, saga_id=meta.saga_id, owner="w1")
    for _ in range(20):
        await storage.append(entry(await head(storage, again.saga_id), events=b'["' + b"x" * 5000 + b'"]'))
    assert (await storage.adopt_saga(adoption(again))).snapshot is None
