"""A storm over several processes and one server; afterwards every promise is checked.

``CHAOS_SEED`` runs a failed storm again, ``CHAOS_MINUTES`` makes it longer. Which saga a fault hits depends on the
machine's timing too, so a seed makes a failure likely again, not certain; the report has everything that was seen.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from chaos.aftermath import all_records, judged, quiet, settled
from chaos.crew import Crew, crew
from chaos.faults import Planned, draw_schedule
from chaos.keys import stray_keys
from chaos.storm import Storm
from chaos.verdict import Finding
from dotmac.tasks.storage.records import SagaRecord
from dotmac.tasks.storage.redis import RedisStorage
from support.proxy import FaultProxy
from support.servers import Server

pytestmark = pytest.mark.redis
LEASE = 1.5
SHORT_SECONDS = 12.0


async def test_all_promises_hold_after_a_storm(server: Server, tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
    seconds = float(os.environ.get("CHAOS_MINUTES") or 0) * 60 or SHORT_SECONDS
    schedule = draw_schedule(seed, seconds, LEASE)
    plan = "\n".join([f"CHAOS_SEED={seed}", *map(str, schedule)])
    sys.stdout.write(f"{plan}\n")
    with crew(tmp_path, storage={"socket_timeout": 1.0}, worker_lease=LEASE, drain_timeout=2.0) as workers:
        async with FaultProxy((server.host, server.port)) as proxy:
            storm = Storm(server, proxy, workers, seed)
            await storm.run(schedule, seconds, size=3, pause=0.08)
            findings = await aftermath(server, workers, storm, schedule)
    assert not findings


async def aftermath(server: Server, workers: Crew, storm: Storm, schedule: list[Planned]) -> list[Finding]:
    """Wait for quiet, then look at everything; what is wrong is printed in full."""
    storage = RedisStorage(server.url, workers.prefix)
    async with storage.opened():
        await quiet(storage)
        alive = {f":{member.pid}:" for member in storm.crew}
        present = await settled(storage, alive)
        records = await all_records(storage)
        findings = judged(records, workers.ledger.read())
        lost = sorted(name for name in present if not any(pid in name for pid in alive))
        findings += [("", f"worker {name} was lost and is not forgotten") for name in lost]
        findings += [("", key) for key in stray_keys(server, workers.prefix, [r.meta for r in records], present)]
    report(records, storm, schedule, workers)
    return findings


def report(records: list[SagaRecord], storm: Storm, schedule: list[Planned], workers: Crew) -> None:
    """What it was like, so that one can see that something happened."""
    statuses = Counter(str(record.meta.status) for record in records)
    taken_over = sum(record.meta.epoch > 1 for record in records)
    troubles = Counter(planned.trouble.name for planned in schedule)
    begun = len(workers.ledger.read("begin"))
    sys.stdout.write(
        f"\n{len(records)} sagas of {storm.submitted} requests ({dict(statuses)}), {taken_over} taken over, "
        f"{begun} attempts, {len(workers.members)} processes, troubles: {dict(troubles)}\n"
    )


def test_the_seed_decides_the_schedule() -> None:
    assert draw_schedule(7, 60, 1.5) == draw_schedule(7, 60, 1.5)
    assert draw_schedule(7, 60, 1.5) != draw_schedule(8, 60, 1.5)
