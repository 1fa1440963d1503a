"""The index of sagas that wait for a handler which no worker has. The search for work and the doctor read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .gateway import RedisClient
from .layout import SEPARATOR, Partition

MOST_WAITING = 10_000  # names that are read of one partition
_MARK = b"w" + SEPARATOR


async def waiting_names(client: RedisClient, partition: Partition, limit: int, handler: bytes = b"") -> list[bytes]:
    """Names in the partition's index: mark, handler, saga id. With `handler`, only of sagas that wait for it."""
    prefix = _MARK + handler + SEPARATOR if handler else _MARK
    names: list[bytes] = await client.execute(
        "ZRANGEBYLEX", partition.index, b"(" + prefix, b"(" + prefix + b"\xff", "LIMIT", 0, limit,
        key=partition.index, repeatable=True,
    )  # fmt: skip
    return names


def count_waiting(names: Iterable[bytes]) -> dict[str, int]:
    """How many sagas wait for each handler."""
    return dict(Counter(name.split(SEPARATOR)[1].decode() for name in names))
