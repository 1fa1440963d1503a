"""The dashboard inside the service: sign-in, headers, other origins, secrets that must not show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from dashboard.stage import SAGAS, SECRET, register
from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, OperationStatus
from dotmac.tasks.service.access import Access
from dotmac.tasks.service.console import create_console
from dotmac.tasks.service.redaction import Redaction
from dotmac.tasks.service.tokens import Tokens

VIEW, OPERATE = "view-token-of-the-test-0123456789", "operate-token-of-the-test-0123456789"
PAGES = ["/", "/sagas", "/keys", "/locks", "/workers", "/settings"]
ORIGIN = "http://127.0.0.1:8080"
HTML = {"Accept": "text/html"}
Served = tuple[BackgroundOperationsManager, httpx.AsyncClient]


@asynccontextmanager
async def served(
    access: Access, **options: Any
) -> AsyncIterator[tuple[BackgroundOperationsManager, httpx.AsyncClient]]:
    manager = BackgroundOperationsManager(storage=MemoryStorage(), drain_timeout=0.1)
    register(manager)
    app = create_console(manager, access, **options)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN, headers=HTML)
    async with manager, app.router.lifespan_context(app), client:
        yield manager, client


@pytest.fixture
def access() -> Access:
    return Access(Tokens.parse(f"view vera {VIEW}\noperate otto {OPERATE}\n", "this test"))


async def parked(manager: BackgroundOperationsManager) -> str:
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=SAGAS["unknown"])
    await handle.result()
    return handle.saga_id


async def sign_in(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/login", data={"token": token, "next": "/sagas"}, headers={"Origin": ORIGIN})


async def test_pages_are_shown_after_signing_in_with_a_token(access: Access) -> None:
    async with served(access) as (_, client):
        for address in PAGES:
            answer = await client.get(address)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/login?next=")
        form = await client.get("/login?next=/sagas%3Fstatus%3Dfailed")
        assert 'name="next" value="/sagas?status=failed"' in form.text
        assert "Workers" not in form.text  # no way to pages that are refused
        refused = await sign_in(client, "wrong")
        assert (refused.status_code, "not known" in refused.text) == (403, True)
        answer = await sign_in(client, VIEW)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sagas")
        cookie = answer.headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        for address in PAGES:
            page = await client.get(address)
            assert page.status_code == 200
            assert "vera" in page.text
            assert "view only" in page.text
            assert VIEW not in page.text
        await client.post("/logout", headers={"Origin": ORIGIN})
        assert (await client.get("/")).status_code == 303


async def test_every_answer_forbids_inline_code_and_frames(access: Access) -> None:
    async with served(access) as (manager, client):
        await sign_in(client, OPERATE)
        saga = f"/sagas/{await parked(manager)}"
        for address in [*PAGES, saga, f"{saga}/retry", "/login", "/sagas/nothing", "/static/dashboard.js"]:
            headers = (await client.get(address)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("signed_in", [True, False])
async def test_a_page_of_another_origin_changes_nothing(
    access: Access, headers: dict[str, str], signed_in: bool
) -> None:
    async with served(access if signed_in else Access()) as (manager, client):
        if signed_in:
            await sign_in(client, OPERATE)
        saga_id = await parked(manager)
        for action in ("retry", "turn-back"):
            answer = await client.post(f"/sagas/{saga_id}/{action}", data={"reason": "x"}, headers=headers)
            assert answer.status_code == 403
        events = {line.event for line in await manager.get_saga_history(saga_id)}
        assert not any(event.startswith("operator") for event in events)
        own = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
        assert (await client.post(f"/sagas/{saga_id}/turn-back", data={"reason": "r"}, headers=own)).status_code == 303
        assert (await manager.saga_handle(saga_id).result()).status is OperationStatus.COMPENSATED


async def test_a_role_that_views_cannot_act(access: Access) -> None:
    async with served(access) as (manager, client):
        await sign_in(client, VIEW)
        saga_id = await parked(manager)
        answer = await client.post(f"/sagas/{saga_id}/retry", data={}, headers={"Origin": ORIGIN})
        assert answer.status_code == 403
        assert (await client.get(f"/sagas/{saga_id}/retry")).status_code == 403
        assert "/retry" not in (await client.get(f"/sagas/{saga_id}")).text


async def test_further_fields_can_be_hidden() -> None:
    steps = [{"name": "a", "operation": "do", "parameters": {"iban": SECRET, "birthday": "1970-01-01"}}]
    for redaction, hides in ((None, False), (Redaction(["iban", "birthday"]), True)):
        async with served(Access(), redaction=redaction) as (manager, client):
            handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
            await handle.result()
            page = (await client.get(f"/sagas/{handle.saga_id}")).text
            assert SECRET not in page
            assert ("1970-01-01" in page) is not hides


async def test_metrics_count_what_the_process_does() -> None:
    async with served(Access()) as (manager, client):
        await parked(manager)
        text = (await client.get("/metrics")).text
    assert 'dotmac_tasks_sagas_created_total{workflow_type="w"} 1.0' in text
    assert 'dotmac_tasks_sagas{status="failed"} 1.0' in text
    assert 'dotmac_tasks_workers{state="alive"} 1.0' in text


async def test_the_trace_of_a_request_goes_with_its_saga() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen: list[dict[str, str]] = []
    async with served(Access()) as (manager, client):

        @manager.register_operation_handler("see")
        async def see(_parameters: Any, context: Any) -> None:
            seen.append(dict(context.metadata))

        body = {"tenant_id": "t", "workflow_type": "w", "steps": [{"name": "a", "operation": "see"}]}
        for headers in ({"traceparent": parent, "tracestate": "v=1"}, {"traceparent": "nonsense", "tracestate": "v=1"}):
            answer = await client.post("/v1/sagas", json=body, headers=headers)
            assert answer.status_code == 201
            await manager.saga_handle(answer.json()["saga_id"]).result()
    assert seen == [{"traceparent": parent, "tracestate": "v=1"}, {}]
