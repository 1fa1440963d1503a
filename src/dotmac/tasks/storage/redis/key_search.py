"""Listing idempotency records in Redis.

There is no index of them: it would have to be written with each claim, and lists are for people who look now and then.
So the server's keys are gone through by SCAN, in steps that keep nobody waiting. On a single server one pass finds the
records of all partitions; in a Cluster there is a pass for each partition, on the node that serves it.

SCAN gives every key that is there from beginning to end, some perhaps twice. A page may end in the middle of a step:
the cursor then names the step and the last key of it, and the step is made again, sorted, for the next page. Only
where the server shrank its table between the two pages could a key be missed.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.models import OperationStatus

from ..key_records import RecordHead, RecordPage
from .core import MICROSECONDS, verb
from .layout import RECORDS
from .records import RedisRecords
from .together import all_at_once

_STEP = 500  # keys that the server looks at in one go
_MOST_STEPS = 200  # per page: a page may be empty, but it does not take for ever
_FIELDS = ("t", "u", "op", "st", "ca", "ex", "own", "n", "sid")
_LARGEST_SCAN = 2**64 - 1
_CURSOR = re.compile(r"(\d{1,3})\.(\d{1,20})\.(.*)", re.DOTALL)


class _Place(NamedTuple):
    """How far a list has come: the pass, SCAN's own cursor, and the last key of the step that was shown."""

    number: int = 0
    scan: int = 0
    after: bytes = b""

    def __str__(self) -> str:
        return f"{self.number}.{self.scan}.{self.after.decode()}"


class RedisKeySearch(RedisRecords):
    """The part of `RecordStore` that looks through all records."""

    @verb
    async def list_records(self, tenant_id: str | None, limit: int, cursor: str | None = None) -> RecordPage:
        """See `RecordStore`."""
        place = _place(cursor)
        passes = self._passes()
        page: list[RecordHead] = []
        for _ in range(_MOST_STEPS):
            if place.number >= len(passes):
                return RecordPage(page, None)
            key, pattern = passes[place.number]
            scanned, found = await self.client.execute(
                "SCAN", place.scan, "MATCH", pattern, "COUNT", _STEP, key=key, repeatable=True
            )
            names = sorted({name for name in found if name > place.after})
            for name, head in zip(names, await all_at_once(self._head, names), strict=True):
                if head is not None and tenant_id in (None, head.tenant_id):
                    if len(page) == limit:
                        return RecordPage(page, str(place))
                    page.append(head)
                place = place._replace(after=name)
            following = int(scanned)
            place = _Place(place.number, following) if following else _Place(place.number + 1)
        return RecordPage(page, str(place))

    def _passes(self) -> list[tuple[bytes, bytes]]:
        """For each pass a key of the node that is asked, and the pattern of the names that are wanted there."""
        if self.client.is_cluster:
            return [(partition.due, _literally(partition.records) + b"*") for partition in self.layout.partitions]
        return [(self.layout.namespace, _literally(self.layout.tag) + b":p??}:" + RECORDS + b"*")]

    async def _head(self, name: bytes) -> RecordHead | None:
        values: list[bytes | None] = await self.client.execute("HMGET", name, *_FIELDS, key=name, repeatable=True)
        fields: dict[str, Any] = {
            field: value.decode() for field, value in zip(_FIELDS, values, strict=True) if value is not None
        }
        if "t" not in fields:
            return None  # it expired since its name was found
        return RecordHead(
            key=name.decode().partition(f"}}:{RECORDS.decode()}")[2],
            tenant_id=fields["t"],
            user_id=fields.get("u"),
            operation_type=fields["op"],
            status=OperationStatus(fields["st"]),
            created_at=int(fields["ca"]) / MICROSECONDS,
            expires_at=float(fields["ex"]) / MICROSECONDS,
            owner=fields.get("own"),
            claims=int(fields.get("n", 0)),
            saga_id=fields.get("sid"),
        )


def _place(cursor: str | None) -> _Place:
    if cursor is None:
        return _Place()
    match = _CURSOR.fullmatch(cursor)
    if match is None or int(match[2]) > _LARGEST_SCAN:
        raise InvalidInput("cursor", f"is not one that a page of this list gave: {cursor!r:.80}")
    return _Place(int(match[1]), int(match[2]), match[3].encode())


def _literally(name: bytes) -> bytes:
    """The name as a pattern that matches nothing else."""
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", name)
