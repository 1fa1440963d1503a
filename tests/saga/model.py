"""A driver of the saga kernel without a runtime: every choice of the outside world is an explicit alternative.

It does what a real driver does (decide; apply and keep each fact; append what is kept before anything with an
effect) and keeps apart what only the world knows: which effects really are there. A `Node` is one moment;
`choices` lists every way it can go on: each outcome of a handler, a death, a cancel, the deadline. The properties
that must hold on the way and at the end are in `saga.properties`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from dotmac.tasks.errors import InternalError
from dotmac.tasks.models import OperationStatus, StepKind
from dotmac.tasks.retry import RetryPolicy
from dotmac.tasks.saga.commands import Invoke, Record, Rest, Wait
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.events import (
    AttemptFailed,
    AttemptSucceeded,
    CancelRequested,
    CompensationBegan,
    Event,
    Failure,
    SagaAdopted,
    SagaCreated,
    SagaResumed,
    decode_events,
    encode_events,
)
from dotmac.tasks.saga.machine import apply, decide, fold, interruptible
from dotmac.tasks.saga.state import SagaState, Track, TrackStatus
from saga import properties

TIMEOUT = 1000.0
REFUSED = Failure("Refused", "it did not happen")
FINAL = Failure("Declined", "it never will", final=True)
TIMED_OUT = Failure("StepTimedOut", "no answer in time", unknown=True)
DRAINED = Failure("Drained", unknown=True, interrupted=True)
CANCELLED = Failure("Cancelled", unknown=True)
OUT_OF_TIME = Failure("SagaTimedOut", unknown=True)
RESULT = msgspec.Raw(b'{"id":"r-1"}')


def saga(kinds: str, *, max_retries: int = 0, timeout: float | None = TIMEOUT) -> SagaDefinition:
    """A saga from one letter a step: C compensatable, N the same without a compensation, P pivot, R retriable."""
    policy = RetryPolicy(max_retries=max_retries, initial_delay=1.0, multiplier=1.0, jitter=False)
    by_letter = {"P": StepKind.PIVOT, "R": StepKind.RETRIABLE}
    steps = tuple(
        StepDefinition(
            name=f"{letter.lower()}{index}",
            operation="do",
            kind=by_letter.get(letter, StepKind.COMPENSATABLE),
            compensation_operation="undo" if letter == "C" else None,
            retry=policy,
            compensation_retry=policy,
        )
        for index, letter in enumerate(kinds)
    )
    return SagaDefinition(f"saga-{kinds}", "tenant", "model", steps, timeout_seconds=timeout)


@dataclass(frozen=True, slots=True)
class World:
    """What is true outside, whatever the journal says.

    Attributes:
        stands: Per step, whether its effect is there now.
        touched: Per step, whether its effect ever happened.
        began: The journal says that the saga turned back, and not that it goes forward again.
        lowest_undo: The lowest step whose undo was invoked since the saga began or was resumed.
    """

    stands: tuple[bool, ...]
    touched: tuple[bool, ...]
    began: bool = False
    lowest_undo: int = 1_000_000

    def after(self, step: int, *, undo: bool) -> World:
        """The world once this effect has happened."""
        stands = (*self.stands[:step], not undo, *self.stands[step + 1 :])
        touched = self.touched if undo else (*self.touched[:step], True, *self.touched[step + 1 :])
        return replace(self, stands=stands, touched=touched)

    def going_forward_from(self, step: int) -> World:
        """The world once it is durable that the saga goes forward again from here: what was undone never was."""
        return replace(self, touched=(*self.touched[:step], *self.stands[step:]), began=False)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much more may come from outside: deaths of workers, orderly stops, cancels, and decisions of an operator."""

    deaths: int = 0
    stops: int = 0
    cancels: int = 0
    resumes: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One moment of a saga.

    Attributes:
        live: The state in the owner's memory.
        saved: The fold of what is durable.
        batch: Facts applied and not yet appended.
        entries: The durable journal.
        calm: From here on every handler succeeds and nothing comes from outside.
    """

    live: SagaState
    saved: SagaState
    batch: tuple[Event, ...]
    entries: tuple[tuple[Event, ...], ...]
    world: World
    left: Budget
    now: float = 0.0
    calm: bool = False

    @property
    def events(self) -> list[Event]:
        """All that is durable."""
        return [event for entry in self.entries for event in entry]

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for two moments that have the same future, whatever their past."""
        saved = _state_key(self.saved, self.now) if self.batch else None
        return _state_key(self.live, self.now), saved, self.world, self.left, self.calm


