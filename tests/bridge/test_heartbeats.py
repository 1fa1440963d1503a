"""Heartbeats move the time-out from wherever a handler works: its task, its thread, or a thread that it began."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bridge.hosts import HOSTS, PATIENCE, Host, a_manager
from dotmac.tasks import BackgroundOperationsManager, HandlerContext


def moved(context: HandlerContext) -> bool:
    """Beat from this thread until the deadline has moved."""
    before, ends = context.deadline, time.monotonic() + PATIENCE
    assert before is not None
    while context.deadline == before:
        assert time.monotonic() < ends
        context.heartbeat()
        time.sleep(0.001)
    return context.deadline is not None and context.deadline > before


def in_worker_thread(_parameters: Any, context: HandlerContext) -> bool:
    return moved(context)


def in_own_thread(_parameters: Any, context: HandlerContext) -> bool:
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(moved(context)))
    thread.start()
    thread.join(PATIENCE)
    return seen == [True]


async def in_task(_parameters: Any, context: HandlerContext) -> bool:
    before = context.deadline
    assert before is not None
    while context.deadline == before:
        context.heartbeat()
        await anyio.sleep(0.001)
    return context.deadline is not None and context.deadline > before


async def in_thread_of_task(_parameters: Any, context: HandlerContext) -> bool:
    return await anyio.to_thread.run_sync(moved, context)


async def in_returned_coroutine(_parameters: Any, context: HandlerContext) -> Any:
    return in_task(_parameters, context)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_heartbeat_works_in_any_thread_and_loop(host: Host[Any]) -> None:
    manager = a_manager()
    handlers = (in_worker_thread, in_own_thread, in_task, in_thread_of_task, in_returned_coroutine)
    for handler in handlers:
        manager.register_operation_handler(handler.__name__, handler)

    async def program(manager: BackgroundOperationsManager) -> None:
        steps = [{"name": h.__name__, "operation": h.__name__, "timeout_seconds": PATIENCE} for h in handlers]
        outcome = await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
        assert outcome.results == {h.__name__: True for h in handlers}

    host(manager, program)


def test_a_heartbeat_after_the_end_of_the_runtime_does_nothing() -> None:
    manager = a_manager()
    contexts: list[HandlerContext] = []

    @manager.register_operation_handler("work")
    def work(_parameters: Any, context: HandlerContext) -> None:
        contexts.append(context)

    with manager.sync as sync:
        steps = [{"name": "s", "operation": "work", "timeout_seconds": PATIENCE}]
        sync.start_saga(tenant_id="t", workflow_type="w", steps=steps).result()
        deadline = contexts[0].deadline
        contexts[0].heartbeat()
    contexts[0].heartbeat()
    assert contexts[0].deadline == deadline
