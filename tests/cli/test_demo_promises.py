"""A check that cannot fail checks nothing: true runs keep every promise, and each change to their facts breaks one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from dotmac.tasks import OperationStatus, SagaHistoryEntry, SagaWorkflow
from dotmac.tasks.demo import promises
from dotmac.tasks.demo.ledger import Entry
from dotmac.tasks.demo.sagas import TENANT, DemoSaga, onboarding, order_interrupted, order_without_courier
from dotmac.tasks.demo.stage import Stage, memory_stage


@dataclass
class Facts:
    saga: SagaWorkflow
    history: list[SagaHistoryEntry]
    entries: list[Entry]

    def broken(self, check: promises.Check) -> list[str]:
        return [finding.text for finding in check(self.saga, self.history, self.entries) if not finding.kept]


async def facts_of(stage: Stage, saga_id: str) -> Facts:
    await stage.manager.saga_handle(saga_id).result()
    saga, history = await stage.manager.get_saga(saga_id), await stage.manager.get_saga_history(saga_id)
    return Facts(saga, history, stage.ledger.entries(saga_id))


async def run_here(stage: Stage, saga: DemoSaga) -> Facts:
    handle = await stage.manager.start_saga(tenant_id=TENANT, workflow_type=saga.workflow_type, steps=saga.steps)
    return await facts_of(stage, handle.saga_id)


async def lose_and_take_over(stage: Stage) -> Facts:
    async with stage.doomed() as runtime:
        saga_id = await runtime.start_saga(order_interrupted(20.0))
        # Longer than its first two steps take to reach the charge, shorter than the charge takes to answer.
        await trio.sleep(1.5)
        await runtime.kill()
    return await facts_of(stage, saga_id)


def in_progress(facts: Facts) -> None:
    facts.saga.status = OperationStatus.IN_PROGRESS


def tried_once(facts: Facts) -> None:
    facts.saga.steps[1].attempts = 1


def refunded_at_once(facts: Facts) -> None:
    facts.saga.steps[1].compensation_attempts = 1


def undone_forwards(facts: Facts) -> None:
    undone = [entry for entry in facts.history if entry.event == "compensation_completed"]
    undone[0].step, undone[1].step = undone[1].step, undone[0].step


def nothing_undone(facts: Facts) -> None:
    facts.history = [entry for entry in facts.history if entry.event != "compensation_completed"]


def nobody_adopted(facts: Facts) -> None:
    facts.history = [entry for entry in facts.history if entry.event != "saga_adopted"]


def first_step_again(facts: Facts) -> None:
    started = next(entry for entry in facts.history if entry.event == "step_started")
    facts.history.append(replace(started, attempt=2))


def done_twice(facts: Facts) -> None:
    facts.entries.append(facts.entries[0])


def not_done(facts: Facts) -> None:
    facts.entries.pop()


def same_fence(facts: Facts) -> None:
    facts.entries = [msgspec.structs.replace(entry, fence=1) for entry in facts.entries]


def another_token(facts: Facts) -> None:
    first, *others = facts.entries
    facts.entries = [
        first,
        *(entry if entry.performed else msgspec.structs.replace(entry, token=first.token) for entry in others),
    ]


Tamper = Callable[[Facts], None]
SUCCESS: list[Tamper] = [in_progress, tried_once, done_twice, not_done]
COMPENSATION: list[Tamper] = [in_progress, refunded_at_once, undone_forwards, nothing_undone, done_twice, not_done]
TAKEOVER: list[Tamper] = [
    in_progress,
    nobody_adopted,
    first_step_again,
    same_fence,
    another_token,
    done_twice,
    not_done,
]


@pytest.mark.parametrize("tamper", SUCCESS)
async def test_success(tamper: Tamper, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with memory_stage(tmp_path, 0.5) as stage:
        facts = await run_here(stage, onboarding())
    assert_breaks(facts, promises.of_success, tamper)


@pytest.mark.parametrize("tamper", COMPENSATION)
async def test_compensation(tamper: Tamper, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with memory_stage(tmp_path, 0.5) as stage:
        facts = await run_here(stage, order_without_courier())
    assert_breaks(facts, promises.of_compensation, tamper)


@pytest.mark.parametrize("tamper", TAKEOVER)
async def test_takeover(tamper: Tamper, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with memory_stage(tmp_path, 0.5) as stage:
        facts = await lose_and_take_over(stage)
    assert_breaks(facts, promises.of_takeover, tamper)


def assert_breaks(facts: Facts, check: promises.Check, tamper: Tamper) -> None:
    assert facts.broken(check) == []
    tamper(facts)
    assert len(facts.broken(check)) == 1
