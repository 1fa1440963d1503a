"""`locks`, `workers`, `keys`, `doctor`: what is there, and whether it is well."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..errors import IdempotencyKeyNotFound
from ..listings import IdempotencyKeyList, IdempotencyKeySummary, LockStanding
from ..manager import BackgroundOperationsManager
from ..models import Finding, IdempotencyKey, LockInfo, OperationStatus, Verdict, WorkerInfo
from ..service.exits import DRAINED, FAILED
from ..service.plain import plain
from .connecting import Json, Link, Prefix, Redis, Reveal
from .output import age, clock, console, hidden, print_json, print_table, short_json, shown, until

_VERDICTS = {
    Verdict.OK: ("ok", "green"),
    Verdict.ADVICE: ("advice", "yellow"),
    Verdict.PROBLEM: ("PROBLEM", "bold red"),
}
_WORKER_STYLES = {"alive": "green", "draining": "yellow", "lost": "bold red"}
_LOCK_COLUMNS = ("lock", "holder", "fence", "held for", "lease ends in", "waiting")
_WIDEST_VERDICT = max(len(name) for name, _ in _VERDICTS.values())


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (locks, workers, keys, doctor):
        app.command()(command)


def locks(
    name: Annotated[str | None, typer.Argument(help="One lock, to see its queue.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    redis: Redis = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """List locks that are held, or show one with the processes that wait for it."""
    link = Link(redis, prefix)
    if name is not None:
        _show_lock(link.ask(lambda manager: manager.inspect_lock(name, limit)), as_json=as_json)
        return
    found = link.ask(lambda manager: manager.list_locks(limit))
    if as_json:
        print_json(found)
        return
    rows = [_lock_row(lock) for lock in found]
    print_table(_LOCK_COLUMNS, rows, "no lock is held")


def _show_lock(found: LockStanding, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_table(_LOCK_COLUMNS, [] if found.held is None else [_lock_row(found.held)], f"nobody holds {found.name}")
    rows = [[place, waiter.owner, age(waiter.since)] for place, waiter in enumerate(found.queue, 1)]
    print_table(["turn", "waiting", "for"], rows, "nobody waits for it")
    if found.waiters > len(rows):
        console().print(Text(f"and {found.waiters - len(rows)} more", "dim"))


def workers(redis: Redis = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List the processes that run sagas, and their leases."""
    found = Link(redis, prefix).ask(lambda manager: manager.list_workers())
    if as_json:
        print_json(found)
        return
    rows = [_worker_row(worker) for worker in found]
    print_table(["worker", "host", "pid", "state", "for", "lease ends in"], rows, "no worker")
    for worker in found:
        for trouble in worker.troubles:
            console().print(Text(f"{worker.worker_id}: {trouble}", "yellow"))


def keys(  # noqa: PLR0913, PLR0917 - options of a command line
    key: Annotated[
        str | None,
        typer.Argument(help="A record's key; with --tenant, as the caller chose it.", show_default=False),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="The tenant that chose the key; without a key, only this tenant's.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Of the page before.", show_default=False)] = None,
    reveal: Reveal = False,
    redis: Redis = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """List idempotency keys, or show what is known of one."""
    link = Link(redis, prefix)
    if key is None:
        _list_keys(link.ask(lambda manager: _page_of_keys(manager, tenant, limit, cursor)), as_json=as_json)
    else:
        _show_key(link, key, tenant, reveal=reveal, as_json=as_json)


async def _page_of_keys(
    manager: BackgroundOperationsManager, tenant: str | None, limit: int, cursor: str | None
) -> IdempotencyKeyList:
    """As many as are wanted, if there are as many: the pages of the storage may be shorter."""
    found: list[IdempotencyKeySummary] = []
    while True:
        page = await manager.list_idempotency_keys(tenant, limit - len(found), cursor)
        found += page.keys
        cursor = page.cursor
        if cursor is None or len(found) == limit:
            return IdempotencyKeyList(found, cursor)


def _list_keys(page: IdempotencyKeyList, *, as_json: bool) -> None:
    if as_json:
        print_json(page)
        return
    rows = [
        [key.key, key.tenant_id, key.operation_type, _words(key.status), key.saga_id or "", age(key.created_at)]
        for key in page.keys
    ]
    print_table(["key", "tenant", "operation", "status", "saga", "age"], rows, "no idempotency key")
    if page.cursor is not None:
        console().print(Text(plain(f"there are more: --cursor {page.cursor}"), "dim"))


def _show_key(link: Link, key: str, tenant: str | None, *, reveal: bool, as_json: bool) -> None:
    async def work(manager: BackgroundOperationsManager) -> IdempotencyKey:
        record = await manager.check_idempotency(key, tenant_id=tenant)
        if record is None:
            raise IdempotencyKeyNotFound("there is no record of this key, or its time to live is over")
        return record

    record = hidden(link.ask(work), reveal=reveal)
    if as_json:
        print_json(record)
        return
    lines = {
        "key": record.key,
        "tenant": record.tenant_id,
        "user": record.user_id,
        "operation": record.operation_type,
        "created": f"{clock(record.created_at)} (UTC)",
        "status": _words(record.status),
        "result": None if record.result is None else short_json(record.result),
        "error": record.error,
    }
    out = console()
    for name, value in lines.items():
        if value is not None:
            out.print(Text.assemble((f"{name:<10}", "dim"), plain(value)))


def doctor(redis: Redis = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Examine the storage; each finding comes with the command that mends it. Exit code 1 if there is a problem."""
    found = Link(redis, prefix).ask_unconnected(lambda manager: manager.examine())
    if as_json:
        print_json(found)
    else:
        _print_findings(found)
    worst = any(finding.verdict is Verdict.PROBLEM for finding in found)
    raise typer.Exit(FAILED if worst else DRAINED)


def _print_findings(found: list[Finding]) -> None:
    out = console()
    widest = max(len(finding.check) for finding in found)
    several = len({finding.node for finding in found if finding.node}) > 1
    for finding in found:
        name, style = _VERDICTS[finding.verdict]
        where = f" ({finding.node})" if several and finding.node else ""
        row = Table.grid(padding=(0, 2, 0, 0))
        for width in (_WIDEST_VERDICT, widest, None):
            row.add_column(min_width=width, overflow="fold")
        row.add_row(Text(name, style), Text(finding.check, "bold"), Text(plain(finding.message + where)))
        out.print(row)
        if finding.remedy is not None:
            # Not wrapped: a command must survive being copied.
            indent = " " * (_WIDEST_VERDICT + widest + 4)
            out.print(Text.assemble(indent, (shown("→ ", "-> "), style), plain(finding.remedy)), soft_wrap=True)
    counts = Counter(finding.verdict for finding in found)
    problems, advice = counts[Verdict.PROBLEM], counts[Verdict.ADVICE]
    said = f"{problems} problem{'' if problems == 1 else 's'}, {advice} piece{'' if advice == 1 else 's'} of advice"
    out.print(Text(said, "bold red" if problems else "bold green"))


def _words(status: OperationStatus) -> str:
    return str(status).replace("_", " ")


def _lock_row(lock: LockInfo) -> list[object]:
    left = until(lock.until)
    return [lock.name, lock.owner, lock.fence, age(lock.since), left, lock.waiters]


def _worker_row(worker: WorkerInfo) -> list[object]:
    state = Text(worker.state, style=_WORKER_STYLES[worker.state])
    left = until(worker.lease_until)
    return [worker.worker_id, worker.host, worker.pid, state, age(worker.started_at), left]
