"""Sagas under an idempotency key, on every storage: key and saga begin together and end together."""

from __future__ import annotations

from functools import partial

import pytest
from msgspec import Raw

from dotmac.tasks.errors import ClaimLost
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.key_records import DONE, GRANTED, IN_PROGRESS, MISMATCH, Completion
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import Creation, SagaMeta
from storage.stored import (
    COMPLETED,
    FAILED,
    LONG,
    RUNNING,
    UNDONE,
    adoption,
    claim,
    done,
    entry,
    gather,
    head,
    let_time_pass,
    new_record,
    new_saga,
    put_saga,
    twice,
)


async def _refused(storage: StorageProtocol, **changes: object) -> Creation:
    """A creation that does not happen: no saga comes of it."""
    new = new_saga(storage, **{"key": new_record()} | changes)
    creation = await storage.create_saga(new)
    assert not creation.created
    assert await storage.saga_meta(new.saga_id) is None
    assert creation.record is not None
    assert await storage.get_record("key") == creation.record
    return creation


async def test_a_saga_under_a_new_key_creates_its_record(storage: StorageProtocol) -> None:
    new = new_saga(storage, key=new_record(user_id="u"), owner="w1")
    creation = await twice(lambda: storage.create_saga(new))
    assert creation.created
    assert creation.meta is not None
    assert creation.meta.idempotency_key == "key"
    record = await storage.get_record("key")
    assert record is not None
    assert (record.status, record.saga_id, record.fingerprint, record.user_id) == (RUNNING, new.saga_id, "print", "u")


async def test_of_many_sagas_under_one_key_one_begins(storage: StorageProtocol) -> None:
    news = [new_saga(storage, key=new_record(), owner=f"w{number}") for number in range(50)]
    answers = await gather(*(partial(storage.create_saga, new) for new in news))
    given = [answer for answer in answers if isinstance(answer, Creation)]
    assert sorted(creation.created for creation in given) == [False] * 49 + [True]
    (winner,) = {creation.meta.saga_id for creation in given if creation.meta is not None}
    assert [new.saga_id for new in news if await storage.saga_meta(new.saga_id) is not None] == [winner]


async def test_a_second_saga_under_the_key_is_led_to_the_first(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, key=new_record())
    assert (await _refused(storage)).meta == meta
    await storage.append(entry((await storage.adopt_saga(adoption(meta))).meta, COMPLETED, completion=done(by=None)))
    assert (await _refused(storage)).meta == await head(storage, meta.saga_id)


async def test_another_request_under_the_key_gets_the_record_to_compare(storage: StorageProtocol) -> None:
    await storage.create_record(new_record(fingerprint="first"))
    refused = await _refused(storage)
    assert refused.meta is None
    assert refused.record is not None
    assert refused.record.fingerprint == "first"


async def test_a_pending_record_becomes_the_sagas(storage: StorageProtocol) -> None:
    await storage.create_record(new_record())
    meta = await put_saga(storage, key=new_record())
    record = await storage.get_record("key")
    assert record is not None
    assert (record.status, record.saga_id, record.explicit) == (RUNNING, meta.saga_id, True)


async def test_a_claim_in_progress_keeps_sagas_out(storage: StorageProtocol) -> None:
    await claim(storage)
    assert (await _refused(storage)).meta is None
    assert (await _refused(storage, claim_token="b")).meta is None  # noqa: S106 - names a claim, guards nothing


async def test_a_claim_that_was_taken_over_starts_no_saga(storage: StorageProtocol, tick: float) -> None:
    await claim(storage, lease=tick)
    await let_time_pass(storage, 2 * tick)
    await claim(storage, by="b")
    assert (await _refused(storage, claim_token="a")).meta is None  # noqa: S106 - names a claim, guards nothing


async def test_an_operation_that_ended_starts_no_saga(storage: StorageProtocol) -> None:
    await claim(storage)
    await storage.complete_record(done())
    assert (await _refused(storage)).meta is None
    assert (await _refused(storage, claim_token="a")).meta is None  # noqa: S106 - names a claim, guards nothing


@pytest.fixture(params=["a new key", "a pending key", "a claimed key", "a created and claimed key"])
async def linked(request: pytest.FixtureRequest, storage: StorageProtocol) -> SagaMeta:
    """A running saga that has its key in each way it can come by one; the claims' token is ``a``."""
    if "pending" in request.param or "created" in request.param:
        await storage.create_record(new_record())
    claimed = "claimed" in request.param
    if claimed:
        assert (await claim(storage)).outcome == GRANTED
    return await put_saga(storage, key=new_record(), owner="w1", status=RUNNING, claim_token="a" if claimed else None)


