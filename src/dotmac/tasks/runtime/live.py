"""The sagas a worker owns: how an actor comes to be, and what happens when one is gone.

There are three doors. `create` starts a new saga, owned by this worker from the first entry of its journal.
`resume` lets a parked one go on as an operator decided. `adopt` is the door for everything else: a pending saga that
is to be executed, one whose time has come, one whose worker was lost. All end in an actor whose state is the fold of
the journal.

Between asking for ownership and having an actor, a reply can be lost or the asking task cancelled. Then the storage
may hold us for the owner of a saga that nobody runs. Such sagas are noted as strays, and the recovery adopts them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import trio
from msgspec.structs import replace

from ..errors import ActorDied, NotStarted, OwnershipLost, SagaNotFound, UnreadableSaga
from ..metrics import listening
from ..saga.commands import Record
from ..saga.definition import SagaDefinition
from ..saga.events import (
    AttemptStarted,
    CancelRequested,
    Event,
    SagaCreated,
    SagaResumed,
    encode_events,
)
from ..saga.fold import apply
from ..saga.machine import decide
from ..saga.state import SagaState
from ..storage.key_records import NewRecord
from ..storage.records import Adoption, Creation, NewSaga, SagaMeta, SagaRecord
from .environment import SagaEnvironment
from .fresh_ids import fresh_id
from .journal import Journal
from .log_fields import saga_fields
from .messages import Cancel, Drain, Message
from .permits import Permit
from .saga_actor import SagaActor
from .stored_sagas import record_of
from .strays import Strays
from .telling import tell_created, tell_event, tell_taken_over

Spawn = Callable[..., None]
_log = logging.getLogger(__name__)


class LiveSagas:
    """Actors by saga id.

    Args:
        environment: Shared by all actors.
        worker_id: Who owns the sagas.
        spawn: Starts an actor's task (`Supervisor.spawn`).
        lease: The scope that ends with the worker's lease; all actors run in it.

    Attributes:
        worker_id: The same.
        strays: Sagas that may be ours in the storage but have no actor here.
    """

    def __init__(self, environment: SagaEnvironment, worker_id: str, spawn: Spawn, lease: trio.CancelScope) -> None:
        self._environment = environment
        self._lease = lease
        self._storage = environment.storage
        self.worker_id = worker_id
        self._spawn_task = spawn
        self._actors: dict[str, SagaActor] = {}
        self._closed = False
        self._idle = trio.Event()
        self.strays = Strays()

    def __len__(self) -> int:
        return len(self._actors)

    def get(self, saga_id: str) -> SagaActor | None:
        """The saga's actor, if this worker runs it."""
        return self._actors.get(saga_id)

    # --- the three doors ------------------------------------------------------------------------------------

    async def create(
        self, definition: SagaDefinition, key: NewRecord | None = None, claim_token: str | None = None
    ) -> Creation:
        """Create a saga and run it here, or learn what its key stands for already.

        Raises:
            NotStarted: The worker is stopping.
            StorageUnavailable: No answer; if it was created nevertheless, it will be run.
            StorageRefused: Nothing was created.
        """
        self._check_open()
        opening = _Opening(self._environment, definition)
        state, events = opening.state, opening.events
        new = NewSaga(
            saga_id=definition.saga_id,
            tenant_id=definition.tenant_id,
            workflow_type=definition.workflow_type,
            status=state.status,
            size=len(definition.steps),
            entry_id=fresh_id(),
            events=encode_events(events),
            cursor=state.cursor,
            owner=self.worker_id,
            priority=definition.priority,
            key=key,
            claim_token=claim_token,
        )
        try:
            with self.strays.unless_settled(definition.saga_id, opening=state):
                creation = await self._storage.create_saga(new)
                if creation.created:
                    tell_created(definition)
                    if listening():
                        for event in events:
                            tell_event(definition, event, 0.0)
                    assert creation.meta is not None  # noqa: S101 - narrows the type: it is the new saga's
                    at = creation.meta.updated_at
                    self._spawn_or_leave(Journal(self._storage, state, epoch=1, sequence=1, at=at), opening)
        finally:
            opening.release()
        return creation

    def open(self, opening: SagaState, meta: SagaMeta) -> None:
        """Run a saga that was created here, though the answer to that was lost, and of which nothing more is stored.

        Its first attempt is begun in the journal and was never made. To adopt it would count that one as cut off.

        Raises:
            NotStarted: The worker is stopping.
        """
        self._check_open()
        journal = Journal(self._storage, opening, epoch=meta.epoch, sequence=meta.length, at=meta.updated_at)
        if meta.cancel is not None:
            journal.record(CancelRequested(meta.cancel))
        tell_created(opening.definition)
        self._spawn(journal)
        self.strays.settled(meta.saga_id)

    async def adopt(self, saga_id: str, epoch: int, previous: str | None = None) -> None:
        """Take a saga over and run it here.

        Args:
            saga_id: The saga.
            epoch: The epoch it must still have.
            previous: Who owned it before, for its history.

        Raises:
            OwnershipLost: Somebody else was faster.
            SagaNotFound: It is gone.
            NotStarted: The worker is stopping.
            UnreadableSaga: Its journal cannot be read here; the saga is left to other workers.
        """
        self._check_open()
        pause = self._environment.standing_back.pause(saga_id)
        adoption = Adoption(saga_id, self.worker_id, epoch, fresh_id(), previous, pause=pause)
        with self.strays.unless_settled(saga_id):
            record = await self._storage.adopt_saga(adoption)
            journal = await self._journal_of(record)
            state = journal.state
            if previous not in (None, self.worker_id):
                fields = saga_fields(state.definition)
                _log.info("saga %s taken over from worker %s", saga_id, previous, extra=fields)
                tell_taken_over(state.definition, adoption, record.meta.epoch)
            if record.meta.cancel is not None and state.cancel is None and not state.status.is_final:
                journal.record(CancelRequested(record.meta.cancel))
            self._spawn(journal, fruitless=max(journal.fruitless - 1, 0))

    async def resume(self, meta: SagaMeta, decision: SagaResumed) -> None:
        """Let a parked saga go on here.

        Args:
            meta: Its head, which must not have changed: whoever decided in the same moment owns it under this very
                epoch, and keeps it together with the attempt that he has begun.
            decision: The operator's; durable when this returns.

        Raises:
            OwnershipLost: Somebody else was faster.
            SagaNotFound: It is gone.
            NotStarted: The worker is stopping; nothing was decided.
            UnreadableSaga: Its journal cannot be read here; nothing was decided.
        """
        self._check_open()
        adoption = Adoption(meta.saga_id, self.worker_id, meta.epoch, fresh_id(), expected_length=meta.length)
        with self.strays.unless_settled(meta.saga_id):
            journal = await self._journal_of(await self._storage.adopt_saga(adoption), resumes=True)
            journal.record(decision)
            # Durable before anybody is told so: an operator does not look a second time.
            await journal.flush()
            self._spawn_or_leave(journal)

    async def _journal_of(self, record: SagaRecord, *, resumes: bool = False) -> Journal:
        """The journal of an adopted saga. One that cannot be read is given back, for a while or, parked, for good."""
        meta = record.meta
        try:
            return Journal.of(self._storage, record)
        except UnreadableSaga:
            if record.snapshot is not None:  # the journal is the truth
                whole = await record_of(self._storage, meta.saga_id)
                return await self._journal_of(replace(whole, meta=meta), resumes=resumes)
            pause = self._environment.standing_back.pause(meta.saga_id)
            due_at = None if resumes or meta.status.is_final else self._storage.now() + pause
            await self._storage.release_saga(meta.saga_id, meta.epoch, due_at)
            raise

    def _spawn_or_leave(self, journal: Journal, opening: _Opening | None = None) -> None:
        """Run what is durable already, and thereby as good as promised, here or, if the worker stops, elsewhere."""
        try:
            self._spawn(journal, opening=opening)
        except NotStarted:  # our lease is ending, and with it our ownership
            definition = journal.state.definition
            _log.info(
                "saga %s was to begin as the worker stopped; another one will run it",
                definition.saga_id,
                extra=saga_fields(definition),
            )

    def _spawn(self, journal: Journal, *, fruitless: int = 0, opening: _Opening | None = None) -> None:
        permit = None if opening is None else opening.permit
        actor = SagaActor(self._environment, journal, self._lease, fruitless=fruitless, permit=permit)
        saga_id = actor.saga_id

        def gone(failure: BaseException | None) -> None:
            self._gone(actor, failure)

        try:
            self._spawn_task(f"saga {saga_id}", actor.run, on_exit=gone)
        except ActorDied as error:
            raise NotStarted("the worker is stopping") from error
        if opening is not None:
            opening.permit = None
        self._actors[saga_id] = actor
        if self._closed:
            self._tell(actor, Drain())  # it was asked for before the drain began, and is here only now

    def running(self) -> list[str]:
        """The ids of all sagas that have an actor here."""
        return list(self._actors)

    # --- what happens to them -------------------------------------------------------------------------------

    async def cancel_requested(self, saga_id: str) -> None:
        """Tell the saga's actor of a cancel request that the storage holds."""
        actor = self._actors.get(saga_id)
        if actor is None or actor.journal.state.cancel is not None or actor.told_to_cancel:
            return
        meta = await self._storage.saga_meta(saga_id)
        if meta is not None and meta.cancel is not None:
            self.cancel(saga_id, meta.cancel)

    def cancel(self, saga_id: str, reason: str) -> None:
        """Tell the saga's actor of a cancel request, once; there may be no actor."""
        actor = self._actors.get(saga_id)
        if actor is not None and not actor.told_to_cancel:
            actor.told_to_cancel = True
            self._tell(actor, Cancel(reason))

    def vanished(self, actor: SagaActor) -> None:
        """The storage has no such saga any more, though this worker owns it: report it, once for each actor."""
        if not actor.vanished:
            actor.vanished = True
            self._environment.losses.note("saga", actor.saga_id, actor.journal.state.definition.tenant_id)

    def tell_all(self, message: Message) -> None:
        """Send a message to every actor."""
        for actor in list(self._actors.values()):
            self._tell(actor, message)

    def close(self) -> None:
        """Refuse new sagas from now on."""
        self._closed = True
        if not self._actors:
            self._idle.set()

    async def wait_until_idle(self) -> None:
        """Return when the last actor is gone, after `close`."""
        await self._idle.wait()

    @staticmethod
    def _tell(actor: SagaActor, message: Message) -> None:
        # One that has ended by itself has nothing left to drain or to cancel.
        with suppress(ActorDied):
            actor.inbox.put_nowait(message)

    def _gone(self, actor: SagaActor, failure: BaseException | None) -> None:
        if self._actors.get(actor.saga_id) is actor:
            del self._actors[actor.saga_id]
        if isinstance(failure, Exception):
            self._failed(actor, failure)
        elif actor.journal.closed:
            self.strays.forget(actor.saga_id)
        elif self._lease.cancel_called:  # the actor ended before it could meet the loss of its saga
            owned_until = min(self._lease.deadline, trio.current_time())
            self._environment.losses.suspect(actor.saga_id, owned_until)
        if self._closed and not self._actors:
            self._idle.set()

    def _failed(self, actor: SagaActor, failure: Exception) -> None:
        fields = saga_fields(actor.journal.state.definition)
        if isinstance(failure, SagaNotFound):
            self.vanished(actor)
        elif isinstance(failure, OwnershipLost):
            _log.info("saga %s is run by somebody else: %s", actor.saga_id, failure, extra=fields)
        else:
            _log.error(
                "the actor of saga %s crashed and will be restarted", actor.saga_id, exc_info=failure, extra=fields
            )
            self.strays.add(actor.saga_id)

    def _check_open(self) -> None:
        if self._closed:
            raise NotStarted("the worker is stopping; start the saga on another one, or later")


class _Opening:
    """Everything that can be recorded before the first effect, so that creating and beginning are one append.

    The first attempt is part of it if it takes no lock and its permit is free.

    Attributes:
        state: The saga after it.
        events: What is recorded.
        permit: Of the first attempt, until an actor has it.
    """

    __slots__ = ("events", "permit", "state")

    def __init__(self, environment: SagaEnvironment, definition: SagaDefinition) -> None:
        self.permit: Permit | None = None
        self.events: list[Event] = [SagaCreated(definition)]
        self.state = apply(None, self.events[0])
        now = environment.storage.now()
        while isinstance(command := decide(self.state, now, 0.0), Record):
            event = command.event
            if type(event) is AttemptStarted:
                step = definition.steps[event.step]
                handler = None if step.lock is not None else environment.handlers.find(step.operation, undo=False)
                if handler is None:
                    break
                self.permit = environment.permits.take(handler.demand, definition.saga_id)
                if self.permit is None:
                    break
            self.state = apply(self.state, event)
            self.events.append(event)

    def release(self) -> None:
        """No actor took the permit."""
        if self.permit is not None:
            self.permit.release()
