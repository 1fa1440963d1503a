"""Requests whose work is a saga: one saga and one answer, however often, wherever, and whatever dies in between."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsMiddleware,
    ClaimLost,
    IdempotencyOptions,
    InvalidInput,
    MemoryStorage,
    OperationStatus,
    SagaOutcome,
    StorageUnavailable,
    declare_no_effect,
    start_saga_for_request,
)
from dotmac.tasks.errors import UsageError
from middleware.apps import answer, app_of
from middleware.asgi_client import Client, Response
from runtime.nodes import (
    MUTATING,
    Ledger,
    Node,
    at_call,
    die_after,
    die_before,
    lose_reply,
    only_saga,
    refuse,
    step,
    until,
)


class Onboarding:
    """A process whose one route starts a saga and answers with what comes of it."""

    def __init__(self, shared: MemoryStorage, ledger: Ledger, **options: Any) -> None:
        self.node = Node(shared, ledger.register)
        self.steps = [step("a"), step("b")]
        self.entered = 0
        middleware = BackgroundOperationsMiddleware(
            app_of(self._start), self.node.manager, options=IdempotencyOptions(**options)
        )
        self.client = Client(middleware)

    async def _start(self, scope: Any, _body: bytes, send: Any) -> None:
        self.entered += 1
        started = await start_saga_for_request(scope, "onboarding", self.steps)
        response = await started.response()
        await response(scope, trio.sleep_forever, send)

    async def __aenter__(self) -> Onboarding:
        await self.node.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.node.__aexit__(*exc)


async def test_everybody_gets_the_saga_s_answer(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, nursery: trio.Nursery
) -> None:
    ledger.hold["b"] = trio.Event()
    async with Onboarding(shared, ledger) as here, Onboarding(shared, ledger) as there:
        responses: list[Response] = []

        async def send(process: Onboarding) -> None:
            responses.append(await process.client.post(body=b"same"))

        async with trio.open_nursery() as clients:
            clients.start_soon(send, here)
            await until(lambda: ledger.effects)
            for process in (here, there) * 3:
                clients.start_soon(send, process)
            await trio.sleep(5)
            assert responses == []
            assert (await there.client.post(body=b"other")).status == 422
            ledger.hold["b"].set()
        afterwards = await there.client.post(body=b"same")
    expected = {"saga_id": only_saga(shared).saga_id, "status": "completed"}
    for response in [*responses, afterwards]:
        assert response.status == 200
        assert response.json == expected | {"results": {"a": {"name": "a"}, "b": {"name": "b"}}}
    assert [response.replayed for response in responses].count(False) == 1
    assert (ledger.effects, here.entered, there.entered) == (["a", "b"], 1, 0)


async def test_who_does_not_want_to_wait_is_told_where_to_look(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["b"] = trio.Event()
    async with Onboarding(shared, ledger, saga_wait=2, saga_location="/v1/sagas/{saga_id}") as process:
        for replayed in (False, True):
            response = await process.client.post()
            saga_id = only_saga(shared).saga_id
            assert (response.status, response.replayed) == (202, replayed)
            assert response.json == {"saga_id": saga_id, "status": "in_progress"}
            assert response.header("location") == f"/v1/sagas/{saga_id}"
            assert response.header("retry-after") == "2"
        ledger.hold["b"].set()
        assert (await process.client.post()).status == 200


async def test_a_handler_may_outlast_the_lease_of_the_key_that_the_saga_took_over(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, nursery: trio.Nursery
) -> None:
    ledger.hold["b"] = trio.Event()
    async with Onboarding(shared, ledger, lease=3, saga_wait=100) as process:
        got: list[Response] = []

        async def send() -> None:
            got.append(await process.client.post())

        nursery.start_soon(send)
        await trio.sleep(30)
        ledger.hold["b"].set()
        await until(lambda: got)
    assert got[0].status == 200


async def test_a_saga_that_was_undone_and_one_that_is_parked(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["b"] = ValueError("card refused")
    async with Onboarding(shared, ledger, saga_wait=600) as process:
        for replayed in (False, True):
            undone = await process.client.post(key="undone")
            assert (undone.status, undone.problem, undone.replayed) == (409, "saga-compensated", replayed)
        ledger.failing["undo a"] = ValueError("no undo")
        for replayed in (False, True):
            parked = await process.client.post(key="parked")
            assert (parked.status, parked.problem, parked.replayed) == (500, "saga-failed", replayed)
            assert parked.json["open_items"]
        ledger.failing.clear()
        await process.node.manager.retry_saga(parked.json["saga_id"])
        await until(lambda: ledger.effects.count("undo a") == 2)
        assert (await process.client.post(key="parked")).problem == "saga-compensated"


async def test_a_route_renders_its_own_answer(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    async def render(outcome: SagaOutcome) -> Any:
        async def response(_scope: Any, _receive: Any, send: Any) -> None:
            await answer(send, 201, {"did": sorted(outcome.results)})

        return response

    async with Onboarding(shared, ledger, saga_response=render) as process:
        for _ in range(2):
            response = await process.client.post()
            assert (response.status, response.json) == (201, {"did": ["a", "b"]})
        assert response.replayed


async def test_without_a_key_each_request_starts_a_saga(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Onboarding(shared, ledger) as process:
        ids = {(await process.client.post(key=None)).json["saga_id"] for _ in range(2)}
    assert len(ids) == 2


async def test_a_second_saga_no_tenant_and_bad_steps_are_refused(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    seen: list[Exception] = []

    async def handler(scope: Any, _body: bytes, send: Any) -> None:
        for tenant, steps in ((None, [step("a")]), ("t", [{"name": "a"}]), ("t", [step("a")]), ("t", [step("a")])):
            try:
                await start_saga_for_request(scope, "w", steps, tenant_id=tenant)
            except UsageError as error:
                seen.append(error)
        with pytest.raises(UsageError, match="cancel the saga"):
            declare_no_effect(scope)
        await answer(send)

    async with Node(shared, ledger.register) as node:
        client = Client(BackgroundOperationsMiddleware(app_of(handler), node.manager), tenant=None)
        assert (await client.post()).status == 200
    assert [type(error) for error in seen] == [InvalidInput, InvalidInput, UsageError]
    assert [getattr(error, "field", None) for error in seen] == ["tenant_id", "steps[0].operation", None]


async def test_a_saga_that_is_no_longer_kept_has_an_ending_still(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Onboarding(shared, ledger) as process:
        await process.client.post()
        del shared._sagas[only_saga(shared).saga_id]
        late = await process.client.post()
        assert (late.status, late.problem) == (410, "saga-forgotten")
        assert late.json["saga_status"] == OperationStatus.COMPLETED
        assert process.entered == 1


@pytest.mark.parametrize("fault", [refuse, lose_reply, die_before, die_after])
@pytest.mark.parametrize("call", range(8))
async def test_exactly_one_saga_whatever_happens_at_each_call_to_the_storage(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, fault: Any, call: int
) -> None:
    """The client repeats its request until it has an answer, at a process that is alive."""
    async with Onboarding(shared, ledger, on_storage_error="reject") as first, Onboarding(shared, ledger) as second:
        first.node.wire.fault = at_call(call, fault, MUTATING)

        async def send() -> None:
            await first.client.post()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_quietly, first.node, send)
            await trio.sleep(30)
            nursery.cancel_scope.cancel()
        first.node.wire.fault = None
        answers = [await second.client.post()]
        while answers[-1].status in (202, 409, 503) and answers[-1].header("retry-after"):
            await trio.sleep(1)
            answers.append(await second.client.post())
        last = answers[-1]
        if last.status == 409:  # it died with the key, before the saga was there
            assert last.problem == "outcome-unknown"
            assert only_saga(shared) is None
        else:
            assert last.status == 200
            assert last.json["saga_id"] == only_saga(shared).saga_id
            assert ledger.effects in (["a", "b"], ["a", "a", "b"], ["a", "b", "b"])
            assert (await second.client.post()).json == last.json


async def _quietly(node: Node, send: Any) -> None:
    """A server logs what an app raises, and goes on."""
    with suppress(StorageUnavailable, ClaimLost):
        await node.run(send)
