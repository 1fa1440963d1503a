"""Claims on idempotency keys: one at a time, under a lease, and refused to everybody whose token is old."""

from __future__ import annotations

from functools import partial

import pytest

from dotmac.tasks.errors import ClaimLost
from dotmac.tasks.storage.key_records import DONE, GRANTED, IN_PROGRESS, ClaimVerdict
from dotmac.tasks.storage.protocol import StorageProtocol
from storage.stored import COMPLETED, PENDING, RUNNING, claim, done, gather, let_time_pass, new_record


async def test_a_claim_on_a_new_key_is_granted(storage: StorageProtocol) -> None:
    verdict = await claim(storage, lease=10.0, new=new_record(parameters=b"{}"))
    record = verdict.record
    assert verdict.outcome == GRANTED
    assert (record.status, record.token, record.owner, record.claims) == (RUNNING, "a", "owner-a", 1)
    assert record.lease_until - record.claimed_at == pytest.approx(10.0)
    assert not record.explicit
    assert await storage.get_record("key") == record


async def test_a_second_claim_learns_who_has_it_and_changes_nothing(storage: StorageProtocol) -> None:
    held = (await claim(storage)).record
    assert await claim(storage, by="b") == ClaimVerdict(IN_PROGRESS, held)
    assert await storage.get_record("key") == held


async def test_the_same_claim_sent_again_is_the_same_claim(storage: StorageProtocol) -> None:
    first, second = await claim(storage), await claim(storage)
    assert second.outcome == GRANTED
    assert second.record.claims == 1
    assert second.record.claimed_at == first.record.claimed_at
    assert (await claim(storage, by="b")).outcome == IN_PROGRESS


async def test_of_200_claims_at_once_one_is_granted(storage: StorageProtocol) -> None:
    """Fault 2: a look before the write let every one of them run."""
    verdicts = await gather(*(partial(claim, storage, by=f"t{number}") for number in range(200)))
    outcomes = [verdict.outcome for verdict in verdicts if isinstance(verdict, ClaimVerdict)]
    assert sorted(outcomes) == [GRANTED] + [IN_PROGRESS] * 199
    assert len({verdict.record.token for verdict in verdicts if isinstance(verdict, ClaimVerdict)}) == 1


async def test_a_lapsed_claim_goes_to_one_of_those_who_ask(storage: StorageProtocol, tick: float) -> None:
    await claim(storage, lease=tick)
    await let_time_pass(storage, 2 * tick)
    verdicts = await gather(*(partial(claim, storage, by=f"t{number}") for number in range(20)))
    granted = [each for each in verdicts if isinstance(each, ClaimVerdict) and each.outcome == GRANTED]
    assert len(granted) == 1
    assert granted[0].record.claims == 2


async def test_who_was_taken_over_can_write_nothing(storage: StorageProtocol, tick: float) -> None:
    await claim(storage, by="slow", lease=tick)
    await let_time_pass(storage, 2 * tick)
    held = (await claim(storage, by="next")).record
    with pytest.raises(ClaimLost):
        await storage.renew_claim("key", "slow", 10.0)
    with pytest.raises(ClaimLost):
        await storage.complete_record(done(by="slow"))
    with pytest.raises(ClaimLost):
        await storage.abandon_claim("key", "slow")
    assert (await claim(storage, by="slow")).outcome == IN_PROGRESS
    assert await storage.get_record("key") == held
    assert (await storage.complete_record(done(by="next"))).status is COMPLETED


async def test_a_late_claimant_whom_nobody_took_over_still_completes(storage: StorageProtocol, tick: float) -> None:
    await claim(storage, lease=tick)
    await let_time_pass(storage, 2 * tick)
    assert (await storage.complete_record(done())).status is COMPLETED
    assert (await claim(storage, by="b")).outcome == DONE


async def test_renewal_keeps_others_out(storage: StorageProtocol, tick: float) -> None:
    await claim(storage, lease=2 * tick)
    for _ in range(3):
        await let_time_pass(storage, tick)
        until = await storage.renew_claim("key", "a", 2 * tick)
        record = await storage.get_record("key")
        assert record is not None
        assert record.lease_until == until
        assert (await claim(storage, by="b")).outcome == IN_PROGRESS
    await let_time_pass(storage, 3 * tick)
    assert (await claim(storage, by="b")).outcome == GRANTED


@pytest.mark.parametrize("state", ["unknown", "pending", "other's", "done", "abandoned"])
async def test_what_is_not_held_cannot_be_renewed(storage: StorageProtocol, state: str) -> None:
    if state == "pending":
        await storage.create_record(new_record())
    elif state == "other's":
        await claim(storage, by="other")
    elif state in ("done", "abandoned"):
        await claim(storage)
        await (storage.complete_record(done()) if state == "done" else storage.abandon_claim("key", "a"))
    before = await storage.get_record("key")
    with pytest.raises(ClaimLost):
        await storage.renew_claim("key", "a", 10.0)
    assert await storage.get_record("key") == before


