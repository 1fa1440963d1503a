"""Several byte strings as one that can be taken apart again, so that no two lists are hashed to one digest. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def netstrings(parts: Iterable[bytes | None]) -> bytes:
    """Each part with its length in front, None apart from any bytes."""
    return b"".join([b"-," if part is None else b"%d:%b," % (len(part), part) for part in parts])
