"""Claims are kept alive each by its own lease, whatever happens to others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import ClaimLost, MemoryStorage
from dotmac.tasks.idempotency import scope_key
from dotmac.tasks.runtime.claims import ScopeHolder
from dotmac.tasks.runtime.request_claims import RequestClaim
from dotmac.tasks.storage.key_records import NewRecord
from runtime.nodes import Ledger, Node, Wire


async def begin(node: Node, key: str, lease: float) -> tuple[RequestClaim, trio.CancelScope]:
    holder = ScopeHolder()
    new = NewRecord(scope_key("t", key), "t", None, "do", "same", None, 3600.0)
    _, claim = await node.manager._hosted().requests.begin(new, holder, owner="test", lease=lease, wait=0)
    assert claim is not None
    return claim, holder.scope


async def working(scope: trio.CancelScope, seconds: float) -> bool:
    """Work under a claim; whether it was not cancelled meanwhile."""
    with scope:
        await trio.sleep(seconds)
    return not scope.cancelled_caught


async def test_a_short_lease_beside_a_long_one_is_renewed_in_time(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        long, _ = await begin(node, "long", 600.0)
        await trio.sleep(0.1)
        short, scope = await begin(node, "short", 1.0)
        assert await working(scope, 30.0)
        for claim in (short, long):
            await node.manager._hosted().requests.finish(claim, b"1", None, patience=0)


async def test_a_renewal_without_an_answer_holds_up_nobody_else_s(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    silent = False

    async def one_does_not_answer(_wire: Wire, verb: str, call: Callable[[], Awaitable[object]]) -> object:
        nonlocal silent
        if verb == "renew_claim" and not silent:
            silent = True
            await trio.sleep_forever()
        return await call()

    async with Node(shared, ledger.register) as node:
        node.wire.fault = one_does_not_answer
        scopes = [(await begin(node, f"k{number}", 3.0))[1] for number in range(10)]
        kept: list[bool] = []

        async def work(scope: trio.CancelScope) -> None:
            kept.append(await working(scope, 30.0))

        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(work, scope)
        assert sorted(kept) == [False] + [True] * 9


async def test_what_ends_within_a_third_of_its_lease_costs_no_renewal(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        for number in range(100):
            claim, scope = await begin(node, f"k{number}", 3.0)
            assert await working(scope, 0.9)
            await node.manager._hosted().requests.finish(claim, b"1", None, patience=0)
        assert "renew_claim" not in node.wire.calls


async def test_a_claim_that_another_has_is_lost_once_and_not_asked_for_again(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        claim, scope = await begin(node, "k", 3.0)
        del shared._records[claim.new.key]
        assert not await working(scope, 30.0)
        await trio.sleep(30)
        assert node.wire.calls.count("renew_claim") == 1
        await begin(node, "k", 3.0)
        with pytest.raises(ClaimLost):
            await node.manager._hosted().requests.finish(claim, b"1", None, patience=0)


async def test_an_ending_that_is_cancelled_between_two_tries_leaves_the_claim_to_its_lease(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        claim, _ = await begin(node, "k", 3.0)
        node.wire.away = True
        with trio.move_on_after(0.1) as limit:
            await node.manager._hosted().requests.finish(claim, b"1", None, patience=10)
        assert limit.cancelled_caught
        node.wire.away = False
        await trio.sleep(4)
        await begin(node, "k", 3.0)
