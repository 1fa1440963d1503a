"""What must be true of every saga, whatever happens to it: checked at each invocation and at each end.

The checks read the journal and the world, not the state that `decide` reads, wherever both could say it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dotmac.tasks.models import OperationStatus, StepKind
from dotmac.tasks.saga.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    DeadlinePassed,
    Event,
    SagaAdopted,
    SagaResumed,
    decode_events,
    encode_events,
)
from dotmac.tasks.saga.machine import fold
from dotmac.tasks.saga.snapshots import pack, unpack
from dotmac.tasks.saga.state import TrackStatus

if TYPE_CHECKING:
    from dotmac.tasks.saga.commands import Invoke
    from saga.model import Node

MAX_LOSSES = 2  # of workers in a row, for the sagas of the walks


def check_snapshot(node: Node) -> None:
    """A snapshot restores the state that it was made from."""
    state = node.live
    results = {at: 0 for at, step in enumerate(state.steps) if step.result is not None}
    given = {at: step.result for at, step in enumerate(state.steps) if step.result is not None}
    restored, fruitless = unpack(pack(state, 3), state.definition, results, lambda step, _entry: given[step])
    assert (restored, fruitless) == (state, 3)


def check_invoke(node: Node, invoke: Invoke) -> None:
    """What must be true at the moment a handler is invoked."""
    assert not node.batch, "what was recorded is not durable yet"
    attempts = [event for event in node.events if isinstance(event, AttemptStarted | AttemptSucceeded | AttemptFailed)]
    started = AttemptStarted(invoke.step, invoke.attempt, invoke.undo)
    assert attempts[-1] == started, "the attempt is not in the journal"
    assert attempts.count(started) == 1, "one attempt was invoked twice"
    assert _counted(node.events, invoke) <= _allowed(node, invoke), "more attempts than the policy allows"
    assert not node.live.status.is_final
    before = node.live.steps[: invoke.step]
    if invoke.undo:
        assert node.world.began, "an undo before the saga turned back is durable"
        assert node.live.definition.steps[invoke.step].compensation_operation is not None
        assert invoke.step <= node.world.lowest_undo, "not in reverse order"
        assert not _pivot_completed(node.events, node), "an undo after the point of no return"
        assert _may_have_happened(told(node.events), invoke.step), "an undo of what never began"
        assert invoke.deadline_at is None, "an undo is never cut off for the saga's deadline"
    else:
        assert not node.world.began, "a forward attempt after the saga turned back"
        stopped = _told_to_stop(node.events) and not _pivot_completed(node.events, node)
        assert not stopped, "a forward attempt after a cancel or the deadline was durable"
        assert all(step.forward.status is TrackStatus.DONE for step in before), "a step before its predecessors"


def check_rewinding(node: Node, step: int) -> None:
    """What must be true where an operator may let the saga go forward again from this step."""
    assert all(node.world.stands[:step]), "a step is passed over whose effect is not there"
    for index in range(step, len(node.live.steps)):
        kind = node.live.definition.steps[index].kind
        tried_last = index == step and node.live.steps[index].forward.status is TrackStatus.EXHAUSTED
        again = kind is StepKind.RETRIABLE or tried_last or not _has_undo(node, index)
        assert again or not node.world.stands[index], "an effect stands and would be done again"
    done = {event.step for event in told(node.events) if isinstance(event, AttemptSucceeded) and not event.undo}
    done -= set(_undone(node.events))
    kinds = {node.live.definition.steps[index].kind for index in done if index >= step}
    assert kinds <= {StepKind.RETRIABLE}, "a step that completed would be done again"


def told(events: list[Event]) -> list[Event]:
    """The journal without what an operator had done again: attempts at what was undone, and at undoing what stayed."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, SagaResumed) and event.from_step is not None:
            undone, first = set(_undone(kept)), event.from_step
            kept = [fact for fact in kept if not _is_void(fact, undone, first)]
        kept.append(event)
    return kept


def _is_void(fact: Event, undone: set[int], first: int) -> bool:
    if not isinstance(fact, AttemptStarted | AttemptSucceeded | AttemptFailed):
        return False
    return fact.step in undone if fact.step >= first else fact.undo


def _has_undo(node: Node, step: int) -> bool:
    return node.live.definition.steps[step].compensation_operation is not None


