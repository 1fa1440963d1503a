"""The eight plain methods on every storage: whole documents in, whole documents out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from dotmac.tasks.errors import InvalidInput, LockLost, SagaNotFound, SagaStateError
from dotmac.tasks.idempotency import fingerprint
from dotmac.tasks.storage.folding import state_of
from dotmac.tasks.storage.history import SagaHistory
from dotmac.tasks.storage.protocol import StorageProtocol
from storage.stored import COMPLETED, PENDING, claim, done, gather, let_time_pass, new_record, put_saga, whole

DOCUMENT: dict[str, Any] = {
    "tenant_id": "t1",
    "operation_type": "op",
    "user_id": None,
    "parameters": {"ключ": [1, None]},
}
SAGA: dict[str, Any] = {
    "tenant_id": "t1",
    "workflow_type": "order",
    "steps": [{"name": "pay", "operation": "charge", "parameters": {"sum": 1}}],
}


async def test_a_document_comes_back(storage: StorageProtocol) -> None:
    await storage.set_idempotency("key", DOCUMENT, 60.0)
    stored = await storage.get_idempotency("key")
    assert stored is not None
    assert {name: stored[name] for name in DOCUMENT} == DOCUMENT
    assert (stored["key"], stored["status"], stored["result"], stored["error"]) == ("key", "pending", None, None)
    assert stored["expires_at"] - stored["created_at"] == pytest.approx(60.0)
    assert "token" not in stored  # who reads a document must not be able to act as its claimant


async def test_optional_members_may_be_missing(storage: StorageProtocol) -> None:
    await storage.set_idempotency("key", {"tenant_id": "t1", "operation_type": "op"}, 60.0)
    stored = await storage.get_idempotency("key")
    assert stored is not None
    assert (stored["user_id"], stored["parameters"]) == (None, None)


async def test_a_document_is_the_record_that_claims_meet(storage: StorageProtocol) -> None:
    await storage.set_idempotency("key", DOCUMENT, 60.0)
    new = new_record(fingerprint=fingerprint(None, "op", DOCUMENT["parameters"]))
    await claim(storage, new=new)
    await storage.complete_record(done(result=b'{"sent":true}'))
    stored = await storage.get_idempotency("key")
    assert stored is not None
    assert (stored["status"], stored["result"], stored["claims"]) == ("completed", {"sent": True}, 1)


async def test_a_document_is_never_reset(storage: StorageProtocol) -> None:
    await storage.set_idempotency("key", DOCUMENT, 60.0)
    before = await storage.get_idempotency("key")
    await storage.set_idempotency("key", DOCUMENT | {"tenant_id": "t2"}, 1.0)
    assert await storage.get_idempotency("key") == before


async def test_a_deleted_document_is_gone_and_may_be_deleted_again(storage: StorageProtocol) -> None:
    await storage.set_idempotency("key", DOCUMENT, 60.0)
    for _ in range(2):
        await storage.delete_idempotency("key")
        assert await storage.get_idempotency("key") is None
    await storage.set_idempotency("key", DOCUMENT, 60.0)
    assert await storage.get_idempotency("key") is not None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenant_id": None}, "data.tenant_id"),
        ({"operation_type": 7}, "data.operation_type"),
        ({"user_id": 7}, "data.user_id"),
        ({"parameters": {"when": object()}}, "data.parameters.when"),
        ({"status": "completed"}, "data.status"),
    ],
)
async def test_a_document_that_makes_no_sense_is_refused(
    storage: StorageProtocol, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await storage.set_idempotency("key", DOCUMENT | change, 60.0)
    assert caught.value.field == field
    assert await storage.get_idempotency("key") is None


@pytest.mark.parametrize("ttl", [0, -5.0, float("nan"), float("inf"), 1e-9, 1e15, "60", True])
async def test_a_time_to_live_that_no_server_can_keep_is_refused(storage: StorageProtocol, ttl: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        await storage.set_idempotency("key", DOCUMENT, ttl)
    assert caught.value.field == "ttl"
    assert await storage.get_idempotency("key") is None


@pytest.mark.parametrize("document", [None, [], "x"])
async def test_what_is_no_document_is_refused(storage: StorageProtocol, document: Any) -> None:
    for call in (storage.set_idempotency("key", document, 60.0), storage.set_saga(storage.new_saga_id(), document)):
        with pytest.raises(InvalidInput) as caught:
            await call
        assert caught.value.field == "data"


@pytest.mark.parametrize("saga_id", ["mine", "", None, "019a1b2c3d4-5e6f708192a3b4c5-zz"])
async def test_an_id_that_was_not_made_for_a_saga_is_refused(storage: StorageProtocol, saga_id: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        await storage.set_saga(saga_id, SAGA)
    assert caught.value.field == "saga_id"


async def test_a_saga_document_with_more_than_is_stored_is_refused(storage: StorageProtocol) -> None:
    with pytest.raises(InvalidInput) as caught:
        await storage.set_saga(storage.new_saga_id(), SAGA | {"priority": 5})
    assert caught.value.field == "data.priority"


async def test_a_saga_document_comes_back(storage: StorageProtocol) -> None:
    saga_id = storage.new_saga_id()
    await storage.set_saga(saga_id, SAGA)
    stored = await storage.get_saga(saga_id)
    assert stored is not None
    assert (stored["saga_id"], stored["tenant_id"], stored["workflow_type"]) == (saga_id, "t1", "order")
    assert stored["status"] is PENDING
    assert [(step["name"], step["operation"], step["parameters"]) for step in stored["steps"]] == [
        ("pay", "charge", {"sum": 1})
    ]
    assert state_of(await whole(storage, saga_id)).definition.saga_id == saga_id


async def test_a_saga_is_never_overwritten(storage: StorageProtocol) -> None:
    saga_id = storage.new_saga_id()
    answers = await gather(*(partial(storage.set_saga, saga_id, SAGA) for _ in range(10)))
    assert sum(isinstance(answer, SagaStateError) for answer in answers) == 9
    before = await whole(storage, saga_id)
    with pytest.raises(SagaStateError):
        await storage.set_saga(saga_id, SAGA | {"workflow_type": "other"})
    assert await whole(storage, saga_id) == before


@pytest.mark.parametrize("missing", ["tenant_id", "workflow_type", "steps"])
async def test_a_saga_document_without_its_members_is_refused(storage: StorageProtocol, missing: str) -> None:
    saga_id = storage.new_saga_id()
    with pytest.raises(InvalidInput) as caught:
        await storage.set_saga(saga_id, {name: value for name, value in SAGA.items() if name != missing})
    assert caught.value.field == f"data.{missing}"
    assert await storage.get_saga(saga_id) is None


async def test_unknown_documents_are_none(storage: StorageProtocol) -> None:
    assert await storage.get_idempotency("nowhere") is None
    assert await storage.get_saga("nowhere") is None
    assert await storage.get_saga(storage.new_saga_id()) is None


async def test_notes_stand_beside_the_journal(storage: StorageProtocol) -> None:
    saga_id = (await put_saga(storage)).saga_id
    before = await whole(storage, saga_id)
    for number in range(3):
        await storage.append_saga_history(saga_id, {"event": "audited", "ключ": number})
    after = await whole(storage, saga_id)
    assert (after.meta, after.journal) == (before.meta, before.journal)
    history = SagaHistory(saga_id)
    await history.extend(after)
    assert [line.details for line in history.entries if line.event == "audited"] == [{"ключ": n} for n in range(3)]


async def test_notes_are_refused_where_they_cannot_stand(storage: StorageProtocol) -> None:
    for unknown in ("nowhere", storage.new_saga_id()):
        with pytest.raises(SagaNotFound):
            await storage.append_saga_history(unknown, {"event": "lost"})
    saga_id = (await put_saga(storage)).saga_id
    for wrong in ([1], {"when": object()}):
        with pytest.raises(InvalidInput):
            await storage.append_saga_history(saga_id, wrong)  # type: ignore[arg-type]  # what users may well pass
    assert (await whole(storage, saga_id)).notes == []


async def test_a_seed_lock_is_held_by_one(storage: StorageProtocol) -> None:
    answers = await gather(*(partial(storage.acquire_lock, "lock", 60.0) for _ in range(20)))
    assert sorted(answers, key=str) == [False] * 19 + [True]
    await storage.release_lock("lock")
    assert await storage.acquire_lock("lock", 60.0) is True


async def test_a_seed_lock_that_is_not_held_cannot_be_released(storage: StorageProtocol, tick: float) -> None:
    with pytest.raises(LockLost):
        await storage.release_lock("lock")
    await storage.acquire_lock("lock", 60.0)
    await storage.release_lock("lock")
    with pytest.raises(LockLost):
        await storage.release_lock("lock")
    await storage.acquire_lock("lock", tick)
    await let_time_pass(storage, 2 * tick)
    with pytest.raises(LockLost):
        await storage.release_lock("lock")


async def test_a_completed_document_stays_completed(storage: StorageProtocol) -> None:
    await storage.set_idempotency("key", DOCUMENT, 60.0)
    await storage.complete_record(done(by=None))
    await storage.set_idempotency("key", DOCUMENT, 60.0)
    stored = await storage.get_idempotency("key")
    assert stored is not None
    assert stored["status"] == COMPLETED
