"""What can be asked of sagas from outside their actors: create, execute, look at, wait for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ..errors import IdempotencyMismatch, InvalidInput, NotStarted, OwnershipLost, SagaNotFound
from ..idempotency import check_name, fingerprint, scope_key
from ..jsonvalue import encode
from ..metrics import NEW_METADATA, added_metadata, wanted
from ..models import (
    OperationStatus,
    SagaHistoryEntry,
    SagaList,
    SagaOutcome,
    SagaWorkflow,
    WorkerInfo,
)
from ..saga.definition import SagaDefinition, decode_definition
from ..saga.events import SagaCreated, encode_events
from ..saga.validation import KnownHandlers, check_definition, parse_steps
from ..saga.views import outcome_view
from ..storage.folding import state_of, summary_of, worker_view, workflow_of
from ..storage.history import SagaHistory
from ..storage.key_records import NewRecord
from ..storage.protocol import saga_topic
from ..storage.records import Creation, NewSaga, SagaFilter, SagaMeta
from .environment import SagaEnvironment
from .fresh_ids import fresh_id
from .handing_over import hand_over
from .inside_handlers import inside_handler, waiting_for_others
from .looking import look_or_wait
from .pages import check_limit
from .runtime import Runtime
from .stored_sagas import meta_of, record_of
from .telling import tell_created
from .wait_graph import waiting_for

_ANY_HANDLER = KnownHandlers(None, None)  # those who will run it know which there are
_log = logging.getLogger(__name__)


class SagaService:
    """Sagas as the manager offers them.

    Args:
        environment: Storage, settings, handlers.
        runtime: Whose worker runs what is started here.
    """

    def __init__(self, environment: SagaEnvironment, runtime: Runtime) -> None:
        self._environment = environment
        self._storage = environment.storage
        self._runtime = runtime

    # --- beginning ------------------------------------------------------------------------------------------

    async def create(self, definition: SagaDefinition) -> SagaWorkflow:
        """Store a pending saga that runs when it is executed; under a key, the one that the key stands for."""
        key = self._key_of(definition)
        creation = await self._store(definition, key, None)
        return await self.get(_saga_id_of(creation, key))

    async def _store(
        self, definition: SagaDefinition, key: NewRecord | None, token: str | None, *, due_at: float | None = None
    ) -> Creation:
        """Store a saga that nobody runs yet; with `due_at`, some worker will from then on."""
        new = NewSaga(
            saga_id=definition.saga_id,
            tenant_id=definition.tenant_id,
            workflow_type=definition.workflow_type,
            status=OperationStatus.PENDING,
            size=len(definition.steps),
            entry_id=fresh_id(),
            events=encode_events([SagaCreated(definition)]),
            due_at=due_at,
            priority=definition.priority,
            key=key,
            claim_token=token,
        )
        creation = await self._storage.create_saga(new)
        if creation.created:
            tell_created(definition)
        return creation

    async def start(self, definition: SagaDefinition, claim: tuple[NewRecord, str] | None = None) -> str:
        """Create a saga and run it at once; under a key that is known, no other is created. Gives its id."""
        key, token = claim or (self._key_of(definition), None)
        if self._environment.works:
            creation = await (await self._runtime.worker()).sagas.create(definition, key, token)
        else:
            creation = await self._store(definition, key, token, due_at=self._storage.now())
        saga_id = _saga_id_of(creation, key)
        if not creation.created and creation.meta is not None:
            await self._begin(creation.meta)
        return saga_id

    async def execute(self, saga_id: str) -> SagaOutcome:
        """Run a pending saga here, and wait for its end; one that was begun already is only waited for."""
        await self._begin(await meta_of(self._storage, saga_id))
        return await self.outcome(saga_id)

    async def _begin(self, meta: SagaMeta) -> None:
        """Run a saga that was created but never begun; leave any other alone."""
        if meta.status is OperationStatus.PENDING and meta.owner is None:
            try:
                if self._environment.works:
                    await (await self._runtime.worker()).sagas.adopt(meta.saga_id, meta.epoch)
                elif meta.due_at is None:
                    await hand_over(self._storage, meta)
            except OwnershipLost:
                _log.debug("saga %s was begun by somebody else in the same moment", meta.saga_id)

    # --- looking --------------------------------------------------------------------------------------------

    async def get(self, saga_id: str) -> SagaWorkflow:
        """The saga as it stands. Raises SagaNotFound."""
        return workflow_of(await record_of(self._storage, saga_id))

    async def history(self, saga_id: str) -> list[SagaHistoryEntry]:
        """Everything that happened to the saga, oldest first. Raises SagaNotFound."""
        history = SagaHistory(saga_id)
        await self.extend_history(history)
        return history.entries

    async def extend_history(self, history: SagaHistory) -> OperationStatus:
        """Add what is new of the saga to its history; gives its status of the same moment. Raises SagaNotFound."""
        async with history.extending:
            record = await record_of(self._storage, history.saga_id, history.mark)
            await history.extend(record)
        return record.meta.status

    async def note(self, saga_id: str, entry: dict[str, Any]) -> None:
        """Write a note beside the saga's journal. Raises SagaNotFound."""
        await self._storage.append_saga_history(saga_id, entry)

    async def status(self, saga_id: str) -> OperationStatus:
        """Its status. Raises SagaNotFound."""
        return (await meta_of(self._storage, saga_id)).status

    async def workers(self) -> list[WorkerInfo]:
        """The workers of the namespace, alive or lost, by id."""
        now = self._storage.now()
        return [worker_view(worker, now) for worker in await self._storage.list_workers()]

    async def list(self, where: SagaFilter, limit: int, cursor: str | None) -> SagaList:
        """A page of sagas, newest first."""
        check_limit(limit)
        page = await self._storage.list_sagas(where, limit, cursor)
        return SagaList([summary_of(meta) for meta in page.sagas], page.cursor)

    async def count(self) -> dict[OperationStatus, int]:
        """How many sagas there are of each status."""
        return await self._storage.count_sagas()

    async def outcome(self, saga_id: str) -> SagaOutcome:
        """Wait until the saga rests in a final status, wherever it runs.

        Raises:
            SagaNotFound: It is not there (any more).
            NotStarted: The runtime has ended, so that nothing here will learn of the saga's end.
            WouldDeadlock: The saga waits for the caller.
        """
        with waiting_for(f"the end of saga {saga_id}", lambda: self._actor_task(saga_id)), waiting_for_others():
            if not inside_handler():
                return await self._outcome(saga_id)
            awaited = self._environment.awaited
            awaited[saga_id] += 1
            try:
                return await self._outcome(saga_id)
            finally:
                awaited[saga_id] -= 1
                if not awaited[saga_id]:
                    del awaited[saga_id]

    def _actor_task(self, saga_id: str) -> object | None:
        actor = self._runtime.local_actor(saga_id)
        return None if actor is None else actor.waiting_task

    async def _outcome(self, saga_id: str) -> SagaOutcome:
        while not self._runtime.over:
            actor = self._runtime.local_actor(saga_id)
            if actor is not None:
                await actor.ended.wait()
                if actor.journal.closed and actor.journal.state.status.is_final:
                    return outcome_view(actor.journal.state)
            poll = self._environment.settings.poll_interval
            ended = await look_or_wait(self._storage, saga_topic(saga_id), lambda: self._ended(saga_id), poll)
            if ended is not None:
                return ended
        raise NotStarted(f"the manager was stopped; saga {saga_id} goes on, here after the next start, or elsewhere")

    async def _ended(self, saga_id: str) -> SagaOutcome | None:
        """How the saga ended, or None: it goes on, or was resumed between two looks."""
        if not (await meta_of(self._storage, saga_id)).status.is_final:
            return None
        state = state_of(await record_of(self._storage, saga_id))
        return outcome_view(state) if state.status.is_final else None

    # --- helpers --------------------------------------------------------------------------------------------

    def define(
        self,
        fields: Mapping[str, Any],
        steps: Any,
        idempotency_key: str | None = None,
        *,
        record_key: str | None = None,
    ) -> SagaDefinition:
        """A checked definition with a fresh id.

        Args:
            fields: Of the definition, but for its steps.
            steps: As users give them.
            idempotency_key: As the caller chose it.
            record_key: As a record has it, where that is known already.

        Raises:
            InvalidInput: Naming what is wrong.
            UnknownOperation: A step's handler is not registered.
        """
        tenant_id = fields["tenant_id"]
        check_name("tenant_id", tenant_id)
        key = record_key if idempotency_key is None else scope_key(tenant_id, idempotency_key, "idempotency_key")
        definition = SagaDefinition(
            saga_id=self._storage.new_saga_id(key),
            steps=parse_steps(steps, self._environment.handlers.known if self._environment.works else _ANY_HANDLER),
            idempotency_key=key,
            **fields,
        )
        check_definition(definition)
        if wanted(NEW_METADATA):
            told = {"saga_id": definition.saga_id, "metadata": definition.metadata}
            added = added_metadata(definition.workflow_type, tenant_id, **told)
            definition = replace(definition, metadata={**definition.metadata, **added})
        data, limit = encode(definition), self._environment.settings.max_payload
        if len(data) > limit:
            raise InvalidInput("steps", f"the saga has {len(data)} bytes of JSON; at most {limit} can be stored")
        # As whoever takes it over will read it: what the caller does to its own dicts from now on reaches no handler.
        return decode_definition(data)

    def _key_of(self, definition: SagaDefinition) -> NewRecord | None:
        if definition.idempotency_key is None:
            return None
        content = [definition.steps, definition.timeout_seconds]
        return NewRecord(
            key=definition.idempotency_key,
            tenant_id=definition.tenant_id,
            user_id=None,
            operation_type=definition.workflow_type,
            fingerprint=fingerprint(None, definition.workflow_type, content),
            parameters=None,
            ttl=self._environment.settings.default_ttl,
        )


def _saga_id_of(creation: Creation, key: NewRecord | None) -> str:
    """The saga that was created, or that the key stands for."""
    record = creation.record
    if key is not None and record is not None and record.fingerprint != key.fingerprint:
        raise IdempotencyMismatch("idempotency_key: it was used for another saga (other type, steps or time-out)")
    if creation.meta is not None:
        return creation.meta.saga_id
    if record is not None and record.saga_id is not None:
        raise SagaNotFound(f"the idempotency key stands for saga {record.saga_id}, whose retention is over")
    raise IdempotencyMismatch("idempotency_key: it was used for an operation that is no saga")
