"""Handlers of the conformance app. Each notes what it does under the effect that the request names (``X-Effect``)."""

from __future__ import annotations

import contextvars
import gzip
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from dotmac.tasks import (
    BackgroundOperationsManager,
    MemoryStorage,
    declare_no_effect,
    get_idempotency_key,
    idempotent_route,
    set_operation_result,
    start_saga_for_request,
)

LEDGER = Path(os.environ["CONFORMANCE_LEDGER"])
FLOW = contextvars.ContextVar("FLOW", default="unset")


def note(effect: str, what: str) -> int:
    """Write down that something was done; gives how much was written down under this effect so far."""
    with (LEDGER / effect).open("a+") as file:  # one short write to the end of a file: atomic
        file.write(f"{what}\n")
        file.flush()
        file.seek(0)
        return len(file.readlines())


def ran(request: Request, what: str = "ran") -> int:
    return note(request.headers["x-effect"], what)


async def gate(effect: str) -> None:
    """Wait until the test opens the gate of this effect."""
    while not (LEDGER / f"{effect}.gate").exists():  # noqa: ASYNC110 - it is opened in another process
        await anyio.sleep(0.01)


async def effect(request: Request) -> Response:
    """Each run has another answer, and headers of every kind."""
    run = ran(request)
    response = JSONResponse({"run": run, "key": get_idempotency_key(request)}, 201)
    for name, value in [
        ("X-Order", "1"), ("X-Order", "2"), ("X-Name", "Grüße"), ("Location", "/orders/1"), ("Vary", "X-Order"),
        ("ETag", '"abc"'), ("Set-Cookie", "session=secret"), ("X-Request-ID", f"{run}"), ("RateLimit", "5"),
        ("X-Hop", "1"), ("X-Answered-At", "now"),
    ]:  # fmt: skip
        response.raw_headers.append((name.lower().encode(), value.encode("latin-1")))
    return response


async def status(request: Request) -> Response:
    """The status that the path names."""
    run = ran(request)
    if "declare" in request.query_params:
        declare_no_effect(request)
    code = int(request.path_params["code"])
    empty = code in {204, 304} or "empty" in request.query_params
    return Response(None if empty else f"run {run}", code, {"x-run": f"{run}"})


async def gated(request: Request) -> Response:
    """Runs until the test opens its gate, which may be another than that of its effect (``X-Gate``)."""
    run = ran(request)
    try:
        await gate(request.headers.get("x-gate", request.headers["x-effect"]))
    except BaseException:
        ran(request, "cut off")
        raise
    ran(request, "finished")
    return JSONResponse({"run": run})


async def crashing(request: Request) -> Response:
    """Has its effect, and then its process dies."""
    ran(request)
    os.kill(os.getpid(), signal.SIGKILL)
    return Response()


async def raises(request: Request) -> Response:
    ran(request)
    raise RuntimeError("before any answer")


async def breaks_off(request: Request) -> Response:
    ran(request)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("in the midst of the answer")

    return StreamingResponse(chunks())


async def streams(request: Request) -> Response:
    """Chunks of 1,000 bytes; the gate lies between the first and the others."""
    run = ran(request)

    async def chunks() -> AsyncIterator[bytes]:
        yield f"{run}".rjust(1_000).encode()
        await gate(request.headers["x-effect"])
        for _ in range(int(request.query_params["chunks"]) - 1):
            yield b"x" * 1_000

    return StreamingResponse(chunks(), 202, {"x-run": f"{run}", "etag": '"a"'})


async def events(request: Request) -> Response:
    """Server-sent events until the client goes."""
    ran(request)

    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: " + b"x" * 10_000 + b"\n\n"
                await anyio.sleep(0.001)
        finally:
            ran(request, "ended")

    return StreamingResponse(chunks(), media_type="text/event-stream")


async def body(request: Request) -> Response:
    """What arrived of the body."""
    run, digest, length = ran(request), hashlib.sha256(), 0
    async for chunk in request.stream():
        digest.update(chunk)
        length += len(chunk)
    return JSONResponse({"run": run, "length": length, "sha256": digest.hexdigest()})


async def form(request: Request) -> Response:
    run = ran(request)
    async with request.form() as parts:
        file: Any = parts["file"]
        return JSONResponse({"run": run, "name": file.filename, "length": len(await file.read())})


