"""Many sagas, many processes, and nothing that can be relied on: whatever the order of the mishaps, the end is true."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, OperationStatus
from runtime.nodes import Fault, Ledger, Node, die_after, die_before, lose_reply, refuse, step, until

SAGAS = 12
PATIENT = {"max_retries": 500, "initial_delay": 0.5, "max_delay": 5.0}


def weather(chance: random.Random) -> Fault:
    async def fault(wire: Any, verb: str, call: Any) -> Any:
        luck = chance.random()
        if luck < 0.08:
            return await refuse(wire, verb, call)
        if luck < 0.16:
            return await lose_reply(wire, verb, call)
        if luck < 0.166:
            return await die_before(wire, verb, call)
        if luck < 0.172:
            return await die_after(wire, verb, call)
        await trio.sleep(chance.random() * 0.2)
        return await call()

    return fault


def steps_of(number: int) -> list[dict[str, Any]]:
    last = {"parameters": {"name": f"{number} c", "fail": number % 3 == 0}, "operation": "maybe"}
    return [
        step(f"{number} a", retry=PATIENT, compensation_retry=PATIENT),
        step(f"{number} b", retry=PATIENT, compensation_retry=PATIENT),
        step(f"{number} c", retry=PATIENT | {"non_retryable": ["ValueError"]}, compensation_retry=PATIENT) | last,
    ]


async def process(shared: MemoryStorage, ledger: Ledger, chance: random.Random) -> None:
    """A process that is started again whenever it is killed."""

    def register(manager: Any) -> None:
        ledger.register(manager)

        async def maybe(parameters: dict[str, Any], context: Any) -> Any:
            if parameters["fail"]:
                raise ValueError("no")
            return await ledger._do(parameters, context)

        manager.register_operation_handler("maybe", maybe)

    while True:
        node = Node(shared, register, worker_lease=5.0)

        async def work(node: Node = node) -> None:
            async with node:
                node.wire.fault = weather(chance)
                with trio.move_on_after(chance.uniform(1, 30)):
                    await trio.sleep_forever()
                if chance.random() < 0.5:
                    await node.kill()

        await node.run(work)


@pytest.mark.parametrize("seed", range(12))
async def test_every_saga_ends_truly_in_a_storm(autojump_clock: MockClock, seed: int) -> None:
    chance = random.Random(seed)
    shared, ledger = MemoryStorage(), Ledger()
    async with Node(shared, ledger.register) as submitter, trio.open_nursery() as nursery:
        submitter.manager.register_operation_handler("maybe", ledger._do)
        ids = [
            (await submitter.manager.create_saga_workflow("t", "w", steps_of(number))).saga_id
            for number in range(SAGAS)
        ]
        for saga_id in ids:  # announced, and left to the others
            shared._set_due(saga_id, shared.now())
        await submitter.manager.stop()
        for _ in range(3):
            nursery.start_soon(process, shared, ledger, chance)
        await until(lambda: all(saga.meta.status.is_final for saga in shared._sagas.values()), 3600)
        nursery.cancel_scope.cancel()
    assert [shared._sagas[saga_id].meta.status for saga_id in ids] == [
        OperationStatus.COMPENSATED if number % 3 == 0 else OperationStatus.COMPLETED for number in range(SAGAS)
    ]
    judge(ledger)


def judge(ledger: Ledger) -> None:
    by_saga: dict[str, list[str]] = defaultdict(list)
    for effect in ledger.effects:
        by_saga[effect.removeprefix("undo ").split()[0]].append(effect)
    for number, effects in by_saga.items():
        forward = [effect for effect in effects if not effect.startswith("undo")]
        backward = [effect for effect in effects if effect.startswith("undo")]
        assert effects == forward + backward
        assert forward == sorted(forward)
        assert backward == sorted(backward, reverse=True)
        if int(number) % 3 == 0:
            assert set(forward) == {f"{number} a", f"{number} b"}
            assert set(backward) >= {f"undo {number} a", f"undo {number} b"}
        else:
            assert (set(forward), backward) == ({f"{number} {name}" for name in "abc"}, [])
