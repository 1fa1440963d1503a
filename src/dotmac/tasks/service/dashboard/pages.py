"""The pages that show: overview, sagas, one saga, locks, workers, settings."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import trio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...errors import InvalidInput, SagaNotFound
from ...listings import IdempotencyKeySummary
from ...models import OperationStatus, Verdict
from ...storage.history import HistoryPosition
from ...storage.records import SAGA_STATUSES
from .actions import fitting
from .activity import SAMPLE_EVERY
from .site import Site
from .timeline import SCALE, timeline
from .values import Values

_PER_PAGE = 50
_TIMES = ("created_after", "created_before")
_ON_OVERVIEW = 10
_MOST_LOCKS = 500
_WORST_FIRST = (Verdict.PROBLEM, Verdict.ADVICE, Verdict.OK)
_HIDDEN_SETTINGS = {"redis_url"}  # it may hold a password; the examination says where the storage is


class Pages:
    """Handlers of the pages that only read."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._manager = site.manager

    async def overview(self, request: Request) -> Response:
        """How things stand."""
        counts = await self._manager.count_sagas()
        self._site.counts.note(counts)
        workers = await self._manager.list_workers()
        parked = await self._manager.list_sagas(status=OperationStatus.FAILED, limit=_ON_OVERVIEW)
        newest = await self._manager.list_sagas(limit=_ON_OVERVIEW)
        return self._site.page(
            request,
            "overview.html",
            counts={str(status): number for status, number in counts.items()},
            alive=sum(worker.alive for worker in workers),
            lost=sum(not worker.alive for worker in workers),
            parked=parked.sagas,
            newest=newest.sagas,
            throughput=self._site.counts.throughput(),
            sample_every=SAMPLE_EVERY,
            lately=self._site.activity.summary(),
        )

    async def sagas(self, request: Request) -> Response:
        """A page of the list, filtered."""
        query = _filters(request, "saga_id", "tenant_id", "status", "workflow_type", *_TIMES, "cursor")
        if "saga_id" in query:
            root = request.scope.get("root_path", "").rstrip("/")
            return RedirectResponse(f"{root}/sagas/{quote(query['saga_id'], safe='')}", status_code=303)
        wanted = {name: query.get(name) for name in ("tenant_id", "status", "workflow_type", *_TIMES)}
        page = await self._manager.list_sagas(
            wanted["tenant_id"],
            wanted["status"],
            wanted["workflow_type"],
            _PER_PAGE,
            query.get("cursor"),
            **{name: _time(name, wanted[name]) for name in _TIMES},
        )
        kept = {name: value for name, value in wanted.items() if value is not None}
        return self._site.page(
            request,
            "sagas.html",
            sagas=page.sagas,
            wanted=wanted,
            filtered=bool(kept),
            statuses=[str(status) for status in SAGA_STATUSES],
            paging="cursor" in query,
            newest=urlencode(kept),
            older=None if page.cursor is None else urlencode({**kept, "cursor": page.cursor}),
        )

    async def saga(self, request: Request) -> Response:
        """One saga: its steps, its timeline, its history."""
        saga_id = request.path_params["saga_id"]
        saga = await self._manager.get_saga(saga_id)
        history = await self._manager.get_saga_history(saga_id)
        values = Values(self._site.redaction)
        return self._site.page(
            request,
            "saga.html",
            saga=saga,
            actions=fitting(saga),
            rows=timeline(history, datetime.now(UTC), ended=saga.status.is_final),
            scale=SCALE,
            history=[{"entry": entry, "details": values.shown(entry.details)} for entry in history],
            seen=HistoryPosition.end_of(history),
            hide=values.shown,
            done=request.query_params.get("done", ""),
        )

    async def keys(self, request: Request) -> Response:
        """A page of idempotency keys."""
        query = _filters(request, "tenant_id", "cursor")
        tenant_id = query.get("tenant_id")
        page = await self._manager.list_idempotency_keys(tenant_id, _PER_PAGE, query.get("cursor"))
        kept = {} if tenant_id is None else {"tenant_id": tenant_id}
        return self._site.page(
            request,
            "keys.html",
            keys=page.keys,
            failed_sagas=await self._failed_sagas(page.keys),
            tenant_id=tenant_id or "",
            paging="cursor" in query,
            first=urlencode(kept),
            following=None if page.cursor is None else urlencode({**kept, "cursor": page.cursor}),
            now=datetime.now(UTC),
        )

    async def _failed_sagas(self, keys: list[IdempotencyKeySummary]) -> set[str]:
        """Sagas that wait for an operator: their keys stay in progress until he has decided."""
        failed: set[str] = set()

        async def look(saga_id: str) -> None:
            with suppress(SagaNotFound):  # it was removed between the two looks
                if await self._manager.saga_handle(saga_id).status() is OperationStatus.FAILED:
                    failed.add(saga_id)

        async with trio.open_nursery() as nursery:
            for key in keys:
                if key.saga_id is not None and key.status is OperationStatus.IN_PROGRESS:
                    nursery.start_soon(look, key.saga_id)
        return failed

    async def locks(self, request: Request) -> Response:
        """Locks that are held, and how many processes wait for each."""
        locks = await self._manager.list_locks(_MOST_LOCKS)
        return self._site.page(request, "locks.html", locks=locks, most=_MOST_LOCKS, now=datetime.now(UTC))

    async def lock(self, request: Request) -> Response:
        """One lock, and who waits for it."""
        standing = await self._manager.inspect_lock(request.path_params["name"])
        return self._site.page(request, "lock.html", lock=standing, now=datetime.now(UTC))

    async def workers(self, request: Request) -> Response:
        """Workers and their leases."""
        workers = await self._manager.list_workers()
        workers.sort(key=lambda worker: (worker.alive, worker.host, worker.worker_id))
        gone = self._site.workers.gone(workers)
        return self._site.page(request, "workers.html", workers=workers, gone=gone, now=datetime.now(UTC))

    async def settings(self, request: Request) -> Response:
        """The examination of the storage, and what is set."""
        settings = self._manager.settings
        shown = [
            (field.name, getattr(settings, field.name))
            for field in fields(settings)
            if field.name not in _HIDDEN_SETTINGS
        ]
        findings = sorted(await self._manager.examine(), key=lambda finding: _WORST_FIRST.index(finding.verdict))
        return self._site.page(
            request,
            "settings.html",
            findings=findings,
            several=len({finding.node for finding in findings if finding.node}) > 1,
            settings=shown,
        )


def _filters(request: Request, *known: str) -> dict[str, str]:
    """The query of a page without its empty fields.

    Raises:
        InvalidInput: The page has no such filter; it would be ignored.
    """
    for name in request.query_params:
        if name not in known:
            raise InvalidInput(name, f"this page has no such filter; it has: {', '.join(known)}")
    return {name: value.strip() for name, value in request.query_params.items() if value.strip()}


def _time(name: str, text: str | None) -> datetime | None:
    """A point in time as a browser's field gives it, in UTC."""
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(name, f"must be a time such as 2026-01-31T13:00, not {text!r:.80}") from None
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given
