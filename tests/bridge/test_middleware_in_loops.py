"""The middleware in an asyncio program: the app and its requests in the host's loop, the runtime behind the bridge."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.hosts import ASYNCIO_HOSTS, Host
from bridge.test_bridged_facade import STEPS, a_full_manager
from dotmac.tasks import (
    BackgroundOperationsMiddleware,
    IdempotencyOptions,
    MemoryStorage,
    StorageUnavailable,
    start_saga_for_request,
)

in_asyncio = pytest.mark.parametrize("host", ASYNCIO_HOSTS.values(), ids=ASYNCIO_HOSTS)


@in_asyncio
def test_requests_with_one_key_are_carried_out_once(host: Host[Any]) -> None:
    carried_out: list[object] = []

    async def pay(request: Request) -> Response:
        await asyncio.sleep(0.02)
        carried_out.append(asyncio.get_running_loop())
        return JSONResponse({"payment": len(carried_out)})

    async def order(request: Request) -> Any:
        saga = await start_saga_for_request(request, "w", STEPS)
        return await saga.response()

    async def slow(request: Request) -> Response:
        await asyncio.sleep(600)
        return Response()

    async def program(manager: Any) -> None:
        routes = [Route(f"/{view.__name__}", view, methods=["POST"]) for view in (pay, order, slow)]
        app = BackgroundOperationsMiddleware(Starlette(routes=routes), manager)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def send(path: str, key: str) -> httpx.Response:
                return await client.post(path, headers={"Idempotency-Key": f'"{key}"', "X-Tenant-ID": "t"})

            answers = await asyncio.gather(*(send("/pay", "k" * 20) for _ in range(5)))
            assert {answer.status_code for answer in answers} <= {200, 409}
            assert (await send("/pay", "k" * 20)).json() == {"payment": 1}
            assert carried_out == [asyncio.get_running_loop()]
            first, second = await send("/order", "o" * 20), await send("/order", "o" * 20)
            assert first.json() == second.json()
            assert first.json()["status"] == "completed"
            with anyio.move_on_after(0.05) as scope:  # the server cuts it off
                await send("/slow", "s" * 20)
            assert scope.cancelled_caught
            assert not manager._hosted()._runtime.claims._held

    host(a_full_manager(), program)


@in_asyncio
def test_a_handler_whose_claim_cannot_be_kept_is_cancelled(host: Host[Any]) -> None:
    ends: list[str] = []
    begun = asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return Response()

    async def program(manager: Any) -> None:
        app = BackgroundOperationsMiddleware(
            Starlette(routes=[Route("/slow", slow, methods=["POST"])]), manager, options=IdempotencyOptions(lease=1.5)
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:

            async def send() -> httpx.Response:
                return await client.post("/slow", headers={"Idempotency-Key": "k", "X-Tenant-ID": "t"})

            first = asyncio.create_task(send())
            await begun.wait()
            manager.storage.away = True
            with anyio.fail_after(20):
                lost = await first
            assert (lost.status_code, lost.json()["type"]) == (409, "urn:dotmac-tasks:problem:claim-lost")
            manager.storage.away = False
            assert ends == ["cancelled"]

    host(a_full_manager(storage=Away()), program)


class Away(MemoryStorage):
    """Can be made unable to renew claims."""

    away = False

    async def renew_claim(self, key: str, token: str, lease: float) -> float:
        if self.away:
            raise StorageUnavailable("the storage is away")
        return await super().renew_claim(key, token, lease)
