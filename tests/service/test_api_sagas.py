"""Sagas over HTTP: started once, listed, looked at, steered; and every refusal names what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from service.house import PARKS, PATIENCE, House, problem, saga, step


async def test_a_saga_is_started_and_runs(service: House) -> None:
    answer = await service.client.post("/v1/sagas", json=saga(step("a", result={"id": 7})))
    assert answer.status_code == 201
    started = answer.json()
    assert answer.headers["location"] == started["url"] == f"/v1/sagas/{started['saga_id']}"
    with trio.fail_after(PATIENCE):
        outcome = await service.manager.saga_handle(started["saga_id"]).result()
    assert outcome.results == {"a": {"id": 7}}
    shown = (await service.client.get(started["url"])).json()
    assert (shown["status"], shown["steps"][0]["result"]) == ("completed", {"id": 7})


async def test_one_key_starts_one_saga(service: House) -> None:
    key = {"Idempotency-Key": '"order-17"'}
    first = await service.run(headers=key)
    assert await service.start(headers=key) == first
    assert await service.start(headers={"Idempotency-Key": "order-17"}) == first
    other = await service.client.post("/v1/sagas", json=saga(step("b")), headers=key)
    assert problem(other, 422, "payload-mismatch")["field"] == "Idempotency-Key"
    assert len((await service.client.get("/v1/sagas")).json()["sagas"]) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tenant_id": "t", "workflow_type": "w"}, "steps"),
        (saga(tenant_id=""), "tenant_id"),
        (saga(tenant_id="\x07"), "tenant_id"),
        (saga(priority=5000), "priority"),
        (saga(timeout_seconds=-1), "timeout_seconds"),
        (saga(metadata={"a": 1}), "metadata[...]"),
        (saga(nothing=1), "nothing"),
        (saga(step("a", of=2**70)), "steps[0].parameters.of"),
        (saga({"name": "a", "operation": "unheard-of"}), "steps[0].operation"),
        (saga({"name": "a"}), "steps[0].operation"),
        (saga(step("a"), step("a")), "steps[1].name"),
        (saga({**step("a"), "retry": {"nothing": 1}}), "steps[0].retry.nothing"),
        ({**saga(), "steps": []}, "steps"),
        ([], "body"),
    ],
)
async def test_a_saga_that_cannot_run_is_refused_and_the_field_is_named(service: House, body: Any, field: str) -> None:
    answer = await service.client.post("/v1/sagas", json=body)
    assert problem(answer, 400, "invalid-input")["field"].startswith(field)


@pytest.mark.parametrize(
    ("content", "headers", "field"),
    [
        (b"{", {}, "body"),
        (b"[" * 5000, {}, "body"),
        (b"\xff", {}, "body"),
        (b'{"tenant_id": "t", "workflow_type": "w", "steps": [1e999]}', {}, "body"),
        (b"{}", {"Content-Type": "text/plain"}, "Content-Type"),
        (b"{}", {"Idempotency-Key": "a,b"}, "Idempotency-Key"),
        (b" " * 2_000_000, {}, "body"),
    ],
)
async def test_a_body_that_is_no_saga_is_refused(
    service: House, content: bytes, headers: dict[str, str], field: str
) -> None:
    headers = {"Content-Type": "application/json", **headers}
    answer = await service.client.post("/v1/sagas", content=content, headers=headers)
    assert problem(answer, 400, "invalid-input")["field"].startswith(field)


async def test_lists_are_filtered_and_paged(service: House) -> None:
    kept = [await service.run(), await service.run(workflow_type="trip"), await service.run(tenant_id="other")]
    parked = await service.run(*PARKS)

    async def ids(**query: Any) -> set[str]:
        answer = await service.client.get("/v1/sagas", params=query)
        assert answer.status_code == 200, answer.text
        return {each["saga_id"] for each in answer.json()["sagas"]}

    assert await ids() == {*kept, parked}
    assert await ids(tenant_id="other") == {kept[2]}
    assert await ids(workflow_type="trip") == {kept[1]}
    assert await ids(parked="true") == await ids(status="failed") == await ids(status="parked") == {parked}
    described = (await service.client.get("/openapi.json")).json()["paths"]["/v1/sagas"]["get"]["parameters"]
    assert "parked" in next(each["schema"]["enum"] for each in described if each["name"] == "status")
    assert await ids(status="completed", tenant_id="acme") == {kept[0], kept[1]}
    now = datetime.now(UTC)
    assert await ids(created_after=(now - timedelta(hours=1)).isoformat()) == {*kept, parked}
    assert await ids(created_before=(now - timedelta(hours=1)).timestamp()) == set()
    assert await ids(created_after=(now + timedelta(hours=1)).isoformat()) == set()
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while query.get("cursor", "") is not None:
        page = (await service.client.get("/v1/sagas", params=query)).json()
        seen += [each["saga_id"] for each in page["sagas"]]
        query["cursor"] = page["cursor"]
    assert sorted(seen) == sorted([*kept, parked])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("tenant=acme", "tenant"),
        ("tenant_id=", "tenant_id"),
        ("tenant_id=a&tenant_id=b", "tenant_id"),
        ("status=lost", "status"),
        ("parked=perhaps", "parked"),
        ("parked=true&status=completed", "parked"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=%C2%B2", "limit"),
        ("cursor=xx", "cursor"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-01T00:00:00", "created_after"),
        ("created_before=99999999999999999999", "created_before"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(service: House, query: str, field: str) -> None:
    answer = await service.client.get(f"/v1/sagas?{query}")
    assert problem(answer, 400, "invalid-input")["field"] == field


async def test_history_tells_everything_in_order(service: House) -> None:
    saga_id = await service.run()
    entries = (await service.client.get(f"/v1/sagas/{saga_id}/history")).json()["entries"]
    assert [entry["event"] for entry in entries] == [
        "saga_created", "saga_started", "step_started", "step_completed", "saga_completed",
    ]  # fmt: skip


async def test_a_parked_saga_is_retried_and_the_history_says_who_did_it(service: House) -> None:
    saga_id = await service.run(*PARKS)
    service.mended = True
    answer = await service.client.post(f"/v1/sagas/{saga_id}/retry", json={"reason": "the carrier is back"})
    assert (answer.status_code, answer.json()["saga_id"]) == (202, saga_id)
    with trio.fail_after(PATIENCE):
        assert (await service.manager.saga_handle(saga_id).result()).completed
    history = await service.manager.get_saga_history(saga_id)
    (note,) = [entry for entry in history if entry.event == "operator_retry"]
    assert note.details == {"who": "local", "reason": "the carrier is back"}


async def test_a_parked_saga_goes_on_from_a_step(service: House) -> None:
    saga_id = await service.run(PARKS[0], {**step("label"), "kind": "retriable"}, PARKS[1])
    address = f"/v1/sagas/{saga_id}/retry"
    service.mended = True
    refused = await service.client.post(address, json={"from_step": "pay"})
    assert "'pay' completed and was not undone" in problem(refused, 409, "saga-state")["detail"]
    for wrong in ("nothing", ""):
        refused = await service.client.post(address, json={"from_step": wrong})
        assert problem(refused, 400, "invalid-input")["field"] == "from_step"
    refused = await service.client.post(f"/v1/sagas/{saga_id}/cancel", json={"from_step": "label"})
    assert "from_step" in problem(refused, 400, "invalid-input")["detail"]
    assert (await service.client.post(address, json={"from_step": "label"})).status_code == 202
    with trio.fail_after(PATIENCE):
        assert (await service.manager.saga_handle(saga_id).result()).completed
    history = await service.manager.get_saga_history(saga_id)
    notes = [entry.details for entry in history if entry.event == "operator_retry"]
    assert notes[-1] == {"who": "local", "reason": "", "from_step": "label"}
    again = [entry for entry in history if (entry.event, entry.step) == ("step_completed", "label")]
    assert len(again) == 2


async def test_a_running_saga_is_cancelled(service: House) -> None:
    undone = {**step("a"), "compensation_operation": "undo"}
    saga_id = await service.start(undone, step("b", holds=True))
    assert (await service.client.post(f"/v1/sagas/{saga_id}/cancel")).status_code == 202
    with trio.fail_after(PATIENCE):
        assert (await service.manager.saga_handle(saga_id).result()).status == "compensated"


async def test_steering_that_means_nothing_is_a_conflict(service: House) -> None:
    saga_id = await service.run()
    for deed in ("cancel", "retry"):
        problem(await service.client.post(f"/v1/sagas/{saga_id}/{deed}"), 409, "saga-state")
    refused = await service.client.post(f"/v1/sagas/{saga_id}/cancel", json={"reason": "x" * 501})
    assert problem(refused, 400, "invalid-input")["field"] == "reason"
    refused = await service.client.post(f"/v1/sagas/{saga_id}/cancel", json={"why": "x"})
    assert "why" in problem(refused, 400, "invalid-input")["detail"]


@pytest.mark.parametrize("saga_id", ["nothing", "0mjq3v1y8k-6v3m2p9q4r7t-00", "%00", "%ff-00"])
async def test_what_is_not_there_is_not_found(service: House, saga_id: str) -> None:
    for path in ("", "/history", "/events"):
        problem(await service.client.get(f"/v1/sagas/{saga_id}{path}"), 404, "saga-not-found")
    for deed in ("cancel", "retry"):
        problem(await service.client.post(f"/v1/sagas/{saga_id}/{deed}"), 404, "saga-not-found")
