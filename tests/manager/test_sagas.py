"""Sagas as a manager's users see them: lists, history, retries of what is parked, and everything that is refused."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    HandlerContext,
    IdempotencyMismatch,
    InvalidInput,
    MemoryStorage,
    OperationStatus,
    OutcomeUnknown,
    RetryPolicy,
    SagaNotFound,
    SagaStateError,
    UnknownOperation,
)
from runtime.nodes import Ledger, step

FAILED, COMPLETED, COMPENSATED = OperationStatus.FAILED, OperationStatus.COMPLETED, OperationStatus.COMPENSATED
ONCE = {"max_retries": 0}


@pytest.fixture
async def manager(shared: MemoryStorage, ledger: Ledger, autojump_clock: MockClock) -> Any:
    made = BackgroundOperationsManager(storage=shared)
    ledger.register(made)
    async with made:
        yield made


async def run(manager: BackgroundOperationsManager, *steps: dict[str, Any], **options: Any) -> Any:
    options = {"tenant_id": "t", "workflow_type": "w"} | options
    handle = await manager.start_saga(steps=list(steps), **options)
    await handle.result()
    return handle


async def test_executing_gives_true_for_completed_only(manager: BackgroundOperationsManager, ledger: Ledger) -> None:
    ledger.failing["bad"] = ValueError("no")
    good = await manager.create_saga_workflow("t", "w", [step("a")])
    bad = await manager.create_saga_workflow("t", "w", [step("a"), step("bad", max_retries=0)])
    assert good.status is OperationStatus.PENDING
    assert await manager.execute_saga_workflow(good.saga_id) is True
    assert await manager.execute_saga_workflow(bad.saga_id) is False
    effects = list(ledger.effects)
    assert await manager.execute_saga_workflow(good.saga_id) is True
    assert await manager.execute_saga_workflow(bad.saga_id) is False
    assert ledger.effects == effects
    with pytest.raises(SagaNotFound):
        await manager.execute_saga_workflow("0mjq3v1y8k-6v3m2p9q4r7t-00")


async def test_two_who_execute_one_saga_run_it_once(manager: BackgroundOperationsManager, ledger: Ledger) -> None:
    saga = await manager.create_saga_workflow("t", "w", [step("a"), step("b")])
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(manager.execute_saga_workflow, saga.saga_id)
    assert ledger.effects == ["a", "b"]


async def test_a_key_stands_for_one_saga(manager: BackgroundOperationsManager, ledger: Ledger) -> None:
    first = await run(manager, step("a"), idempotency_key="k")
    again = await run(manager, step("a"), idempotency_key="k")
    created = await manager.create_saga_workflow("t", "w", [step("a")], "k")
    assert first.saga_id == again.saga_id == created.saga_id
    with pytest.raises(IdempotencyMismatch):
        await run(manager, step("b"), idempotency_key="k")
    elsewhere = await run(manager, step("b"), idempotency_key="k", tenant_id="t2")
    assert elsewhere.saga_id != first.saga_id
    key = await manager.check_idempotency("k", tenant_id="t")
    assert key is not None
    assert (key.status, key.result) == (COMPLETED, {"saga_id": first.saga_id, "status": "completed"})
    assert ledger.effects == ["a", "b"]


async def test_starting_under_the_key_of_a_saga_that_was_only_created_runs_it(
    manager: BackgroundOperationsManager, ledger: Ledger
) -> None:
    saga = await manager.create_saga_workflow("t", "w", [step("a")], "k")
    handle = await run(manager, step("a"), idempotency_key="k")
    assert handle.saga_id == saga.saga_id
    assert await handle.status() is COMPLETED


async def test_lists_are_filtered_and_paged(manager: BackgroundOperationsManager, ledger: Ledger) -> None:
    ledger.failing["bad"] = ValueError("no")
    for number in range(7):
        await trio.sleep(1)
        name = "bad" if number % 3 == 0 else "a"
        options = {"tenant_id": f"t{number % 2}", "workflow_type": "odd" if number % 2 else "even"}
        await run(manager, step(name, max_retries=0), **options)
    everything = (await manager.list_sagas()).sagas
    assert [saga.created_at for saga in everything] == sorted((s.created_at for s in everything), reverse=True)
    assert len(everything) == 7
    assert len((await manager.list_sagas(tenant_id="t0")).sagas) == 4
    assert len((await manager.list_sagas(workflow_type="odd")).sagas) == 3
    assert len((await manager.list_sagas(status="compensated")).sagas) == 3
    assert len((await manager.list_sagas(tenant_id="t0", status=COMPLETED)).sagas) == 2
    pages, cursor = [], None
    while True:
        page = await manager.list_sagas(limit=3, cursor=cursor)
        pages.append([saga.saga_id for saga in page.sagas])
        cursor = page.cursor
        if cursor is None:
            break
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [saga_id for page in pages for saga_id in page] == [saga.saga_id for saga in everything]
    # What sorts among ids, or was an id once, is no cursor; an id of whichever partition is, though its saga be gone.
    cut, shouted = everything[3].saga_id[:-1], f"{everything[3].saga_id[:-2]}0A"
    cursors = [("cursor", bad) for bad in ("", "zz", "000", "ffffffffffe-zz", cut, shouted, f"{cut}0\n")]
    elsewhere = f"{everything[3].saga_id[:-2]}ff"
    assert [saga.saga_id for saga in (await manager.list_sagas(cursor=elsewhere, limit=1)).sagas] == [
        everything[3].saga_id
    ]
    for field, bad in (("status", "lost"), ("limit", 0), ("limit", 1001), *cursors):
        with pytest.raises(InvalidInput) as caught:
            await manager.list_sagas(**{field: bad})  # type: ignore[arg-type]  # wrong on purpose
        assert caught.value.field == field


async def test_the_history_tells_everything_in_order(manager: BackgroundOperationsManager, ledger: Ledger) -> None:
    ledger.failing["b"] = ValueError("no")
    handle = await run(manager, step("a"), step("b", max_retries=1))
    history = await manager.get_saga_history(handle.saga_id)
    assert [(line.event, line.step, line.attempt) for line in history] == [
        ("saga_created", None, None),
        ("saga_started", None, None),
        ("step_started", "a", 1),
        ("step_completed", "a", 1),
        ("step_started", "b", 1),
        ("step_failed", "b", 1),
        ("step_retry_scheduled", "b", None),
        ("step_started", "b", 2),
        ("step_failed", "b", 2),
        ("step_exhausted", "b", None),
        ("compensation_began", None, None),
        ("compensation_started", "a", 1),
        ("compensation_completed", "a", 1),
        ("saga_compensated", None, None),
    ]
    assert [line.timestamp for line in history] == sorted(line.timestamp for line in history)
    with pytest.raises(SagaNotFound):
        await manager.get_saga_history("0mjq3v1y8k-6v3m2p9q4r7t-00")


async def test_a_saga_parked_after_its_pivot_is_retried_forward(
    manager: BackgroundOperationsManager, ledger: Ledger
) -> None:
    ledger.failing["c"] = ValueError("no")
    handle = await run(manager, step("a"), step("p", kind="pivot"), step("c", kind="retriable", max_retries=1))
    saga = await handle.get()
    assert saga.status is FAILED
    assert "'c'" in saga.open_items[0]
    with pytest.raises(SagaStateError):
        await manager.cancel_saga(handle.saga_id)
    ledger.failing.clear()
    again = await manager.retry_saga(handle.saga_id, "fixed it")
    assert (await again.result()).completed
    assert ledger.effects == ["a", "p", "c"]
    assert ledger.attempts[-1] == ("c", 3)
    with pytest.raises(SagaStateError):
        await manager.retry_saga(handle.saga_id)


async def test_a_saga_parked_at_its_pivot_is_retried_with_the_same_token(
    manager: BackgroundOperationsManager, ledger: Ledger
) -> None:
    ledger.failing["p"] = OutcomeUnknown("who knows")
    handle = await run(manager, step("a"), step("p", kind="pivot", max_retries=0))
    assert await handle.status() is FAILED
    ledger.failing.clear()
    assert (await (await manager.retry_saga(handle.saga_id)).result()).completed
    assert len(ledger.tokens["p"]) == 1


async def test_a_saga_parked_while_undoing_goes_on_undoing(
    manager: BackgroundOperationsManager, ledger: Ledger
) -> None:
    ledger.failing = {"undo b": ValueError("no"), "d": ValueError("no")}
    names = [step(name, compensation_retry=ONCE) for name in "abc"]
    handle = await run(manager, *names, step("d", max_retries=0))
    saga = await handle.get()
    assert (saga.status, len(saga.open_items)) == (FAILED, 1)
    assert "'b'" in saga.open_items[0]
    assert ledger.effects == ["a", "b", "c", "undo c", "undo a"]
    for _ in range(2):
        assert (await (await manager.retry_saga(handle.saga_id)).result()).status is FAILED
    ledger.failing.pop("undo b")
    assert (await (await manager.retry_saga(handle.saga_id)).result()).status is COMPENSATED
    assert ledger.effects == ["a", "b", "c", "undo c", "undo a", "undo b"]


async def test_ended_sagas_are_forgotten_after_their_retention_and_parked_ones_are_not(
    shared: MemoryStorage, ledger: Ledger, autojump_clock: MockClock
) -> None:
    ledger.failing = {"bad": ValueError("no"), "undo a": ValueError("no")}
    manager = BackgroundOperationsManager(storage=shared, saga_retention=1000, cleanup_interval=10)
    ledger.register(manager)
    async with manager:
        done = await run(manager, step("x"))
        parked = await run(manager, step("a", compensation_retry=ONCE), step("bad", max_retries=0))
        await trio.sleep(1100)
        with pytest.raises(SagaNotFound):
            await done.status()
        assert await parked.status() is FAILED


GOOD = step("a")
BAD_STEPS: list[tuple[str, Any]] = [
    ("steps", []),
    ("steps", "abc"),
    ("steps", {"name": "a"}),
    ("steps[0]", ["a"]),
    ("steps[0].name", [{"operation": "do"}]),
    ("steps[0].operation", [{"name": "a"}]),
    ("steps[0].operation", [{"name": "a", "operation": "unheard of"}]),
    ("steps[0].compensation_operation", [GOOD | {"compensation_operation": "do"}]),
    ("steps[0].compensation_parameters", [{"name": "a", "operation": "do", "compensation_parameters": {"x": 1}}]),
    ("steps[1].name", [GOOD, GOOD]),
    ("steps[0].name", [GOOD | {"name": ""}]),
    ("steps[0].name", [GOOD | {"name": "x.result"}]),
    ("steps[0].name", [GOOD | {"name": 5}]),
    ("steps[0].colour", [GOOD | {"colour": "red"}]),
    ("steps[0].retry.tries", [GOOD | {"retry": {"tries": 3}}]),
    ("steps[0].retry.max_retries", [GOOD | {"retry": {"max_retries": -1}}]),
    ("steps[0].retry.initial_delay", [GOOD | {"retry": RetryPolicy(initial_delay=float("nan"))}]),
    ("steps[0].compensation_retry.multiplier", [GOOD | {"compensation_retry": {"multiplier": 0}}]),
    ("steps[0].max_retries", [GOOD | {"max_retries": 1}]),
    ("steps[0].max_retries", [{"name": "a", "operation": "do", "max_retries": -1}]),
    ("steps[0].max_retries", [{"name": "a", "operation": "do", "max_retries": "many"}]),
    ("steps[0].timeout_seconds", [GOOD | {"timeout_seconds": -1}]),
    ("steps[0].timeout_seconds", [GOOD | {"timeout_seconds": 0}]),
    ("steps[0].timeout_seconds", [GOOD | {"timeout_seconds": 1e300}]),
    ("steps[0].timeout_seconds", [GOOD | {"timeout_seconds": float("nan")}]),
    ("steps[0].timeout_seconds", [GOOD | {"timeout_seconds": "1"}]),
    ("steps[0].compensation_timeout_seconds", [GOOD | {"compensation_timeout_seconds": float("inf")}]),
    ("steps[0].parameters.when", [GOOD | {"parameters": {"when": {1}}}]),
    ("steps[0].parameters.list[1]", [GOOD | {"parameters": {"list": [1, b"x"]}}]),
    ("steps[0].parameters", [GOOD | {"parameters": [1]}]),
    ("steps[0].compensation_parameters.x", [GOOD | {"compensation_parameters": {"x": float("inf")}}]),
    ("steps[1].parameters.x", [GOOD, step("b", parameters={"x": {"$ref": "steps.c.result"}})]),
    ("steps[0].parameters.x", [step("b", parameters={"x": {"$ref": "steps.b.result"}})]),
    ("steps[0].parameters.x", [step("b", parameters={"x": {"$ref": "b"}})]),
    ("steps[0].parameters.x", [step("b", parameters={"x": {"$ref": "steps.a.result", "y": 1}})]),
    ("steps[0].kind", [GOOD | {"kind": "sideways"}]),
    ("steps[0].kind", [step("a", kind="retriable")]),
    ("steps[1].kind", [step("a", kind="pivot"), step("b", kind="pivot")]),
    ("steps[0].compensation_operation", [GOOD | {"kind": "pivot"}]),
]


@pytest.mark.parametrize(("field", "steps"), BAD_STEPS)
async def test_a_step_that_makes_no_sense_is_refused_by_name_and_nothing_is_stored(
    manager: BackgroundOperationsManager, field: str, steps: Any
) -> None:
    for call in (manager.start_saga, manager.create_saga_workflow):
        with pytest.raises(InvalidInput) as caught:
            await call(tenant_id="t", workflow_type="w", steps=steps)
        assert caught.value.field == field
    assert (await manager.list_sagas()).sagas == []


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("tenant_id", {"tenant_id": ""}),
        ("tenant_id", {"tenant_id": None}),
        ("workflow_type", {"workflow_type": "line\nbreak"}),
        ("timeout_seconds", {"timeout_seconds": -5}),
        ("timeout_seconds", {"timeout_seconds": 10**400}),
        ("priority", {"priority": 1.5}),
        ("priority", {"priority": 1001}),
        ("metadata", {"metadata": [1]}),
        ("metadata.n", {"metadata": {"n": 1}}),
        ("idempotency_key", {"idempotency_key": ""}),
        ("idempotency_key", {"idempotency_key": "x" * 300}),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused_by_name_and_nothing_is_stored(
    manager: BackgroundOperationsManager, field: str, options: Any
) -> None:
    for call in (manager.start_saga, manager.create_saga_workflow):
        with pytest.raises(InvalidInput) as caught:
            await call(**{"tenant_id": "t", "workflow_type": "w", "steps": [GOOD], **options})
        assert caught.value.field == field
    assert (await manager.list_sagas()).sagas == []


async def test_a_saga_that_is_too_large_is_refused(shared: MemoryStorage, ledger: Ledger) -> None:
    manager = BackgroundOperationsManager(storage=shared, max_payload=500)
    ledger.register(manager)
    async with manager:
        with pytest.raises(InvalidInput, match=r"steps: the saga has \d+ bytes"):
            await run(manager, step("a", parameters={"name": "x" * 600}))
        assert (await manager.list_sagas()).sagas == []


async def test_an_unknown_operation_says_what_to_do(manager: BackgroundOperationsManager) -> None:
    with pytest.raises(UnknownOperation, match="register_operation_handler"):
        await run(manager, {"name": "a", "operation": "unheard of"})


async def test_handlers_that_cannot_be_called_are_refused(manager: BackgroundOperationsManager) -> None:
    def none() -> None: ...
    def three(a: Any, b: Any, c: Any) -> None: ...

    for bad in (none, three, "name", 7):
        with pytest.raises(InvalidInput, match="handler of op"):
            manager.register_operation_handler("op", bad)  # type: ignore[type-var]  # wrong on purpose
    with pytest.raises(InvalidInput, match="unknown_errors"):
        manager.register_operation_handler("op", three.__class__, unknown_errors=(ValueError("x"),))  # type: ignore[arg-type]  # wrong on purpose


async def test_handlers_can_be_registered_by_decoration(manager: BackgroundOperationsManager) -> None:
    @manager.register_operation_handler("op")
    async def op(parameters: dict[str, Any]) -> Any:
        return parameters

    @manager.register_compensation_handler("op")
    def undo(parameters: dict[str, Any]) -> None: ...

    handle = await run(
        manager, {"name": "a", "operation": "op", "parameters": {"x": 1}, "compensation_operation": "op"}
    )
    assert (await handle.get()).results == {"a": {"x": 1}}
    assert await op({"y": 1}) == {"y": 1}


async def test_manager_knows_whether_it_runs() -> None:
    manager = BackgroundOperationsManager(MemoryStorage())
    seen = [manager.is_running]
    async with manager:
        seen.append(manager.is_running)
    seen.append(manager.is_running)
    assert seen == [False, True, False]


async def test_what_the_caller_does_to_its_dicts_after_the_start_reaches_no_handler(shared: MemoryStorage) -> None:
    manager, seen, gate = BackgroundOperationsManager(storage=shared), list[object](), trio.Event()

    @manager.register_operation_handler("wait")
    async def wait(_parameters: dict[str, Any]) -> None:
        await gate.wait()

    @manager.register_operation_handler("charge")
    async def charge(parameters: dict[str, Any], context: HandlerContext) -> None:
        seen.append((parameters, dict(context.metadata)))

    metadata = {"trace": "1"}
    order: dict[str, Any] = {"total": {"cents": 100}, "items": ["book"]}
    steps: list[dict[str, Any]] = [
        {"name": "wait", "operation": "wait"},
        {"name": "charge", "operation": "charge", "parameters": order},
    ]
    async with manager:
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps, metadata=metadata)
        order["total"]["cents"] = 999
        order["items"].append("lamp")
        order["more"] = 1
        metadata["trace"] = "2"
        gate.set()
        await handle.result()
    assert seen == [({"total": {"cents": 100}, "items": ["book"]}, {"trace": "1"})]
