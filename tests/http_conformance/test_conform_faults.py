"""Cases 28, 29 and 31: one request, and a fault of the storage or of the process at each call that it makes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsMiddleware, IdempotencyOptions, MemoryStorage
from middleware.apps import answer, app_of
from middleware.asgi_client import Client, Response
from runtime.nodes import Fault, Node, at_call, die_after, die_before, lose_reply, refuse

VERBS = frozenset({"claim_record", "renew_claim", "complete_record", "abandon_claim"})
CALLS = 7  # a claim, renewals while the handler works, and the ending


class Shop:
    """A process whose handler works for longer than a lease."""

    def __init__(self, shared: MemoryStorage, ran: list[str], policy: Any) -> None:
        async def order(_scope: Any, _body: bytes, send: Any) -> None:
            ran.append("begun")
            await trio.sleep(21)  # not in the moment of a renewal: one is due every four seconds
            ran.append("done")
            await answer(send, 201, {"order": ran.count("done")})

        self.node = Node(shared, lambda _: None)
        options = IdempotencyOptions(lease=12, on_storage_error="reject", on_crash=policy)
        self.client = Client(BackgroundOperationsMiddleware(app_of(order), self.node.manager, options=options))
        self.got: Response | None = None

    async def post(self) -> None:
        with suppress(RuntimeError):
            self.got = await self.client.post()

    async def post_until_answered(self) -> Response:
        while True:
            response = await self.client.post()
            if response.status == 201 or response.problem not in {"in-progress", "storage-unavailable", "claim-lost"}:
                return response
            await trio.sleep(1)


async def test_the_calls_that_can_fail(autojump_clock: MockClock) -> None:
    shop = Shop(MemoryStorage(), [], "unknown")
    async with shop.node:
        await shop.post()
    calls = [verb for verb in shop.node.wire.calls if verb in VERBS]
    assert (calls[0], calls[-1]) == ("claim_record", "complete_record")
    assert set(calls[1:-1]) == {"renew_claim"}
    assert len(calls) == CALLS


@pytest.mark.parametrize("policy", ["unknown", "rerun"])
@pytest.mark.parametrize("fault", [refuse, lose_reply, die_before, die_after], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("k", range(CALLS))
async def test_whatever_fails_the_answer_is_true(k: int, fault: Fault, policy: str, autojump_clock: MockClock) -> None:
    shared, ran = MemoryStorage(), list[str]()
    shop, other = Shop(shared, ran, policy), Shop(shared, ran, policy)
    async with other.node:
        await shop.node.manager.start()
        shop.node.wire.fault = at_call(k, fault, VERBS)
        with trio.move_on_after(300):
            await shop.node.run(shop.post)
        done_before = ran.count("done")
        answers = [await other.post_until_answered(), await other.client.post()]
        if not shop.node.wire.cut:
            await shop.node.manager.stop()
    first, again = answers
    assert (again.status, again.body, again.replayed) == (first.status, first.body, True)
    if shop.got is not None and shop.got.status == 201:
        # Who was told that it is done can rely on it, unless its process died before it could write that down.
        assert first.body == shop.got.body or (shop.node.wire.cut and first.status == 409)
    if policy == "unknown":
        assert ran.count("begun") <= 1
        assert first.status == 201 or first.problem == "outcome-unknown"
    else:
        assert first.status == 201
        assert ran.count("done") <= done_before + 1
    if fault in (refuse, lose_reply):
        assert ran == ["begun", "done"]  # a fault that passes costs nobody his request
        assert first.status == 201