def check_end(node: Node) -> None:
    """What must be true where a saga rests."""
    state = node.live
    assert state.status.is_final
    assert fold(decode_events(encode_events(node.events))) == state, "the journal must tell the whole story"
    undone = _undone(told(node.events))
    assert len(undone) == len(set(undone)), "a step was compensated twice"
    if state.status is OperationStatus.COMPLETED:
        assert all(node.world.stands), "completed, and an effect is missing"
        assert not _undo_attempts(told(node.events))
    elif state.status is OperationStatus.COMPENSATED:
        assert not _pivot_completed(node.events, node)
        assert not state.open_items
        _check_undone(node, undone)
    else:
        _check_parked(node, undone)


def _check_parked(node: Node, undone: list[int]) -> None:
    state = node.live
    assert state.open_items, "parked without a reason that an operator could read"
    if node.world.began:
        _check_undone(node, undone)
        return
    assert not _undo_attempts(told(node.events))
    pivot = state.definition.steps[state.cursor].kind is StepKind.PIVOT
    unknown_pivot = pivot and _may_have_happened(node.events, state.cursor)
    poison = lost_workers(node.events, state.cursor) == MAX_LOSSES
    assert _pivot_completed(node.events, node) or unknown_pivot or poison
    assert len(state.open_items) == 1
    assert f"'{state.definition.steps[state.cursor].name}'" in state.open_items[0]


def _check_undone(node: Node, undone: list[int]) -> None:
    """Each step that happened, or may have, is undone or named; nothing else is; nothing that stands is hidden."""
    items = node.live.open_items
    for index, definition in enumerate(node.live.definition.steps):
        named = any(f"'{definition.name}'" in item for item in items)
        if definition.compensation_operation is None:
            assert not named
            continue
        happened = _may_have_happened(told(node.events), index)
        assert happened or not node.world.touched[index], "an effect that the journal does not know of"
        assert (index in undone) + named == happened, "undone or named: exactly one, and only for what happened"
        assert named or not node.world.stands[index], "an effect stands and nobody is told"
    assert len(items) == len(set(items))
    resumed = any(isinstance(event, SagaResumed) for event in node.events)
    assert resumed or undone == sorted(undone, reverse=True), "not in reverse order"


def _counted(events: list[Event], invoke: Invoke) -> int:
    """Attempts since the last resumption that no stop and no loss of a worker interrupted, the present one included."""
    count, running = 0, False
    for event in events:
        if isinstance(event, SagaResumed):
            count, running = 0, False
        elif isinstance(event, SagaAdopted):
            count, running = count - running, False
        elif not isinstance(event, AttemptStarted | AttemptSucceeded | AttemptFailed):
            continue
        elif (event.step, event.undo) == (invoke.step, invoke.undo):
            running = isinstance(event, AttemptStarted)
            count += running - (isinstance(event, AttemptFailed) and event.failure.interrupted)
    return count


def lost_workers(events: list[Event], step: int, *, undo: bool = False) -> int:
    """How many workers in a row were lost while an attempt at the step ran, up to now."""
    count, running = 0, False
    for event in events:
        if isinstance(event, SagaResumed):
            count, running = 0, False
        elif isinstance(event, SagaAdopted):
            count, running = count + running, False
        elif not isinstance(event, AttemptStarted | AttemptSucceeded | AttemptFailed):
            continue
        elif (event.step, event.undo) == (step, undo):
            running = isinstance(event, AttemptStarted)
            interrupted = isinstance(event, AttemptFailed) and event.failure.interrupted
            count = count if running or interrupted else 0
    return count


def _told_to_stop(events: list[Event]) -> bool:
    """Whether the saga was cancelled or out of time, and no operator has overruled that since."""
    stopped = False
    for event in events:
        if isinstance(event, CancelRequested | DeadlinePassed):
            stopped = True
        elif isinstance(event, SagaResumed):
            stopped = False
    return stopped


def _allowed(node: Node, invoke: Invoke) -> int:
    definition = node.live.definition.steps[invoke.step]
    return (definition.compensation_retry if invoke.undo else definition.retry).max_retries + 1


def _undone(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, AttemptSucceeded) and event.undo]


def _undo_attempts(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, AttemptStarted) and event.undo]


def _pivot_completed(events: list[Event], node: Node) -> bool:
    steps = node.live.definition.steps
    return any(
        isinstance(event, AttemptSucceeded) and not event.undo and steps[event.step].kind is StepKind.PIVOT
        for event in events
    )


def _may_have_happened(events: list[Event], step: int) -> bool:
    """Whether some forward attempt of the step ended otherwise than by a definite failure."""
    open_attempts = 0
    for event in events:
        if isinstance(event, AttemptStarted) and not event.undo and event.step == step:
            open_attempts += 1
        elif isinstance(event, AttemptFailed) and not event.undo and event.step == step:
            open_attempts -= not event.failure.unknown
    return open_attempts > 0
