"""What a storage looks at before it promises anything: does this server keep what it is told?

A setting that would break a promise is refused, with the command that mends it; one that weakens the durability that
the operator did not ask for explicitly is told in the log.
"""

from __future__ import annotations

import logging
from typing import Literal

from dotmac.tasks.errors import StorageMisconfigured, StorageRefused

from .barrier import Barrier, on_disk, on_replicas
from .gateway import RedisClient
from .layout import Layout
from .scripts import load

Durability = Literal["server", "fsync", "replica"]
DURABILITIES = ("server", "fsync", "replica")
FORMAT = "1"
DEFAULT_PARTITIONS = 16
_OLDEST = (7, 0)
_WAITAOF_SINCE = (7, 2)
_OPEN = load("namespace_open")
_log = logging.getLogger(__name__)


async def check_server(client: RedisClient) -> dict[str, dict[str, str]]:
    """Check every primary; gives what each reported of itself, by node.

    Raises:
        StorageMisconfigured: A server is too old, or may evict what it was given.
    """
    reports = {
        node: parse_report(info) for node, info in (await client.on_every_primary("INFO", repeatable=True)).items()
    }
    for node, report in reports.items():
        check_version(node, report)
        check_memory(node, report)
        if report.get("aof_enabled") != "1":
            _log.warning(
                "%s does not write an append-only file: what it acknowledged since its last snapshot is lost when it "
                "stops. To keep it: redis-cli CONFIG SET appendonly yes",
                node,
            )
    return reports


async def open_namespace(client: RedisClient, prefix: str, partitions: int | None) -> Layout:
    """The layout of the namespace: as it was created, or created now.

    Raises:
        StorageMisconfigured: It was created with another number of partitions, or by an incompatible version.
    """
    wanted = Layout(prefix, partitions or DEFAULT_PARTITIONS)
    reply = await client.run(_OPEN, [wanted.namespace], [FORMAT, len(wanted.partitions)])
    form, count = reply[0].decode(), int(reply[1])
    if form != FORMAT:
        raise StorageMisconfigured(
            f"the namespace {prefix!r} has format {form}, this version of dotmac-tasks writes format {FORMAT}; "
            "use the version that created it, or another prefix"
        )
    if partitions is not None and count != partitions:
        raise StorageMisconfigured(
            f"the namespace {prefix!r} was created with {count} partitions, which is fixed; "
            f"pass partitions={count}, or leave it out"
        )
    return Layout(prefix, count)


async def check_messages(client: RedisClient, layout: Layout) -> None:
    """See whether scripts may send messages.

    A script that may not fails behind its writes, which stay: what was refused would be done all the same. Users that
    are made with an ACL have no channels unless they are given some.

    Raises:
        StorageMisconfigured: This user may not; it names what to grant.
    """
    await client.on_every_primary("PUBLISH", layout.channel("rights"), b"", repeatable=True)


async def choose_barrier(client: RedisClient, durability: Durability, replicas: int, patience: float) -> Barrier | None:
    """What to wait for behind writes, so that they survive what the operator wants them to survive.

    Args:
        client: Connected.
        durability: What was asked for.
        replicas: How many replicas must have a write, for ``replica``.
        patience: Seconds to wait for disk or replicas before a write counts as failed.

    Raises:
        StorageMisconfigured: This server cannot do it; the message has the setting to change.
    """
    milliseconds = max(int(patience * 1000), 1)
    reports = {
        node: parse_report(info) for node, info in (await client.on_every_primary("INFO", repeatable=True)).items()
    }
    if durability == "replica":
        for node, report in reports.items():
            connected = int(report.get("connected_slaves", "0"))
            if connected < replicas:
                raise StorageMisconfigured(
                    f"durability='replica' asks for {replicas} replicas, {node} has {connected}; "
                    f"attach more ({attaching(node)}), or pass a smaller number as replicas="
                )
        return on_replicas(replicas, milliseconds)
    if durability == "server":
        return None
    for node, report in reports.items():
        if report.get("aof_enabled") != "1":
            raise StorageMisconfigured(
                f"durability='fsync': {node} writes no file. To mend it: redis-cli CONFIG SET appendonly yes"
            )
    settings = await read_setting(client, "appendfsync")
    if settings is not None and all(value == "always" for value in settings.values()):
        return None  # then the server itself answers only after the write is on disk
    for node, report in reports.items():
        if "valkey_version" not in report and _version(report) < _WAITAOF_SINCE:
            raise StorageMisconfigured(
                f"durability='fsync': {node} is too old for WAITAOF. "
                "To mend it: redis-cli CONFIG SET appendfsync always"
            )
    return on_disk(milliseconds)


async def read_setting(client: RedisClient, name: str) -> dict[str, str] | None:
    """The setting on every primary; None where this user may not ask (managed servers often forbid CONFIG)."""
    try:
        replies = await client.on_every_primary("CONFIG", "GET", name, repeatable=True)
    except (StorageMisconfigured, StorageRefused):
        return None
    return {node: _setting(reply) for node, reply in replies.items()}


def _setting(reply: dict[bytes, bytes]) -> str:
    return next(iter(reply.values()), b"").decode()


def attaching(node: str) -> str:
    """The command line that makes the server REPLICA a replica of the node."""
    host, _, port = node.rpartition(":")
    address = f"{host.strip('[]')} {port}" if port.isdecimal() else "HOST PORT"
    return f"redis-cli -h REPLICA REPLICAOF {address}"


def parse_report(info: bytes) -> dict[str, str]:
    """The fields of INFO."""
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def check_version(node: str, report: dict[str, str]) -> None:
    """Raises StorageMisconfigured if the server is too old."""
    name = "Valkey" if "valkey_version" in report else "Redis"
    version = report.get("valkey_version") or report.get("redis_version", "0.0")
    if _version(report) < _OLDEST:
        raise StorageMisconfigured(f"{node} is {name} {version}; Redis 7.0 or Valkey 8.0 is the oldest that will do")


def _version(report: dict[str, str]) -> tuple[int, ...]:
    version = report.get("valkey_version") or report.get("redis_version", "0.0")
    return tuple(int(part) for part in version.split(".")[:2])


def check_memory(node: str, report: dict[str, str]) -> None:
    """Raises StorageMisconfigured if the server may evict what it was given."""
    policy = report.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StorageMisconfigured(
            f"{node} has maxmemory-policy {policy}, so it may throw sagas away when it is full. "
            "To mend it: redis-cli CONFIG SET maxmemory-policy noeviction (and the same in its configuration file)"
        )