Choice = tuple[str, Node]


def begin(definition: SagaDefinition, left: Budget) -> Node:
    """The moment after the saga was created."""
    created: tuple[Event, ...] = (SagaCreated(definition),)
    state = fold(created)
    nothing = (False,) * len(definition.steps)
    return Node(state, state, (), (created,), World(nothing, nothing), left)


def choices(node: Node) -> list[Choice]:
    """Every way to go on, each with its name; the first is the undisturbed one. Empty: it is over.

    Raises:
        AssertionError: A property does not hold here.
    """
    command = decide(node.live, node.now, 0.5, properties.MAX_LOSSES)
    if isinstance(command, Rest) and not node.batch:
        properties.check_end(node)
        return list(_resumptions(node))
    return [*_moves(node, command), *_interventions(node)]


def play(node: Node, *script: str) -> Node:
    """Where the saga ends if each named choice is taken once it is on offer, and else the undisturbed one."""
    names = list(script)
    while ways := choices(node):
        offered = dict(ways)
        node = offered[names.pop(0)] if names and names[0] in offered else ways[0][1]
    assert not names, f"never on offer: {names}"
    return node


def _moves(node: Node, command: Record | Invoke | Wait | Rest) -> Iterator[Choice]:
    if isinstance(command, Record):
        yield "record", recorded(node, command.event)
    elif node.batch:
        yield "append", _appended(node)
    elif isinstance(command, Wait):
        assert command.until > node.now, "a wait that is over already would spin"
        yield "wait", replace(node, now=command.until)
    else:
        assert isinstance(command, Invoke)
        properties.check_invoke(node, command)
        yield from _outcomes(node, command)


def _outcomes(node: Node, invoke: Invoke) -> Iterator[Choice]:
    step, attempt, undo = invoke.step, invoke.attempt, invoke.undo
    way = "undo" if undo else "forward"
    if undo:
        node = replace(node, world=replace(node.world, lowest_undo=step))
    done = replace(node, world=node.world.after(step, undo=undo))
    result = msgspec.Raw(b"null") if undo else RESULT
    yield f"{way} succeeds", recorded(done, AttemptSucceeded(step, attempt, undo, result))
    if node.calm:
        return
    yield f"{way} refused", recorded(node, AttemptFailed(step, attempt, REFUSED, undo))
    yield f"{way} finally refused", recorded(node, AttemptFailed(step, attempt, FINAL, undo))
    for after, truth in ((done, "happened"), (node, "did not happen")):
        yield f"{way} timed out, {truth}", recorded(after, AttemptFailed(step, attempt, TIMED_OUT, undo))
        if node.left.deaths:
            yield f"died in {way}, {truth}", _adopted(after)
        if node.left.stops:
            cut = AttemptFailed(step, attempt, DRAINED, undo)
            stopped = replace(after, left=replace(after.left, stops=after.left.stops - 1))
            yield f"stopped in {way}, {truth}", recorded(stopped, cut)
        if node.left.cancels and interruptible(node.live):
            cut = AttemptFailed(step, attempt, CANCELLED, undo)
            yield f"cancelled in {way}, {truth}", recorded(_spend_cancel(after), CancelRequested("operator"), cut)
        if invoke.deadline_at is not None:
            late = replace(after, now=max(node.now, invoke.deadline_at))
            yield f"{way} out of time, {truth}", recorded(late, AttemptFailed(step, attempt, OUT_OF_TIME, undo))


