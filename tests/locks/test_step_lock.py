"""Steps that name a lock: their handlers run under it, one at a time, and a lost lock leaves the outcome unknown."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, HandlerContext, InvalidInput, MemoryStorage, OperationStatus
from dotmac.tasks.errors import LockLost, StorageUnavailable
from runtime.nodes import Node, Wire
from storage.stored import lock

NAME = "invoice:acme:7"


class Book:
    """The guarded resource: how many are at it, and under which fences."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.fences: list[int] = []
        self.calls: list[tuple[str, int]] = []
        self.seconds = 0.5
        self.error: Exception | None = None

    def register(self, manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("pay", self._pay)
        manager.register_operation_handler("fail", self._fail)
        manager.register_compensation_handler("unpay", self._pay)

    async def _pay(self, _parameters: dict[str, Any], context: HandlerContext) -> None:
        self.calls.append(("undo" if context.compensating else "do", context.attempt))
        self.fences.append(context.lock_fence)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.inside -= 1
            if self.error is not None:
                raise self.error

    async def _fail(self, _parameters: dict[str, Any]) -> None:
        raise ValueError("no")


@pytest.fixture
def book() -> Book:
    return Book()


def step(**fields: Any) -> dict[str, Any]:
    return {
        "name": "pay",
        "operation": "pay",
        "parameters": {"invoice_id": 7},
        "lock": "invoice:{tenant_id}:{parameters.invoice_id}",
        "max_retries": 0,
        **fields,
    }


async def _start(node: Node, *steps: dict[str, Any], **options: Any) -> Any:
    return await node.manager.start_saga(
        tenant_id="acme", workflow_type="billing", steps=list(steps) or [step()], **options
    )


async def test_handlers_under_one_lock_run_one_at_a_time_over_all_processes(
    node: Node, other: Node, shared: MemoryStorage, book: Book
) -> None:
    for process in (node, other):
        book.register(process.manager)
    handles = [await _start(process) for process in (node, other) * 5]
    for handle in handles:
        assert (await handle.result()).completed
    assert book.most == 1
    assert book.fences == sorted(set(book.fences))
    assert await node.manager.list_locks() == []


async def test_a_step_without_a_lock_has_no_lock_fence(node: Node, book: Book) -> None:
    book.register(node.manager)
    assert (await (await _start(node, step(lock=None))).result()).completed
    assert book.fences == [0]


async def test_the_compensation_runs_under_the_same_lock(node: Node, shared: MemoryStorage, book: Book) -> None:
    book.register(node.manager)
    handle = await _start(
        node, step(compensation_operation="unpay"), {"name": "no", "operation": "fail", "max_retries": 0}
    )
    assert (await handle.result()).status is OperationStatus.COMPENSATED
    assert book.calls == [("do", 1), ("undo", 1)]
    assert 0 < book.fences[0] < book.fences[1]


async def test_a_lost_lock_leaves_the_outcome_unknown(node: Node, shared: MemoryStorage, book: Book) -> None:
    """It may have happened, so it is undone."""
    book.register(node.manager)
    book.seconds = 60
    handle = await _start(node, step(compensation_operation="unpay"))
    await trio.sleep(0.1)
    shared._locks.clear()
    while node.manager._hosted().locks._shortcuts.ticket(NAME):  # noqa: ASYNC110 - until the renewal tells
        await trio.sleep(0.1)
    book.seconds = 0
    outcome = await handle.result()
    assert outcome.status is OperationStatus.COMPENSATED
    assert "LockLost" in (outcome.error or "")
    assert [kind for kind, _ in book.calls] == ["do", "undo"]


async def test_a_lost_lock_counts_as_lost_whatever_the_handler_raised(
    node: Node, shared: MemoryStorage, book: Book
) -> None:
    book.register(node.manager)
    book.seconds, book.error = 60, ValueError("the handler's own")
    handle = await _start(node)
    await trio.sleep(0.1)
    shared._locks.clear()
    outcome = await handle.result()
    assert "LockLost" in (outcome.error or "")
    assert "the handler's own" in (outcome.error or "")


async def test_a_saga_out_of_time_before_its_lock_is_granted_is_known_not_to_have_happened(
    node: Node, shared: MemoryStorage, book: Book
) -> None:
    book.register(node.manager)
    await shared.request_lock(lock("somebody", name=NAME, lease=1000))
    handle = await _start(node, step(compensation_operation="unpay"), timeout_seconds=2)
    outcome = await handle.result()
    assert outcome.status is OperationStatus.COMPENSATED
    assert "out of time" in (outcome.error or "")
    assert book.calls == []  # not even undone


async def test_waiting_for_the_lock_uses_up_neither_time_nor_retries(node: Node, book: Book) -> None:
    book.register(node.manager)
    book.seconds = 0.2
    handles = [await _start(node, step(timeout_seconds=1)) for _ in range(60)]
    for handle in handles:
        assert (await handle.result()).completed
    assert (book.most, book.calls) == (1, [("do", 1)] * 60)


async def test_a_saga_that_waits_for_its_lock_shows_no_attempt(node: Node, shared: MemoryStorage, book: Book) -> None:
    book.register(node.manager)
    await shared.request_lock(lock("somebody", name=NAME, lease=1000))
    handle = await _start(node)
    await trio.sleep(60)
    saga = await handle.get()
    assert (saga.steps[0].attempts, saga.steps[0].status) == (0, OperationStatus.PENDING)
    assert "step_started" not in [entry.event for entry in await node.manager.get_saga_history(handle.saga_id)]
    await handle.cancel("enough")
    assert (await handle.result()).status is OperationStatus.COMPENSATED
    assert book.calls == []


async def test_a_worker_that_stops_hands_over_a_saga_that_waits_for_its_lock(
    node: Node, other: Node, shared: MemoryStorage, book: Book
) -> None:
    for process in (node, other):
        book.register(process.manager)
    await shared.request_lock(lock("somebody", name=NAME, lease=1000))
    handle = await _start(node)
    await trio.sleep(1)
    before = trio.current_time()
    await node.manager.stop()
    assert trio.current_time() - before < 5
    await shared.free_lock(NAME, "somebody")
    assert (await other.manager.saga_handle(handle.saga_id).result()).completed
    assert book.calls == [("do", 1)]


async def test_a_lock_that_is_lost_before_the_handler_is_called_is_waited_for_again(
    node: Node, shared: MemoryStorage, book: Book
) -> None:
    """The storage was slow to record the attempt."""
    book.register(node.manager)
    lose = True

    async def slow(_wire: Wire, verb: str, call: Any) -> Any:
        nonlocal lose
        answer = await call()
        if verb == "append" and lose:
            lose = False
            shared._locks.clear()
            ticket = node.manager._hosted().locks._shortcuts.ticket(NAME)
            assert ticket is not None
            while not ticket.lost:  # noqa: ASYNC110 - until the renewal tells
                await trio.sleep(0.1)
        return answer

    node.wire.fault = slow
    assert (await (await _start(node)).result()).completed
    assert [kind for kind, _ in book.calls] == ["do"]


async def test_the_lock_is_waited_for_as_long_as_it_takes(node: Node, shared: MemoryStorage, book: Book) -> None:
    """One attempt, however long: waiting is no attempt's failure."""
    book.register(node.manager)
    await shared.request_lock(lock("somebody", name=NAME, lease=500))
    assert (await (await _start(node)).result()).completed
    assert book.calls == [("do", 1)]


async def test_a_storage_that_does_not_answer_is_waited_for(node: Node, shared: MemoryStorage, book: Book) -> None:
    book.register(node.manager)
    refusals = 3

    async def away(_wire: Wire, verb: str, call: Any) -> Any:
        nonlocal refusals
        if verb == "request_lock" and refusals:
            refusals -= 1
            raise StorageUnavailable("away")
        return await call()

    node.wire.fault = away
    assert (await (await _start(node)).result()).completed
    assert book.calls == [("do", 1)]


async def test_a_handler_that_loses_a_lock_of_its_own_leaves_its_outcome_unknown(node: Node, book: Book) -> None:
    book.register(node.manager)
    book.seconds, book.error = 0, LockLost("the handler's own lock")
    handle = await _start(node, step(lock=None, compensation_operation="unpay", compensation_retry={"max_retries": 0}))
    await handle.result()
    assert [kind for kind, _ in book.calls] == ["do", "undo"]


@pytest.mark.parametrize(
    "template",
    ["{parameters.nothing}", "{parameters.invoice_id.deeper}", "{context.token}", "{", "a}b", "", "{parameters.items}"],
)
async def test_a_template_that_makes_no_name_is_refused_at_the_edge(node: Node, book: Book, template: str) -> None:
    book.register(node.manager)
    with pytest.raises(InvalidInput) as refused:
        await _start(node, step(lock=template, parameters={"invoice_id": 7, "items": [1]}))
    assert refused.value.field == "steps[0].lock"


async def test_a_template_may_name_an_earlier_result(node: Node, shared: MemoryStorage, book: Book) -> None:
    book.register(node.manager)
    names: list[str] = []

    async def first(_parameters: dict[str, Any]) -> dict[str, Any]:
        return {"id": "x1", "list": []}

    async def second(_parameters: dict[str, Any]) -> None:
        names.extend(info.name for info in await node.manager.list_locks())

    node.manager.register_operation_handler("first", first)
    node.manager.register_operation_handler("second", second)
    begin = {"name": "first", "operation": "first"}
    good = {"name": "b", "operation": "second", "parameters": {"id": {"$ref": "steps.first.result.id"}}}
    assert (await (await _start(node, begin, {**good, "lock": "doc:{parameters.id}:{saga_id}"})).result()).completed
    assert len(names) == 1
    assert names[0].startswith("doc:x1:")
    bad = {"name": "b", "operation": "second", "parameters": {"id": {"$ref": "steps.first.result.list"}}}
    outcome = await (await _start(node, begin, {**bad, "lock": "doc:{parameters.id}"})).result()
    assert "must be text or an integer, not list" in (outcome.error or "")
