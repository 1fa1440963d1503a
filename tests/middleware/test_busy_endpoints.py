"""Endpoints of the application that hang in anyio's own threads keep no other request's body from being read."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bridge.hosts import run_asyncio, under_trio
from dotmac.tasks import BackgroundOperationsManager, BackgroundOperationsMiddleware, MemoryStorage
from middleware.apps import answer, app_of


async def _post(app: Any, body: bytes) -> int:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status", 0))

    headers = [(b"idempotency-key", b"k"), (b"x-tenant-id", b"t"), (b"host", b"example.org")]
    await app({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)
    return statuses[0]


@pytest.mark.parametrize("host", ["trio", "asyncio"])
def test_a_large_body_is_read_while_endpoints_hold_every_default_thread(host: str) -> None:
    sizes: list[int] = []

    async def handler(_scope: Any, body: bytes, send: Any) -> None:
        sizes.append(len(body))
        await answer(send, 200, {})

    async def program(manager: BackgroundOperationsManager) -> None:
        app = BackgroundOperationsMiddleware(app_of(handler), manager)
        threads = anyio.to_thread.current_default_thread_limiter()
        endpoints = [object() for _ in range(int(threads.total_tokens))]
        for endpoint in endpoints:
            threads.acquire_on_behalf_of_nowait(endpoint)
        with anyio.fail_after(20):
            assert await _post(app, b"x" * 3_000_000) == 200
        for endpoint in endpoints:
            threads.release_on_behalf_of(endpoint)

    async def under_asyncio() -> None:
        async with BackgroundOperationsManager(MemoryStorage()) as manager:
            await program(manager)

    if host == "trio":
        under_trio(BackgroundOperationsManager(MemoryStorage()), program)
    else:
        run_asyncio(under_asyncio)
    assert sizes == [3_000_000]
