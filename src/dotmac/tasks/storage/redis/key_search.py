"""Listing idempotency records in Redis.

There is no index of them: it would have to be written with each claim, and lists are for people who look now and then.
So the server's keys are gone through by SCAN, in steps that keep nobody waiting. On a single server one pass finds the
records of all partitions; in a Cluster there is a pass for each partition, on the node that serves it. While a
partition's slot moves from one node to another, the part that is on the other node is not seen.

SCAN gives every key that is there from beginning to end, some perhaps twice. A step that has more than a page has room
for is made again as a smaller one, so pages end between two steps. Only where the smallest is still too large does a
page end within one: its cursor names the last key that was shown, and where the step ended. Should it end elsewhere
when it is made again for the next page, it has met keys that this page did not, and is shown from its beginning.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.models import OperationStatus

from ..key_records import RecordHead, RecordPage
from ..records import MICROSECONDS
from .core import verb
from .layout import RECORDS
from .records import RedisRecords
from .scripts import load
from .together import all_at_once

_NAMES = load("record_names")
_STEP = 500  # keys that the server looks at in one go
_MOST_STEPS = 200  # per page: a page may be empty, but it does not take for ever
_FIELDS = ("t", "u", "op", "st", "ca", "ex", "own", "n", "sid")
_LARGEST_SCAN = 2**64 - 1
_CURSOR = re.compile(r"(\d{1,3})\.(\d{1,20})\.(\d{1,20})\.(.*)", re.DOTALL)


class _Place(NamedTuple):
    """How far a list has come: the pass, and where its next step begins.

    Of a step that was shown in part: where it ended, and its last key that was shown.
    """

    number: int = 0
    scan: int = 0
    end: int = 0
    after: bytes = b""

    def __str__(self) -> str:
        return f"{self.number}.{self.scan}.{self.end}.{self.after.decode()}"


class RedisKeySearch(RedisRecords):
    """The part of `RecordStore` that looks through all records."""

    @verb
    async def list_records(self, tenant_id: str | None, limit: int, cursor: str | None = None) -> RecordPage:
        """See `RecordStore`."""
        place = _place(cursor)
        passes = self._passes()
        page: list[RecordHead] = []
        most = _STEP if tenant_id is not None else min(limit, _STEP)
        count = 1 if place.after else most
        for _ in range(_MOST_STEPS):
            if place.number >= len(passes):
                return RecordPage(page, None)
            if len(page) == limit:
                break
            key, pattern = passes[place.number]
            scanned, found = await self.client.run(_NAMES, [key], [place.scan, pattern, count], durable=False)
            following = int(scanned)
            names = sorted({name for name in found if following != place.end or name > place.after})
            heads = [head for head in await all_at_once(self._head, names) if head is not None]
            wanted = [head for head in heads if tenant_id in (None, head.tenant_id)]
            room = limit - len(page)
            if len(wanted) <= room:
                page += wanted
                place = _Place(place.number, following) if following else _Place(place.number + 1)
                count = most
            elif count > 1:
                count //= 2
            else:
                page += wanted[:room]
                place = place._replace(end=following, after=self._record_key(page[-1].key))
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
    if match is None or max(int(match[2]), int(match[3])) > _LARGEST_SCAN:
        raise InvalidInput("cursor", f"is not one that a page of this list gave: {cursor!r:.80}")
    return _Place(int(match[1]), int(match[2]), int(match[3]), match[4].encode())


def _literally(name: bytes) -> bytes:
    """The name as a pattern that matches nothing else."""
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", name)
