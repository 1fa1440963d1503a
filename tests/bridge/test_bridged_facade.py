"""Every method of the manager, from every kind of program."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge.hosts import HOSTS, Host, a_manager
from dotmac.tasks import BackgroundOperationsManager, HandlerContext, SagaHandle, SagaHistory
from dotmac.tasks.facade.claims import KeyedRequest

NOT_HERE = {"start", "stop", "start_ahead", "finish_claim_later"}  # the hosts call them, and the middleware

STEPS = [{"name": "A", "operation": "work", "compensation_operation": "undo"}]
SAGA: dict[str, Any] = {"tenant_id": "t", "workflow_type": "w", "steps": STEPS}
PARKED: dict[str, Any] = {**SAGA, "steps": [{"name": "A", "operation": "break", "kind": "pivot", "max_retries": 0}]}
LONG: dict[str, Any] = {**SAGA, "steps": [{"name": "A", "operation": "wait"}]}
OPERATION: dict[str, Any] = {"tenant_id": "t", "user_id": "u", "operation_type": "work", "parameters": {"n": 1}}


class Holder:
    def __init__(self) -> None:
        self.granted: list[float] = []

    def granted_for(self, seconds: float) -> None:
        self.granted.append(seconds)

    def lose(self) -> None:
        raise AssertionError("it is not lost")


class Noting:
    """The manager, noting which of its methods are used."""

    def __init__(self, manager: BackgroundOperationsManager) -> None:
        self.manager = manager
        self.used: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.used.add(name)
        return getattr(self.manager, name)


def a_full_manager(**settings: Any) -> BackgroundOperationsManager:
    manager = a_manager(**settings)
    register(manager)
    return manager


def register(manager: BackgroundOperationsManager) -> None:
    fixed = {"broken": True}

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        context.heartbeat()
        return {"done": parameters}

    @manager.register_compensation_handler("undo")
    async def undo(parameters: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()

    @manager.register_operation_handler("break")
    async def break_once(parameters: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()
        if fixed.pop("broken", False):
            raise TimeoutError("nobody knows")

    @manager.register_operation_handler("wait")
    async def wait(parameters: dict[str, Any]) -> None:
        await anyio.sleep_forever()


async def use_sagas(manager: Any) -> None:
    saga = await manager.create_saga_workflow(**SAGA)
    assert await manager.execute_saga_workflow(saga.saga_id) is True
    assert (await manager.get_saga(saga.saga_id)).status == "completed"
    assert (await manager.get_saga_history(saga.saga_id))[-1].event == "saga_completed"
    assert [found.saga_id for found in (await manager.list_sagas(tenant_id="t")).sagas] == [saga.saga_id]
    await manager.add_saga_note(saga.saga_id, "seen", {"by": "ada"})
    assert (await manager.get_saga_history(saga.saga_id))[-1].event == "seen"
    history = SagaHistory(saga.saga_id)
    assert await manager.extend_saga_history(history) == "completed"
    assert history.entries[-1].event == "seen"
    assert (await manager.count_sagas())["completed"] == 1
    assert len(await manager.list_workers()) == 1
    assert (await manager.handler_load()).limits[0].name == "max_running"
    assert await manager.examine()
    handle = await manager.start_saga(**SAGA)
    assert (await handle.result()).results == {"A": {"done": {}}}
    assert await handle.status() == "completed"
    assert (await manager.saga_handle(handle.saga_id).get()).saga_id == handle.saga_id
    parked = await manager.start_saga(**PARKED)
    assert (await parked.result()).status == "failed"
    again = await manager.retry_saga(parked.saga_id, "mended")
    assert (await again.result()).status == "completed"
    for by_handle in (True, False):
        long = await manager.start_saga(**LONG)
        if by_handle:
            await long.cancel("enough")
        else:
            await manager.cancel_saga(long.saga_id, "enough")
        assert (await long.result()).error == "cancelled: enough"


async def use_operations(manager: Any) -> None:
    key = await manager.create_idempotency_key(**OPERATION)
    assert (await manager.check_idempotency(key.key)).status == "pending"
    assert (await manager.complete_idempotent_operation(key.key, {"m": 1})).result == {"m": 1}
    assert await manager.check_idempotency("unknown") is None
    assert [found.key for found in (await manager.list_idempotency_keys("t")).keys] == [key.key]
    assert await manager.run_idempotent(**{**OPERATION, "parameters": {"n": 2}}) == {"done": {"n": 2}}


async def use_locks(manager: Any) -> None:
    async with manager.lock("a", ttl=5) as held:
        before = held.deadline
        await held.extend(60)
        assert held.deadline > before + 40
        assert held.fence > 0
        assert [lock.name for lock in await manager.list_locks()] == ["a"]
        assert (await manager.inspect_lock("a")).held == (await manager.list_locks())[0]
    async with manager.lock(["b", "a"]) as several:
        assert list(several) == ["a", "b"]
        assert several["a"].fence > held.fence
        await several.extend(20)
        assert several.deadline <= several["a"].deadline
    async with manager.try_lock("a") as free:
        assert free is not None
    assert await manager.acquire_lock("a", 10) is True
    assert await manager.acquire_lock("a", 10) is False
    async with manager.try_lock("a") as taken:
        assert taken is None
    await manager.release_lock("a")
    assert await manager.list_locks() == []


async def use_claims(manager: Any) -> None:
    async def claim(key: str) -> Any:
        request = KeyedRequest(
            record_key=key, tenant_id="t", user_id=None, operation_type="o", fingerprint="f", ttl=60.0, lease=30.0
        )
        holder = Holder()
        answer = await manager.begin_claim(request, holder, owner="test")
        assert len(holder.granted) == (answer.outcome == "granted")
        assert all(20.0 < seconds <= 28.5 for seconds in holder.granted)
        return answer

    first = await claim("k1")
    assert (await claim("k1")).outcome == "in_progress"
    await manager.finish_claim(first.claim, b"{}")
    assert (await claim("k1")).outcome == "done"
    await manager.abandon_claim((await claim("k2")).claim)
    second = await claim("k2")
    assert second.outcome == "granted"
    await manager.leave_claim(second.claim)
    assert (await claim("k2")).outcome == "in_progress"
    third = await claim("k3")
    fields: dict[str, Any] = {
        "tenant_id": "t",
        "workflow_type": "w",
        "timeout_seconds": None,
        "priority": 0,
        "metadata": {},
    }
    handle = await manager.start_saga_under_claim(third.claim, fields, STEPS)
    assert isinstance(handle, SagaHandle)
    assert (await handle.result()).status == "completed"


USES: list[Callable[[Any], Awaitable[None]]] = [use_sagas, use_operations, use_locks, use_claims]


async def use_everything(manager: BackgroundOperationsManager) -> set[str]:
    noting = Noting(manager)
    for use in USES:
        await use(noting)
    return noting.used


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_every_method_does_the_same_from_everywhere(host: Host[set[str]]) -> None:
    used = host(a_full_manager(), use_everything)
    coroutine_methods = {
        name
        for name, value in inspect.getmembers(BackgroundOperationsManager)
        if inspect.iscoroutinefunction(value) and not name.startswith("_")
    }
    assert used == (coroutine_methods | {"lock", "try_lock", "saga_handle"}) - NOT_HERE


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_decorated_operation_can_be_called_from_everywhere(host: Host[Any]) -> None:
    manager = a_manager()

    @manager.idempotent("greet")
    async def greet(parameters: dict[str, Any]) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        return {"hello": parameters["name"]}

    async def program(manager: BackgroundOperationsManager) -> Any:
        return await greet({"name": "you"}, tenant_id="t")

    assert host(manager, program) == {"hello": "you"}