async def test_a_sagas_record_is_granted_to_nobody(storage: StorageProtocol, linked: SagaMeta, tick: float) -> None:
    """Not even to the token that started the saga: its claim was handed over, and its lease means nothing now."""
    before = await storage.get_record("key")
    for _ in range(2):
        for token in ("a", "b"):
            verdict = await claim(storage, by=token, lease=tick)
            assert (verdict.outcome, verdict.record) == (IN_PROGRESS, before)
        assert (await claim(storage, new=new_record(fingerprint="other"))).outcome == MISMATCH
        await let_time_pass(storage, 2 * tick)
    assert await storage.get_record("key") == before


@pytest.mark.parametrize("token", ["a", None, "b"])
async def test_only_the_saga_ends_its_record(storage: StorageProtocol, linked: SagaMeta, token: str | None) -> None:
    """The reply to its creation was lost, say, and the starter tidies up: the saga runs, so the key stays."""
    before = await storage.get_record("key")
    with pytest.raises(ClaimLost):
        await storage.complete_record(done(by=token))
    for verb in (partial(storage.abandon_claim, "key"), partial(storage.renew_claim, "key", lease=LONG)):
        with pytest.raises(ClaimLost):
            await verb(token=token or "")
    assert await storage.get_record("key") == before
    assert (await _refused(storage)).meta == linked
    await storage.append(entry(linked, COMPLETED, completion=done(by=None)))
    assert (await claim(storage)).outcome == DONE


async def test_a_sagas_record_lives_until_the_saga_ends(storage: StorageProtocol, tick: float) -> None:
    meta = await put_saga(storage, owner="w1", key=new_record(ttl=tick))
    await let_time_pass(storage, 3 * tick)
    await storage.purge(100)
    assert (await _refused(storage)).meta == meta
    await storage.append(entry(meta, COMPLETED, completion=done(by=None, ttl=3 * tick)))
    await let_time_pass(storage, tick)
    await storage.purge(100)
    assert (await claim(storage)).outcome == DONE
    await let_time_pass(storage, 3 * tick)
    assert await storage.get_record("key") is None


@pytest.mark.parametrize(
    ("status", "stored", "result", "error"),
    [
        (COMPLETED, COMPLETED, '{"ключ":1}'.encode(), None),
        (UNDONE, FAILED, b"{}", "broken: ключ"),
        (UNDONE, FAILED, None, None),
        (COMPLETED, COMPLETED, b"null", None),
    ],
)
async def test_the_last_entry_completes_the_record(
    storage: StorageProtocol, status: OperationStatus, stored: OperationStatus, result: bytes | None, error: str | None
) -> None:
    meta = await put_saga(storage, owner="w1", key=new_record())
    line = entry(meta, status, completion=Completion("key", None, stored, result, error, LONG))
    await storage.append(line)
    record = await storage.get_record("key")
    assert record is not None
    assert (record.status, record.error, record.saga_id) == (stored, error, meta.saga_id)
    assert record.result == (None if result is None else Raw(result))
    await storage.append(line)
    assert await storage.get_record("key") == record


async def test_a_parked_saga_keeps_its_key(storage: StorageProtocol, tick: float) -> None:
    meta = await put_saga(storage, owner="w1", key=new_record(ttl=tick))
    await storage.append(entry(meta, FAILED))
    await let_time_pass(storage, 3 * tick)
    await storage.purge(100)
    refused = await _refused(storage)
    assert refused.meta is not None
    assert refused.meta.status is FAILED
    assert (await claim(storage, by="b")).outcome == IN_PROGRESS


async def test_a_fenced_off_worker_does_not_complete_the_key(storage: StorageProtocol) -> None:
    meta = await put_saga(storage, owner="w1", key=new_record())
    await storage.adopt_saga(adoption(meta))
    (answer,) = await gather(partial(storage.append, entry(meta, COMPLETED, completion=done(by=None))))
    assert isinstance(answer, Exception)
    assert (await claim(storage)).outcome == IN_PROGRESS


async def test_a_saga_completes_no_key_of_others(storage: StorageProtocol) -> None:
    mine = await put_saga(storage, owner="w1", key=new_record())
    await storage.delete_idempotency("key")
    other = await put_saga(storage, owner="w2", key=new_record())
    await storage.append(entry(mine, COMPLETED, completion=done(by=None)))
    record = await storage.get_record("key")
    assert record is not None
    assert (record.status, record.saga_id) == (RUNNING, other.saga_id)
