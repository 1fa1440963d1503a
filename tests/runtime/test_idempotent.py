"""Idempotent operations: one claim, one run, one result for everybody, whoever dies and whatever gets lost."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    ClaimLost,
    IdempotencyInProgress,
    IdempotencyKeyNotFound,
    IdempotencyMismatch,
    InvalidInput,
    MemoryStorage,
    OperationFailed,
    OperationStatus,
    OutcomeUnknown,
    StorageUnavailable,
    UnknownOperation,
)
from dotmac.tasks.facade.operations import IdempotentOptions
from runtime.nodes import MUTATING, Ledger, Node, at_call, die_after, die_before, lose_reply, refuse, step, until

ASK: dict[str, Any] = {"tenant_id": "t", "user_id": "u", "operation_type": "do", "parameters": {"name": "a"}}
RESULT = {"name": "a"}


def _with(do: Callable[[Any], Any]) -> Callable[[BackgroundOperationsManager], None]:
    def register(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("do", do)

    return register


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


async def test_an_error_whose_text_cannot_be_had_is_raised_and_stored(shared: MemoryStorage) -> None:
    calls: list[Any] = []

    async def do(parameters: Any) -> None:
        calls.append(parameters)
        raise NoTextError

    async with Node(shared, _with(do)) as node:
        with pytest.raises(NoTextError):
            await node.manager.run_idempotent(**ASK)
        with pytest.raises(NoTextError):
            await node.manager.run_idempotent(**ASK, store_errors=True)
        with pytest.raises(OperationFailed, match="its text cannot be had: ValueError"):
            await node.manager.run_idempotent(**ASK)
    assert len(calls) == 2


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_cancellation_of_another_loop_is_no_cancellation_of_who_asked(
    shared: MemoryStorage, grouped: bool
) -> None:
    async def do(_parameters: Any) -> None:
        cancelled = asyncio.CancelledError()
        raise BaseExceptionGroup("of a nursery", [cancelled]) if grouped else cancelled

    async with Node(shared, _with(do)) as node:
        with pytest.raises(OutcomeUnknown, match="CancelledError"):
            await node.manager.run_idempotent(**ASK)
        with pytest.raises(OutcomeUnknown, match="CancelledError"):
            await node.manager.run_idempotent(**ASK, store_errors=True)
        with pytest.raises(OperationFailed, match="OutcomeUnknown: the handler let"):
            await node.manager.run_idempotent(**ASK)


async def test_an_error_that_quotes_a_whole_response_is_stored_in_short(shared: MemoryStorage) -> None:
    async def do(_parameters: Any) -> None:
        raise ValueError("x" * 1_000_000)

    async with Node(shared, _with(do)) as node:
        with pytest.raises(ValueError, match="x"):
            await node.manager.run_idempotent(**ASK, store_errors=True)
        with pytest.raises(OperationFailed) as caught:
            await node.manager.run_idempotent(**ASK)
    assert 1000 < len(str(caught.value)) < 3000


async def test_a_hundred_callers_at_two_managers_get_one_result_of_one_run(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    results: list[Any] = []

    async def ask(node: Node) -> None:
        results.append(await node.manager.run_idempotent(**ASK))

    async with Node(shared, ledger.register) as one, Node(shared, ledger.register) as two:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, (one, two)[number % 2])
            await trio.sleep(100)
            ledger.hold["a"].set()
            before = trio.current_time()
        assert trio.current_time() - before < 0.1  # all are woken, nobody waits for its next poll
    assert (ledger.effects, results) == (["a"], [RESULT] * 100)
    assert shared._watches == {}


async def test_whoever_waits_gets_the_result_though_no_message_comes_through(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silence(_topic: str) -> None:
        raise StorageUnavailable("no room for one more connection")

    ledger.hold["a"] = trio.Event()
    one, two = Node(shared, ledger.register), Node(shared, ledger.register)
    async with one, two, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: one.manager.run_idempotent(**ASK))
        await until(lambda: ledger.entered)
        monkeypatch.setattr(two.wire, "watch", silence)
        with pytest.raises(IdempotencyInProgress):
            await two.manager.run_idempotent(**ASK, wait=3.0)
        nursery.start_soon(_after, 5.0, ledger.hold["a"].set)
        assert await two.manager.run_idempotent(**ASK) == RESULT
    assert ledger.effects == ["a"]


async def _after(seconds: float, call: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    call()


async def test_every_caller_gets_a_result_of_its_own(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        first = await node.manager.run_idempotent(**ASK)
        first["name"] = "changed"
        assert await node.manager.run_idempotent(**ASK) == RESULT


async def test_an_error_frees_the_key(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    ledger.failing["a"] = ValueError("not now")
    async with Node(shared, ledger.register) as node:
        with pytest.raises(ValueError, match="not now"):
            await node.manager.run_idempotent(**ASK)
        ledger.failing.clear()
        assert await node.manager.run_idempotent(**ASK) == RESULT
    assert len(ledger.tokens["a"]) == 1


async def test_a_stored_error_is_the_answer_for_everybody(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["a"] = ValueError("never \ud800")
    async with Node(shared, ledger.register) as node:
        with pytest.raises(ValueError, match="never"):
            await node.manager.run_idempotent(**ASK, store_errors=True)
        ledger.failing.clear()
        with pytest.raises(OperationFailed, match="ValueError: never"):
            await node.manager.run_idempotent(**ASK)
    assert ledger.effects == []


async def test_an_error_is_stored_although_the_storage_was_away(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["a"] = ValueError("never")
    async with Node(shared, ledger.register) as node:
        node.wire.fault = at_call(0, refuse, frozenset({"complete_record"}))
        with pytest.raises(ValueError, match="never"):
            await node.manager.run_idempotent(**ASK, store_errors=True)
        with pytest.raises(OperationFailed):
            await node.manager.run_idempotent(**ASK)


async def test_a_claim_is_kept_for_ten_leases(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    async def slow(_parameters: Any) -> str:
        await trio.sleep(300)
        return "done"

    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        node.manager.register_operation_handler("slow", slow)
        other.manager.register_operation_handler("slow", slow)
        async with trio.open_nursery() as nursery:
            for one in (node, other):
                nursery.start_soon(lambda m: m.run_idempotent(tenant_id="t", operation_type="slow"), one.manager)
        assert trio.current_time() == pytest.approx(300, abs=1)
        (record,) = shared._records.values()
        assert record.claims == 1


async def test_a_claim_whose_process_died_is_taken_over_when_its_lease_ends(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, nursery: trio.Nursery
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        nursery.start_soon(first.run, lambda: first.manager.run_idempotent(**ASK))
        await until(lambda: ledger.entered)
        await first.kill()
        killed_at = trio.current_time()
        ledger.hold.clear()
        assert await second.manager.run_idempotent(**ASK) == RESULT
        assert 20 < trio.current_time() - killed_at < 32
    assert ledger.attempts == [("a", 1), ("a", 2)]
    assert len(ledger.tokens["a"]) == 1


async def test_a_claim_that_cannot_be_kept_cancels_its_work_and_stores_nothing(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ClaimLost):
                    await node.manager.run_idempotent(**ASK)
                (record,) = shared._records.values()
                assert trio.current_time() < 31
                assert shared.now() < record.lease_until
                assert record.status is OperationStatus.IN_PROGRESS

            nursery.start_soon(ask)
            await until(lambda: ledger.entered)
            node.wire.away = True
        ledger.hold.clear()
        assert await other.manager.run_idempotent(**ASK) == RESULT
    assert ledger.effects == ["a"]


async def test_a_claim_that_was_taken_away_cancels_its_work(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ClaimLost):
                await node.manager.run_idempotent(**ASK)

        nursery.start_soon(ask)
        await until(lambda: ledger.entered)
        (key,) = shared._records
        await shared.delete_idempotency(key)


async def test_a_result_is_stored_however_long_the_storage_is_away_within_the_lease(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: node.manager.run_idempotent(**ASK))
            await until(lambda: ledger.entered)
            node.wire.away = True
            ledger.hold["a"].set()
            await trio.sleep(15)
            node.wire.away = False
        assert await other.manager.run_idempotent(**ASK) == RESULT
    assert ledger.effects == ["a"]


async def test_a_cancelled_caller_s_result_is_stored_all_the_same(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def slow(_wire: Any, verb: str, call: Any) -> Any:
        if verb == "complete_record":
            storing.set()
            await trio.sleep(0.5)
        return await call()

    storing = trio.Event()
    async with Node(shared, ledger.register) as node:
        node.wire.fault = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: node.manager.run_idempotent(**ASK))
            await storing.wait()
            nursery.cancel_scope.cancel()
        assert await node.manager.run_idempotent(**ASK) == RESULT
    assert ledger.effects == ["a"]


async def test_a_claim_whose_answer_was_lost_blocks_nobody(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        node.wire.fault = at_call(0, lose_reply, frozenset({"claim_record"}))
        with pytest.raises(StorageUnavailable):
            await node.manager.run_idempotent(**ASK)
        with trio.fail_after(1):
            assert await node.manager.run_idempotent(**ASK) == RESULT


@pytest.mark.parametrize("fault", [refuse, lose_reply, die_before, die_after])
async def test_a_fault_at_any_verb_costs_at_most_a_second_run_and_never_a_second_result(
    autojump_clock: MockClock, fault: Any
) -> None:
    for k in range(6):
        shared, ledger = MemoryStorage(), Ledger()
        async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
            first.wire.fault = at_call(k, fault, MUTATING - {"renew_worker", "retire_worker"})
            first_result: list[Any] = []

            async def ask(node: Node = first, results: list[Any] = first_result) -> None:
                results.append(await node.manager.run_idempotent(**ASK))

            await first.run(ask)
            ran = len(ledger.effects)
            assert await second.manager.run_idempotent(**ASK) == RESULT
            if first_result or fault in (refuse, lose_reply):
                assert len(ledger.effects) == max(ran, 1)
            assert len(ledger.effects) <= 2


async def test_a_bounded_wait_ends_with_a_hint_when_to_come_back(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node.manager.run_idempotent(**ASK))
        await until(lambda: ledger.entered)
        for wait in (0, 5.0):
            before = trio.current_time()
            with pytest.raises(IdempotencyInProgress) as caught:
                await node.manager.run_idempotent(**ASK, wait=wait)
            assert trio.current_time() - before == pytest.approx(wait, abs=0.01)
            assert 15 <= caught.value.retry_after <= 30
        ledger.hold["a"].set()
    assert ledger.effects == ["a"]


async def test_a_chosen_key_for_another_request_is_refused_and_tenants_never_meet(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        manager = node.manager
        await manager.run_idempotent(**ASK, key="k")
        for change in ({"user_id": "other"}, {"parameters": {"name": "b"}}):
            with pytest.raises(IdempotencyMismatch):
                await manager.run_idempotent(**{**ASK, **change}, key="k")
            with pytest.raises(IdempotencyMismatch):
                await manager.create_idempotency_key(**{**ASK, **change}, key="k")
        other = {**ASK, "tenant_id": "t2", "parameters": {"name": "b"}}
        assert await manager.run_idempotent(**other, key="k") == {"name": "b"}
    assert ledger.effects == ["a", "b"]


async def test_a_result_that_cannot_be_stored_is_an_ending_too(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    calls: list[int] = []

    async def bad(_parameters: Any) -> Any:
        calls.append(1)
        return object()

    async with Node(shared, ledger.register) as node:
        node.manager.register_operation_handler("bad", bad)
        with pytest.raises(InvalidInput, match="result"):
            await node.manager.run_idempotent(tenant_id="t", operation_type="bad")
        with pytest.raises(OperationFailed, match="cannot be stored"):
            await node.manager.run_idempotent(tenant_id="t", operation_type="bad")
    assert calls == [1]


async def test_arguments_that_make_no_sense_are_named(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    bad: list[tuple[str, dict[str, Any]]] = [
        ("tenant_id", {"tenant_id": ""}),
        ("user_id", {"user_id": 7}),
        ("operation_type", {"operation_type": None}),
        ("parameters", {"parameters": [1]}),
        ("parameters.when", {"parameters": {"when": {1}}}),
        ("key", {"key": ""}),
        ("ttl", {"ttl": -1}),
        ("ttl", {"ttl": float("nan")}),
        ("wait", {"wait": -1}),
        ("wait", {"wait": "long"}),
    ]
    async with Node(shared, ledger.register, max_payload=1000) as node:
        for field, change in bad:
            with pytest.raises(InvalidInput) as caught:
                await node.manager.run_idempotent(**{**ASK, **change})
            assert caught.value.field == field
        with pytest.raises(InvalidInput, match=r"parameters: has \d+ bytes"):
            await node.manager.run_idempotent(**ASK | {"parameters": {"name": "x" * 2000}})
        with pytest.raises(UnknownOperation):
            await node.manager.run_idempotent(tenant_id="t", operation_type="nothing")
    assert shared._records == {}


async def test_creating_a_key_that_exists_never_resets_it(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        manager = node.manager
        key = await manager.create_idempotency_key("t", "u", "do", parameters={"name": "a"})
        await manager.complete_idempotent_operation(key.key, {"n": 1})
        again = await manager.create_idempotency_key("t", "u", "do", parameters={"name": "a"}, ttl=1)
        assert (again.key, again.status, again.result) == (key.key, OperationStatus.COMPLETED, {"n": 1})
        assert again.parameters == {"name": "a"}
        assert await manager.run_idempotent(**ASK) == {"n": 1}
    assert ledger.effects == []


async def test_the_first_ending_counts(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    async with Node(shared, ledger.register) as node:
        manager = node.manager
        key = (await manager.create_idempotency_key("t", "u", "do")).key
        for _ in range(2):
            done = await manager.complete_idempotent_operation(key, {"n": 1})
            assert (done.status, done.result) == (OperationStatus.COMPLETED, {"n": 1})
        with pytest.raises(ClaimLost):
            await manager.complete_idempotent_operation(key, {"n": 2})
        with pytest.raises(ClaimLost):
            await manager.complete_idempotent_operation(key, None, "failed after all")
        with pytest.raises(IdempotencyKeyNotFound):
            await manager.complete_idempotent_operation("unknown", {})
        with pytest.raises(InvalidInput, match="result"):
            await manager.complete_idempotent_operation(key, {"n": object()})
        failed = (await manager.create_idempotency_key("t", "u", "other")).key
        ended = await manager.complete_idempotent_operation(failed, None, error="no")
        assert (ended.status, ended.error) == (OperationStatus.FAILED, "no")


async def test_nobody_completes_what_another_runs(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node.manager.run_idempotent(**ASK))
        await until(lambda: ledger.entered)
        (key,) = ledger.tokens["a"]
        with pytest.raises(ClaimLost):
            await node.manager.complete_idempotent_operation(key, {})
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")], idempotency_key="k")
        saga_key = (await handle.get()).idempotency_key or ""
        with pytest.raises(ClaimLost, match="saga"):
            await node.manager.complete_idempotent_operation(saga_key, {})
        ledger.hold["a"].set()
        assert (await handle.result()).completed
    record = await shared.get_record(saga_key)
    assert record is not None
    assert record.status is OperationStatus.COMPLETED


async def test_a_key_expires(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    async with Node(shared, ledger.register, cleanup_interval=10) as node:
        manager = node.manager
        await manager.run_idempotent(**ASK, ttl=100)
        await trio.sleep(99)
        await manager.run_idempotent(**ASK)
        await trio.sleep(20)
        assert shared._records == {}
        await manager.run_idempotent(**ASK, ttl=100)
    assert ledger.effects == ["a", "a"]


def test_the_decorator_refuses_a_mistyped_option_where_it_stands(shared: MemoryStorage) -> None:
    manager = BackgroundOperationsManager(shared)
    with pytest.raises(InvalidInput, match=r"^tll: there is no such option; there are: key, "):
        manager.idempotent("send_email", **cast("IdempotentOptions", {"tll": 60}))
    parameters = inspect.signature(manager.run_idempotent).parameters
    assert {*IdempotentOptions.__annotations__, "operation_type", "parameters"} == set(parameters)


async def test_the_decorator_runs_its_function_once_for_equal_calls(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    calls: list[Any] = []
    async with Node(shared, ledger.register) as node:

        @node.manager.idempotent("send_email", ttl=60)
        async def send_email(parameters: dict[str, Any], context: Any) -> dict[str, Any]:
            """Send it."""
            calls.append((parameters["to"], context.tenant_id, context.user_id))
            return {"sent": parameters["to"]}

        assert (send_email.__name__, send_email.__doc__) == ("send_email", "Send it.")
        for _ in range(3):
            assert await send_email({"to": "x"}, tenant_id="t", user_id="u") == {"sent": "x"}
        await send_email({"to": "x"}, tenant_id="t2")
        await trio.sleep(61)
        await send_email({"to": "x"}, tenant_id="t", user_id="u")
    assert calls == [("x", "t", "u"), ("x", "t2", None), ("x", "t", "u")]
