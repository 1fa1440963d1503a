"""A holder that slept through its lease writes late, and the database refuses it by the fence of the lock."""

from __future__ import annotations

import sqlite3

import trio

from dotmac.tasks import BackgroundOperationsManager, LockLost, MemoryStorage
from dotmac.tasks.fences import FENCE_GUARD, require_current

database = sqlite3.connect(":memory:", isolation_level=None)
database.execute("CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER, fence INTEGER)")
database.execute("INSERT INTO counters VALUES ('visits', 0, NULL)")

UPDATE = f"UPDATE counters SET value = :value, fence = :fence WHERE name = 'visits' AND {FENCE_GUARD}"  # noqa: S608 - constants


def write(who: str, value: int, fence: int) -> None:
    changed = database.execute(UPDATE, {"value": value, "fence": fence}).rowcount
    try:
        require_current(changed, "the counter", fence)
    except LockLost:
        print(f"{who}: refused, somebody has written under a higher fence")
    else:
        print(f"{who}: wrote {value}")


def read() -> int:
    value: int = database.execute("SELECT value FROM counters").fetchone()[0]
    return value


async def main() -> None:
    storage = MemoryStorage()
    async with BackgroundOperationsManager(storage=storage) as manager:
        # Taken for a fixed time and not renewed: what a lock is for a process that is stopped meanwhile.
        await manager.acquire_lock("counter", timeout_seconds=0.1)
        (sleeper,) = await manager.list_locks()
        seen = read()
        async with manager.lock("counter") as held:  # waits until the lease of the sleeper is over
            write("awake", read() + 1, held.fence)
        write("sleeper", seen + 1, sleeper.fence)
        print(f"the counter is {read()}")


if __name__ == "__main__":
    trio.run(main)
    database.close()
