"""The app that the conformance suite talks to, served by each server in a process of its own.

What it does is noted in a ledger outside of it, one file for each effect, so that a test can tell how often something
was done whatever became of the process. Its handlers are in `app_handlers`, what lies around the middleware here.
"""

from __future__ import annotations

import os
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dotmac.tasks import (
    BackgroundOperationsManager,
    FernetCodec,
    IdempotencyOptions,
    MemoryStorage,
    RouteRule,
    StorageProtocol,
    add_background_operations_middleware,
)
from dotmac.tasks.storage.redis import RedisStorage
from http_conformance.app_handlers import FLOW, ROUTES, note, register_operations


def storage() -> StorageProtocol:
    """On the server that the environment names; else in memory."""
    url = os.environ.get("CONFORMANCE_REDIS")
    if url is None:
        return MemoryStorage()
    return RedisStorage(
        url, prefix=os.environ["CONFORMANCE_PREFIX"], socket_timeout=float(os.environ["CONFORMANCE_PATIENCE"])
    )


class Doorman:
    """An outer layer: turns requests away by itself, sets a context variable and looks what became of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if b"x-turn-away" in headers:
            refusal = PlainTextResponse("turned away", int(headers[b"x-turn-away"]))
            await refusal(scope, receive, send)
            return
        FLOW.set("outside")
        await self.app(scope, receive, send)
        if b"x-flow" in headers:
            note(headers[b"x-effect"].decode(), f"flow {FLOW.get()}")


class Compression(GZipMiddleware):
    """Compresses, but over HTTP/2: it swallows what it does not know, pushes among it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "http.response.push" in scope.get("extensions", {}):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def build() -> Any:
    """The app: the doorman, CORS and compression outside, then the middleware, then the routes."""
    app = Starlette(routes=ROUTES)
    manager = add_background_operations_middleware(
        app,
        BackgroundOperationsManager(storage(), worker_lease=3.0),
        options=IdempotencyOptions(response_limit=100_000),
        routes=[
            RouteRule("/ruled/**", required=True),
            RouteRule("PUT /opted", methods={"PUT", "DELETE"}),
            RouteRule("DELETE /opted", methods={"DELETE"}),
        ],
        codec=FernetCodec(os.environ["CONFORMANCE_SEAL"]) if "CONFORMANCE_SEAL" in os.environ else None,
    )
    register_operations(manager)
    app.state.manager = manager
    app.add_middleware(Compression, minimum_size=200_000)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["https://one.example", "https://two.example"],
        allow_headers=["Idempotency-Key"],
        allow_methods=["POST"],
        expose_headers=["Idempotency-Replayed"],
    )
    app.add_middleware(Doorman)
    return app


app = build()
