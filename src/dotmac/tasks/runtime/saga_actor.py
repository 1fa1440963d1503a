"""A saga as an actor: one task that asks the machine what to do, does it, and journals what came of it.

The loop is the driver that `saga.machine` describes. Whatever has an effect outside (a handler, a sleep, the end)
comes only after everything decided before it is durable, and after looking at the inbox once more, because the
append may have taken long. Messages arrive at any time; `on_arrival` cancels the scope of the present sleep, or
of the present handler where the message means that, and the loop reads them in its next round.
"""

from __future__ import annotations

import logging
import math
import random
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio
from msgspec import Raw
from msgspec.structs import replace

from ..actors import Inbox
from ..errors import InvalidInput, UsageError
from ..models import OperationStatus
from ..retry import RetryPolicy
from ..saga.commands import Invoke, Record, Wait
from ..saga.definition import StepDefinition
from ..saga.events import (
    AttemptFailed,
    AttemptsExhausted,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    Failure,
    HandlerMissing,
)
from ..saga.machine import decide
from ..storage.records import fence_at
from .attempt import Attempt, failure_of, run_attempt
from .context import HandlerContext, StepResults, attempt_token
from .journal import Journal
from .limits import AttemptLimit
from .log_fields import saga_fields
from .messages import Cancel, Hasten, Message
from .permits import Permit
from .readiness import NextAttempt, Readiness, expanded
from .wait_graph import begin_scopes

if TYPE_CHECKING:
    from .environment import SagaEnvironment
    from .handlers import Handler

_INBOX_CAPACITY = 4  # one of each message is all that is ever sent
_DRAINED = Failure("Drained", "its worker was stopped", unknown=True, interrupted=True)
_DRAINED_BEFORE = Failure("Drained", "its worker was stopped before the handler was invoked", interrupted=True)
_SUSPECT_AFTER = 3  # losses of a worker in a row
_log = logging.getLogger(__name__)