async def zipped(request: Request) -> Response:
    """Compresses by itself, where the client accepts that."""
    content, run = b"plain " * 100, ran(request)
    headers = {"vary": "Accept-Encoding", "x-run": f"{run}"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(gzip.compress(content), headers={**headers, "content-encoding": "gzip"})
    return Response(content, headers=headers)


async def large(request: Request) -> Response:
    """Large enough for the compression outside."""
    ran(request)
    return PlainTextResponse("y" * 300_000)


async def background(request: Request) -> Response:
    effect_name = request.headers["x-effect"]
    return JSONResponse({"run": ran(request)}, background=BackgroundTask(note, effect_name, "background"))


async def flow(request: Request) -> Response:
    seen = FLOW.get()
    FLOW.set("inside")
    return PlainTextResponse(f"{seen} {ran(request)}")


async def result(request: Request) -> Response:
    """Too long to be kept, but for its result."""
    set_operation_result(request, {"order": ran(request)})
    return PlainTextResponse("z" * 200_000)


async def saga(request: Request) -> Response:
    ran(request)
    steps = [
        {
            "name": "charge",
            "operation": "note",
            "parameters": {"effect": request.headers["x-effect"], "what": "charged"},
        },
        {"name": "wait", "operation": "wait", "parameters": {"effect": request.headers["x-effect"]}},
    ]
    started = await start_saga_for_request(request, "order", steps, tenant_id="t")
    response: Response = await started.response()
    return response


class WaitsForDisconnect:
    """An ASGI app of its own: reads on after the body, until the client goes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = dict(scope["headers"])[b"x-effect"].decode()
        note(name, "ran")
        while (message := await receive())["type"] != "http.disconnect":
            note(name, f"body {len(message.get('body', b''))}")
        note(name, "disconnected")


class Shortcuts:
    """Says which ways around a plain response are offered to it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note(dict(scope["headers"])[b"x-effect"].decode(), "ran")
        content = json.dumps(sorted(scope.get("extensions") or {})).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": content})


class Hints:
    """Sends early hints before its response, where the server offers that."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = dict(scope["headers"])[b"x-effect"].decode()
        note(name, "ran")
        if "http.response.early_hint" in (scope.get("extensions") or {}):
            await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
            note(name, "hinted")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"after"})


async def pushes(request: Request) -> Response:
    """Promises the client a stylesheet before its response, where the server offers that."""
    name = request.headers["x-effect"]
    note(name, "ran")
    if "http.response.push" in request.scope.get("extensions", {}):
        await request.send_push_promise("/ready")
        note(name, "pushed")
    return PlainTextResponse("after")


async def ready(request: Request) -> Response:
    return PlainTextResponse("ready")


async def memory(request: Request) -> Response:
    """Highest resident size of this process so far, in KiB, and how many records its storage has, if in memory."""
    storage = request.app.state.manager.storage
    records = len(storage._records) if isinstance(storage, MemoryStorage) else None
    return JSONResponse({"peak": _peak(), "records": records})


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


def register_operations(manager: BackgroundOperationsManager) -> None:
    """What the saga's steps do."""

    async def do_note(parameters: dict[str, Any]) -> dict[str, Any]:
        return {"noted": note(parameters["effect"], parameters["what"])}

    async def do_wait(parameters: dict[str, Any]) -> None:
        note(parameters["effect"], "waits")
        await gate(parameters["effect"])

    manager.register_operation_handler("note", do_note)
    manager.register_operation_handler("wait", do_wait)


def _post(path: str, endpoint: Any, **options: Any) -> Route:
    """A route whose endpoint has options of its own, also where it shares its function with others."""

    async def with_options(request: Request) -> Response:
        response: Response = await endpoint(request)
        return response

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Route(path, idempotent_route(**options)(with_options) if options else endpoint, methods=methods)


_JSON = {"fingerprint": "json"}
ROUTES = [
    Route("/ready", ready),
    Route("/memory", memory),
    WebSocketRoute("/echo", echo),
    _post("/effect", effect),
    _post("/other", effect),
    _post("/opted", effect),
    _post("/required", effect, required=True),
    _post("/exempt", effect, exempt=True),
    _post("/quoted", effect, compat_keys=False),
    _post("/digits", effect, key_pattern="[0-9]{4}"),
    _post("/strict/one", effect, strict=True),
    _post("/strict/two", effect, strict=True),
    _post("/json", effect, **_JSON),
    _post("/json/chosen", effect, fields=["amount"], **_JSON),
    _post("/json/ignored", effect, ignored_fields=["sent_at"], **_JSON),
    _post("/short-lived", effect, ttl=1.0),
    _post("/unstored", effect, unstored_headers=["X-Answered-At"]),
    _post("/status/{code:int}", status),
    _post("/released/{code:int}", status, release_statuses={503}),
    _post("/gated", gated),
    _post("/gated/wait", gated, in_flight="wait", wait_seconds=20),
    _post("/gated/wait-briefly", gated, in_flight="wait", wait_seconds=0.2),
    _post("/gated/accepted", gated, in_flight="accepted"),
    _post("/gated/short-lease", gated, lease=1.0),
    _post("/gated/rerun", gated, lease=1.0, on_crash="rerun"),
    _post("/gated/rerun-long-lease", gated, on_crash="rerun"),
    _post("/crashing", crashing, lease=1.0),
    _post("/raises", raises),
    _post("/raises/released", raises, on_exception="release"),
    _post("/breaks-off", breaks_off),
    _post("/streams", streams),
    _post("/events", events),
    _post("/body", body, body_limit=2 * 1024**3),
    _post("/small-body", body, body_limit=1_000),
    _post("/form", form),
    _post("/zipped", zipped),
    _post("/large", large, response_limit=1_000_000),
    _post("/background", background),
    _post("/flow", flow),
    _post("/result", result),
    _post("/saga", saga),
    _post("/saga/briefly", saga, saga_wait=0.1, saga_location="/sagas/{saga_id}"),
    _post("/stored-or-nothing", effect, on_storage_error="reject"),
    Route("/waits-for-disconnect", WaitsForDisconnect(), methods=["POST"]),
    Route("/hints", Hints(), methods=["POST"]),
    _post("/pushes", pushes),
    Route("/shortcuts", Shortcuts(), methods=["POST"]),
    Mount("/mounted", routes=[_post("/effect", effect), _post("/required", effect, required=True)]),
    Mount("/ruled", routes=[_post("/effect", effect)]),
]
