"""Faults that an earlier implementation of this interface had on Redis: none of them may come back."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.errors import ClaimLost, LockLost, OperationFailed, StorageUnavailable
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.redis import RedisStorage
from support.proxy import Fault, FaultProxy
from support.servers import Server

pytestmark = pytest.mark.redis
REQUEST: dict[str, Any] = {"tenant_id": "t", "operation_type": "send", "parameters": {"to": "x", "cc": None}}


class Mail:
    """An operation that counts its runs, and takes until `gate` opens."""

    def __init__(self) -> None:
        self.sent = 0
        self.gate = trio.Event()

    async def send(self, _parameters: dict[str, Any]) -> dict[str, Any]:
        self.sent += 1
        await self.gate.wait()
        return {"sent": self.sent}


@asynccontextmanager
async def manager_on(
    url: str, mail: Mail, *, poll_interval: float = 0.1, **options: Any
) -> AsyncIterator[BackgroundOperationsManager]:
    manager = BackgroundOperationsManager(RedisStorage(url, "known", **options), poll_interval=poll_interval)
    manager.register_operation_handler("send", mail.send)
    async with manager:
        yield manager


async def until_quiet(proxy: FaultProxy) -> None:
    """Return when the runtime's first looks are over: what is scripted is for the next request, whoever sends it."""
    seen = -1
    while seen != len(proxy.history):
        seen = len(proxy.history)
        await trio.sleep(0.2)


async def test_1_a_key_without_user_result_and_error_can_be_created_and_read(server: Server) -> None:
    async with manager_on(server.url, Mail()) as manager:
        key = await manager.create_idempotency_key("t", None, "send")
        assert (key.user_id, key.result, key.error, key.parameters) == (None, None, None, None)
        assert await manager.check_idempotency(key.key) == key
        done = await manager.complete_idempotent_operation(key.key, None)
        assert (done.status, done.result) == (OperationStatus.COMPLETED, None)


@pytest.mark.parametrize("callers", [2, 8, 32, 64])
async def test_2_and_3_any_number_of_callers_in_several_processes_cause_one_run(server: Server, callers: int) -> None:
    mail, results = Mail(), []
    async with AsyncExitStack() as stack:
        managers = [await stack.enter_async_context(manager_on(server.url, mail)) for _ in range(4)]

        async def call(number: int) -> None:
            results.append(await managers[number % 4].run_idempotent(**REQUEST))

        async with trio.open_nursery() as nursery:
            for number in range(callers):
                nursery.start_soon(call, number)
            while not mail.sent:  # noqa: ASYNC110 - set by a handler
                await trio.sleep(0.01)
            mail.gate.set()
        assert mail.sent == 1
        assert results == [{"sent": 1}] * callers


async def test_3_creating_again_overwrites_nothing_and_only_the_claim_can_complete(server: Server) -> None:
    mail = Mail()
    async with manager_on(server.url, mail) as manager, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: manager.run_idempotent(**REQUEST))
        while not mail.sent:  # noqa: ASYNC110 - set by a handler
            await trio.sleep(0.01)
        key = await manager.create_idempotency_key("t", None, "send", parameters=REQUEST["parameters"])
        assert key.status is OperationStatus.IN_PROGRESS
        with pytest.raises(ClaimLost):
            await manager.complete_idempotent_operation(key.key, "forged")
        mail.gate.set()
        assert await manager.run_idempotent(**REQUEST) == {"sent": 1}


async def test_4_many_callers_at_once_need_no_pool(server: Server) -> None:
    async with manager_on(server.url, Mail(), max_connections=1) as manager:
        created = []

        async def create(number: int) -> None:
            created.append(await manager.create_idempotency_key("t", None, "send", key=f"k{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(create, number)
        assert len({key.key for key in created}) == 500


async def test_5_a_clean_up_removes_what_is_over_and_nothing_else(server: Server) -> None:
    async with manager_on(server.url, Mail()) as manager:
        kept = await manager.create_idempotency_key("t", None, "send", ttl=3600)
        short = await manager.create_idempotency_key("t", None, "send", key="short", ttl=0.05)
        with trio.fail_after(20):
            while await manager.check_idempotency(short.key) is not None:  # noqa: ASYNC110 - what the server knows
                await trio.sleep(0.01)
        await manager.storage.purge(100)
        assert await manager.check_idempotency(kept.key) == kept


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.DROP_REQUEST])
async def test_7_no_write_is_lost_with_the_connection(server: Server, fault: Fault) -> None:
    mail = Mail()
    mail.gate.set()
    async with (
        FaultProxy((server.host, server.port)) as proxy,
        manager_on(proxy.url, mail, socket_timeout=2.0) as manager,
        manager_on(server.url, mail) as witness,
    ):
        for number in range(10):
            proxy.script(fault)
            key = await manager.create_idempotency_key("t", None, "send", key=f"{fault.name}{number}")
            proxy.script(Fault.NONE, fault)
            await manager.complete_idempotent_operation(key.key, number)
            seen = await witness.check_idempotency(key.key)
            assert seen is not None
            assert (seen.status, seen.result) == (OperationStatus.COMPLETED, number)


