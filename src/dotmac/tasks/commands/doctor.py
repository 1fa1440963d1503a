"""`doctor`: looks a storage over and says what is wrong with it, with the command that mends each finding."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import Counter
from typing import Annotated

import trio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import InvalidInput
from ..manager import BackgroundOperationsManager
from ..models import Finding, Verdict
from ..service.application import load_manager
from ..service.exits import DRAINED, FAILED, USAGE

_SIGNS = {Verdict.OK: ("ok", "green"), Verdict.ADVICE: ("advice", "yellow"), Verdict.PROBLEM: ("problem", "bold red")}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    application: Annotated[
        str | None,
        typer.Argument(metavar="[MODULE:ATTR]", help="The manager whose storage is meant.", show_default=False),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis", metavar="URL", help="The storage, without an application; or REDIS_URL.", show_default=False
        ),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Of the namespace, where it is not the usual one.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Look the storage over: version, persistence, eviction, memory, replication, clock, latency, namespace, scripts.

    Exit codes: 0 no problem (there may be advice); 1 problems; 2 called wrongly.
    """
    try:
        manager = _manager(application, redis, prefix)
    except InvalidInput as error:
        typer.secho(f"dotmac-tasks: {error}", err=True, fg="red")
        raise typer.Exit(USAGE) from error
    findings = trio.run(manager.examine)
    if as_json:
        typer.echo(json.dumps({"findings": [dataclasses.asdict(finding) for finding in findings]}, ensure_ascii=False))
    else:
        show(Console(file=sys.stdout), findings)
    problems = any(finding.verdict is Verdict.PROBLEM for finding in findings)
    raise typer.Exit(FAILED if problems else DRAINED)


def show(console: Console, findings: list[Finding]) -> None:
    """Print the findings, and what they come to."""
    widest = max(len(finding.check) for finding in findings)
    several = len({finding.node for finding in findings if finding.node}) > 1
    for finding in findings:
        word, style = _SIGNS[finding.verdict]
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(min_width=len("problem"))
        row.add_column(min_width=widest)
        row.add_column()
        where = f" ({finding.node})" if several and finding.node else ""
        row.add_row(Text(word, style), Text(finding.check, "bold"), Text(finding.message + where))
        console.print(row)
        if finding.remedy is not None:
            # Not wrapped: a command must survive being copied.
            indent = " " * (len("problem") + widest + 4)
            console.print(Text.assemble(indent, ("to mend it: ", "dim"), finding.remedy), soft_wrap=True)
    counts = Counter(finding.verdict for finding in findings)
    problems, advice = counts[Verdict.PROBLEM], counts[Verdict.ADVICE]
    said = f"{problems} problem{'' if problems == 1 else 's'}, {advice} piece{'' if advice == 1 else 's'} of advice"
    console.print(Text(said, "bold red" if problems else "bold green"))


def _manager(application: str | None, redis: str | None, prefix: str | None) -> BackgroundOperationsManager:
    if application is not None:
        if prefix is not None:
            raise InvalidInput("--prefix", "belongs to the application; leave out one of the two")
        if redis is not None:
            os.environ["REDIS_URL"] = redis
        return load_manager(application)
    url = redis or os.environ.get("REDIS_URL")
    if not url:
        raise InvalidInput("--redis", "say which storage is meant: --redis URL, REDIS_URL, or MODULE:ATTR")
    from ..storage.redis import RedisStorage  # noqa: PLC0415 - needs the redis extra

    storage = RedisStorage(url) if prefix is None else RedisStorage(url, prefix)
    return BackgroundOperationsManager(storage)