class SagaActor:
    """Runs one saga for as long as this worker owns it.

    Args:
        environment: The worker's storage, settings and handlers.
        journal: The saga, as its owner.
        lease: The scope that ends with the worker's lease; the actor runs in it.
        fruitless: Adoptions in a row before this one that led to no attempt.
        permit: Of an attempt that is begun in the journal already.

    Attributes:
        inbox: Takes `Cancel`, `Drain` and `Hasten`.
        journal: The saga's state and its way into the storage.
        saga_id: The saga's id.
        ended: Set when the actor has ended, for whatever reason.
        task: The task that runs it; None before.
        told_to_cancel: Whether a `Cancel` was sent already; one is enough.
        vanished: Whether it was reported that the storage has lost the saga.
    """

    __slots__ = ("_attempt", "_draining", "_environment", "_fruitless", "_hastened", "_lease", "_ready", "_scope",
                 "_scope_spent", "_sleep", "_solo", "ended", "inbox", "journal", "saga_id", "task", "told_to_cancel",
                 "vanished")  # fmt: skip

    _scope: trio.CancelScope  # of the present stretch

    def __init__(
        self,
        environment: SagaEnvironment,
        journal: Journal,
        lease: trio.CancelScope,
        *,
        fruitless: int = 0,
        permit: Permit | None = None,
    ) -> None:
        self._environment = environment
        self._lease = lease
        self._ready = Readiness(environment, journal.state.definition, permit)
        self._fruitless = fruitless
        self._attempt: Attempt | None = None
        self._scope_spent = False
        self._sleep: trio.CancelScope | None = None
        self._solo = False
        self._draining = False
        self._hastened = False
        self.journal = journal
        self.saga_id = journal.state.definition.saga_id
        self.ended = trio.Event()
        self.task: trio.lowlevel.Task | None = None
        self.told_to_cancel = False
        self.vanished = False
        self.inbox: Inbox[Message] = Inbox(_INBOX_CAPACITY, name="saga")
        self.inbox.on_arrival = self._arrived

    @property
    def waiting_task(self) -> trio.lowlevel.Task | None:
        """The task that whatever waits for the saga's end waits for; None: a message is ending the task's own wait."""
        return None if self._sleep is not None and self._sleep.cancel_called else self.task

    async def run(self) -> None:
        """Drive the saga to its end, or until it is given up.

        Raises:
            OwnershipLost: Somebody else owns the saga; nothing was touched since.
            InternalError: A promise was broken (see its kinds).
        """
        self.task = trio.lowlevel.current_task()
        try:
            while not self.journal.closed:
                await self._stretch()
        finally:
            self.inbox.close()
            self.inbox.on_arrival = None  # a cycle that the garbage collector would have to find, for each saga
            self.ended.set()
            self.task = None
            self._leave_solo()
            if self._ready.holds:
                await self._ready.drop()

    async def _stretch(self) -> None:
        """Turns in one cancel scope, until it was needed to cut an attempt off.

        Only a handler is ever cancelled in it. A scope for each attempt would cost as much as journaling it.
        """
        outcome: Failure | None = None
        try:
            with trio.CancelScope() as self._scope:
                self._scope_spent = False
                begin_scopes(self._lease, self._scope)
                while not self.journal.closed and not self._scope_spent:
                    await self._turn()
        except ExceptionGroup as group:
            # What tasks of a handler's own nursery raised while it was cut off: the scope took the cancellation out.
            if self._attempt is None or not self._attempt.asked_to_stop:
                raise
            outcome = failure_of(group, unknown=True, final=False)
        if self._attempt is not None:
            self._conclude(self._attempt, outcome)

    async def _turn(self) -> None:
        self._read_inbox()
        journal = self.journal
        now, chance = self._environment.storage.now(), random.random()  # noqa: S311 - jitter
        max_losses = self._environment.settings.max_worker_losses
        # Nothing is awaited between these decisions, so neither the inbox nor the time can change between them.
        command = decide(journal.state, now, chance, max_losses)
        while type(command) is Record:
            event = command.event
            if type(event) is AttemptStarted:
                handler = None if self._hands_over else self._handler(event)
                if handler is None:
                    await self._give_up(event)
                    return
                if self._must_wait_for_solo(max_losses) or not self._ready.take(event, handler):
                    await self._get_ready(event, handler)
                    return
            journal.record(event)
            command = decide(journal.state, now, chance, max_losses)
        if type(command) is not Invoke and (self._ready.permit is not None or self._ready.lock is not None):
            await self._ready.drop()
            self._leave_solo()
        if journal.pending:
            state = journal.state
            await self._flush()
            # Asked again, unless nothing can have changed: no message, no cancel request, and time does not matter.
            if (
                isinstance(command, Invoke)
                and command.deadline_at is None
                and journal.state is state
                and not self.inbox
            ):
                await self._invoke(command)
        elif isinstance(command, Invoke):
            await self._invoke(command)
        elif isinstance(command, Wait):
            await self._wait(command.until)
        else:
            await journal.release(None)

    # --- messages -------------------------------------------------------------------------------------------

    def _arrived(self) -> None:
        """Runs in the sender's task, right after the message is in: interrupt what should not go on."""
        if self._sleep is not None:
            self._sleep.cancel()
        elif self._attempt is not None:
            self._read_inbox()

    def _read_inbox(self) -> None:
        while len(self.inbox):
            message = self.inbox.get_nowait()
            if isinstance(message, Cancel):
                self._cancel(message.reason)
            else:
                self._draining = True
                self._hastened = self._hastened or isinstance(message, Hasten)
                if self._hastened and self._attempt is not None:
                    self._attempt.cut_off(_DRAINED)

    def _cancel(self, reason: str) -> None:
        state = self.journal.state
        if state.cancel is not None or state.status.is_final:
            return
        self.journal.record(CancelRequested(reason))
        if self._attempt is not None:
            self._attempt.cancel(state, reason)

    # --- doing ----------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        state, environment = self.journal.state, self._environment
        if state.status.is_final:
            appended = await self.journal.flush(
                retention=environment.settings.saga_retention, completion=environment.completion(state)
            )
            if state.status is OperationStatus.FAILED:
                items = "; ".join(state.open_items)
                _log.warning("saga %s is parked: %s", self.saga_id, items, extra=saga_fields(state.definition))
        else:
            appended = await self.journal.flush()
        if appended.cancel is not None and not self.journal.closed:
            self._cancel(appended.cancel)

    async def _wait(self, until: float) -> None:
        seconds = until - self._environment.storage.now()
        if self._hands_over or seconds > self._environment.settings.passivate_after:
            await self.journal.release(until)
            return
        try:
            with trio.move_on_after(max(seconds, 0.0)) as self._sleep:  # below 0: it has become due just now
                await trio.sleep_forever()
        finally:
            self._sleep = None

    async def _get_ready(self, attempt: NextAttempt, handler: Handler) -> None:
        """Wait until the attempt can begin; a message ends the wait, and so does the saga's deadline."""
        journal = self.journal
        if journal.pending:
            await self._flush()
            return
        state, deadline = journal.state, math.inf
        if not attempt.undo and state.deadline_at is not None and not state.committed:
            deadline = trio.current_time() + state.deadline_at - self._environment.storage.now()
        try:
            with trio.CancelScope(deadline=deadline) as self._sleep:
                if self._must_wait_for_solo(self._environment.settings.max_worker_losses):
                    await self._environment.solo.acquire()
                    self._solo = True
                else:
                    await self._ready.wait(attempt, handler, StepResults(state))
        finally:
            self._sleep = None

    @property
    def _hands_over(self) -> bool:
        """Whether the next attempt is left to another worker: the worker stops, and no handler here waits for the saga.

        A handler that waits for the end of a saga delays the stop. So that saga goes on as long as the stop may take.
        """
        return self._draining and (self._hastened or self.saga_id not in self._environment.awaited)

    def _must_wait_for_solo(self, max_losses: int) -> bool:
        """Whether the step lost so many workers that its attempt has to wait until no other such step runs here.

        All steps that run in a process are lost together, whichever of them ended it. Alone among its like, each
        further loss counts for one of them only.
        """
        losses = len(self.journal.state.track.losses)
        return losses > 0 and not self._solo and losses >= min(_SUSPECT_AFTER, max_losses - 1)

    def _leave_solo(self) -> None:
        if self._solo:
            self._solo = False
            self._environment.solo.release()

    async def _give_up(self, event: AttemptStarted) -> None:
        """Leave the next attempt to another worker: at once when draining, later where a handler is missing."""
        now = self._environment.storage.now()
        if self._hands_over:
            await self.journal.release(now)
            return
        state, others = self.journal.state, self._environment.standing_back
        step = state.definition.steps[event.step]
        name = (step.compensation_operation if event.undo else step.operation) or ""
        if state.waits_for is None and self._fruitless >= others.others:  # each worker has had its turn
            self.journal.record(HandlerMissing(event.step, name, event.undo))
        pause = others.give_back(self.saga_id, self._fruitless, name, saga_fields(state.definition, step.name))
        await self.journal.release(now + pause)

    def _handler(self, attempt: AttemptStarted | Invoke) -> Handler | None:
        step = self.journal.state.definition.steps[attempt.step]
        name = step.compensation_operation if attempt.undo else step.operation
        return self._environment.handlers.find(name or "", undo=attempt.undo)

    async def _invoke(self, command: Invoke) -> None:
        environment, definition = self._environment, self.journal.state.definition
        step, settings = definition.steps[command.step], environment.settings
        handler = self._handler(command)
        assert handler is not None  # noqa: S101 - looked for before the attempt was recorded
        if not self._ready.complete and not self._hands_over:
            # Recorded with the saga's creation, whose answer was lost, or its lock was lost meanwhile.
            await self._get_ready(command, handler)
            return
        if self._hastened or self._ready.permit is None:  # told so while the start of the attempt was being appended
            self._ended(command, _DRAINED_BEFORE)
            return
        results = StepResults(self.journal.state)
        try:
            if self._ready.refusal is not None:
                raise self._ready.refusal
            resolved = expanded(definition, command.step, results, undo=command.undo, limit=settings.max_payload)
        except UsageError as error:
            # Nothing was called, so nothing happened. A second try would meet the same parameters, but perhaps not the
            # same waits.
            self._ended(command, failure_of(error, unknown=False, final=isinstance(error, InvalidInput)))
            return
        timeout = step.compensation_timeout_seconds if command.undo else step.timeout_seconds
        limit = AttemptLimit(self._scope, environment.storage.now, timeout, command.deadline_at)
        context = self._context(step, command, limit, results)
        policy: RetryPolicy = step.compensation_retry if command.undo else step.retry
        lock = self._ready.lock
        self._attempt = Attempt(command, limit, context, lock)
        running = environment.running.begin(context, self._scope, environment.running.worker_scope)
        try:
            outcome = await run_attempt(
                handler if lock is None else lock.around(handler),
                resolved,
                context,
                self._attempt,
                policy=policy,
                max_payload=settings.max_payload,
            )
        finally:
            environment.running.end(running)
        self._conclude(self._attempt, outcome)

    def _conclude(self, attempt: Attempt, outcome: Raw | Failure | None) -> None:
        """Record how the attempt ended; None: it was cut off."""
        self._attempt = None
        self._ready.ended()
        self._scope_spent = attempt.spent_its_scope
        ended = attempt.outcome(outcome)
        if self._draining and attempt.refused_by_stop and isinstance(ended, Failure):
            ended = replace(ended, interrupted=True)
        self._ended(attempt.command, ended, trio.current_time() - attempt.began_at)
        if isinstance(ended, Failure):
            following = decide(self.journal.state, self._environment.storage.now(), 0.0)
            given_up = type(following) is Record and type(following.event) is AttemptsExhausted
            attempt.log_failure(ended, given_up=given_up)

    def _ended(self, command: Invoke, outcome: Raw | Failure, seconds: float = 0.0) -> None:
        self._leave_solo()
        if isinstance(outcome, Failure):
            self.journal.record(AttemptFailed(command.step, command.attempt, outcome, command.undo), seconds)
        else:
            self.journal.record(AttemptSucceeded(command.step, command.attempt, command.undo, outcome), seconds)

    def _context(
        self, step: StepDefinition, command: Invoke, limit: AttemptLimit, results: StepResults
    ) -> HandlerContext:
        state = self.journal.state
        definition = state.definition
        return HandlerContext(
            tenant_id=definition.tenant_id,
            operation_type=(step.compensation_operation if command.undo else step.operation) or "",
            token=attempt_token(state, command),
            attempt=command.attempt,
            saga_id=definition.saga_id,
            workflow_type=definition.workflow_type,
            step=step.name,
            fence=fence_at(self.journal.at),
            deadline=limit.deadline,
            results=results,
            metadata=MappingProxyType(definition.metadata),
            compensating=command.undo,
            step_happened=state.steps[command.step].result is not None,
            _beat=limit.beat,
            _permit=self._ready.permit,
            _epoch=self.journal.epoch,
        )
