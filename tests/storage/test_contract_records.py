"""Idempotency records on every storage: creation, completion, deletion by time, and payloads kept to the byte."""

from __future__ import annotations

from functools import partial

import pytest
from msgspec import Raw
from msgspec.structs import replace

from dotmac.tasks.errors import ClaimLost, IdempotencyKeyNotFound
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.key_records import DONE, GRANTED, MISMATCH, Completion
from dotmac.tasks.storage.protocol import StorageProtocol
from storage.stored import COMPLETED, FAILED, LONG, PENDING, claim, done, gather, let_time_pass, new_record, twice

PAYLOADS = [
    pytest.param(None, id="nothing"),
    pytest.param(b"null", id="null"),
    pytest.param(b"{}", id="empty"),
    pytest.param('{"ключ":"值 \U0001f600","nul":"\\u0000"}'.encode(), id="unicode"),
    pytest.param(b'{ "spaces" : [ 1.0 , 18446744073709551615 ] }', id="spelling"),
    pytest.param(b'{"blob":"' + b"x" * 2**20 + b'"}', id="1MiB"),
]


async def test_a_created_record_is_pending_and_holds_what_was_given(storage: StorageProtocol) -> None:
    new = new_record(user_id="u1", parameters=b'{"a":1}', ttl=50.0)
    created, record = await storage.create_record(new)
    assert created
    assert record.status is OperationStatus.PENDING
    assert (record.key, record.tenant_id, record.user_id, record.operation_type) == ("key", "t1", "u1", "op")
    assert (record.fingerprint, record.parameters, record.explicit) == ("print", Raw(b'{"a":1}'), True)
    assert record.expires_at - record.created_at == pytest.approx(50.0)
    assert await storage.get_record("key") == record


async def test_optional_fields_may_all_be_none(storage: StorageProtocol) -> None:
    """Fault 1: a None among the fields made the store refuse every record."""
    _, record = await storage.create_record(new_record())
    ended = await storage.complete_record(Completion("key", None, COMPLETED, None, None, LONG))
    for each in (record, ended, await storage.get_record("key")):
        assert each is not None
        assert (each.user_id, each.parameters, each.result, each.error) == (None, None, None, None)
        assert (each.token, each.owner, each.saga_id) == (None, None, None)


async def test_creating_a_key_again_never_resets_it(storage: StorageProtocol) -> None:
    _, first = await storage.create_record(new_record())
    assert await storage.create_record(new_record(fingerprint="other", ttl=1.0)) == (False, first)
    ended = await storage.complete_record(done(by=None))
    assert await storage.create_record(new_record()) == (False, ended)


async def test_of_many_that_create_one_key_at_once_one_does(storage: StorageProtocol) -> None:
    news = [new_record(fingerprint=str(number)) for number in range(50)]
    answers = await gather(*(partial(storage.create_record, new) for new in news))
    given = [answer for answer in answers if not isinstance(answer, Exception)]
    assert sorted(created for created, _ in given) == [False] * 49 + [True]
    assert len({record.fingerprint for _, record in given}) == 1


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_payloads_come_back_as_they_went_in(storage: StorageProtocol, payload: bytes | None) -> None:
    await storage.create_record(new_record(parameters=payload))
    ended = await storage.complete_record(done(by=None, result=payload))
    for record in (ended, await storage.get_record("key")):
        assert record is not None
        for raw in (record.parameters, record.result):
            assert (None if raw is None else bytes(raw)) == payload


async def test_names_and_errors_may_hold_any_character(storage: StorageProtocol) -> None:
    odd = 'ключ:{tag}*\n"quoted" \U0001f600'
    await storage.create_record(new_record(odd, tenant_id=odd, user_id=odd, operation_type=odd, fingerprint=odd))
    await storage.complete_record(Completion(odd, None, FAILED, None, odd, LONG))
    record = await storage.get_record(odd)
    assert record is not None
    assert {record.key, record.tenant_id, record.user_id, record.operation_type, record.error} == {odd}


async def test_an_unknown_key_is_none_and_cannot_be_completed(storage: StorageProtocol) -> None:
    assert await storage.get_record("nowhere") is None
    with pytest.raises(IdempotencyKeyNotFound):
        await storage.complete_record(done("nowhere"))
    assert await storage.get_record("nowhere") is None


@pytest.mark.parametrize("status", [COMPLETED, FAILED])
async def test_a_completion_sent_again_gives_the_same_record(storage: StorageProtocol, status: OperationStatus) -> None:
    await claim(storage)
    error = "broken" if status is FAILED else None
    record = await twice(lambda: storage.complete_record(Completion("key", "a", status, b"1", error, LONG)))
    assert (record.status, record.result, record.error) == (status, Raw(b"1"), error)
    assert await storage.get_record("key") == record
    assert (await claim(storage, by="b")).outcome == DONE


