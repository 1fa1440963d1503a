"""One attempt after the other: retries, time-outs, and outcomes that nobody can know."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, NonRetryableError, OperationStatus, OutcomeUnknown, RetryPolicy
from dotmac.tasks.bridge import virtual_time
from runtime.nodes import Ledger, Node, step, until

COMPENSATED, COMPLETED = OperationStatus.COMPENSATED, OperationStatus.COMPLETED
ONCE = {"max_retries": 0}


async def run(node: Node, steps: list[dict[str, Any]], **options: Any) -> Any:
    handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps, **options)
    await handle.result()
    return await handle.get()


def only_op(manager: Any, function: Any, undone: list[Any], **options: Any) -> None:
    """Operation ``op`` is this function, and ``undo`` notes what it was told."""
    manager.register_operation_handler("op", function, **options)

    def undo(_parameters: Any, context: Any) -> None:
        undone.append(context.step_happened)

    async def note(parameters: Any, context: Any) -> None:
        undo(parameters, context)

    manager.register_compensation_handler("undo", note)


OP = {"name": "s", "operation": "op", "compensation_operation": "undo", "retry": ONCE}


async def test_a_saga_runs_end_to_end(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    async with Node(shared, ledger.register) as node:
        saga = await run(node, [step("a"), step("b", parameters={"name": {"$ref": "steps.a.result.name"}})])
    assert (saga.status, ledger.effects) == (COMPLETED, ["a", "a"])
    assert saga.results == {"a": {"name": "a"}, "b": {"name": "a"}}


async def test_retries_come_at_the_journaled_times(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["a"] = ValueError("not yet")
    policy = RetryPolicy(max_retries=3, initial_delay=2.0, multiplier=3.0, jitter=False)
    async with Node(shared, ledger.register) as node:
        saga = await run(node, [step("a", retry=policy)])
        history = await node.manager.get_saga_history(saga.saga_id)
    starts = [line.timestamp.timestamp() for line in history if line.event == "step_started"]
    assert [round(b - a) for a, b in itertools.pairwise(starts)] == [2, 6, 18]
    assert (saga.status, saga.steps[0].attempts) == (COMPENSATED, 4)
    assert ledger.effects == []  # it never happened, so there was nothing to undo


async def test_a_restart_resets_neither_attempts_nor_due_time(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["a"] = ValueError("not yet")
    policy = RetryPolicy(max_retries=2, initial_delay=100.0, max_delay=100.0, jitter=False)
    async with Node(shared, ledger.register) as node:
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a", retry=policy)])
        await until(lambda: len(ledger.attempts) == 1)
        begin = trio.current_time()
    await trio.sleep(30)
    async with Node(shared, ledger.register) as node:
        await until(lambda: len(ledger.attempts) == 2)
        assert 100 <= trio.current_time() - begin < 102
        await node.manager.stop()
    async with Node(shared, ledger.register) as node:
        assert not (await node.manager.saga_handle(handle.saga_id).result()).completed
    assert [attempt for _, attempt in ledger.attempts] == [1, 2, 3]


async def test_a_non_retryable_error_ends_the_attempts(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing = {"a": NonRetryableError("no"), "b": KeyError("no")}
    async with Node(shared, ledger.register) as node:
        for policy, name in ((RetryPolicy(), "a"), (RetryPolicy(non_retryable=("LookupError",)), "b")):
            saga = await run(node, [step(name, retry=policy)])
            assert (saga.status, saga.steps[0].attempts) == (COMPENSATED, 1)


async def test_a_step_is_cut_off_at_its_time_out_and_undone(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, sleep_for_ever, undone)) as node:
        begin = trio.current_time()
        saga = await run(node, [OP | {"timeout_seconds": 7}])
        assert trio.current_time() - begin == pytest.approx(7)
    assert (saga.status, undone) == (COMPENSATED, [False])
    assert "StepTimedOut" in saga.error


async def sleep_for_ever(_parameters: Any) -> None:
    await trio.sleep_forever()


async def test_a_heartbeat_moves_the_time_out_but_not_the_saga_s_deadline(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def beating(parameters: Any, context: Any) -> None:
        for _ in range(parameters["beats"]):
            await trio.sleep(5)
            before = context.deadline
            context.heartbeat()
            assert context.deadline >= before

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, beating, undone)) as node:
        saga = await run(node, [OP | {"timeout_seconds": 7, "parameters": {"beats": 10}}])
        assert saga.status is COMPLETED
        begin = trio.current_time()
        saga = await run(node, [OP | {"timeout_seconds": 7, "parameters": {"beats": 99}}], timeout_seconds=60)
        assert trio.current_time() - begin == pytest.approx(60)
    assert (saga.status, undone) == (COMPENSATED, [False])
    assert "out of time" in saga.error


async def test_the_deadline_ends_a_wait_for_a_retry(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["b"] = ValueError("no")
    patient = RetryPolicy(initial_delay=50, max_retries=99, jitter=False)
    async with Node(shared, ledger.register) as node:
        begin = trio.current_time()
        saga = await run(node, [step("a"), step("b", retry=patient)], timeout_seconds=20)
        assert trio.current_time() - begin == pytest.approx(20, abs=1.5)
    assert (saga.status, ledger.effects) == (COMPENSATED, ["a", "undo a"])


class Custom(Exception):
    pass


class Grave(BaseException):
    """Neither an error nor the end of the program, such as some frameworks have."""


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (ValueError("definite"), False),
        (OutcomeUnknown("who knows"), True),
        (TimeoutError("downstream"), True),
        (ConnectionResetError("downstream"), True),
        (trio.TooSlowError(), True),
        (asyncio.CancelledError(), True),  # of a loop of its own: nothing of ours is cancelled
        (BaseExceptionGroup("of a nursery", [asyncio.CancelledError(), ValueError("x")]), True),
        (Grave("its own"), True),
        (ExceptionGroup("both", [ValueError("x"), ExceptionGroup("in", [OSError("y"), TimeoutError("z")])]), True),
        (ExceptionGroup("both", [ValueError("x"), KeyError("y")]), False),
    ],
)
async def test_only_an_unknown_outcome_is_undone(
    autojump_clock: MockClock, shared: MemoryStorage, error: BaseException, unknown: bool
) -> None:
    async def op(_parameters: Any) -> None:
        raise error

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, op, undone)) as node:
        saga = await run(node, [OP])
    assert (saga.status, undone) == (COMPENSATED, [False] if unknown else [])
    assert saga.steps[0].status is (COMPENSATED if unknown else OperationStatus.FAILED)


async def test_registered_unknown_errors_replace_the_default_ones(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def op(parameters: Any) -> None:
        raise Custom if parameters["custom"] else TimeoutError

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, op, undone, unknown_errors=(Custom,))) as node:
        await run(node, [OP | {"parameters": {"custom": False}}])
        assert undone == []
        await run(node, [OP | {"parameters": {"custom": True}}])
    assert undone == [False]


@pytest.mark.parametrize(
    "result", [object(), float("nan"), "x" * 2000, {"a": [object()]}, {"when": (2**70,)}, "\ud800"]
)
async def test_a_result_that_cannot_be_kept_is_undone_and_never_tried_again(
    autojump_clock: MockClock, shared: MemoryStorage, result: Any
) -> None:
    calls: list[int] = []

    async def op(_parameters: Any) -> Any:
        calls.append(1)
        return result

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, op, undone), max_payload=1000) as node:
        saga = await run(node, [OP | {"retry": {"max_retries": 5}}])
    assert (saga.status, undone, len(calls)) == (COMPENSATED, [False], 1)
    assert "InvalidInput: result" in saga.error


async def test_a_handler_that_swallows_its_time_out_and_returns_has_succeeded(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def stubborn(_parameters: Any) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
        return "done after all"

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, stubborn, undone)) as node:
        saga = await run(node, [OP | {"timeout_seconds": 1}])
    assert (saga.status, saga.results, undone) == (COMPLETED, {"s": "done after all"}, [])


async def test_what_a_handler_raises_after_it_was_cut_off_leaves_the_outcome_unknown(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def messy(_parameters: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, messy, undone)) as node:
        saga = await run(node, [OP | {"timeout_seconds": 1}])
    assert (saga.status, undone) == (COMPENSATED, [False])
    assert "while cleaning up" in saga.error


async def test_a_plain_function_runs_in_a_thread(shared: MemoryStorage) -> None:
    here = threading.get_ident()

    def op(parameters: Any, context: Any) -> Any:
        return {"elsewhere": threading.get_ident() != here, "token": context.token, **parameters}

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, op, undone)) as node:
        saga = await run(node, [OP | {"parameters": {"n": 1}}])
    assert saga.results == {"s": {"elsewhere": True, "token": f"{saga.saga_id}:0", "n": 1}}


async def test_a_thread_that_is_cut_off_leaves_the_outcome_unknown(shared: MemoryStorage) -> None:
    begun, leave, left = threading.Event(), threading.Event(), threading.Event()

    def op(_parameters: Any) -> None:
        begun.set()
        leave.wait()
        left.set()

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, op, undone)) as node:
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[OP])
        assert await trio.to_thread.run_sync(begun.wait, 10)
        await handle.cancel()
        await handle.result()
        saga = await handle.get()
    leave.set()
    assert left.wait(10)
    assert (saga.status, undone) == (COMPENSATED, [False])


@pytest.mark.parametrize("kind", ["compensatable", "pivot"])
async def test_a_plain_function_that_gets_no_thread_is_known_not_to_have_happened(
    autojump_clock: MockClock, shared: MemoryStorage, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtual_time, "MOST", 0.05)  # the clock goes on although a thread is occupied
    called: list[Any] = []
    undone: list[bool] = []
    leave = threading.Event()

    def occupy(_parameters: Any) -> None:
        leave.wait()

    async with Node(shared, lambda m: only_op(m, called.append, undone), sync_handler_threads=1) as node:
        node.manager.register_operation_handler("occupy", occupy)
        await node.manager.start_saga(
            tenant_id="t", workflow_type="w", steps=[{"name": "s", "operation": "occupy", "timeout_seconds": 1000}]
        )
        undo = {} if kind == "compensatable" else {"compensation_operation": None}
        saga = await run(node, [OP | undo | {"kind": kind}], timeout_seconds=5)
        leave.set()
    assert (saga.status, called, undone) == (COMPENSATED, [], [])
    assert saga.steps[0].attempts == 0
    assert "out of time" in saga.error


async def test_a_reference_to_a_field_that_is_not_there_fails_the_step_before_its_handler_is_called(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        saga = await run(node, [step("a"), step("b", parameters={"name": {"$ref": "steps.a.result.nothing"}})])
    assert (saga.status, ledger.effects) == (COMPENSATED, ["a", "undo a"])
    assert "nothing" in saga.error


async def test_each_attempt_gets_parameters_of_its_own(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    seen: list[Any] = []

    async def op(parameters: dict[str, Any], context: Any) -> None:
        seen.append({"list": list(parameters["list"])})
        parameters["list"].append("mine")
        if context.attempt < 3:
            raise ValueError

    undone: list[bool] = []
    async with Node(shared, lambda m: only_op(m, op, undone)) as node:
        await run(node, [OP | {"parameters": {"list": [1]}, "retry": {"max_retries": 3}}])
    assert seen == [{"list": [1]}] * 3


async def test_a_missing_handler_costs_no_attempt_and_the_saga_goes_on_where_there_is_one(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    async with Node(shared, ledger.register) as node:
        del node.manager._handlers.operations["do"]
        node.manager.register_operation_handler("other", ledger._do)
        definition = [step("a", operation="other"), step("b")]
        node.manager._handlers.operations["do"] = node.manager._handlers.operations["other"]
        ledger.hold["a"] = trio.Event()
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=definition)
        await until(lambda: ledger.entered == ["a"])
        del node.manager._handlers.operations["do"]
        ledger.hold["a"].set()
        await trio.sleep(300)
        saga = await handle.get()
        assert (saga.status, saga.current_step, saga.steps[1].attempts) == (OperationStatus.IN_PROGRESS, 1, 0)
        assert "no handler for 'do'" in caplog.text
        async with Node(shared, ledger.register):
            with trio.fail_after(3_600):  # the first one has tried for long, so the pauses are long by now
                assert (await handle.result()).completed
    assert ledger.attempts == [("a", 1), ("b", 1)]


async def test_a_saga_comes_to_the_one_worker_that_has_its_handler_after_each_other_had_it_once(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with AsyncExitStack() as nodes:
        for _ in range(3):
            await nodes.enter_async_context(Node(shared, lambda _manager: None))
        await nodes.enter_async_context(Node(shared, ledger.register))
        steering = await nodes.enter_async_context(Node(shared, lambda _manager: None, works=False))
        await trio.sleep(2)  # so that all know of each other
        handles = [
            await steering.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")]) for _ in range(20)
        ]
        with trio.fail_after(30):
            for handle in handles:
                assert (await handle.result()).completed


async def test_a_long_wait_leaves_memory_and_comes_back_in_time(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["a"] = ValueError("not yet")
    policy = RetryPolicy(initial_delay=1000, max_delay=1000, jitter=False)
    async with Node(shared, ledger.register) as node:
        begin = trio.current_time()
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a", retry=policy)])
        await until(lambda: len(ledger.attempts) == 1)
        await trio.sleep(1)
        assert len((await node.manager._hosted()._runtime.worker()).sagas) == 0
        assert (await handle.get()).owner is None
        ledger.failing.clear()
        assert (await handle.result()).completed
        assert 1000 <= trio.current_time() - begin < 1003
    assert [attempt for _, attempt in ledger.attempts] == [1, 2]
