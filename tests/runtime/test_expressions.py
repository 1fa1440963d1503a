"""References and literals in the parameters of running sagas: what handlers receive, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    HandlerContext,
    InvalidInput,
    MemoryStorage,
    OperationStatus,
    literal,
    ref,
)
from runtime.nodes import Node

COMPLETED, COMPENSATED = OperationStatus.COMPLETED, OperationStatus.COMPENSATED
SECRET = {"api_key": "s3cr3t", "big": "x" * 1000}
ATTACK = {"$ref": "steps.login.result.api_key"}


class Desk:
    """Handlers that note what they receive.

    Attributes:
        received: The parameters of each call of ``publish`` and ``withdraw``.
        results: What ``context.results`` gave for ``login``, asked twice.
    """

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.results: list[Any] = []

    def register(self, manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("login", self._login)
        manager.register_operation_handler("publish", self._publish)
        manager.register_operation_handler("fail", self._fail)
        manager.register_compensation_handler("withdraw", self._withdraw)

    async def _login(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {**SECRET, **parameters}

    async def _publish(self, parameters: dict[str, Any], context: HandlerContext) -> Any:
        self.received.append(parameters)
        self.results += [context.results["login"], context.results["login"]]
        return parameters

    async def _fail(self, parameters: dict[str, Any]) -> None:
        raise ValueError(str(parameters))

    async def _withdraw(self, parameters: dict[str, Any]) -> None:
        self.received.append(parameters)


LOGIN = {"name": "login", "operation": "login"}


def publish(name: str = "publish", **parameters: Any) -> dict[str, Any]:
    return {"name": name, "operation": "publish", "parameters": parameters, "max_retries": 3}


async def run(node: Node, *steps: dict[str, Any]) -> Any:
    saga = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=list(steps))
    return await saga.result()


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_data_that_names_a_secret_is_passed_as_data(
    autojump_clock: MockClock, shared: MemoryStorage, desk: Desk
) -> None:
    fail = {"name": "fail", "operation": "fail", "max_retries": 0}
    undo = {"compensation_operation": "withdraw", "compensation_parameters": {"note": literal(ATTACK)}}
    async with Node(shared, desk.register) as node:
        outcome = await run(node, LOGIN, {**publish(note=literal(ATTACK)), **undo}, fail)
    assert outcome.status is COMPENSATED
    assert desk.received == [{"note": ATTACK}, {"note": ATTACK}]


async def test_a_result_that_looks_like_a_reference_is_not_expanded(
    autojump_clock: MockClock, shared: MemoryStorage, desk: Desk
) -> None:
    steps = [publish("echo", note=literal(ATTACK)), publish("publish", text=ref("steps.echo.result"))]
    async with Node(shared, desk.register) as node:
        outcome = await run(node, LOGIN, *steps)
    assert outcome.status is COMPLETED
    assert desk.received == [{"note": ATTACK}, {"text": {"note": ATTACK}}]


async def test_a_schema_is_refused_with_the_way_to_pass_it(
    autojump_clock: MockClock, shared: MemoryStorage, desk: Desk
) -> None:
    schema = {"schema": {"$ref": "#/components/schemas/Pet"}}
    async with Node(shared, desk.register) as node:
        with pytest.raises(InvalidInput, match=r"literal\(value\)") as refused:
            await run(node, publish(document=schema))
        assert refused.value.field == "steps[0].parameters.document.schema"
        assert (await run(node, LOGIN, publish(document=literal(schema)))).status is COMPLETED
    assert desk.received == [{"document": schema}]


async def test_a_literal_is_the_same_in_the_view_of_the_saga_and_can_be_started_from_it_again(
    autojump_clock: MockClock, shared: MemoryStorage, desk: Desk
) -> None:
    async with Node(shared, desk.register) as node:
        saga = await node.manager.start_saga(
            tenant_id="t", workflow_type="w", steps=[LOGIN, publish(note=literal(ATTACK))]
        )
        await saga.result()
        views: Any = (await saga.get()).steps
        again = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=views)
        assert (await again.result()).status is COMPLETED
    assert desk.received == [{"note": ATTACK}, {"note": ATTACK}]


async def test_parameters_that_expand_beyond_the_limit_fail_the_step_for_good_before_its_handler_is_called(
    autojump_clock: MockClock, shared: MemoryStorage, desk: Desk
) -> None:
    async with Node(shared, desk.register, max_payload=3000) as node:
        outcome = await run(node, LOGIN, publish(all=[ref("steps.login.result")] * 3))
        history = await node.manager.get_saga_history(outcome.saga_id)
    assert outcome.status is COMPENSATED
    assert "steps[1].parameters" in outcome.error
    assert "at most 3000" in outcome.error
    (failed,) = [line for line in history if line.event == "step_failed"]
    failure = failed.details["failure"]
    assert (failure["error"], failure["final"], failure.get("unknown", False)) == ("InvalidInput", True, False)
    assert desk.received == []


async def test_a_result_is_decoded_once_for_an_attempt(
    autojump_clock: MockClock, shared: MemoryStorage, desk: Desk
) -> None:
    async with Node(shared, desk.register) as node:
        await run(node, LOGIN, publish())
    assert desk.results[0] is desk.results[1]
