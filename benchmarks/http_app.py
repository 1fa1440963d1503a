"""The app that `http_middleware.py` puts under load: a Starlette route that reads JSON and answers JSON.

BENCH_MODE chooses what protects it: ``plain``, ``memory``, ``redis`` and ``redis-large`` (ours; the last one takes
large bodies and counts them), ``asgi-idempotency-header`` and ``idemptx`` (which live in an environment of their own,
so everything is imported only where it is used).
"""

from __future__ import annotations

import os
from typing import Any

MODE, REDIS = os.environ["BENCH_MODE"], os.environ.get("BENCH_REDIS", "")


def starlette_app() -> Any:
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import JSONResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    async def order(request: Request) -> JSONResponse:
        if request.headers["content-type"] == "application/octet-stream":
            return JSONResponse({"bytes": sum([len(chunk) async for chunk in request.stream()])}, 201)
        document = await request.json()
        return JSONResponse({"order": document["item"], "cents": 4200, "status": "accepted"}, 201)

    return Starlette(routes=[Route("/orders", order, methods=["POST"])])


def protected_by_us() -> Any:
    from dotmac.tasks import (  # noqa: PLC0415
        BackgroundOperationsManager,
        IdempotencyOptions,
        MemoryStorage,
        add_background_operations_middleware,
    )

    if MODE.startswith("redis"):
        from dotmac.tasks.storage.redis import RedisStorage  # noqa: PLC0415

        storage: Any = RedisStorage(redis_url=REDIS)
    else:
        storage = MemoryStorage()
    made = starlette_app()
    options = IdempotencyOptions(body_limit=2**31) if MODE == "redis-large" else IdempotencyOptions()
    add_background_operations_middleware(made, BackgroundOperationsManager(storage), options=options)
    return made


def protected_by_asgi_idempotency_header() -> Any:
    from idempotency_header_middleware import IdempotencyHeaderMiddleware  # noqa: PLC0415
    from idempotency_header_middleware.backends.redis import RedisBackend  # noqa: PLC0415
    from redis.asyncio import Redis  # noqa: PLC0415

    return IdempotencyHeaderMiddleware(starlette_app(), backend=RedisBackend(Redis.from_url(REDIS)))


def protected_by_idemptx() -> Any:
    from fastapi import FastAPI, Request  # noqa: PLC0415
    from fastapi.responses import JSONResponse  # noqa: PLC0415
    from idemptx import idempotent  # noqa: PLC0415
    from idemptx.backend import AsyncRedisBackend  # noqa: PLC0415
    from redis.asyncio import Redis  # noqa: PLC0415

    made = FastAPI()

    async def order(request: Request) -> Any:
        document = await request.json()
        return JSONResponse({"order": document["item"], "cents": 4200, "status": "accepted"}, 201)

    order.__annotations__ = {"request": Request, "return": Any}  # they are text here, which FastAPI cannot look up
    made.post("/orders")(idempotent(storage_backend=AsyncRedisBackend(Redis.from_url(REDIS)))(order))
    return made


app = {
    "plain": starlette_app,
    "memory": protected_by_us,
    "redis": protected_by_us,
    "redis-large": protected_by_us,
    "asgi-idempotency-header": protected_by_asgi_idempotency_header,
    "idemptx": protected_by_idemptx,
}[MODE]()
