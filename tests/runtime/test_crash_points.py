"""A fault at every word between a worker and its storage: the saga's end is always true, and nothing is left behind."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, OperationStatus, StorageUnavailable
from runtime.nodes import (
    Fault,
    Ledger,
    Node,
    Wire,
    at_call,
    die_after,
    die_before,
    lose_reply,
    only_saga,
    refuse,
    step,
    until,
)

FAULTS = {"refused": refuse, "reply lost": lose_reply, "killed before": die_before, "killed after": die_after}
NAMES = ["a", "b", "c"]
ONCE = {"max_retries": 0}


@dataclass
class Life:
    """A saga that is to live, and what must have come of it in the end."""

    steps: list[dict[str, Any]]
    end: OperationStatus
    done: set[str]
    undone: set[str] = field(default_factory=set)
    failing: tuple[str, ...] = ()


LIVES = {
    "completes": Life([step(name) for name in NAMES], OperationStatus.COMPLETED, {"a", "b", "c"}),
    "turns back": Life(
        [step("a"), step("b"), step("c", retry={"max_retries": 1})],
        OperationStatus.COMPENSATED,
        {"a", "b"},
        {"undo a", "undo b"},
        ("c",),
    ),
    "is parked": Life(
        [step("a", compensation_retry=ONCE), step("b"), step("c", retry=ONCE)],
        OperationStatus.FAILED,
        {"a", "b"},
        {"undo b"},
        ("c", "undo a"),
    ),
    "passes its pivot": Life(
        [step("a"), step("b", kind="pivot"), step("c", kind="retriable")], OperationStatus.COMPLETED, {"a", "b", "c"}
    ),
}


async def live(life: Life, fault: Fault) -> None:
    """Run the saga in a process that meets the fault, beside a healthy one, and judge what came of it."""
    shared, ledger = MemoryStorage(), Ledger()
    ledger.failing = {name: ValueError("no") for name in life.failing}
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        first, second = Node(shared, ledger.register), Node(shared, ledger.register)
        first.wire.fault = fault
        await second.manager.start()
        nursery.start_soon(_main, first, life.steps, over)
        await over.wait()
        # A start that failed without a trace is a start that failed; any other comes to its end.
        await until(lambda: (head := only_saga(shared)) is None or (head.status.is_final and head.owner is None))
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await second.manager.stop()
    if only_saga(shared) is None:
        assert not ledger.entered
    else:
        assert only_saga(shared).status is life.end
        judge(ledger, life)


async def _main(node: Node, steps: list[dict[str, Any]], over: trio.Event) -> None:
    async def work() -> None:
        async with node:
            with suppress(StorageUnavailable):
                await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
            over.set()
            await trio.sleep_forever()

    await node.run(work)
    over.set()


def judge(ledger: Ledger, life: Life) -> None:
    forward = [name for name in ledger.effects if not name.startswith("undo ")]
    backward = [name for name in ledger.effects if name.startswith("undo ")]
    assert ledger.effects == forward + backward, "a step ran after undoing had begun"
    assert forward == sorted(forward), "a step ran again after a later one had begun"
    assert backward == sorted(backward, reverse=True), "undone out of order"
    # The step that fails may have been cut off by the death of its process; then it is undone too.
    assert (set(forward), set(backward) - {"undo c"}) == (life.done, life.undone)
    assert all(len(tokens) == 1 for tokens in ledger.tokens.values()), "a token changed between attempts"


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("kind", FAULTS)
async def test_a_fault_at_any_verb_that_changes_something(autojump_clock: MockClock, life: str, kind: str) -> None:
    met: list[str] = []

    async def fault(wire: Wire, verb: str, call: Any) -> Any:
        met.append(verb)
        return await FAULTS[kind](wire, verb, call)

    k = 0
    while len(met) == k:  # every fault so far was met; the first that is not lies beyond the saga's life
        await live(LIVES[life], at_call(k, fault))
        k += 1
    assert met.count("append") >= len(NAMES)
    assert {"register_worker", "create_saga"} <= set(met)
