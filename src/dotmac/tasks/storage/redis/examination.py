"""Looks a Redis deployment over, and says of each thing whether it is well, and what mends it if it is not.

It has a connection of its own and checks nothing before it connects, so it can say what is wrong with a server that
the storage itself would refuse. It changes nothing there but the server's cache of scripts.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files

import trio

from dotmac.tasks.errors import EnvironmentFault, StorageMisconfigured, StorageRefused
from dotmac.tasks.models import Finding, Verdict
from dotmac.tasks.saga.events import JOURNAL_FORMAT

from ..embedded import EmbeddedServer
from ..folding import findings_of_handlers, findings_of_workers
from .checks import DEFAULT_PARTITIONS, FORMAT, check_messages, parse_report, read_setting
from .connecting import Target
from .gateway import RedisClient, open_client
from .judging import judge, on_node
from .layout import Layout, newer_formats
from .options import RedisOptions
from .scripts import load
from .waiting import MOST_WAITING, count_waiting, waiting_names
from .workers import worker_record

_PINGS = 20
_SLOW, _LARGEST_OFFSET = 0.005, 1.0
_LUA = files("dotmac.tasks.storage.redis") / "lua"


async def examine(target: Target) -> list[Finding]:
    """Everything there is to say about the servers and the namespace; it raises nothing for what is wrong there."""
    try:
        async with _reachable(target) as client:
            return await _examine(client, target)
    except EnvironmentFault as error:
        return [_unreachable(error, target)]


async def _examine(client: RedisClient, target: Target) -> list[Finding]:
    replies = await client.on_every_primary("INFO", repeatable=True)
    settings = await read_setting(client, "appendfsync") or {}
    answers = "1 server answers" if len(replies) == 1 else f"{len(replies)} primary servers answer"
    findings = [Finding("connection", Verdict.OK, f"{answers}: {', '.join(replies)}")]
    for node, info in replies.items():
        findings += judge(node, parse_report(info), settings.get(node))
    checks: list[Callable[[], Awaitable[list[Finding]]]] = [
        lambda: _clock(client),
        lambda: _latency(client),
        lambda: _namespace(client, target, len(replies)),
        lambda: _journals(client, target),
        lambda: _missing_handlers(client, target),
        lambda: _scripts(client),
        lambda: _messages(client, target),
        lambda: _workers(client, target),
    ]
    for check in checks:
        findings += await check()
    return findings


@asynccontextmanager
async def _reachable(target: Target) -> AsyncIterator[RedisClient]:
    folder = target.folder
    if folder is None:
        async with open_client(RedisOptions.from_url(target.url, **target.settings)) as client:
            yield client
        return
    async with (
        EmbeddedServer(folder, fsync=target.fsync) as server,
        open_client(RedisOptions.from_url(server.url, **target.settings)) as client,
    ):
        yield client


def _unreachable(error: EnvironmentFault, target: Target) -> Finding:
    remedy = f"{_ping(target)} (shows whether it can be reached from here)"
    if isinstance(error, StorageMisconfigured):
        remedy = "give the right user and password in the URL, or let the user in: redis-cli ACL LIST"
        granting = re.search(r"redis-cli ACL SETUSER USER \S+( [+-]\S+|'\S+')*", str(error))
        if granting is not None:
            remedy = granting[0]
    return Finding("connection", Verdict.PROBLEM, str(error), remedy=remedy)


def _ping(target: Target) -> str:
    if target.folder is not None:
        return f"ls -l {target.folder}"
    # Without the password: what is printed here may end up in a ticket.
    return on_node(str(RedisOptions.from_url(target.url, **target.settings).addresses[0]), "PING")


async def _clock(client: RedisClient) -> list[Finding]:
    before, asked_at = time.time(), trio.current_time()
    replies = await client.on_every_primary("TIME", repeatable=True)
    here = before + (trio.current_time() - asked_at) / 2
    findings = []
    for node, (seconds, micro) in replies.items():
        offset = int(seconds) + int(micro) / 1e6 - here
        told = f"{abs(offset):.3f} s {'ahead of' if offset > 0 else 'behind'} this host"
        if abs(offset) > _LARGEST_OFFSET:
            findings.append(
                Finding(
                    "clock", Verdict.ADVICE, f"{told}; leases go by the server's clock, but logs are hard to compare",
                    node, "chronyc makestep (on the host whose clock is wrong)",
                )
            )  # fmt: skip
        else:
            findings.append(Finding("clock", Verdict.OK, told, node))
    return findings


async def _latency(client: RedisClient) -> list[Finding]:
    taken: dict[str, list[float]] = {}
    for _ in range(_PINGS):
        asked_at = trio.current_time()
        for node in await client.on_every_primary("PING", repeatable=True):
            taken.setdefault(node, []).append(trio.current_time() - asked_at)
    findings = []
    for node, seconds in taken.items():
        median, worst = statistics.median(seconds), max(seconds)
        told = f"{median * 1000:.2f} ms (median of {len(seconds)}, worst {worst * 1000:.2f} ms)"
        if median > _SLOW:
            remedy = f"run workers nearer to it; watch it with: {on_node(node, '--latency')}"
            findings.append(
                Finding("latency", Verdict.ADVICE, f"{told}; each step of a saga costs two such trips", node, remedy)
            )
        else:
            findings.append(Finding("latency", Verdict.OK, told, node))
    return findings


async def _namespace(client: RedisClient, target: Target, primaries: int) -> list[Finding]:
    key = Layout(target.prefix, 1).namespace
    form, count = await client.execute("HMGET", key, "format", "partitions", key=key, repeatable=True)
    name = f"namespace {target.prefix!r}"
    if form is None:
        wanted = target.partitions or DEFAULT_PARTITIONS
        return [Finding("namespace", Verdict.OK, f"{name} does not exist yet; it will have {wanted} partitions")]
    if form.decode() != FORMAT:
        message = f"{name} has format {form.decode()}, this version of dotmac-tasks writes format {FORMAT}"
        return [
            Finding("namespace", Verdict.PROBLEM, message, remedy="use the version that created it, or another prefix")
        ]
    partitions = int(count)
    if target.partitions not in (None, partitions):
        message = f"{name} has {partitions} partitions, which is fixed; {target.partitions} are asked for"
        return [Finding("namespace", Verdict.PROBLEM, message, remedy=f"pass partitions={partitions}, or leave it out")]
    if partitions < primaries:
        message = f"{name} has {partitions} partitions for {primaries} primaries: some get no work"
        remedy = f"begin a new namespace: another prefix, with partitions={primaries * 4}"
        return [Finding("namespace", Verdict.ADVICE, message, remedy=remedy)]
    return [Finding("namespace", Verdict.OK, f"{name}, format {FORMAT}, {partitions} partitions")]


async def _journals(client: RedisClient, target: Target) -> list[Finding]:
    key = Layout(target.prefix, 1).namespace
    count = await client.execute("HGET", key, "partitions", key=key, repeatable=True)
    newer = 0
    for partition in () if count is None else Layout(target.prefix, int(count)).partitions:
        names = partition.index, *newer_formats(JOURNAL_FORMAT)
        newer += await client.execute("ZLEXCOUNT", *names, key=partition.index, repeatable=True)
    if not newer:
        return [Finding("journals", Verdict.OK, f"no saga needs a newer journal format than {JOURNAL_FORMAT}")]
    message = f"{newer} sagas need a newer journal format than {JOURNAL_FORMAT}, which this version reads"
    remedy = "run workers of the version of dotmac-tasks that wrote them, or of a later one"
    return [Finding("journals", Verdict.ADVICE, message, remedy=remedy)]


async def _missing_handlers(client: RedisClient, target: Target) -> list[Finding]:
    key = Layout(target.prefix, 1).namespace
    count = await client.execute("HGET", key, "partitions", key=key, repeatable=True)
    names: list[bytes] = []
    for partition in () if count is None else Layout(target.prefix, int(count)).partitions:
        names += await waiting_names(client, partition, MOST_WAITING)
    return findings_of_handlers(count_waiting(names))


async def _scripts(client: RedisClient) -> list[Finding]:
    names = sorted(entry.name.removesuffix(".lua") for entry in _LUA.iterdir() if entry.name.endswith(".lua"))
    try:
        for name in names:
            await client.on_every_primary("SCRIPT", "LOAD", load(name).source, repeatable=True)
    except (StorageMisconfigured, StorageRefused) as error:
        remedy = "redis-cli ACL SETUSER USER '+script|load' +evalsha"
        return [Finding("scripts", Verdict.PROBLEM, f"scripts cannot be loaded: {error}", remedy=remedy)]
    return [Finding("scripts", Verdict.OK, f"{len(names)} scripts load")]


async def _messages(client: RedisClient, target: Target) -> list[Finding]:
    layout = Layout(target.prefix, 1)
    grant = f"redis-cli ACL SETUSER USER resetchannels '&{target.prefix}:*' +publish +subscribe +unsubscribe"
    try:
        await check_messages(client, layout)
    except (StorageMisconfigured, StorageRefused) as error:
        return [Finding("messages", Verdict.PROBLEM, f"scripts cannot send them: {error}", remedy=grant)]
    try:
        async with client.watch(layout.channel("rights")):
            pass
    except (StorageMisconfigured, StorageRefused) as error:
        told = f"nobody hears them, so work waits until somebody looks for it: {error}"
        return [Finding("messages", Verdict.ADVICE, told, remedy=grant)]
    return [Finding("messages", Verdict.OK, "processes wake each other")]


async def _workers(client: RedisClient, target: Target) -> list[Finding]:
    layout = Layout(target.prefix, 1)
    leases = await client.execute("ZRANGE", layout.leases, 0, -1, "WITHSCORES", key=layout.leases, repeatable=True)
    infos = await client.execute("HGETALL", layout.infos, key=layout.infos, repeatable=True) if leases else {}
    seconds, micro = await client.execute("TIME", key=layout.leases, repeatable=True)
    workers = [worker_record(name, float(score), infos.get(name)) for name, score in leases]
    return findings_of_workers(workers, int(seconds) + int(micro) / 1e6)
