"""Every reply of the server is lost once, one run for each: nothing is lost with it, nothing is done twice."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, NonRetryableError, OperationStatus
from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import claim
from support.proxy import Fault, FaultProxy
from support.servers import Server

pytestmark = pytest.mark.redis
REPLIES = 40  # more than a run needs: the last ones find nothing to lose


@pytest.mark.parametrize("loop_host", ["trio-asyncio", "thread"])
async def test_a_saga_and_a_key_survive_the_loss_of_any_reply(server: Server, loop_host: str) -> None:
    struck = 0
    for lost in range(REPLIES):
        async with FaultProxy((server.host, server.port)) as proxy:
            proxy.script(*[Fault.NONE] * lost, Fault.LOSE_REPLY)
            await _run(f"redis://{proxy.host}:{proxy.port}/0", loop_host, lost)
            struck += Fault.LOSE_REPLY in proxy.history
    assert 15 < struck < REPLIES, "every reply of a run was lost once, and then there was none left to lose"


async def _run(url: str, loop_host: str, lost: int) -> None:
    storage = RedisStorage(url, prefix=f"test-{uuid4().hex[:8]}", loop_host=loop_host, socket_timeout=20.0)
    manager = BackgroundOperationsManager(storage, worker_lease=60.0, poll_interval=30.0)
    effects: list[str] = []

    @manager.register_operation_handler("do")
    async def do(parameters: dict[str, Any]) -> dict[str, int]:
        effects.append(f"do {parameters['what']}")
        return {"done": len(effects)}

    @manager.register_operation_handler("refuse")
    async def refuse(_parameters: dict[str, Any]) -> None:
        effects.append("refuse")
        raise NonRetryableError("no")

    @manager.register_compensation_handler("undo")
    async def undo(parameters: dict[str, Any]) -> None:
        effects.append(f"undo {parameters['what']}")

    steps = [
        {
            "name": name,
            "operation": "do",
            "parameters": {"what": name},
            "compensation_operation": "undo",
            "compensation_parameters": {"what": name},
        }
        for name in ("a", "b")
    ]
    with trio.fail_after(60):
        async with manager:
            handle = await manager.start_saga(
                tenant_id="t",
                workflow_type="w",
                steps=[*steps, {"name": "c", "operation": "refuse"}],
                idempotency_key="k",
            )
            outcome = await handle.result()
            value = await manager.run_idempotent(tenant_id="t", operation_type="do", parameters={"what": "once"})
            history = await manager.get_saga_history(handle.saga_id)
    assert outcome.status is OperationStatus.COMPENSATED, lost
    assert effects == ["do a", "do b", "refuse", "undo b", "undo a", "do once"], lost
    assert value == {"done": 6}
    sequences = [entry.sequence for entry in history if entry.sequence is not None]
    assert sorted(set(sequences)) == list(range(max(sequences) + 1)), lost


async def test_a_deletion_that_is_sent_again_leaves_a_record_that_was_made_since(server: Server) -> None:
    """It would take the claim from under whoever is at work."""
    storage = RedisStorage(server.url, prefix=f"test-{uuid4().hex[:8]}")
    async with storage.opened():
        await claim(storage)
        sent: list[list[Any]] = []
        run = storage.client.run

        async def note(script: Any, keys: Any = (), args: Any = (), **options: Any) -> Any:
            if script.name == "record_delete":
                sent.append([script, keys, args, options])
            return await run(script, keys, args, **options)

        storage.client.run = note  # type: ignore[method-assign]
        await storage.delete_record("key")
        held = (await claim(storage, by="b")).record
        ((script, keys, args, options),) = sent
        await run(script, keys, args, **options)
        assert await storage.get_record("key") == held
