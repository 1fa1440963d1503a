"""While the storage is away, requests fail at once; one probe finds the server back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from degradation.house import house, until
from degradation.troubles import gone, loading, paused, read_only
from dotmac.tasks import (
    BackgroundOperationsManager,
    BackgroundOperationsMiddleware,
    IdempotencyOptions,
    StorageRefused,
    StorageUnavailable,
)
from dotmac.tasks.metrics import register_metrics_hooks
from dotmac.tasks.observability.prometheus import PrometheusMetrics
from dotmac.tasks.storage.patience import is_patient
from dotmac.tasks.storage.redis import RedisStorage
from dotmac.tasks.storage.redis.gateway import RedisClient, open_client
from dotmac.tasks.storage.redis.options import RedisOptions
from middleware.apps import answer, app_of
from middleware.asgi_client import Client
from support.proxy import Fault, FaultProxy
from support.servers import Server

SOCKET_TIMEOUT = 0.5
AWAY: dict[str, Callable[..., Any]] = {"killed": gone, "stopped": paused}
MANY = 50
"""Calls that together would take far longer than `MANY_IN` if each of them waited for a time-out."""
MANY_IN = 20 * SOCKET_TIMEOUT


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[RedisClient]:
    async with open_client(RedisOptions.from_url(url, socket_timeout=SOCKET_TIMEOUT)) as client:
        await client.execute("PING", timeout=30)
        yield client


@contextmanager
def told() -> Iterator[list[str]]:
    """The breakers that opened and closed, in order."""
    seen: list[str] = []
    remove = register_metrics_hooks(
        storage_breaker_opened_hook=lambda _node, _tenant: seen.append("opened"),
        storage_breaker_closed_hook=lambda _node, _tenant: seen.append("closed"),
    )
    try:
        yield seen
    finally:
        remove()


async def _is_away(client: RedisClient) -> None:
    with pytest.raises(StorageUnavailable):
        await client.execute("PING")
    await until(lambda: client.status()[0].away)


@pytest.mark.parametrize("kind", AWAY)
async def test_calls_fail_at_once_after_a_whole_time_out_without_an_answer(
    server: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(server.url) as client:
        with told() as seen:
            async with AWAY[kind](server):
                await _is_away(client)
                with trio.fail_after(MANY_IN):
                    for _ in range(MANY):
                        with pytest.raises(StorageUnavailable, match=r"has not answered since .* UTC \(.+\)"):
                            await client.execute("PING")
            assert await client.execute("PING", timeout=30) == b"PONG"
            assert await client.execute("PING") == b"PONG"
        assert seen == ["opened", "closed"]
    logged = [record.message for record in caplog.records if "breaker" in record.name]
    assert ["at once" in logged[0], "again" in logged[1], len(logged)] == [True, True, 2]


async def test_a_connection_that_swallows_everything_is_replaced_by_a_probe(server: Server) -> None:
    async with FaultProxy((server.host, server.port)) as proxy, client_of(proxy.url) as client:
        proxy.script(*[Fault.STALL_REQUEST] * 3)
        await _is_away(client)
        with trio.fail_after(MANY_IN):
            for _ in range(MANY):
                with pytest.raises(StorageUnavailable):
                    await client.execute("PING")
                if not client.status()[0].away:  # the third connection is good
                    break
        proxy.calm()
        assert await client.execute("PING", timeout=30) == b"PONG"


async def test_a_dropped_connection_opens_nothing(server: Server) -> None:
    async with client_of(server.url) as client:
        with told() as seen:
            for _ in range(5):
                server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                assert await client.execute("PING", repeatable=True) == b"PONG"
        assert seen == []


async def test_background_work_waits_and_is_carried_out_when_the_server_returns(server: Server) -> None:
    async with client_of(server.url) as client:
        pushed = trio.Event()

        async def work() -> None:
            is_patient.set(True)
            while not pushed.is_set():
                try:
                    await client.execute("SET", "done", "1", repeatable=True)
                    pushed.set()
                except StorageUnavailable:
                    waited.set()

        waited = trio.Event()
        async with gone(server), trio.open_nursery() as nursery:
            await _is_away(client)
            nursery.start_soon(work)
            await waited.wait()  # its own deadline, not the breaker, ended the first try
            assert client.status()[0].away
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            with trio.fail_after(30):
                await pushed.wait()


@pytest.mark.parametrize("trouble", [loading, read_only])
async def test_a_server_that_answers_and_refuses_is_asked_once_for_each_call(
    server: Server, trouble: Callable[..., Any]
) -> None:
    async with house(server, worker_lease=30.0) as home, trouble(server):
        await until_refused(home.manager)
        with trio.fail_after(MANY_IN):
            for _ in range(MANY):
                with pytest.raises((StorageRefused, StorageUnavailable)):
                    await home.manager.create_idempotency_key(
                        tenant_id="t", user_id=None, operation_type="act", key="k"
                    )


async def until_refused(manager: BackgroundOperationsManager) -> None:
    """Call until the refusals have lasted for longer than a time-out."""
    until = trio.current_time() + 2 * SOCKET_TIMEOUT
    while trio.current_time() < until:
        with pytest.raises((StorageRefused, StorageUnavailable)):
            await manager.create_idempotency_key(tenant_id="t", user_id=None, operation_type="act", key="k")


@pytest.mark.parametrize("policy", ["pass", "reject"])
@pytest.mark.parametrize("kind", AWAY)
async def test_keyed_requests_are_answered_at_once_while_the_storage_is_away(
    server: Server, kind: str, policy: Any
) -> None:
    ran: list[str] = []

    async def order(_scope: Any, _body: bytes, send: Any) -> None:
        ran.append("order")
        await answer(send, 201)

    metrics = PrometheusMetrics()
    remove = metrics.install()
    async with house(server, worker_lease=2.0) as home:
        options = IdempotencyOptions(on_storage_error=policy)
        client = Client(BackgroundOperationsMiddleware(app_of(order), home.manager, options=options))
        assert (await client.post(key="before")).status == 201
        async with AWAY[kind](server):
            await client.post(key="first")
            await until(lambda: b'storage_breaker_open{node="127' in metrics.text())
            ran.clear()
            with trio.fail_after(MANY_IN):
                for turn in range(MANY):
                    response = await client.post(key=f"k{turn}")
                    if policy == "pass":
                        assert response.header("idempotency-degraded") == "storage-unavailable"
                    else:
                        assert (response.status, response.header("retry-after")) == (503, "5")
                await until(lambda: home.worker is None)
                for _ in range(MANY):
                    with pytest.raises(StorageUnavailable):
                        await home.manager.list_sagas()
            assert len(ran) == (MANY if policy == "pass" else 0)
        await until(lambda: b"storage_breaker_open{" in metrics.text() and b"} 0.0" in metrics.text())
        with trio.fail_after(30):
            while not (await client.post(key="before")).replayed:  # noqa: ASYNC110 - nothing announces the return
                await trio.sleep(0.05)
    remove()


async def test_an_app_without_a_lifespan_tries_to_start_for_one_request_at_a_time() -> None:
    async def order(_scope: Any, _body: bytes, send: Any) -> None:
        await answer(send, 201)

    manager = BackgroundOperationsManager(RedisStorage("redis://127.0.0.1:1", socket_timeout=SOCKET_TIMEOUT))
    client = Client(BackgroundOperationsMiddleware(app_of(order), manager))
    with trio.fail_after(MANY_IN):
        for turn in range(MANY):
            response = await client.post(key=f"k{turn}")
            assert response.header("idempotency-degraded") == "storage-unavailable"


async def test_a_saga_is_watched_without_waiting_for_a_subscription(server: Server) -> None:
    async with house(server, worker_lease=30.0) as home, house(server, worker_lease=30.0) as elsewhere:
        handle = elsewhere.manager.saga_handle((await home.start("a")).saga_id)
        async with gone(server):
            with pytest.raises(StorageUnavailable):
                await handle.result()
            with trio.fail_after(MANY_IN):
                for _ in range(MANY):
                    with pytest.raises(StorageUnavailable):
                        await handle.result()
        home.gate.set()


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
