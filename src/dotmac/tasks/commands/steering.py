"""Cancelling and retrying many sagas: each one by itself, with progress, and a line for each that refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import typer
from rich.progress import Progress
from rich.text import Text

from ..errors import InvalidInput, SagaNotFound, SagaStateError
from ..manager import BackgroundOperationsManager
from ..models import OperationStatus
from ..service.exits import FAILED
from ..service.plain import plain
from .connecting import Link, who
from .output import console, print_json

Deed = Callable[[BackgroundOperationsManager, str, str, str], Awaitable[None]]
"""Called with the manager, the saga, who does it, and why."""

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Steered:
    """What became of the requests: sagas that follow, and those that refused, with the reason."""

    done: list[str]
    refused: dict[str, str]


def steer(link: Link, deed: Deed, saga_ids: list[str], reason: str, *, as_json: bool) -> None:
    """Do it to each saga. Exit code 1 if one of them refused."""

    async def work(manager: BackgroundOperationsManager) -> Steered:
        steered = Steered([], {})
        with Progress(console=console(error=True), transient=True, disable=as_json or len(saga_ids) == 1) as progress:
            for saga_id in progress.track(saga_ids, description="sagas"):
                try:
                    await deed(manager, saga_id, who(), reason)
                except (InvalidInput, SagaNotFound, SagaStateError) as error:
                    steered.refused[plain(saga_id)] = str(error)  # which no JSON might carry, as it was given
                else:
                    steered.done.append(saga_id)
        return steered

    steered = link.ask(work)
    if as_json:
        print_json(steered)
    else:
        for error in steered.refused.values():
            console(error=True).print(Text(plain(error), style="red"))
        console().print(f"the request is stored for {len(steered.done)} of {len(saga_ids)} sagas")
    if steered.refused:
        raise typer.Exit(FAILED)


async def all_parked(
    manager: BackgroundOperationsManager, tenant_id: str | None, workflow_type: str | None
) -> list[str]:
    """The ids of all parked sagas of this tenant and this type, oldest first."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await manager.list_sagas(tenant_id, OperationStatus.FAILED, workflow_type, _PAGE, cursor)
        found += [saga.saga_id for saga in page.sagas]
        cursor = page.cursor
        if cursor is None:
            return found[::-1]
