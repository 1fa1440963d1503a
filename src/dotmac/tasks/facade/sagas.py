"""Sagas, as the manager offers them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..bounds import check_encodable, check_texts
from ..bridge.bridged import bridged
from ..errors import InvalidInput
from ..handle import SagaHandle
from ..idempotency import check_name
from ..jsonvalue import check_json, encode
from ..models import HandlerLoad, OperationStatus, SagaHistoryEntry, SagaList, SagaWorkflow, WorkerInfo
from ..runtime.pages import check_saga_cursor
from ..storage.history import SagaHistory
from ..storage.records import SAGA_STATUSES, SagaFilter
from .life import Lifecycle


class SagaMethods(Lifecycle):
    """Create, start, look at, cancel and retry sagas."""

    @property
    def works(self) -> bool:
        """Whether sagas are run in this process."""
        return self._environment.works

    @bridged
    async def create_saga_workflow(  # noqa: PLR0913 - independent options, the later ones by keyword
        self,
        tenant_id: str,
        workflow_type: str,
        steps: list[dict[str, Any]],
        idempotency_key: str | None = None,
        *,
        timeout_seconds: float | None = None,
        priority: int = 0,
        metadata: dict[str, str] | None = None,
    ) -> SagaWorkflow:
        """Store a saga that runs when it is executed; takes the arguments of `start_saga`, and checks as it does.

        With an idempotency key that is known, it gives the saga that the key stands for.
        """
        sagas = self._hosted().sagas
        fields = {
            "tenant_id": tenant_id,
            "workflow_type": workflow_type,
            "timeout_seconds": timeout_seconds,
            "priority": priority,
            "metadata": {} if metadata is None else metadata,
        }
        return await sagas.create(sagas.define(fields, steps, idempotency_key))

    @bridged
    async def execute_saga_workflow(self, saga_id: str) -> bool:
        """Run a saga and wait for its end; one that is running or has ended is only waited for, never run again.

        Returns:
            True if it completed; False if it was compensated or is parked (`get_saga` tells why).

        Raises:
            SagaNotFound: There is no such saga.
        """
        check_encodable("saga_id", saga_id)
        return (await self._hosted().sagas.execute(saga_id)).completed

    @bridged
    async def start_saga(  # noqa: PLR0913 - independent options, all by keyword
        self,
        *,
        tenant_id: str,
        workflow_type: str,
        steps: list[dict[str, Any]],
        idempotency_key: str | None = None,
        timeout_seconds: float | None = None,
        priority: int = 0,
        metadata: dict[str, str] | None = None,
    ) -> SagaHandle:
        """Start a saga in this process; it is durable when this returns.

        Args:
            tenant_id: Whose saga it is.
            workflow_type: A name for this kind of saga.
            steps: See the saga guide for the fields of a step.
            idempotency_key: Unique within the tenant: the same key with the same content gives the same saga.
            timeout_seconds: If it has not completed (or passed its pivot) by then, it turns back.
            priority: From -1000 to 1000; higher is taken over first when a worker is lost.
            metadata: Strings that travel with the saga.

        Raises:
            InvalidInput: Something cannot be run or stored; the error names the field. Nothing was stored.
            UnknownOperation: A step's handler is not registered.
            IdempotencyMismatch: The key was used for another saga.
            StorageUnavailable: No answer. If the saga was stored all the same, it runs; repeat with the same
                idempotency key to be sure.
        """
        hosted = self._hosted()
        fields = {
            "tenant_id": tenant_id,
            "workflow_type": workflow_type,
            "timeout_seconds": timeout_seconds,
            "priority": priority,
            "metadata": {} if metadata is None else metadata,
        }
        return SagaHandle(await hosted.sagas.start(hosted.sagas.define(fields, steps, idempotency_key)), hosted)

    def saga_handle(self, saga_id: str) -> SagaHandle:
        """A handle for a saga that was started earlier or elsewhere."""
        check_encodable("saga_id", saga_id)
        return SagaHandle(saga_id, self._hosted())

    @bridged
    async def get_saga(self, saga_id: str) -> SagaWorkflow:
        """The saga as it stands. Raises SagaNotFound."""
        check_encodable("saga_id", saga_id)
        return await self._hosted().sagas.get(saga_id)

    @bridged
    async def get_saga_history(self, saga_id: str) -> list[SagaHistoryEntry]:
        """Everything that happened to it, oldest first. Raises SagaNotFound."""
        check_encodable("saga_id", saga_id)
        return await self._hosted().sagas.history(saga_id)

    @bridged
    async def extend_saga_history(self, history: SagaHistory) -> OperationStatus:
        """Follow a saga: add what is new of it to a history that was read before, or to an empty one.

        A call reads only what changed since the call before. Where the saga was replaced under its id, or a fail-over
        of the storage lost entries, the call reads the whole history again.

        Args:
            history: ``SagaHistory(saga_id)``; keep it for the next call.

        Returns:
            The saga's status at the moment of its newest entry: no later entry is missing in the history.

        Raises:
            SagaNotFound: There is no such saga; the history is unchanged.
            UnreadableSaga: This version cannot read the journal; the history is unchanged.
        """
        check_encodable("saga_id", history.saga_id)
        return await self._hosted().sagas.extend_history(history)

    @bridged
    async def add_saga_note(self, saga_id: str, event: str, details: dict[str, Any]) -> None:
        """Write a note into the saga's history, beside its journal: who did what, say. It never changes the saga.

        Args:
            saga_id: The saga.
            event: Names what the note is about.
            details: A dict of JSON values.

        Raises:
            InvalidInput: The event is no name, or the details are not JSON or too much of it.
            SagaNotFound: There is no such saga.
        """
        check_encodable("saga_id", saga_id)
        check_name("event", event)
        if type(details) is not dict:
            raise InvalidInput("details", f"must be a dict of JSON values, not {type(details).__name__}")
        check_json(details, "details")
        size, most = len(encode(details)), self._environment.settings.max_payload
        if size > most:
            raise InvalidInput("details", f"has {size} bytes of JSON; at most {most} can be stored")
        await self._hosted().sagas.note(saga_id, {**details, "event": event})

    @bridged
    async def list_sagas(  # noqa: PLR0913 - independent filters
        self,
        tenant_id: str | None = None,
        status: OperationStatus | str | None = None,
        workflow_type: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        *,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> SagaList:
        """A page of sagas, newest first; None matches everything.

        Args:
            tenant_id: Only this tenant's.
            status: Only with this status.
            workflow_type: Only of this kind.
            limit: At most this many, from 1 to 1000.
            cursor: `SagaList.cursor` of the page before.
            created_after: Only those created at this time or later; with a time zone.
            created_before: Only those created before this time; with a time zone.

        Raises:
            InvalidInput: A filter, the limit or the cursor makes no sense.
        """
        check_texts(tenant_id=tenant_id, workflow_type=workflow_type)
        check_saga_cursor(cursor)
        wanted = None if status is None else _saga_status(status)
        times = (_seconds("created_after", created_after), _seconds("created_before", created_before))
        where = SagaFilter(tenant_id, wanted, workflow_type, *times)
        return await self._hosted().sagas.list(where, limit, cursor)

    @bridged
    async def count_sagas(self) -> dict[OperationStatus, int]:
        """How many sagas are stored of each status, as well as it can be told while work goes on."""
        return await self._hosted().sagas.count()

    @bridged
    async def list_workers(self) -> list[WorkerInfo]:
        """The runtime processes that share the storage: all that are alive, and lost ones that still own sagas."""
        return await self._hosted().sagas.workers()

    @bridged
    async def handler_load(self) -> HandlerLoad:
        """The handlers that run and wait in this process, limit by limit, and the threads that outlived attempts."""
        self._hosted()
        return self._environment.permits.load()

    @bridged
    async def retry_saga(self, saga_id: str, reason: str = "", *, from_step: str | None = None) -> SagaHandle:
        """Let a failed (parked) saga go on from where it failed, with fresh attempts, after the cause was mended.

        Args:
            saga_id: The saga.
            reason: Why; it is written into the saga's history.
            from_step: Name of a step: the saga goes forward again from there, even if it had turned back. The steps
                from it on run again, if none of them is done twice by that; those before it must stand.

        Raises:
            InvalidInput: There is no step of this name.
            SagaNotFound: There is no such saga.
            SagaStateError: It is not parked, or cannot go on from this step; the message says why.
            StorageUnavailable: No answer for 10 s; the decision may have been stored or not.
        """
        handle = self.saga_handle(saga_id)  # before: the manager may be stopped while the decision is stored
        await self._hosted().steering.retry(saga_id, reason, from_step)
        return handle

    @bridged
    async def cancel_saga(self, saga_id: str, reason: str = "") -> SagaHandle:
        """Turn a saga back, wherever it runs; it undoes what it did.

        When this returns, the request is durable and the saga turns back: it can end compensated, or failed where a
        compensation fails, but not completed. The reason of the first request is kept. Repeating the call is safe:
        a saga that a cancel turned back accepts another one.

        A saga parked at a pivot of unknown outcome turns back too: the caller vouches that the pivot did not happen.

        Raises:
            SagaNotFound: There is no such saga.
            SagaStateError: The request came too late: the saga has ended, or its pivot has completed. Or the pivot
                is running, or may have happened: the request stays, and no further attempt follows the present one;
                the saga turns back if that attempt fails and the pivot did not happen.
            StorageUnavailable: No answer; the request may be stored or not. Repeat the call.
        """
        handle = self.saga_handle(saga_id)
        await handle.cancel(reason)
        return handle


def _saga_status(text: str) -> OperationStatus:
    try:
        status = OperationStatus(text)
    except ValueError:
        status = None
    if status not in SAGA_STATUSES:
        known = ", ".join(SAGA_STATUSES)
        raise InvalidInput("status", f"there is no status {text!r} of sagas; there are: {known} (or parked)")
    return status


def _seconds(field: str, at: datetime | None) -> float | None:
    if at is None:
        return None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidInput(field, f"must be a datetime with a time zone, not {at!r:.80}")
    return at.timestamp()
