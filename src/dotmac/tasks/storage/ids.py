"""Saga ids: time-ordered, so that lists page by id, and naming their partition, so that no look-up is needed.

``019a1b2c3d4-5e6f708192a3b4c5-0c``: milliseconds, random bits, partition, all in hexadecimal. Ids made within one
millisecond have no order among them.
"""

from __future__ import annotations

import os
import random
import re
import zlib

from ..errors import SagaNotFound

_FORM = re.compile(r"[0-9a-f]{11,}-[0-9a-f]{16}-[0-9a-f]{2}")
_RANDOM_BYTES = 8
_AT_ONCE = 512
_CLOCKS_APART = 60.0


class _Randomness:
    """Random bytes of the system, which nobody can guess, asked for in larger pieces: each question costs the same."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget what is left."""
        self._rest: list[str] = []

    def take(self) -> str:
        """So many bytes as an id has, in hexadecimal, never given out before."""
        try:
            return self._rest.pop()
        except IndexError:
            size = 2 * _RANDOM_BYTES
            text = os.urandom(_AT_ONCE * _RANDOM_BYTES).hex()
            *self._rest, last = (text[start : start + size] for start in range(0, len(text), size))
            return last


_randomness = _Randomness()
os.register_at_fork(after_in_child=_randomness.renew)  # or the child would make its parent's ids


def make_saga_id(now: float, partition: int) -> str:
    """A fresh id for a saga created at `now` (Unix seconds) in this partition."""
    return f"{int(now * 1000):011x}-{_randomness.take()}-{partition:02x}"


def is_saga_id(text: object) -> bool:
    """Whether it has the form of an id, of whichever namespace."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


def any_partition(partitions: int) -> int:
    """One of so many, drawn evenly."""
    return random.randrange(partitions)  # noqa: S311 - spreads load, guards nothing


def ids_made(after: float | None, before: float | None) -> tuple[str, str | None]:
    """Bounds between which all ids lie that were made from `after` on and before `before` (Unix seconds).

    Wider by a minute on both sides: an id has the time of whoever made it, not of the storage.
    """
    lowest = "" if after is None else f"{max(int((after - _CLOCKS_APART) * 1000), 0):011x}"
    highest = None if before is None else f"{max(int((before + _CLOCKS_APART) * 1000), 0):011x}"
    return lowest, highest


def partition_of_saga(saga_id: str, partitions: int) -> int:
    """The partition that the id names.

    Raises:
        SagaNotFound: No such id can have been made here.
    """
    _, _, suffix = saga_id.rpartition("-")
    try:
        partition = int(suffix, 16)
    except ValueError:
        partition = -1
    if not 0 <= partition < partitions:
        raise SagaNotFound(f"there is no saga {saga_id!r}: that is not an id of this namespace")
    return partition


def partition_of_key(key: str, partitions: int) -> int:
    """The partition of an idempotency key."""
    return zlib.crc32(key.encode()) % partitions
