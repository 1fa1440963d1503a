"""A service over memory storage, called in-process, with sagas that do what their parameters say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
from starlette.applications import Starlette

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, NonRetryableError
from dotmac.tasks.service.access import Access, access_for
from dotmac.tasks.service.app import create_app
from dotmac.tasks.service.callers import Role
from dotmac.tasks.service.tokens import Tokens, make_token

OPERATOR, VIEWER = "the-token-of-otto-the-operator", "the-token-of-vera-the-viewer"
HERE = "http://127.0.0.1:8080"
PATIENCE = 20


def tokens() -> Tokens:
    """One token of each role."""
    return Tokens([make_token(OPERATOR, "otto", Role.OPERATE), make_token(VIEWER, "vera", Role.VIEW)])


def guarded_access() -> Access:
    return access_for(["0.0.0.0:8080"], tokens=tokens())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def saga(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The body of a request that starts a saga."""
    return {"tenant_id": "acme", "workflow_type": "order", "steps": list(steps) or [step("a")], **fields}


def step(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "operation": "do", "parameters": fields, "max_retries": 0}


PARKS = [{**step("pay"), "kind": "pivot"}, {**step("ship", fails=True), "kind": "retriable"}]


class House:
    """A manager and its service.

    Attributes:
        mended: Steps that fail do not fail any more.
        goes_on: Lets steps that hold end.
    """

    def __init__(self, access: Access | None = None, **settings: Any) -> None:
        settings = {"drain_timeout": 0.1, **settings}
        self.manager = BackgroundOperationsManager(storage=MemoryStorage(), **settings)
        self.mended = False
        self.goes_on = trio.Event()
        self.manager.register_operation_handler("do", self._do)
        self.manager.register_compensation_handler("undo", self._undo)
        self.app: Starlette = create_app(self.manager, access=access)
        self.client = self.visitor()

    def visitor(self, address: str = HERE, **options: Any) -> httpx.AsyncClient:
        """Somebody who calls the service, with cookies of his own."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=address, **options)

    async def start(self, *steps: dict[str, Any], headers: dict[str, str] | None = None, **fields: Any) -> str:
        """Start a saga by HTTP; gives its id."""
        answer = await self.client.post("/v1/sagas", json=saga(*steps, **fields), headers=headers)
        assert answer.status_code == 201, answer.text
        saga_id: str = answer.json()["saga_id"]
        return saga_id

    async def run(self, *steps: dict[str, Any], **fields: Any) -> str:
        """Start one and wait for its end."""
        saga_id = await self.start(*steps, **fields)
        with trio.fail_after(PATIENCE):
            await self.manager.saga_handle(saga_id).result()
        return saga_id

    async def _do(self, parameters: dict[str, Any]) -> Any:
        if parameters.get("holds"):
            await self.goes_on.wait()
        if parameters.get("fails") and not self.mended:
            raise NonRetryableError("not possible")
        return parameters.get("result")

    async def _undo(self, parameters: dict[str, Any]) -> None:
        return None


@asynccontextmanager
async def house(access: Access | None = None, **settings: Any) -> AsyncIterator[House]:
    made = House(access, **settings)
    async with made.app.router.lifespan_context(made.app), made.client:
        yield made
        made.app.state.closing.set()


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem document of an answer, which must be this one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:dotmac-tasks:problem:{slug}"
    assert document["status"] == status
    return document