async def test_7_a_reply_that_never_comes_is_an_error_and_asking_again_finds_what_was_done(server: Server) -> None:
    async with (
        FaultProxy((server.host, server.port)) as proxy,
        manager_on(proxy.url, Mail(), socket_timeout=0.5, poll_interval=60) as manager,
    ):
        await until_quiet(proxy)
        proxy.script(Fault.STALL_REPLY)
        with pytest.raises(StorageUnavailable):
            await manager.create_idempotency_key("t", None, "send", key="k")
        again = await manager.create_idempotency_key("t", None, "send", key="k")
        assert await manager.check_idempotency(again.key) == again


async def test_7_a_failure_is_stored_as_one_and_raised_as_one(server: Server) -> None:
    async with manager_on(server.url, Mail()) as manager:
        key = await manager.create_idempotency_key(**REQUEST, user_id=None)
        await manager.complete_idempotent_operation(key.key, None, error="no such mailbox")
        with pytest.raises(OperationFailed, match="no such mailbox"):
            await manager.run_idempotent(**REQUEST)


async def test_15_a_lock_is_freed_by_its_owner_only_and_its_fence_rises(server: Server) -> None:
    ours, theirs = RedisStorage(server.url, "known"), RedisStorage(server.url, "known")
    async with ours.opened(), theirs.opened():
        assert await ours.acquire_lock("invoice", 0.2)
        assert not await theirs.acquire_lock("invoice", 10)
        (first,) = await ours.list_locks(10)
        with pytest.raises(LockLost):
            await theirs.release_lock("invoice")
        with trio.fail_after(20):
            while not await theirs.acquire_lock("invoice", 10):  # noqa: ASYNC110 - what the server knows
                await trio.sleep(0.01)
        (second,) = await ours.list_locks(10)
        assert second.fence > first.fence
        with pytest.raises(LockLost):
            await ours.release_lock("invoice")
        assert not await ours.acquire_lock("invoice", 10)
        await theirs.release_lock("invoice")
        assert await ours.acquire_lock("invoice", 10)


async def test_19_sagas_are_listed_from_an_index_and_forgotten_with_everything_of_theirs(server: Server) -> None:
    mail = Mail()
    mail.gate.set()
    storage = RedisStorage(server.url, "known")
    manager = BackgroundOperationsManager(storage, saga_retention=0.01, default_ttl=0.2)
    manager.register_operation_handler("send", mail.send)
    async with manager:
        steps = [{"name": "a", "operation": "send"}]
        for tenant in ("t1", "t2", "t1"):
            handle = await manager.start_saga(tenant_id=tenant, workflow_type="w", steps=steps, idempotency_key=None)
            await handle.result()
            await storage.append_saga_history(handle.saga_id, {"event": "a note"})
        assert [saga.tenant_id for saga in (await manager.list_sagas(tenant_id="t1")).sagas] == ["t1", "t1"]
        with trio.fail_after(20):
            while (await manager.list_sagas()).sagas:
                await storage.purge(100)
                await trio.sleep(0.01)
    left = {str(key).partition("}")[2] for key in server.cli("KEYS", "*")}
    assert left <= {"", ":leases", ":infos"}, left
    stats = str(server.cli("INFO", "commandstats"))
    assert "cmdstat_scan" not in stats
    assert "cmdstat_hgetall" in stats


async def test_20_stopping_leaves_the_data_and_the_next_start_cleans_up_again(server: Server) -> None:
    mail = Mail()
    mail.gate.set()
    manager = BackgroundOperationsManager(RedisStorage(server.url, "known"), cleanup_interval=0.05, saga_retention=0.01)
    manager.register_operation_handler("send", mail.send)
    async with manager:
        key = await manager.create_idempotency_key("t", None, "send")
    async with manager:
        assert await manager.check_idempotency(key.key) == key
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[{"name": "a", "operation": "send"}])
        assert (await handle.result()).completed
        with trio.fail_after(20):
            while (await manager.list_sagas()).sagas:  # noqa: ASYNC110 - what the server knows
                await trio.sleep(0.01)


def test_20_the_namespace_is_shared_with_other_packages() -> None:
    spec = importlib.util.find_spec("dotmac")
    assert spec is not None
    assert spec.origin is None, "a regular dotmac/__init__.py would hide other dotmac.* packages"
