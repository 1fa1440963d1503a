"""One attempt: call the handler, and say truthfully how it ended.

What counts as which outcome:
- returned JSON: succeeded, even if it was asked to stop meanwhile (it happened);
- returned something that is no JSON, or too much of it: the effect is there but its result cannot be kept: an
  unknown outcome that no retry can help;
- raised, untouched: failed; unknown if the error says so (`Handler.leaves_unknown`);
- cut off (time-out, cancel, drain), or raised after it was asked to stop: unknown;
- ended before the handler was called, or by the stop of its worker: interrupted, so that it uses up no retry.
`Cancelled` from outside the scope (the runtime dies, the lease is lost) is nobody's outcome and passes through, and so
does an interruption by a signal. Whatever else is no `Exception` arrives here as `OutcomeUnknown` (see `containment`).
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import trio
from msgspec import Raw

from ..errors import InvalidInput, NonRetryableError, NotStarted
from ..jsonvalue import result_json
from ..metrics import around_attempt
from ..retry import RetryPolicy
from ..saga.commands import Invoke
from ..saga.events import Failure
from ..saga.machine import interruptible
from ..saga.state import SagaState
from .context import HandlerContext
from .error_texts import class_of, message_of, repr_of, storable
from .handlers import Handler
from .limits import AttemptLimit
from .log_fields import attempt_fields
from .step_lock import StepLock
from .unknown_errors import singles

_log = logging.getLogger(__name__)


_TIMED_OUT = Failure("StepTimedOut", "the attempt took longer than its time-out", unknown=True)
_SAGA_TIMED_OUT = Failure("SagaTimedOut", "the saga's time was over while the attempt ran", unknown=True)


class Attempt:
    """A handler at work: what ends it, and what it ended with if it was cut off.

    Args:
        command: Which attempt it is.
        limit: Its deadline, and the scope that it runs in.
        context: What the handler is told.
        lock: The lock that it runs under, if its step names one.

    Attributes:
        began_at: On trio's clock.
    """

    __slots__ = ("_context", "_cut", "_error", "_lock", "began_at", "command", "limit")

    def __init__(self, command: Invoke, limit: AttemptLimit, context: HandlerContext, lock: StepLock | None) -> None:
        self._cut: Failure | None = None
        self._error: Exception | None = None
        self._context = context
        self._lock = lock
        self.command = command
        self.limit = limit
        self.began_at = trio.current_time()

    @property
    def invoked(self) -> bool:
        """Whether the handler was called, as far as is known: its thread may have yet to begin, or its lock is lost."""
        return not self._context._queued and (self._lock is None or self._lock.invoked)  # noqa: SLF001 - see there

    @property
    def asked_to_stop(self) -> bool:
        """Whether its scope is cancelled, by somebody or by its deadline."""
        return self.limit.scope.cancel_called

    @property
    def spent_its_scope(self) -> bool:
        """Whether the scope was cancelled, so that nothing more can run in it. To ask the scope itself takes longer."""
        return self._cut is not None or (self.limit.limited and self.limit.scope.cancel_called)

    def cancel(self, state: SagaState, reason: str) -> None:
        """Cut the attempt off for a cancel request, unless the saga's `state` lets the attempt finish."""
        if interruptible(state) or (interruptible(state, invoked=False) and self._withdraw()):
            self.cut_off(Failure("Cancelled", reason, unknown=True))

    def _withdraw(self) -> bool:
        """Keep a handler that was not called yet from being called. False: it was called."""
        return (self._lock is not None and not self._lock.invoked) or self._context._withdraw()  # noqa: SLF001 - as above

    @property
    def refused_by_stop(self) -> bool:
        """Whether the handler failed with the refusal of a manager that stops."""
        return self._error is not None and any(isinstance(each, NotStarted) for each in singles(self._error))

    def cut_off(self, failure: Failure) -> None:
        """Cancel the handler for this reason; the first reason counts."""
        if self._cut is None and not self.limit.scope.cancel_called:
            self._cut = failure
        self.limit.scope.cancel()

    def outcome(self, outcome: Raw | Failure | None) -> Raw | Failure:
        """What is to be journaled: of what came of the call, or, for None, of its being cut off."""
        self.limit.lift()
        if outcome is None:
            outcome = self._cut or (_SAGA_TIMED_OUT if self.limit.saga_ends_first else _TIMED_OUT)
        if isinstance(outcome, Failure) and not self.invoked:
            message = f"{outcome.message}, before the handler was called"
            return msgspec.structs.replace(outcome, message=message, unknown=False, interrupted=True)
        if isinstance(outcome, Failure) and self._cut is not None and self._cut.interrupted:
            # Whatever the handler raised while it was cut off, the stop is what ended the attempt.
            return msgspec.structs.replace(outcome, interrupted=True)
        return outcome

    def raised(self, error: Exception) -> None:
        """Keep what the handler raised for the log."""
        self._error = error

    def log_failure(self, failure: Failure, *, given_up: bool) -> None:
        """Log the failed attempt in one line. The traceback is logged at DEBUG, or once when the step is given up."""
        context, error = self._context, self._error
        self._error = None  # its traceback refers to the frame that refers to this attempt
        text = f"{failure.error}: {failure.message}" if error is None else repr_of(error)
        told = (context.token, context.attempt, context.operation_type, text)
        extra = attempt_fields(context)
        if given_up:
            _log.warning("%s, attempt %d of %s, the last one: %s", *told, exc_info=error, extra=extra)
            return
        _log.info("%s, attempt %d of %s: %s", *told, extra=extra)
        if error is not None and _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s, attempt %d of %s: %s", *told, exc_info=error, extra=extra)


async def run_attempt(
    handler: Handler,
    parameters: dict[str, Any],
    context: HandlerContext,
    attempt: Attempt,
    *,
    policy: RetryPolicy,
    max_payload: int,
) -> Raw | Failure:
    """Call the handler; its result as JSON, or why there is none.

    It runs in the scope of the attempt's limit, which is the caller's to open: when the handler is cut off, the
    cancellation passes through here. Raises only that, and what ends the program.
    """
    try:
        with around_attempt(context):
            result = await handler.call(parameters, context)
    except Exception as error:
        return _failure(handler, error, attempt, policy)
    return _as_json(result, max_payload)


def failure_of(error: Exception, *, unknown: bool, final: bool) -> Failure:
    """The journal's word for an exception."""
    return Failure(class_of(error), storable(message_of(error)), unknown=unknown, final=final)


def _failure(handler: Handler, error: Exception, attempt: Attempt, policy: RetryPolicy) -> Failure:
    attempt.raised(error)
    unknown = attempt.asked_to_stop or handler.leaves_unknown(error)
    final = any(_is_final(each, policy) for each in (error, *singles(error)))
    return failure_of(error, unknown=unknown, final=final)


def _is_final(error: BaseException, policy: RetryPolicy) -> bool:
    names = {parent.__name__ for parent in type(error).__mro__}
    return isinstance(error, NonRetryableError) or not names.isdisjoint(policy.non_retryable)


def _as_json(result: Any, max_payload: int) -> Raw | Failure:
    try:
        return Raw(result_json(result, max_payload))
    except InvalidInput as error:
        return failure_of(error, unknown=True, final=True)
