"""After a storm: wait until it is quiet, read everything, and judge it."""

from __future__ import annotations

import sys

import trio

from chaos.outside import Line
from chaos.verdict import Finding, judge, stories
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.records import SagaFilter, SagaMeta, SagaRecord
from dotmac.tasks.storage.redis import RedisStorage

QUIET_SECONDS = 90.0
UNDER_WAY = (OperationStatus.PENDING, OperationStatus.IN_PROGRESS, OperationStatus.COMPENSATING)
_MOST_TOLD = 20


async def settled(storage: RedisStorage, alive: set[str]) -> set[str]:
    """Give the workers time to forget those who are lost (their next look does it); ids of those that are left.

    Args:
        storage: Where to look.
        alive: A part of the id of each worker that lives.
    """
    present: set[str] = set()
    with trio.move_on_after(QUIET_SECONDS / 4):
        while True:
            present = {worker.worker_id for worker in await storage.list_workers()}
            if len(present) == len(alive) and all(any(part in name for part in alive) for name in present):
                break
            await trio.sleep(0.05)
    return present


async def quiet(storage: RedisStorage) -> None:
    """Wait until no saga is under way."""
    left: list[SagaMeta] = []
    with trio.move_on_after(QUIET_SECONDS):
        while True:
            pages = [await storage.list_sagas(SagaFilter(status=status), 1000) for status in UNDER_WAY]
            left = [meta for page in pages for meta in page.sagas]
            if not left:
                return
            await trio.sleep(0.1)
    raise AssertionError(f"no quiet within {QUIET_SECONDS} s: {left[:10]}")


async def all_records(storage: RedisStorage) -> list[SagaRecord]:
    """Every saga, whole."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await storage.list_sagas(SagaFilter(), 500, cursor)
        ids += [meta.saga_id for meta in page.sagas]
        cursor = page.cursor
        if cursor is None:
            break
    records = [await storage.load_saga(saga_id) for saga_id in ids]
    return [record for record in records if record is not None]


def judged(records: list[SagaRecord], lines: list[Line]) -> list[Finding]:
    """What is wrong; the whole story of each offending saga is printed."""
    told = stories(records, lines)
    findings = judge(told, lines)
    for saga, what in findings[:_MOST_TOLD]:
        sys.stdout.write(f"\n!! {saga} {what}\n{told[saga].tell() if saga in told else ''}\n")
    return findings
