"""Sagas on a Cluster whose slots move and behind Sentinels that fail over, under load and with a worker killed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from chaos.aftermath import all_records, judged, quiet
from chaos.crew import Crew, Member, crew, eventually
from chaos.shapes import draw
from dotmac.tasks.storage.records import SagaRecord
from dotmac.tasks.storage.redis import RedisStorage
from support.processes import wait_until
from support.servers import Cluster, Sentinels, Server, cluster, sentinel

pytestmark = pytest.mark.redis
SAGAS = 60
LEASE = 3.0


async def submit(workers: Crew, members: list[Member]) -> None:
    """A mixed load over some seconds."""
    random = Random(1)
    for number in range(SAGAS):
        _, steps = draw(random)
        random.choice(members).tell("start", request=f"r{number}", workflow_type="w", steps=steps)
        await trio.sleep(0.05)
    await eventually(lambda: len(workers.ledger.read("started", "refused")) == SAGAS)


async def judged_at_rest(url: str, workers: Crew) -> list[SagaRecord]:
    """All sagas, once they have ended and none of them has broken a promise."""
    storage = RedisStorage(url, workers.prefix)
    async with storage.opened():
        await quiet(storage)
        records = await all_records(storage)
    assert not judged(records, workers.ledger.read())
    return records


async def in_the_background(work: Any, *arguments: Any) -> None:
    await trio.to_thread.run_sync(work, *arguments)


async def test_slots_of_a_cluster_move_under_load(binary: Path | None, tmp_path: Path) -> None:
    with cluster(3, binary=binary, aof=True) as nodes, crew(tmp_path, worker_lease=LEASE) as workers:
        url = nodes.url.replace("redis://", "redis+cluster://")
        first, second = [await workers.hire_ready(url) for _ in range(2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, workers, [first, second])
            await eventually(lambda: len(workers.ledger.read("end")) > 10)
            for tag in ("w", "p00", "p01", "p02"):
                slot = nodes.slot_of(f"{{crew:{tag}}}:x")
                await in_the_background(nodes.migrate, slot, nodes.other_than(nodes.owner_of(slot)))
        records = await judged_at_rest(url, workers)
        assert len(records) == SAGAS
        await takes_over(url, workers, first, second, tmp_path)
        assert sum(_keys(node) > 0 for node in nodes.primaries) == 3, "the partitions are spread over the nodes"


def _keys(node: Server) -> int:
    return int(node.cli("DBSIZE"))


async def takes_over(url: str, workers: Crew, first: Member, second: Member, folder: Path) -> None:
    """A worker dies in the middle of a step; the other one ends the saga."""
    gate = folder / "gate"
    saga = await workers.start(first, [{"name": "a", "operation": "act", "parameters": {"until": str(gate)}}])
    await workers.seen("begin", saga=saga, by=first)
    first.kill()
    await workers.seen("begin", saga=saga, by=second, attempt=2)
    gate.touch()
    await judged_at_rest(url, workers)


async def test_sentinels_fail_over_under_load(binary: Path | None, tmp_path: Path) -> None:
    with sentinel(binary=binary) as watched, crew(tmp_path, worker_lease=LEASE) as workers:
        hosts = ",".join(f"{host}:{port}" for host, port in watched.addresses)
        url = f"redis+sentinel://{hosts}/{watched.name}/0"
        first, second = [await workers.hire_ready(url) for _ in range(2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, workers, [first, second])
            await eventually(lambda: len(workers.ledger.read("end")) > 10)
            await in_the_background(fail_over_without_loss, watched)
        records = await judged_at_rest(url, workers)
        assert len(records) >= len(workers.ledger.read("started")) >= SAGAS / 2
        await takes_over(url, workers, first, second, tmp_path)


def fail_over_without_loss(watched: Sentinels) -> None:
    """Hold writes back, let the replica catch up, then kill the primary.

    Replication is asynchronous: a primary that dies at any moment takes with it what it acknowledged and had not
    replicated yet, and no client can mend that (``durability="replica"`` narrows it). Here nothing is lost, so that
    every promise can be checked.
    """
    old = watched.primary
    old.cli("CLIENT", "PAUSE", 60_000, "WRITE")
    offset = int(_fact(old, "master_repl_offset"))
    wait_until(lambda: int(_fact(watched.replica, "slave_repl_offset")) >= offset, what="the replica caught up")
    old.kill()
    watched.wait_for_primary(other_than=old)


def _fact(server: Server, name: str) -> str:
    facts = dict(line.split(":", 1) for line in str(server.cli("INFO", "replication")).splitlines() if ":" in line)
    return facts[name]


async def test_a_cluster_is_one_namespace_whichever_node_is_asked(binary: Path | None, tmp_path: Path) -> None:
    with cluster(3, binary=binary) as nodes, crew(tmp_path) as workers:
        urls = _urls(nodes)
        starter = await workers.hire_ready(urls[0])
        saga = await workers.start(starter, [{"name": "a", "operation": "act"}], idempotency_key="k")
        other = await workers.hire_ready(urls[1])
        again = await workers.start(other, [{"name": "a", "operation": "act"}], idempotency_key="k")
        assert again == saga


def _urls(nodes: Cluster) -> list[str]:
    return [node.url.replace("redis://", "redis+cluster://") for node in nodes.primaries]
