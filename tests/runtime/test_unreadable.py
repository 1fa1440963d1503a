"""Sagas whose journals this version cannot read: left to workers that can, and every error is one of ours."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, OperationStatus, StorageProtocol
from dotmac.tasks.errors import StoredDataUnreadable, UnreadableSaga
from dotmac.tasks.saga.events import JOURNAL_FORMAT
from dotmac.tasks.storage.records import Adoption, Append
from dotmac.tasks.storage.redis import RedisStorage
from runtime.nodes import Ledger, Node, step
from support.servers import standalone

NEWER = JOURNAL_FORMAT + 1
FUTURE = b'[{"e":"from_the_future"}]'


async def written_by_a_newer_version(
    storage: StorageProtocol, saga_id: str, *, form: int = NEWER, worker: str = "newer", release: bool = True
) -> None:
    """Adopt the saga as a worker of a newer version, write a future event, and give the saga up."""
    meta = await storage.saga_meta(saga_id)
    assert meta is not None
    record = await storage.adopt_saga(Adoption(saga_id, worker, meta.epoch, uuid4().hex, reads=form))
    await storage.append(
        Append(
            saga_id=saga_id,
            epoch=record.meta.epoch,
            sequence=record.meta.length,
            entry_id=uuid4().hex,
            events=FUTURE,
            status=OperationStatus.IN_PROGRESS,
            cursor=0,
            release=release,
            due_at=storage.now(),
            format=form,
        )
    )


async def test_an_older_worker_leaves_a_newer_saga_and_a_newer_one_gets_it(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    async with Node(shared, ledger.register) as old:
        sagas = [await old.manager.create_saga_workflow("t", "w", [step("a")]) for _ in range(3)]
        for saga in sagas:
            await written_by_a_newer_version(shared, saga.saga_id)
        await trio.sleep(60)
        told = [
            line for line in caplog.records if "is left to other workers" in line.message and line.levelname == "ERROR"
        ]
        assert len(told) == 3
        for saga in sagas:
            meta = await shared.saga_meta(saga.saga_id)
            assert meta is not None
            assert (meta.owner, meta.length) == (None, 3)
            record = await shared.adopt_saga(Adoption(saga.saga_id, "newer", meta.epoch, uuid4().hex, reads=NEWER))
            assert record.meta.owner == "newer"


async def test_a_newer_saga_of_a_lost_worker_is_given_away(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as old:
        await shared.register_worker("newer", 1.0, {})
        saga = await old.manager.create_saga_workflow("t", "w", [step("a")])
        await written_by_a_newer_version(shared, saga.saga_id, release=False)
        await trio.sleep(60)
        meta = await shared.saga_meta(saga.saga_id)
        assert meta is not None
        assert (meta.owner, meta.length) == (None, 3)
        assert meta.due_at is not None


async def test_newer_sagas_do_not_keep_an_older_worker_from_its_own(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as old:
        for _ in range(150):
            saga = await old.manager.create_saga_workflow("t", "w", [step("a")])
            await written_by_a_newer_version(shared, saga.saga_id)
        waiting = await old.manager.create_saga_workflow("t", "w", [step("b")])
        shared._set_due(waiting.saga_id, shared.now())
        with trio.fail_after(30):
            assert (await old.manager.saga_handle(waiting.saga_id).result()).completed
        assert ledger.effects == ["b"]


@pytest.mark.parametrize("form", [JOURNAL_FORMAT, NEWER], ids=["damaged", "newer"])
async def test_what_is_asked_of_an_unreadable_saga_raises_an_error_of_ours(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, form: int
) -> None:
    async with Node(shared, ledger.register) as old:
        manager, saga = old.manager, await old.manager.create_saga_workflow("t", "w", [step("a")])
        await written_by_a_newer_version(shared, saga.saga_id, form=form)
        handle = manager.saga_handle(saga.saga_id)
        for ask in (manager.get_saga, manager.get_saga_history):
            with pytest.raises(UnreadableSaga, match=saga.saga_id):
                await ask(saga.saga_id)
        with pytest.raises(UnreadableSaga, match="the request to cancel is stored"):
            await handle.cancel("stop it")
        assert [each.saga_id for each in (await manager.list_sagas()).sagas] == [saga.saga_id]
        assert await handle.status() is OperationStatus.IN_PROGRESS


async def test_a_parked_saga_that_cannot_be_read_stays_parked(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as old:
        ledger.failing["a"] = ValueError("no")
        saga = await old.manager.start_saga(
            tenant_id="t",
            workflow_type="w",
            steps=[
                step("a", kind="pivot", retry={"max_retries": 0, "non_retryable": ["ValueError"]}),
                step("b", kind="retriable"),
            ],
        )
        await saga.result()
        stored = shared._sagas[saga.saga_id]
        stored.meta = type(stored.meta)(
            **{n: getattr(stored.meta, n) for n in stored.meta.__struct_fields__} | {"status": OperationStatus.FAILED}
        )
        entry = stored.journal[0]
        stored.journal[0] = type(entry)(0, entry.at, entry.epoch, entry.entry_id, FUTURE)
        for ask in (lambda: saga.cancel("x"), lambda: old.manager.retry_saga(saga.saga_id)):
            with pytest.raises(UnreadableSaga):
                await ask()
        meta = await shared.saga_meta(saga.saga_id)
        assert meta is not None
        assert (meta.status, meta.owner, meta.due_at) == (OperationStatus.FAILED, None, None)


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(UnreadableSaga("the journal of saga x cannot be read")))  # noqa: S301 - our own
    assert isinstance(error, StoredDataUnreadable)
    assert str(error) == "the journal of saga x cannot be read"


# --- on a real server -------------------------------------------------------------------------------------------


@asynccontextmanager
async def redis_storage() -> AsyncIterator[RedisStorage]:
    with standalone() as server:
        storage = RedisStorage(server.url, partitions=1)
        async with storage.opened():
            yield storage


@pytest.mark.redis
async def test_an_older_process_beside_a_newer_one_on_a_server(ledger: Ledger) -> None:
    with standalone() as server:
        manager = BackgroundOperationsManager(RedisStorage(server.url, partitions=1), poll_interval=0.05)
        ledger.register(manager)
        storage: Any = manager.storage
        async with manager:
            newer = await manager.create_saga_workflow("t", "w", [step("a")])
            await written_by_a_newer_version(storage, newer.saga_id)
            good = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("b")])
            assert (await good.result()).completed
            with trio.fail_after(20):
                while True:
                    meta = await storage.saga_meta(newer.saga_id)
                    if meta.due_at > storage.now() + 1:
                        break
                    await trio.sleep(0.01)
            assert (meta.owner, meta.length, meta.format) == (None, 3, NEWER)
            with pytest.raises(UnreadableSaga):
                await manager.get_saga(newer.saga_id)
            assert len((await manager.list_sagas()).sagas) == 2
            (found,) = [finding for finding in await manager.examine() if finding.check == "journals"]
            assert (found.verdict.value, found.message.split()[0]) == ("advice", "1")


@pytest.mark.redis
async def test_damaged_keys_raise_errors_of_ours_and_harm_no_list() -> None:
    async with redis_storage() as storage:
        manager = BackgroundOperationsManager(storage, works=False)
        async with manager:
            saga = await manager.create_saga_workflow("t", "w", [step("a")])
            key = await manager.create_idempotency_key("t", "u", "op")
            partition, client = storage.layout.partitions[0], storage.client
            await client.execute("HSET", partition.record(key.key), "st", "from_the_future", key=partition.due)
            await client.execute("HSET", storage.layout.infos, "w9", b"x{", key=storage.layout.infos)
            await client.execute("ZADD", storage.layout.leases, 0, "w9", key=storage.layout.leases)
            with pytest.raises(StoredDataUnreadable, match="idempotency key"):
                await manager.check_idempotency(key.key)
            await client.execute("HSET", partition.saga(saga.saga_id.encode()), "st", "resting", key=partition.due)
            for ask in (manager.get_saga, manager.get_saga_history, manager.cancel_saga):
                with pytest.raises(UnreadableSaga):
                    await ask(saga.saga_id)
            (listed,) = (await manager.list_sagas()).sagas
            assert (listed.saga_id, listed.tenant_id, listed.status) == (saga.saga_id, "t", OperationStatus.UNKNOWN)
            await manager.list_workers()