def _interventions(node: Node) -> Iterator[Choice]:
    if node.calm:
        return
    if node.left.deaths:
        yield ("died before an append" if node.batch else "died after an append"), _adopted(node)
    if node.left.cancels and not node.live.status.is_final:
        yield f"cancelled while {node.live.status}", recorded(_spend_cancel(node), CancelRequested("operator"))
    deadline = node.live.deadline_at
    if deadline is not None and node.now < deadline:
        yield "deadline passed", replace(node, now=deadline)


def _resumptions(node: Node) -> Iterator[Choice]:
    if node.live.status is not OperationStatus.FAILED or not node.left.resumes:
        return
    left = replace(node.left, resumes=node.left.resumes - 1)
    node = replace(node, left=left, world=replace(node.world, lowest_undo=1_000_000))
    backwards = (False, True) if node.live.undoing or not node.live.committed else (False,)
    for undo in backwards:
        way = "backwards" if undo else "on"
        yield f"resumed {way}", recorded(node, SagaResumed(undo=undo))
        yield f"resumed {way}, all goes well", recorded(replace(node, calm=True), SagaResumed(undo=undo))
    for step in range(len(node.live.steps)):
        with suppress(InternalError):
            following = recorded(node, SagaResumed(from_step=step))
            properties.check_rewinding(node, step)
            way = "where it stopped" if step == node.live.cursor else "an earlier step"
            yield f"resumed from {way}", following
            yield f"resumed from {way}, all goes well", replace(following, calm=True)


def recorded(node: Node, *events: Event) -> Node:
    """The node after these facts were applied and kept."""
    live = node.live
    for event in events:
        live = apply(live, event)
    return replace(node, live=live, batch=node.batch + events)


def _appended(node: Node) -> Node:
    stored = tuple(decode_events(encode_events(node.batch)))
    assert stored == node.batch, "an entry must be read as it was written"
    saved = node.saved
    for event in stored:
        saved = apply(saved, event)
    assert saved == node.live, "the fold of the journal must be the live state"
    world = node.world
    for event in stored:
        if isinstance(event, SagaResumed) and event.from_step is not None:
            world = world.going_forward_from(event.from_step)
        elif isinstance(event, CompensationBegan) or (isinstance(event, SagaResumed) and event.undo):
            world = replace(world, began=True)
    return replace(node, saved=saved, batch=(), entries=(*node.entries, stored), world=world)


def _adopted(node: Node) -> Node:
    """The owner is dead; another worker reads the journal and takes over."""
    adoption = SagaAdopted(f"w{node.saved.epoch + 1}", node.saved.epoch + 1, node.saved.worker)
    state = apply(node.saved, adoption)
    left = replace(node.left, deaths=node.left.deaths - 1)
    return replace(node, live=state, saved=state, batch=(), entries=(*node.entries, (adoption,)), left=left)


def _spend_cancel(node: Node) -> Node:
    return replace(node, left=replace(node.left, cancels=node.left.cancels - 1))


def _state_key(state: SagaState, now: float) -> tuple[object, ...]:
    facts = (state.status, state.cursor, state.committed, state.undoing, state.timed_out, state.cancel is None)
    tracks = tuple((_track_key(step.forward, now), _track_key(step.undo, now)) for step in state.steps)
    return facts, tracks, state.deadline_at is None or state.deadline_at - now > 0


def _track_key(track: Track, now: float) -> tuple[object, ...]:
    """What of a track can make a difference later: not how it got there, and not the wording of a failure."""
    if track.status is TrackStatus.DONE:
        return (track.status,)
    if track.status is TrackStatus.EXHAUSTED:
        return track.status, track.maybe_done, bool(track.losses)
    failure = track.failure if track.status is TrackStatus.FAILED else None
    due = track.retry_at - now if track.status is TrackStatus.WAITING else None
    kept = failure is not None and failure.final, failure is not None and failure.interrupted, len(track.losses)
    return track.status, track.maybe_done, track.spent, kept, due
