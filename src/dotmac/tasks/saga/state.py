"""What the fold of a journal yields: the saga's state, and in it one track of attempts per step and direction."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ..models import OperationStatus, StepKind
from .definition import SagaDefinition, StepDefinition
from .events import CancelRequested, Failure


def handler_name(operation: str, *, undo: bool) -> str:
    """The name of a handler among operations and compensations."""
    return f"{'compensation' if undo else 'operation'} {operation}"


class TrackStatus(StrEnum):
    """Where a series of attempts stands.

    ``ready → running → done``, or ``running → failed → waiting → running …``, or ``failed → exhausted``. After an
    interruption, ``failed → running``.
    """

    READY = "ready"
    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"
    DONE = "done"
    EXHAUSTED = "exhausted"


class Track(msgspec.Struct, frozen=True, gc=False):
    """The attempts of one step in one direction (forward, or undo).

    Attributes:
        attempts: Attempts started so far; the number of the running one while one runs.
        uncounted: Attempts that do not count against the policy: interrupted ones, and all before an operator's last
            resume.
        maybe_done: Some attempt ended with an unknown outcome, so the effect may be there.
        retry_at: When the next attempt is due, while waiting.
        failure: The last attempt's failure, until one succeeds.
        losses: The workers that were lost while an attempt of this track ran, oldest first. An attempt that ends with
            a result or an error of its handler clears the list.
    """

    status: TrackStatus = TrackStatus.READY
    attempts: int = 0
    uncounted: int = 0
    maybe_done: bool = False
    retry_at: float = 0.0
    failure: Failure | None = None
    losses: tuple[str, ...] = ()

    @property
    def spent(self) -> int:
        """Attempts that count against the policy."""
        return self.attempts - self.uncounted

    @property
    def interrupted(self) -> bool:
        """Whether the last attempt was ended from outside of its handler."""
        return self.failure is not None and self.failure.interrupted

    @property
    def poisoned(self) -> bool:
        """Whether the track has no further attempt because its attempts ended with the loss of their workers."""
        return self.status is TrackStatus.EXHAUSTED and bool(self.losses)


class StepState(msgspec.Struct, frozen=True, gc=False):
    """One step: its way forward, its way back, and its result while it stands.

    Attributes:
        times_undone: How often it was undone and is to be done again since. Each time is another effect, which has
            tokens of its own.
    """

    forward: Track = Track()
    undo: Track = Track()
    result: msgspec.Raw | None = None
    times_undone: int = 0

    @property
    def happened(self) -> bool:
        """Whether the step's effect is there, or may be."""
        return self.forward.status is TrackStatus.DONE or self.forward.maybe_done


class SagaState(msgspec.Struct, frozen=True, gc=False):
    """The fold of a journal.

    Attributes:
        cursor: The step under way: counts up to ``len(steps)`` while going forward, down to -1 while undoing.
        committed: A pivot completed, so the saga only goes forward.
        undoing: The saga turned back (it stays so in its final status, unless an operator lets it go forward again).
        reason: Why it turned back.
        open_items: What an operator has to see to, while parked.
        waits_for: The handler that no worker had for the next attempt (see `handler_name`); None: none is missing.
        epoch: Ownership counter of the last adoption seen in the journal; 1 for the creator.
    """

    definition: SagaDefinition
    steps: tuple[StepState, ...]
    status: OperationStatus = OperationStatus.PENDING
    cursor: int = 0
    committed: bool = False
    undoing: bool = False
    timed_out: bool = False
    deadline_at: float | None = None
    cancel: CancelRequested | None = None
    reason: str = ""
    open_items: tuple[str, ...] = ()
    waits_for: str | None = None
    epoch: int = 1
    worker: str | None = None

    @property
    def current(self) -> StepState:
        """State of the step at the cursor."""
        return self.steps[self.cursor]

    @property
    def current_definition(self) -> StepDefinition:
        """Definition of the step at the cursor."""
        return self.definition.steps[self.cursor]

    @property
    def track(self) -> Track:
        """The attempts under way at the cursor."""
        step = self.steps[self.cursor]
        return step.undo if self.undoing else step.forward

    @property
    def turning_back(self) -> bool:
        """Whether the forward part must end now: cancelled or out of time, and still able to turn back."""
        return not self.committed and not self.undoing and (self.cancel is not None or self.timed_out)

    @property
    def at_unknown_pivot(self) -> bool:
        """Whether the step at the cursor is a pivot that may have happened: no safe way forward or back."""
        return self.current_definition.kind is StepKind.PIVOT and self.current.forward.maybe_done

    @property
    def poisoned(self) -> bool:
        """Whether the step at the cursor lost its worker too often, and nothing else makes the saga turn back."""
        return self.track.poisoned and not self.turning_back

    @property
    def past_last_step(self) -> bool:
        """Whether every step completed."""
        return self.cursor == len(self.steps)

    @property
    def undo_failed(self) -> bool:
        """Whether some compensation is out of retries."""
        return any(step.undo.status is TrackStatus.EXHAUSTED for step in self.steps)

    @property
    def may_turn_back(self) -> bool:
        """Whether compensation may begin: nothing runs, no pivot happened or may have, and there is a reason."""
        if self.status is OperationStatus.PENDING:
            return self.cancel is not None
        if self.committed:
            return False
        if self.past_last_step:
            return self.cancel is not None
        if self.at_unknown_pivot or self.poisoned:
            return False
        status = self.track.status
        return status is TrackStatus.EXHAUSTED or (status is TrackStatus.READY and self.turning_back)

    @property
    def is_stuck(self) -> bool:
        """Whether the engine can do no more by itself, neither forward nor back."""
        if self.undoing:
            return self.cursor < 0 and self.undo_failed
        if self.past_last_step or self.track.status is not TrackStatus.EXHAUSTED:
            return False
        return self.committed or self.at_unknown_pivot or self.poisoned
