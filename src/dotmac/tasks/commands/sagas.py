"""`sagas`: list, show, watch, start, cancel, retry."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidInput, UsageError
from ..manager import BackgroundOperationsManager
from ..models import OperationStatus, SagaList, SagaOutcome, SagaSummary
from ..service import audit
from ..service.api.bodies import parse_body, saga_fields
from ..service.api.documents import SagaInput
from ..service.exits import FAILED
from ..storage.records import SAGA_STATUSES
from .connecting import Json, Link, Prefix, Redis, Reveal, fail
from .output import age, console, hidden, print_json, print_table, status
from .saga_view import follow, print_history, print_outcome, print_saga
from .steering import all_parked, steer

app = typer.Typer(no_args_is_help=True, help="List, look at, start, cancel and retry sagas.")

SagaId = Annotated[str, typer.Argument(metavar="SAGA_ID", help="The saga.", show_default=False)]
SagaIds = Annotated[list[str] | None, typer.Argument(metavar="[SAGA_ID]...", help="The sagas.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; it is written into the history.", show_default=False)]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.", show_default=False)]
Type = Annotated[str | None, typer.Option("--type", help="Only of this workflow type.", show_default=False)]
Time = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="In UTC.", show_default=False)
]


@app.command(name="list")
def list_sagas(  # noqa: PLR0913, PLR0917 - options of a command line
    tenant: Tenant = None,
    wanted: Annotated[
        str | None,
        typer.Option("--status", help=f"Only with this status: {', '.join(SAGA_STATUSES)}.", show_default=False),
    ] = None,
    workflow_type: Type = None,
    failed: Annotated[
        bool, typer.Option("--failed", "--parked", help="Only those that wait for an operator: --status failed.")
    ] = False,
    after: Time = None,
    before: Time = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Of the page before.", show_default=False)] = None,
    redis: Redis = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """List sagas, newest first."""
    if failed and wanted not in (None, OperationStatus.FAILED, "parked"):
        fail(InvalidInput("--failed", f"contradicts --status {wanted}"))

    async def work(manager: BackgroundOperationsManager) -> SagaList:
        return await manager.list_sagas(
            tenant,
            OperationStatus.FAILED if failed else wanted,
            workflow_type,
            limit,
            cursor,
            created_after=None if after is None else after.replace(tzinfo=UTC),
            created_before=None if before is None else before.replace(tzinfo=UTC),
        )

    page = Link(redis, prefix).ask(work)
    if as_json:
        print_json(page)
        return
    columns = ["saga", "tenant", "type", "status", "step", "age"]
    print_table(columns, [_row(saga) for saga in page.sagas], "no sagas", whole="saga")
    if page.cursor is not None:
        console().print(f"there are more: --cursor {page.cursor}", style="dim")


@app.command()
def show(
    saga_id: SagaId,
    history: Annotated[bool, typer.Option("--history", help="With everything that happened to it.")] = False,
    reveal: Reveal = False,
    redis: Redis = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show one saga: its steps, and what an operator has to see to."""

    async def work(manager: BackgroundOperationsManager) -> None:
        saga = hidden(await manager.get_saga(saga_id), reveal=reveal)
        past = await manager.get_saga_history(saga_id) if history else None
        entries = None if past is None else [hidden(entry, reveal=reveal) for entry in past]
        if as_json:
            print_json(saga if entries is None else {"saga": saga, "history": entries})
            return
        print_saga(saga)
        if entries is not None:
            print_history(entries)

    Link(redis, prefix).ask(work)


@app.command()
def watch(
    saga_id: SagaId, reveal: Reveal = False, redis: Redis = None, prefix: Prefix = None, as_json: Json = False
) -> None:
    """Follow a saga until it ends. Exit code 1 if it did not complete."""

    async def work(manager: BackgroundOperationsManager) -> SagaOutcome:
        return await follow(manager, saga_id, quiet=as_json, reveal=reveal)

    _end(Link(redis, prefix).ask(work), as_json=as_json)


@app.command()
def start(  # noqa: PLR0913, PLR0917 - options of a command line
    file: Annotated[Path, typer.Argument(help="JSON as POST /v1/sagas takes it; - reads standard input.")],
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same one starts it once.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it ends.")] = False,
    reveal: Reveal = False,
    redis: Redis = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Start a saga; a worker that has its handlers runs it."""
    try:
        given = parse_body(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes(), SagaInput)
    except OSError as error:
        fail(InvalidInput(str(file), error.strerror or str(error)))
    except UsageError as error:
        fail(error)

    async def work(manager: BackgroundOperationsManager) -> SagaOutcome | str:
        handle = await manager.start_saga(**saga_fields(given), idempotency_key=key)
        if not wait:
            return handle.saga_id
        return await follow(manager, handle.saga_id, quiet=as_json, reveal=reveal)

    told = Link(redis, prefix).ask(work)
    if isinstance(told, SagaOutcome):
        _end(told, as_json=as_json)
    elif as_json:
        print_json({"saga_id": told})
    else:
        console().print(told)


@app.command()
def cancel(
    saga_ids: Annotated[list[str], typer.Argument(metavar="SAGA_ID...", help="The sagas.", show_default=False)],
    reason: Reason = "",
    redis: Redis = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let sagas turn back and undo what they did."""
    steer(Link(redis, prefix), audit.cancel, saga_ids, reason, as_json=as_json)


@app.command()
def retry(  # noqa: PLR0913, PLR0917 - options of a command line
    saga_ids: SagaIds = None,
    failed: Annotated[
        bool, typer.Option("--failed", "--parked", help="All that failed, of --tenant and --type.")
    ] = False,
    tenant: Tenant = None,
    workflow_type: Type = None,
    from_step: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Go forward again from this step, if none is done twice by that."),
    ] = None,
    reason: Reason = "",
    redis: Redis = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let failed sagas go on from where they failed, after the cause was mended."""
    if bool(saga_ids) == failed or ((tenant or workflow_type) and not failed):
        fail(InvalidInput("SAGA_ID", "name sagas, or give --failed (with --tenant or --type, if need be)"))
    link = Link(redis, prefix)
    wanted = saga_ids or link.ask(lambda manager: all_parked(manager, tenant, workflow_type))
    steer(link, partial(audit.retry, from_step=from_step), wanted, reason, as_json=as_json)


def _row(saga: SagaSummary) -> list[object]:
    step = f"{min(saga.current_step + 1, saga.step_count)}/{saga.step_count}"
    stands = status(saga.status)
    if saga.waiting_for is not None:
        stands.append(f", waits: {saga.waiting_for}")
    return [saga.saga_id, saga.tenant_id, saga.workflow_type, stands, step, age(saga.created_at)]


def _end(outcome: SagaOutcome, *, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
    else:
        print_outcome(outcome)
    raise typer.Exit(0 if outcome.completed else FAILED)
