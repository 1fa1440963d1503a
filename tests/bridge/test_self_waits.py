"""A handler in an event loop, or in a thread, that would wait for its own end is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.hosts import ASYNCIO_HOSTS, Host, a_manager
from dotmac.tasks import BackgroundOperationsManager, HandlerContext, WouldDeadlock

in_asyncio = pytest.mark.parametrize("host", ASYNCIO_HOSTS.values(), ids=ASYNCIO_HOSTS)


class SelfWaits:
    """Handlers that wait for themselves."""

    def __init__(self, manager: BackgroundOperationsManager) -> None:
        self.manager = manager
        self.refused: list[str] = []

    async def in_the_loop(self, parameters: dict[str, Any], context: HandlerContext) -> None:
        try:
            match parameters["do"], context.saga_id:
                case _, None:
                    await self.manager.run_idempotent(tenant_id="t", operation_type="work", parameters=parameters)
                case "beget", parent:
                    await (await self.manager.start_saga(**saga("wait", parent=parent))).result()
                case _, saga_id:
                    await self.manager.saga_handle(parameters.get("parent", saga_id)).result()
        except WouldDeadlock as error:
            self.refused.append(str(error))

    def in_a_thread(self, parameters: dict[str, Any], context: HandlerContext) -> None:
        sync = self.manager.sync
        try:
            match parameters["do"], context.saga_id:
                case _, None:
                    sync.run_idempotent(tenant_id="t", operation_type="work", parameters=parameters)
                case "beget", parent:
                    sync.start_saga(**saga("wait", parent=parent)).result()
                case _, saga_id:
                    sync.saga_handle(parameters.get("parent", saga_id)).result()
        except WouldDeadlock as error:
            self.refused.append(str(error))


@in_asyncio
@pytest.mark.parametrize("handler", ["in_the_loop", "in_a_thread"])
def test_a_handler_waits_for_its_saga_its_operation_and_its_parent(host: Host[Any], handler: str) -> None:
    manager = a_manager()
    waits = SelfWaits(manager)
    manager.register_operation_handler("work", getattr(waits, handler))

    async def program(manager: BackgroundOperationsManager) -> None:
        for do in ("wait", "beget"):
            assert (await (await manager.start_saga(**saga(do))).result()).completed
        await manager.run_idempotent(tenant_id="t", operation_type="work", parameters={"do": "wait"})

    host(manager, program)
    assert len(waits.refused) == 3


def saga(do: str, **parameters: Any) -> dict[str, Any]:
    step = {"name": "a", "operation": "work", "parameters": {"do": do, **parameters}}
    return {"tenant_id": "t", "workflow_type": do, "steps": [step]}