async def test_a_claimed_record_outlives_its_time_to_live_until_its_lease_ends(
    storage: StorageProtocol, tick: float
) -> None:
    await claim(storage, lease=4 * tick, new=new_record(ttl=tick))
    await let_time_pass(storage, 2 * tick)
    assert (await claim(storage, by="b")).outcome == IN_PROGRESS
    await storage.renew_claim("key", "a", 5 * tick)
    await let_time_pass(storage, 3 * tick)
    await storage.purge(100)
    assert (await claim(storage, by="b")).outcome == IN_PROGRESS
    assert (await storage.complete_record(done())).status is COMPLETED


async def test_a_claim_that_was_lost_is_known_after_the_lease_however_long_the_work_took(
    storage: StorageProtocol, tick: float
) -> None:
    """Else the work would be done a second time as if it were the first."""
    await claim(storage, lease=4 * tick, new=new_record(ttl=4 * tick))
    for _ in range(3):  # longer than lease and time to live together
        await let_time_pass(storage, 3 * tick)
        await storage.renew_claim("key", "a", 4 * tick)
    await let_time_pass(storage, 5 * tick)
    await storage.purge(100)
    verdict = await claim(storage, by="b", lease=tick, new=new_record(ttl=4 * tick))
    assert (verdict.outcome, verdict.record.claims) == (GRANTED, 2)
    await let_time_pass(storage, 6 * tick)
    await storage.purge(100)
    assert await storage.get_record("key") is None  # not for ever


async def test_an_abandoned_claim_leaves_no_record(storage: StorageProtocol) -> None:
    await claim(storage)
    await storage.abandon_claim("key", "a")
    await storage.abandon_claim("key", "a")
    assert await storage.get_record("key") is None
    verdict = await claim(storage, by="b", new=new_record(fingerprint="other"))
    assert verdict.outcome == GRANTED
    assert verdict.record.claims == 1


async def test_an_abandoned_claim_on_a_created_record_leaves_it_pending(storage: StorageProtocol) -> None:
    _, before = await storage.create_record(new_record(parameters=b"{}"))
    await claim(storage)
    await storage.abandon_claim("key", "a")
    await storage.abandon_claim("key", "a")
    after = await storage.get_record("key")
    assert after is not None
    assert (after.status, after.token, after.owner) == (PENDING, None, None)
    assert (after.parameters, after.fingerprint, after.created_at) == (
        before.parameters,
        before.fingerprint,
        before.created_at,
    )
    assert (await claim(storage, by="b")).outcome == GRANTED


async def test_an_abandoned_claim_leaves_the_trace_of_one_that_was_lost_before(
    storage: StorageProtocol, tick: float
) -> None:
    """Else work that somebody may have done would look untouched to whoever comes next."""
    await claim(storage, lease=tick)
    await let_time_pass(storage, 2 * tick)
    for claims, by in ((2, "b"), (3, "c")):
        verdict = await claim(storage, by=by)
        assert (verdict.outcome, verdict.record.claims) == (GRANTED, claims)
        await storage.abandon_claim("key", by)
        await storage.abandon_claim("key", by)
        after = await storage.get_record("key")
        assert after is not None
        assert (after.status, after.token, after.owner, after.lease_until) == (PENDING, None, None, 0.0)


async def test_giving_back_again_does_not_touch_the_next_claim(storage: StorageProtocol) -> None:
    await claim(storage)
    await storage.abandon_claim("key", "a")
    held = (await claim(storage, by="b")).record
    with pytest.raises(ClaimLost):
        await storage.abandon_claim("key", "a")
    assert await storage.get_record("key") == held


async def test_a_completed_claim_cannot_be_given_back(storage: StorageProtocol) -> None:
    await claim(storage)
    record = await storage.complete_record(done())
    with pytest.raises(ClaimLost):
        await storage.abandon_claim("key", "a")
    assert await storage.get_record("key") == record


async def test_who_claims_again_after_the_end_is_told_the_result(storage: StorageProtocol) -> None:
    await claim(storage)
    record = await storage.complete_record(done(result=b"[1]"))
    assert await claim(storage) == ClaimVerdict(DONE, record)
    assert await claim(storage, by="b") == ClaimVerdict(DONE, record)


async def test_the_first_answer_to_an_expired_key_is_a_new_operation(storage: StorageProtocol, tick: float) -> None:
    await claim(storage)
    await storage.complete_record(done(ttl=tick))
    await let_time_pass(storage, 2 * tick)
    verdict = await claim(storage, by="b", new=new_record(fingerprint="other"))
    assert verdict.outcome == GRANTED
    assert (verdict.record.claims, verdict.record.result) == (1, None)
