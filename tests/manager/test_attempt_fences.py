"""Fences of attempts can be compared across sagas, operations and owners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import trio

from dotmac.tasks import (
    BackgroundOperationsManager,
    HandlerContext,
    LockLost,
    MemoryStorage,
    NonRetryableError,
    OperationStatus,
    StorageProtocol,
)
from dotmac.tasks.storage.redis import RedisStorage
from support.servers import standalone

MakeStorage = Callable[[], StorageProtocol]


@pytest.fixture(scope="module", params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def make(request: pytest.FixtureRequest) -> Iterator[MakeStorage]:
    """Gives a storage on data of its own."""
    if request.param == "memory":
        yield MemoryStorage
        return
    with standalone() as server:
        yield lambda: RedisStorage(server.url, f"test-{uuid4().hex[:8]}")


class Invoice:
    """A resource that refuses a fence lower than the highest it saw."""

    def __init__(self) -> None:
        self.writes: list[str] = []
        self.fences: list[int] = []

    def write(self, who: str, fence: int) -> None:
        if self.fences and fence < max(self.fences):
            raise LockLost(f"{who} came under fence {fence}, after {max(self.fences)}")
        self.writes.append(who)
        self.fences.append(fence)


async def test_no_attempt_that_began_later_is_refused(make: MakeStorage) -> None:
    manager = BackgroundOperationsManager(make(), passivate_after=0.01, poll_interval=0.05)
    invoice, other_wrote = Invoice(), trio.Event()

    @manager.register_operation_handler("write")
    async def write(parameters: dict[str, Any], context: HandlerContext) -> None:
        invoice.write(f"{parameters['who']} {context.attempt}", context.fence)
        if context.attempt <= parameters["failures"]:
            raise ValueError("once more")

    @manager.register_compensation_handler("unwrite")
    async def unwrite(parameters: dict[str, Any], context: HandlerContext) -> None:
        invoice.write("A undone", context.fence)

    @manager.register_operation_handler("fail")
    async def fail(_parameters: dict[str, Any], context: HandlerContext) -> None:
        await other_wrote.wait()
        raise NonRetryableError("no")

    @manager.register_operation_handler("operation")
    async def operation(_parameters: dict[str, Any], context: HandlerContext) -> None:
        invoice.write("operation", context.fence)

    def writes(who: str, failures: int, **step: Any) -> dict[str, Any]:
        return {
            "name": "write",
            "operation": "write",
            "parameters": {"who": who, "failures": failures},
            "compensation_operation": "unwrite",
            "retry": {"max_retries": 3, "initial_delay": 0.1, "jitter": False},
            **step,
        }

    async with manager:
        with trio.fail_after(30):
            first = await manager.start_saga(
                tenant_id="t", workflow_type="A", steps=[writes("A", 2), {"name": "fail", "operation": "fail"}]
            )
            while "A 3" not in invoice.writes:  # noqa: ASYNC110 - the third attempt announces itself in no event
                await trio.sleep(0.01)
            second = await manager.start_saga(tenant_id="t", workflow_type="B", steps=[writes("B", 0)])
            assert (await second.result()).completed
            third = await manager.start_saga(tenant_id="t", workflow_type="C", steps=[writes("C", 0, lock="L")])
            assert (await third.result()).completed
            await manager.run_idempotent(tenant_id="t", operation_type="operation")
            other_wrote.set()
            assert (await first.result()).status is OperationStatus.COMPENSATED
        epoch = (await first.get()).epoch
    assert epoch > 1
    assert invoice.writes == ["A 1", "A 2", "A 3", "B 1", "C 1", "operation", "A undone"]
    assert invoice.fences == sorted(set(invoice.fences))
    with pytest.raises(LockLost):
        invoice.write("a replaced owner", invoice.fences[0])


async def test_the_fence_of_a_step_under_a_lock_is_not_below_that_of_its_lock(make: MakeStorage) -> None:
    manager = BackgroundOperationsManager(make())
    seen: list[tuple[int, int]] = []

    @manager.register_operation_handler("look")
    async def look(_parameters: dict[str, Any], context: HandlerContext) -> None:
        seen.append((context.lock_fence, context.fence))

    async with manager:
        steps = [{"name": name, "operation": "look", "lock": "L"} for name in "abc"]
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        assert (await handle.result()).completed
    assert all(0 < lock_fence <= fence for lock_fence, fence in seen)
    assert seen == sorted(set(seen))
