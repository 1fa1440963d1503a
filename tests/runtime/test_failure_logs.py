"""What failed attempts write to the log: one line each, and one traceback where a step is given up."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, NonRetryableError
from runtime.nodes import Node

RETRY = {"max_retries": 2, "initial_delay": 0.1}
OPERATION, UNDO = "charge", "refund"


def register(manager: BackgroundOperationsManager) -> None:
    async def charge(parameters: dict[str, Any]) -> None:
        if parameters.get("final"):
            raise NonRetryableError("declined")
        if parameters.get("hangs"):
            await trio.sleep_forever()
        raise TimeoutError("no answer")

    async def refund(_parameters: Any) -> None:
        raise ValueError("no such charge")

    manager.register_operation_handler(OPERATION, charge)
    manager.register_compensation_handler(UNDO, refund)


async def logged(
    shared: MemoryStorage, caplog: pytest.LogCaptureFixture, level: int, **step: Any
) -> list[tuple[str, bool, str]]:
    """Level, whether there is a traceback, and text, of each record about an attempt."""
    caplog.set_level(level)
    async with Node(shared, register) as node:
        steps = [{"name": "s", "operation": OPERATION, "retry": RETRY, **step}]
        await (await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    return [
        (record.levelname, bool(record.exc_info), record.message)
        for record in caplog.records
        if record.name == "dotmac.tasks.runtime.attempt"
    ]


async def test_each_failure_is_one_line_and_the_last_one_has_the_traceback(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    undo = {"compensation_operation": UNDO, "compensation_retry": RETRY}
    lines = await logged(shared, caplog, logging.INFO, **undo)
    assert [line[:2] for line in lines] == [("INFO", False), ("INFO", False), ("WARNING", True)] * 2
    assert "attempt 1 of charge: TimeoutError('no answer')" in lines[0][2]
    assert "attempt 3 of charge, the last one: TimeoutError('no answer')" in lines[2][2]
    assert "attempt 3 of refund, the last one: ValueError('no such charge')" in lines[5][2]


async def test_a_final_error_has_its_traceback_at_once(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    lines = await logged(shared, caplog, logging.INFO, parameters={"final": True})
    assert [line[:2] for line in lines] == [("WARNING", True)]


async def test_a_time_out_is_logged_without_a_traceback(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    lines = await logged(shared, caplog, logging.INFO, parameters={"hangs": True}, timeout_seconds=5)
    assert [line[:2] for line in lines] == [("INFO", False), ("INFO", False), ("WARNING", False)]
    assert "StepTimedOut" in lines[0][2]


async def test_tracebacks_of_all_attempts_are_logged_at_debug(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    lines = await logged(shared, caplog, logging.DEBUG)
    levels = [("INFO", False), ("DEBUG", True), ("INFO", False), ("DEBUG", True), ("WARNING", True)]
    assert [line[:2] for line in lines] == levels


@pytest.mark.parametrize(("level", "tracebacks"), [(logging.INFO, 0), (logging.DEBUG, 1)])
async def test_a_failed_operation_is_one_line(
    shared: MemoryStorage, caplog: pytest.LogCaptureFixture, level: int, tracebacks: int
) -> None:
    caplog.set_level(level)
    async with Node(shared, register) as node:
        with pytest.raises(TimeoutError):
            await node.manager.run_idempotent(tenant_id="t", operation_type=OPERATION)
    records = [record for record in caplog.records if record.name == "dotmac.tasks.runtime.claimed_work"]
    assert [record.levelname for record in records] == ["INFO", *["DEBUG"] * tracebacks]
    assert records[0].message == "operation charge, attempt 1: TimeoutError('no answer')"
    assert len([record for record in records if record.exc_info]) == tracebacks
