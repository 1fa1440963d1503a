"""A Lua script as the gateway runs it: by its SHA1, loaded where it turns out to be missing.

EVALSHA and not FUNCTION LOAD: two versions of the library can run beside each other during a rolling deploy, since
a script is named by its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from redis.crc import key_slot

from dotmac.tasks.errors import InvalidInput

from .commands import as_bytes, pack

_slots_of_tags: dict[bytes, int] = {}
_MOST_TAGS = 4096


class Script:
    """A script that may be sent twice without harm, unless its caller says otherwise.

    Attributes:
        name: For messages and metrics.
        source: Lua, as bytes.
        sha: SHA1 of the source in hexadecimal: the server's name for it.
        loader: The packed SCRIPT LOAD.
    """

    __slots__ = ("loader", "name", "sha", "source")

    def __init__(self, name: str, source: str | bytes) -> None:
        self.name = name
        self.source = source.encode() if isinstance(source, str) else source
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()
        self.loader = pack((b"SCRIPT", b"LOAD", self.source))

    def __repr__(self) -> str:
        return f"Script({self.name!r}, sha={self.sha.decode()})"


def common_slot(keys: Sequence[bytes | str]) -> int:
    """Returns the hash slot that all keys share; 0 if there are none.

    Checked on every topology, so that what works on one server works on a Cluster. Keys that share a ``{tag}`` at
    their beginning, which are nearly all, cost one comparison each.

    Raises:
        InvalidInput: The keys lie in different slots.
    """
    if not keys:
        return 0
    first = as_bytes(keys[0])
    tag = first[: first.find(b"}") + 1] if first.startswith(b"{") else b""
    if len(tag) <= 2:  # noqa: PLR2004 - "" or "{}": not a tag, the whole key counts
        slot: int = key_slot(first)
        tag = b""
    else:
        found = _slots_of_tags.get(tag)
        slot = _remember(tag) if found is None else found
    for key in keys:
        raw = as_bytes(key)
        if tag and raw.startswith(tag):
            continue
        if key_slot(raw) != slot:
            raise InvalidInput(
                "keys",
                f"{first.decode(errors='replace')} and {raw.decode(errors='replace')} lie in different hash slots; "
                "keys of one script share a {tag}",
            )
    return slot


def _remember(tag: bytes) -> int:
    if len(_slots_of_tags) >= _MOST_TAGS:
        _slots_of_tags.clear()
    slot: int = key_slot(tag)
    _slots_of_tags[tag] = slot
    return slot
