"""Every key of a namespace, and whether somebody owns it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dotmac.tasks.models import OperationStatus
from dotmac.tasks.storage.records import SagaMeta
from support.servers import Server

_NAME = re.compile(r"\{(?P<prefix>[^:}]+):(?P<part>\w+)\}(?::(?P<kind>\w+)(?::(?P<rest>.*))?)?", re.DOTALL)


def stray_keys(server: Server, prefix: str, sagas: list[SagaMeta], workers: set[str]) -> Iterator[str]:
    """Whatever nobody owns, once all sagas have ended.

    Args:
        server: Where to look.
        prefix: Of the namespace.
        sagas: All there are.
        workers: Ids of the workers that live.
    """
    known = {meta.saga_id: meta for meta in sagas}
    expected = {key for meta in sagas for key in _keys_of(meta)}
    present = {str(key) for key in server.cli("KEYS", f"{{{prefix}:*")}
    for key in sorted(present):
        match = _NAME.fullmatch(key)
        if match is None:
            yield f"{key!r} has no place in the layout"
            continue
        yield from _of_key(server, key, match, known, workers)
    yield from (f"{place} is missing" for place in sorted(expected - _members(server, present)))


def _of_key(
    server: Server, key: str, match: re.Match[str], known: dict[str, SagaMeta], workers: set[str]
) -> Iterator[str]:
    kind, rest = match["kind"], match["rest"]
    if match["part"] == "ns":
        return
    if match["part"] == "w":
        yield from _of_workers(server, key, kind, workers)
    elif kind in ("due", "own"):
        yield f"{key!r} should be empty: {server.cli('ZRANGE', key, 0, -1)}"
    elif kind in ("s", "j", "n"):
        if rest not in known:
            yield f"{key!r} belongs to no saga"
    elif kind == "k":
        yield from _of_record(server, key, known)
    elif kind in ("idx", "exp"):
        names = [str(member) for member in server.cli("ZRANGE", key, 0, -1)]
        yield from (f"{key!r} has {name!r}, no saga" for name in names if name.rpartition("\0")[2] not in known)
    else:
        yield f"{key!r} was left"


def _of_workers(server: Server, key: str, kind: str, workers: set[str]) -> Iterator[str]:
    if kind == "cancels":
        yield f"{key!r}: cancel requests of sagas that have ended: {server.cli('ZRANGE', key, 0, -1)}"
    elif kind in ("leases", "infos"):
        names = server.cli("ZRANGE", key, 0, -1) if kind == "leases" else server.cli("HKEYS", key)
        if set(names) != workers:
            yield f"{key!r} names {names}, alive are {workers}"
    else:
        yield f"{key!r} was left"


def _of_record(server: Server, key: str, known: dict[str, SagaMeta]) -> Iterator[str]:
    saga = server.cli("HGET", key, "sid")
    if saga not in known:
        yield f"{key!r} belongs to saga {saga}, which is not there"
    elif server.cli("PTTL", key) < 0 and known[saga].status is not OperationStatus.FAILED:
        yield f"{key!r} never expires, though its saga has ended"


Place = tuple[str, str]


def _keys_of(meta: SagaMeta) -> Iterator[Place]:
    saga = meta.saga_id
    yield from (("s", saga), ("j", saga), ("idx", f"a\0{saga}"))
    yield from (("idx", f"t\0{meta.tenant_id}\0{saga}"), ("idx", f"y\0{meta.workflow_type}\0{saga}"))
    if meta.status is not OperationStatus.COMPLETED:
        yield ("idx", f"s\0{meta.status}\0{saga}")
    if meta.status is not OperationStatus.FAILED:
        yield ("exp", saga)
    if meta.idempotency_key is not None:
        yield ("k", meta.idempotency_key)


def _members(server: Server, present: set[str]) -> set[Place]:
    found: set[Place] = set()
    for key in present:
        match = _NAME.fullmatch(key)
        if match is None:
            continue
        if match["kind"] in ("s", "j", "k"):
            found.add((match["kind"], match["rest"]))
        elif match["kind"] in ("idx", "exp"):
            found |= {(match["kind"], str(member)) for member in server.cli("ZRANGE", key, 0, -1)}
    return found
