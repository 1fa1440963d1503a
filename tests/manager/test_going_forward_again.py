"""`retry_saga(from_step=…)`: a parked saga goes forward again, and no effect is there twice."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    InvalidInput,
    MemoryStorage,
    NonRetryableError,
    OperationStatus,
    SagaStateError,
)


class Travel:
    """Handlers for three bookings; `broken` names operations that refuse."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.tokens: list[str] = []
        self.parameters: list[dict[str, Any]] = []
        self.runs = 0

    def manager(self, storage: MemoryStorage) -> BackgroundOperationsManager:
        manager = BackgroundOperationsManager(storage=storage)
        manager.register_operation_handler("book", self._book)
        manager.register_compensation_handler("release", self._book)
        return manager

    async def _book(self, parameters: dict[str, Any], context: Any) -> Any:
        if f"{context.step}{':undo' if context.compensating else ''}" in self.broken:
            raise NonRetryableError("refused")
        self.runs += 1
        self.tokens.append(context.token)
        self.parameters.append(parameters)
        return {"run": self.runs}


def bookings(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "operation": "book", "compensation_operation": "release", **more} for name in names]


async def test_a_saga_that_turned_back_goes_forward_again_with_other_tokens(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    travel = Travel("hotel", "flight:undo")
    steps = bookings("flight", "car", "hotel")
    steps[2]["parameters"] = {"car": {"$ref": "steps.car.result.run"}}
    async with travel.manager(shared) as manager:
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        parked = await handle.result()
        assert parked.status is OperationStatus.FAILED
        travel.broken.clear()
        await manager.retry_saga(handle.saga_id, "there is a room", from_step="car")
        outcome = await handle.result()
        history = await manager.get_saga_history(handle.saga_id)
    assert outcome.completed
    assert outcome.results == {"flight": {"run": 1}, "car": {"run": 4}, "hotel": {"run": 5}}
    saga_id = handle.saga_id
    assert travel.tokens == [f"{saga_id}:0", f"{saga_id}:1", f"{saga_id}:1:undo", f"{saga_id}:1.1", f"{saga_id}:2"]
    assert travel.parameters[-1] == {"car": 4}  # of the second run
    (resumed,) = [entry for entry in history if entry.event == "saga_resumed"]
    assert resumed.details == {"reason": "there is a room", "from_step": "car"}


async def test_what_goes_forward_again_can_turn_back_again(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    travel = Travel("hotel", "flight:undo")
    async with travel.manager(shared) as manager:
        steps = bookings("flight", "car", "hotel")
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        await handle.result()
        travel.broken = {"hotel"}
        await manager.retry_saga(handle.saga_id, from_step="car")
        assert (await handle.result()).status is OperationStatus.COMPENSATED
    assert travel.tokens[-3:] == [f"{handle.saga_id}:1.1", f"{handle.saga_id}:1.1:undo", f"{handle.saga_id}:0:undo"]


async def test_a_step_after_the_pivot_runs_again_under_its_token(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    travel = Travel("ship")
    steps = [
        {"name": "pay", "operation": "book", "kind": "pivot"},
        {"name": "label", "operation": "book", "kind": "retriable"},
        {"name": "ship", "operation": "book", "kind": "retriable"},
    ]
    async with travel.manager(shared) as manager:
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        await handle.result()
        with pytest.raises(SagaStateError, match="'pay' completed and was not undone, so it would be done twice"):
            await manager.retry_saga(handle.saga_id, from_step="pay")
        travel.broken.clear()
        async with BackgroundOperationsManager(storage=shared, works=False) as steering:
            await steering.retry_saga(handle.saga_id, from_step="label")
        assert (await handle.result()).results["label"] == {"run": 3}
    assert travel.tokens.count(f"{handle.saga_id}:1") == 2


async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    travel = Travel("hotel", "flight:undo")
    async with travel.manager(shared) as manager:
        steps = bookings("flight", "hotel")
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        await handle.result()
        before = await manager.get_saga_history(handle.saga_id)
        with pytest.raises(InvalidInput, match=r"from_step: .* has no step 'car'; it has: flight, hotel"):
            await manager.retry_saga(handle.saga_id, from_step="car")
        with pytest.raises(SagaStateError, match="step 'flight' is not undone"):
            await manager.retry_saga(handle.saga_id, from_step="flight")
        assert await manager.get_saga_history(handle.saga_id) == before
        travel.broken.clear()
        await manager.retry_saga(handle.saga_id)
        assert (await handle.result()).status is OperationStatus.COMPENSATED
        with pytest.raises(SagaStateError, match="it is compensated"):
            await manager.retry_saga(handle.saga_id, from_step="hotel")
