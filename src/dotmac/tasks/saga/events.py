"""The facts a journal holds. Nouns in the past tense, frozen, tagged for JSON; times are absolute Unix seconds.

An entry of the journal is one append: a short list of events that became true together. The storage stamps the
entry with its own time; events carry a time only where the fold needs it (a deadline, a due time), so that
folding a journal never depends on when or where it is folded.
"""

from __future__ import annotations

import msgspec

from .definition import SagaDefinition


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Why an attempt did not succeed.

    Attributes:
        error: Name of the exception class, or of the cut: ``StepTimedOut``, ``SagaTimedOut``, ``Cancelled``,
            ``WorkerLost``, ``Drained``, ``Revoked``.
        unknown: The effect may have happened. False means it did not.
        final: No retry can help.
        interrupted: The attempt was ended from outside of its handler, or the handler was not invoked. Retries are
            for failures of the handler: such an attempt uses none up, and earns no back-off.
    """

    error: str
    message: str = ""
    unknown: bool = False
    final: bool = False
    interrupted: bool = False

    def __str__(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error


class _Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="e"):
    """Common to all: the tag is the event's name in the journal."""


class SagaCreated(_Event, frozen=True, gc=False, tag="saga_created"):
    """The saga was asked for; always the first fact of a journal."""

    definition: SagaDefinition


class SagaStarted(_Event, frozen=True, gc=False, tag="saga_started"):
    """The forward part began; its deadline is fixed from here on."""

    deadline_at: float | None = None


class SagaAdopted(_Event, frozen=True, gc=False, tag="saga_adopted"):
    """A worker took the saga over; an attempt still open was cut off when its worker was lost."""

    worker: str
    epoch: int
    previous: str | None = None


class AttemptStarted(_Event, frozen=True, gc=False, tag="attempt_started"):
    """A handler is about to be invoked: nothing runs that was not recorded before."""

    step: int
    attempt: int
    undo: bool = False


class AttemptSucceeded(_Event, frozen=True, gc=False, tag="attempt_succeeded"):
    """The handler returned; `result` is its JSON."""

    step: int
    attempt: int
    undo: bool = False
    result: msgspec.Raw = msgspec.Raw(b"null")


class AttemptFailed(_Event, frozen=True, gc=False, tag="attempt_failed"):
    """The handler raised, or was cut off."""

    step: int
    attempt: int
    failure: Failure
    undo: bool = False


class RetryScheduled(_Event, frozen=True, gc=False, tag="retry_scheduled"):
    """Another attempt is due at `retry_at`."""

    step: int
    retry_at: float
    undo: bool = False


class AttemptsExhausted(_Event, frozen=True, gc=False, tag="attempts_exhausted"):
    """No further attempt will be made: the policy is used up, the failure is final, or the saga turns back."""

    step: int
    undo: bool = False


class HandlerMissing(_Event, frozen=True, gc=False, tag="handler_missing"):
    """No worker that adopted the saga had the handler of its next attempt."""

    step: int
    operation: str
    undo: bool = False


class CancelRequested(_Event, frozen=True, gc=False, tag="cancel_requested"):
    """Somebody asked the saga to turn back; the first request counts."""

    reason: str = ""


class DeadlinePassed(_Event, frozen=True, gc=False, tag="deadline_passed"):
    """The saga's time was over before a pivot completed."""


class CompensationBegan(_Event, frozen=True, gc=False, tag="compensation_began"):
    """The saga turned back; no forward attempt follows."""

    reason: str


class SagaCompleted(_Event, frozen=True, gc=False, tag="saga_completed"):
    """Every step completed."""


class SagaCompensated(_Event, frozen=True, gc=False, tag="saga_compensated"):
    """Everything that happened, or may have, was undone."""


class SagaParked(_Event, frozen=True, gc=False, tag="saga_parked"):
    """The engine can do no more by itself; `open_items` names each thing an operator has to see to."""

    open_items: tuple[str, ...]


class SagaResumed(_Event, frozen=True, gc=False, tag="saga_resumed"):
    """An operator lets a parked saga go on.

    With `undo`, a saga parked at a pivot of unknown outcome turns back: the operator vouches that the pivot
    did not happen. With `from_step`, the saga goes forward again from the step with that index, also if it had
    turned back; see `rewinding` for when it can.
    """

    undo: bool = False
    reason: str = ""
    from_step: int | None = None


Event = (
    SagaCreated
    | SagaStarted
    | SagaAdopted
    | AttemptStarted
    | AttemptSucceeded
    | AttemptFailed
    | RetryScheduled
    | AttemptsExhausted
    | HandlerMissing
    | CancelRequested
    | DeadlinePassed
    | CompensationBegan
    | SagaCompleted
    | SagaCompensated
    | SagaParked
    | SagaResumed
)

JOURNAL_FORMAT = 1
"""The newest journal format that this version reads, and the one that its entries need.

Raise the number with each event, or meaning of a field, that an older version must not pass over.
"""

encode_events = msgspec.json.Encoder().encode
decode_events = msgspec.json.Decoder(list[Event]).decode