@pytest.mark.parametrize(
    "changes",
    [{"result": b"2"}, {"result": None}, {"token": "b"}, {"token": None}, {"status": FAILED}, {"error": "e"}],
    ids=str,
)
async def test_an_ending_is_never_changed(storage: StorageProtocol, changes: dict[str, object]) -> None:
    await claim(storage)
    record = await storage.complete_record(done(result=b"1"))
    with pytest.raises(ClaimLost):
        await storage.complete_record(replace(done(result=b"1"), **changes))
    assert await storage.get_record("key") == record


async def test_a_key_that_nobody_claimed_is_completed_without_a_token(storage: StorageProtocol) -> None:
    await storage.create_record(new_record())
    with pytest.raises(ClaimLost):
        await storage.complete_record(done(by="never claimed"))
    assert (await storage.complete_record(done(by=None))).status is COMPLETED


async def test_without_a_token_no_claimed_key_is_completed(storage: StorageProtocol) -> None:
    await storage.create_record(new_record())
    held = (await claim(storage)).record
    with pytest.raises(ClaimLost):
        await storage.complete_record(done(by=None))
    assert await storage.get_record("key") == held


async def test_of_many_endings_at_once_one_counts(storage: StorageProtocol) -> None:
    await storage.create_record(new_record())
    endings = [done(by=None, result=b"%d" % number) for number in range(20)]
    answers = await gather(*(partial(storage.complete_record, each) for each in endings))
    won = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(won) == 1
    assert all(isinstance(answer, ClaimLost) for answer in answers if answer not in won)
    assert await storage.get_record("key") == won[0]


async def test_a_record_is_gone_when_its_time_is_over(storage: StorageProtocol, tick: float) -> None:
    await storage.create_record(new_record(ttl=tick))
    await storage.create_record(new_record("other"))
    await let_time_pass(storage, 2 * tick)
    assert await storage.get_record("key") is None
    assert await storage.get_record("other") is not None
    with pytest.raises(IdempotencyKeyNotFound):
        await storage.complete_record(done(by=None))
    created, record = await storage.create_record(new_record(fingerprint="new"))
    assert created
    assert record.fingerprint == "new"


async def test_the_time_to_live_counts_anew_from_completion(storage: StorageProtocol, tick: float) -> None:
    await storage.create_record(new_record(ttl=3 * tick))
    await let_time_pass(storage, 1.5 * tick)
    ended = await storage.complete_record(done(by=None, ttl=4 * tick))
    await let_time_pass(storage, 2.5 * tick)  # past the first end
    assert await storage.get_record("key") == ended
    await let_time_pass(storage, 2.5 * tick)
    assert await storage.get_record("key") is None


async def test_a_completion_may_also_shorten_the_life(storage: StorageProtocol, tick: float) -> None:
    await storage.create_record(new_record(ttl=LONG))
    await storage.complete_record(done(by=None, ttl=tick))
    await let_time_pass(storage, 2 * tick)
    assert await storage.get_record("key") is None


async def test_a_completion_sent_again_does_not_prolong_the_life(storage: StorageProtocol, tick: float) -> None:
    await storage.create_record(new_record())
    await storage.complete_record(done(by=None, ttl=2 * tick))
    await let_time_pass(storage, tick)
    await storage.complete_record(done(by=None, ttl=2 * tick))
    await let_time_pass(storage, 1.5 * tick)
    assert await storage.get_record("key") is None


async def test_another_request_under_the_key_is_told_so_in_every_state(storage: StorageProtocol, tick: float) -> None:
    other = new_record(fingerprint="other")
    await storage.create_record(new_record())
    assert (await claim(storage, by="b", new=other)).outcome == MISMATCH
    await claim(storage, lease=tick)
    assert (await claim(storage, by="b", new=other)).outcome == MISMATCH
    await let_time_pass(storage, 2 * tick)
    refused = await claim(storage, by="b", new=other)
    assert refused.outcome == MISMATCH
    assert refused.record.owner == "owner-a"
    await storage.complete_record(done())
    assert (await claim(storage, by="b", new=other)).outcome == MISMATCH


async def test_a_created_record_can_be_claimed_and_says_that_it_was_created(storage: StorageProtocol) -> None:
    _, before = await storage.create_record(new_record())
    assert before.status is PENDING
    verdict = await claim(storage)
    assert verdict.outcome == GRANTED
    assert verdict.record.explicit
