"""Locks, workers, records, health, metrics over HTTP, and what is not there."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, StorageUnavailable, __version__
from service.house import House, problem


async def test_locks_and_workers_are_listed(service: House) -> None:
    async with service.manager.lock("invoice:42") as held:
        (lock,) = (await service.client.get("/v1/locks")).json()["locks"]
    assert (lock["name"], lock["fence"], lock["waiters"]) == ("invoice:42", held.fence, 0)
    (worker,) = (await service.client.get("/v1/workers")).json()["workers"]
    assert (worker["alive"], worker["state"]) == (True, "alive")
    problem(await service.client.get("/v1/locks?limit=-1"), 400, "invalid-input")


async def test_a_lock_is_shown_with_its_queue(service: House) -> None:
    other = BackgroundOperationsManager(service.manager.storage, works=False)
    async with other, service.manager.lock("a/b 1?"), trio.open_nursery() as nursery:
        nursery.start_soon(hold, other, "a/b 1?")
        with trio.fail_after(10):
            while not (await service.manager.inspect_lock("a/b 1?")).queue:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.01)
        for name in ("a/b%201%3F", "a%2Fb%201%3F"):
            shown = (await service.client.get(f"/v1/locks/{name}")).json()
            assert (shown["name"], shown["held"]["waiters"], shown["waiters"]) == ("a/b 1?", 1, 1)
            assert [waiter["owner"] for waiter in shown["queue"]] == [shown["held"]["owner"]]
        nursery.cancel_scope.cancel()
    free = (await service.client.get("/v1/locks/nothing")).json()
    assert free == {"name": "nothing", "held": None, "queue": [], "waiters": 0}
    assert problem(await service.client.get("/v1/locks/%07"), 400, "invalid-input")["field"] == "name"
    problem(await service.client.get("/v1/locks/a%0Ab"), 404, "not-found")
    assert problem(await service.client.get("/v1/locks/a?limit=0"), 400, "invalid-input")["field"] == "limit"


async def hold(manager: BackgroundOperationsManager, name: str) -> None:
    async with manager.lock(name):
        await trio.sleep_forever()


async def test_a_record_is_found_by_both_of_its_names(service: House) -> None:
    saga_id = await service.run(headers={"Idempotency-Key": "order-17"})
    shown = (await service.client.get("/v1/operations/order-17?tenant_id=acme")).json()["operation"]
    assert (shown["status"], shown["result"]["saga_id"]) == ("completed", saga_id)
    again = await service.client.get(f"/v1/operations/{shown['key']}")
    assert again.json()["operation"] == shown
    problem(await service.client.get("/v1/operations/order-17"), 404, "key-not-found")


async def test_records_are_listed_page_by_page_without_what_they_hold(service: House) -> None:
    secret = {"card": "4111"}
    for number in range(5):
        await service.manager.create_idempotency_key("acme", None, "charge", f"order-{number}", secret)
    await service.manager.create_idempotency_key("other", None, "charge", "order-0")
    found: dict[str, Any] = {}
    query: dict[str, Any] = {"tenant_id": "acme", "limit": 2}
    while query.get("cursor", "") is not None:
        answer = await service.client.get("/v1/operations", params=query)
        assert "4111" not in answer.text
        assert "order-" not in answer.text
        page = answer.json()
        found |= {key["key"]: key for key in page["keys"]}
        query["cursor"] = page["cursor"]
    shown = await service.manager.check_idempotency("order-3", tenant_id="acme")
    assert shown is not None
    assert len(found) == 5
    assert (found[shown.key]["status"], found[shown.key]["operation_type"]) == ("pending", "charge")
    assert len((await service.client.get("/v1/operations")).json()["keys"]) == 6
    assert problem(await service.client.get("/v1/operations?limit=1001"), 400, "invalid-input")["field"] == "limit"


async def test_health_follows_the_manager(service: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await service.client.get("/health/live")).json() == {"status": "alive", "version": __version__}
    ready = await service.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"], ready.json()["storage"]["state"]) == (200, "ready", "ok")

    async def away(*_arguments: Any) -> None:
        raise StorageUnavailable("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(service.manager.storage, "get_record", away)
        patch.setattr(service.manager.storage, "count_sagas", away)
        ready = await service.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert ready.headers["retry-after"] == "2"
        assert ready.json()["storage"] == {"state": "unavailable", "problem": "nobody answers"}
        assert (await service.client.get("/health/live")).status_code == 200
        assert b"dotmac_tasks_attempts_started" in (await service.client.get("/metrics")).content
        refused = await service.client.get("/v1/operations/a")
        assert problem(refused, 503, "storage-unavailable")["detail"] == "nobody answers"
        assert refused.headers["retry-after"] == "2"
    service.app.state.closing.set()
    ready = await service.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
    assert ready.headers["retry-after"] == "2"


async def test_a_manager_that_does_not_run_is_no_error_of_ours(service: House) -> None:
    await service.manager.stop()
    problem(await service.client.get("/v1/workers"), 503, "not-running")
    assert (await service.client.get("/health/ready")).json()["status"] == "unavailable"


async def test_metrics_count_what_happened(service: House) -> None:
    await service.run()
    answer = await service.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'dotmac_tasks_sagas{status="completed"} 1.0' in answer.text
    assert 'dotmac_tasks_sagas_created_total{workflow_type="order"} 1.0' in answer.text


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1", "/v1/sagas/", "/nothing", "/health/nothing"])
async def test_what_is_not_there_is_a_problem_document(service: House, path: str) -> None:
    problem(await service.client.get(path), 404, "not-found")


async def test_a_method_that_is_not_possible_says_which_are(service: House) -> None:
    answer = await service.client.delete("/v1/sagas")
    problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_what_is_our_own_fault_tells_nothing_of_it(service: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_arguments: Any) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(service.manager.storage, "list_workers", broken)
    async with service.visitor() as client:
        client._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
        answer = await client.get("/v1/workers")
    problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
