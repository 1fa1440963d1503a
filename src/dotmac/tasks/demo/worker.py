"""A worker of the demo as a process of its own: it starts one saga and works until it is killed.

Run as ``python -m dotmac.tasks.demo.worker FOLDER LEDGER PACE``; reads the saga as JSON from its standard input and
writes the saga's id to its standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import trio

from ..manager import BackgroundOperationsManager
from ..storage.redis import RedisStorage
from .ledger import Ledger
from .sagas import TENANT, DemoSaga, register_handlers
from .stage import DOOMED_LEASE


async def work(folder: str, ledger: str, pace: float, saga: DemoSaga) -> None:
    """Start the saga and go on working."""
    manager = BackgroundOperationsManager(
        RedisStorage.embedded(folder), worker_lease=DOOMED_LEASE, poll_interval=DOOMED_LEASE / 10
    )
    register_handlers(manager, Ledger(Path(ledger)), pace)
    async with manager:
        handle = await manager.start_saga(tenant_id=TENANT, workflow_type=saga.workflow_type, steps=saga.steps)
        sys.stdout.write(f"{handle.saga_id}\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(
        work, sys.argv[1], sys.argv[2], float(sys.argv[3]), msgspec.json.decode(sys.stdin.buffer.read(), type=DemoSaga)
    )
