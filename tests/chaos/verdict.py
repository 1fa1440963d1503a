"""Whether the promises held: journals against the ledger, and every key against its owner.

Each check yields what it found wrong, as a saga id (or '') and a sentence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from chaos.outside import Line
from dotmac.tasks.models import OperationStatus, StepKind
from dotmac.tasks.saga.events import AttemptStarted, AttemptSucceeded, SagaResumed, decode_events
from dotmac.tasks.saga.fold import fold
from dotmac.tasks.storage.records import SagaRecord, fence_at

Finding = tuple[str, str]


@dataclass
class Story:
    """One saga: what the journal says, and what the outside world saw."""

    record: SagaRecord
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        entries = [(entry, event) for entry in self.record.journal for event in decode_events(entry.events)]
        self.events = [event for _, event in entries]
        self.epochs = {fence_at(entry.at): entry.epoch for entry in self.record.journal}  # by fence
        self.state = fold(self.events)
        self.steps = self.state.definition.steps
        self.started = {
            (self.steps[event.step].name, event.undo, event.attempt): entry
            for entry, event in entries
            if isinstance(event, AttemptStarted)
        }
        self.succeeded = {
            (self.steps[event.step].name, event.undo, event.attempt): entry
            for entry, event in entries
            if isinstance(event, AttemptSucceeded)
        }

    def of(self, what: str, *, undo: bool) -> list[Line]:
        return [line for line in self.lines if line.what == what and line.undo is undo]

    def tell(self) -> str:
        """Everything there is, for a person to read."""
        journal = [
            f"  {entry.sequence:3} {entry.at:.3f} epoch {entry.epoch} {entry.entry_id} {entry.events.decode()[:400]}"
            for entry in self.record.journal
        ]
        seen = [f"  {line.at:.3f} {line}" for line in self.lines]
        return "\n".join([f"{self.record.meta}", "journal:", *journal, "ledger:", *seen])


def stories(records: list[SagaRecord], lines: list[Line]) -> dict[str, Story]:
    """By saga id."""
    by_saga = defaultdict(list)
    for line in lines:
        if line.step:
            by_saga[line.saga].append(line)
    return {record.meta.saga_id: Story(record, by_saga[record.meta.saga_id]) for record in records}


def judge(told: dict[str, Story], lines: list[Line]) -> list[Finding]:
    """All that is wrong with the sagas."""
    findings = [finding for story in told.values() for check in _CHECKS for finding in check(story)]
    known = set(told)
    findings += [(line.saga, "has effects but no journal") for line in lines if line.step and line.saga not in known]
    acknowledged = {line.saga for line in lines if line.what == "started"}
    findings += [(saga, "was acknowledged and is gone") for saga in sorted(acknowledged - known)]
    return [*findings, *_same_key_same_saga(told, lines)]


def _ended(story: Story) -> Iterator[Finding]:
    meta = story.record.meta
    if not meta.status.is_final or meta.owner is not None:
        yield meta.saga_id, f"is {meta.status}, owner {meta.owner}"
    if meta.status is not story.state.status:
        yield meta.saga_id, f"its head says {meta.status}, its journal {story.state.status}"
    if meta.status is OperationStatus.FAILED and not story.state.open_items:
        yield meta.saga_id, "is parked without saying why"


def _journal_whole(story: Story) -> Iterator[Finding]:
    meta, journal = story.record.meta, story.record.journal
    if meta.length != len(journal):
        yield meta.saga_id, f"has {len(journal)} entries, its head counts {meta.length}"
    if len({entry.entry_id for entry in journal}) != len(journal):
        yield meta.saga_id, "has an entry twice"
    epochs = [entry.epoch for entry in journal]
    if epochs != sorted(epochs) or epochs[-1] != meta.epoch:
        yield meta.saga_id, f"its epochs are {epochs}, its head says {meta.epoch}"


def _effects_journaled(story: Story) -> Iterator[Finding]:
    for line in story.lines:
        if line.what != "begin":
            continue
        entry = story.started.get((line.step, line.undo, line.attempt))
        if entry is None:
            yield line.saga, f"attempt {line.attempt} of {line.step} (undo: {line.undo}) was never journaled"
        elif story.epochs.get(line.fence) != entry.epoch or entry.at > line.at:
            yield line.saga, f"attempt {line.attempt} of {line.step} ran under another epoch or before its journal"


def _successes_happened(story: Story) -> Iterator[Finding]:
    ended = {(line.step, line.undo, line.attempt): line for line in story.lines if line.what == "end"}
    for attempt, entry in story.succeeded.items():
        line = ended.get(attempt)
        if line is None or story.epochs.get(line.fence) != entry.epoch:
            yield story.record.meta.saga_id, f"the success of {attempt} was journaled but did not happen"


def _one_runner(story: Story) -> Iterator[Finding]:
    runners: dict[int, set[tuple[str, int]]] = defaultdict(set)
    attempts = set()
    for line in story.lines:
        if line.fence in story.epochs:
            runners[story.epochs[line.fence]].add((line.by, line.pid))
        if line.what == "begin":
            if line.of_attempt in attempts:
                yield line.saga, f"attempt {line.of_attempt} began twice"
            attempts.add(line.of_attempt)
    for epoch, who in runners.items():
        if len(who) > 1:
            yield story.record.meta.saga_id, f"ran under epoch {epoch} in {sorted(who)}"


def _tokens(story: Story) -> Iterator[Finding]:
    tokens = defaultdict(set)
    for line in story.lines:
        tokens[line.step, line.undo].add(line.token)
    for step, found in tokens.items():
        if len(found) != 1:
            yield story.record.meta.saga_id, f"tokens of {step}: {found}"


def _undone(story: Story) -> Iterator[Finding]:
    """Compensated: what happened or may have is undone, newest first. Otherwise: nothing is undone, or it is parked."""
    saga, status = story.record.meta.saga_id, story.record.meta.status
    undone = [line.step for line in story.of("end", undo=True)]
    if status is OperationStatus.COMPLETED and story.of("begin", undo=True):
        yield saga, "completed, but something was undone"
    if status is OperationStatus.COMPLETED:
        missing = {step.name for step in story.steps} - {line.step for line in story.of("end", undo=False)}
        if missing:
            yield saga, f"completed without {missing}"
    if status is not OperationStatus.COMPENSATED:
        return
    harmless = {line.of_attempt for line in story.of("fail", undo=False)}
    maybe = {line.step for line in story.of("begin", undo=False) if line.of_attempt not in harmless}
    if any(isinstance(event, SagaResumed) and event.undo for event in story.events):
        # It was parked at its pivot, and who cancelled it then vouched that the pivot did not happen.
        maybe -= {step.name for step in story.steps if step.kind is StepKind.PIVOT}
    order = [step.name for step in story.steps]
    if story.state.committed or any(step.kind is StepKind.PIVOT and step.name in maybe for step in story.steps):
        yield saga, "turned back after its pivot happened, or may have"
    if not maybe <= set(undone):
        yield saga, f"is compensated, but never undid {maybe - set(undone)}"
    places = [order.index(line.step) for line in story.of("begin", undo=True)]
    if places != sorted(places, reverse=True):
        yield saga, f"undid its steps in the order {places}"


def _same_key_same_saga(told: dict[str, Story], lines: list[Line]) -> Iterator[Finding]:
    answers: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        if line.what == "started":
            answers[line.request].add(line.saga)
    owners: dict[str, list[str]] = defaultdict(list)
    for saga_id, story in told.items():
        if story.record.meta.idempotency_key is not None:
            owners[story.record.meta.idempotency_key].append(saga_id)
    for request, sagas in answers.items():
        if len(sagas) > 1:
            yield "", f"request {request} led to {sagas}"
    for key, owning in owners.items():
        if len(owning) > 1:
            yield "", f"key {key} belongs to {owning}"


_CHECKS = (_ended, _journal_whole, _effects_journaled, _successes_happened, _one_runner, _tokens, _undone)
