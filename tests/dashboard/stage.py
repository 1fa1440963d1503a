"""A dashboard over memory storage, with sagas in every state that a page has to show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
from starlette.applications import Starlette

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, NonRetryableError
from dotmac.tasks.service.dashboard.routes import dashboard_routes
from dotmac.tasks.service.dashboard.site import Site, Visitor

HOSTILE = "<script>alert(1)</script>\"'>&"
SECRET = "hunter2-of-the-test"  # noqa: S105 - it is to be hidden
VIEWER, OPERATOR = Visitor("vera", may_operate=False), Visitor("otto", may_operate=True)


def register(manager: BackgroundOperationsManager) -> None:
    """Handlers that do what their parameters say."""

    @manager.register_operation_handler("do")
    async def do(parameters: dict[str, Any], context: Any) -> Any:
        fails = parameters.get("fails")
        if parameters.get("holds"):
            await trio.sleep_forever()
        if fails == "unknown":
            raise TimeoutError("nobody knows")
        if fails and context.attempt <= parameters.get("times", 99):
            raise NonRetryableError(fails) if parameters.get("final") else ValueError(fails)
        return parameters.get("result")

    @manager.register_compensation_handler("undo")
    async def undo(parameters: dict[str, Any]) -> None:
        if parameters.get("fails"):
            raise NonRetryableError(parameters["fails"])


def step(name: str, *, undo: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    kind = fields.pop("kind", "compensatable")
    back = {"compensation_operation": "undo", "compensation_parameters": undo or {}} if kind == "compensatable" else {}
    return {"name": name, "operation": "do", "kind": kind, "parameters": fields,
            "retry": {"max_retries": 2, "initial_delay": 0.01}, **back}  # fmt: skip


SAGAS: dict[str, list[dict[str, Any]]] = {
    "completed": [step("charge", result={"id": 7, "access_token": SECRET}), step("ship", fails="busy", times=1)],
    "compensated": [step("charge", password=SECRET), step("ship", fails="no such address", final=True)],
    "parked": [step("charge", undo={"fails": "refund refused"}), step("ship", fails="no", final=True)],
    "unknown": [step("pay", kind="pivot", fails="unknown")],
    "running": [step("wait", holds=True)],
    "hostile": [step(HOSTILE, fails=HOSTILE, final=True, note=HOSTILE)],
}


class Stage:
    """The dashboard and what it shows.

    Attributes:
        ids: Saga ids by their names in `SAGAS`.
        visitor: Who looks.
    """

    def __init__(self, manager: BackgroundOperationsManager) -> None:
        self.manager = manager
        self.visitor: Visitor | None = OPERATOR
        self.ids: dict[str, str] = {}
        self.site = Site(manager, lambda _request: self.visitor)
        self.app = Starlette(routes=dashboard_routes(self.site))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1")

    async def get(self, address: str, status: int = 200) -> str:
        answer = await self.client.get(address)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return answer.text

    async def start_all(self) -> None:
        for name, steps in SAGAS.items():
            tenant, kind = (HOSTILE, HOSTILE) if name == "hostile" else ("acme", name)
            handle = await self.manager.start_saga(tenant_id=tenant, workflow_type=kind, steps=steps)
            self.ids[name] = handle.saga_id
            if name != "running":
                await handle.result()


@asynccontextmanager
async def stage(*, sagas: bool = True) -> AsyncIterator[Stage]:
    manager = BackgroundOperationsManager(storage=MemoryStorage(), drain_timeout=0.1)
    register(manager)
    async with manager:
        made = Stage(manager)
        if sagas:
            await made.start_all()
        async with made.client:
            yield made
