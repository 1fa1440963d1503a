"""Watches the servers of an open storage: their settings, their restarts, their clocks, and what they threw away.

The start checks see a server once. Settings change later, a failover brings another server, a restart brings an
older state. Each primary is looked at again after each reconnect and twice a minute. A setting that breaks a promise
is logged once as ERROR, and once as INFO when it is mended. What can have lost data is kept with its time, as the
likely cause of a loss that is noticed later.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections import deque
from dataclasses import dataclass

import trio

from dotmac.tasks.errors import EnvironmentFault, StorageMisconfigured

from .checks import Durability, attaching, check_memory, check_version, parse_report, read_setting
from .gateway import RedisClient

_GLANCE = 1.0  # seconds between two looks for a new connection
_INTERVAL = 30.0
_LARGEST_JUMP = 1.0  # seconds; less is latency, or a clock that is being slewed
_KEPT = 20
_log = logging.getLogger(__name__)
Report = dict[str, str]


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at a node found.

    Attributes:
        report: The fields of INFO, with the statistics of commands.
        ahead: Seconds by which the node's clock is ahead of trio's.
        fsync: The setting ``appendfsync``; None where this user may not read it.
    """

    report: Report
    ahead: float
    fsync: str | None


class ServerWatch:
    """The looks of one open storage.

    Args:
        client: Connected.
        durability: What the operator asked for.
        replicas: How many replicas must have a write, for ``replica``.
    """

    def __init__(self, client: RedisClient, durability: Durability, replicas: int) -> None:
        self._client = client
        self._durability = durability
        self._replicas = replicas
        self._seen: dict[str, Sight] = {}
        self._relies_on_always = False  # the servers sync each write, so that no barrier stands behind a batch
        self._broken: dict[str, dict[str, str]] = {}
        self._events: deque[str] = deque(maxlen=_KEPT)
        self._turn = trio.Lock()

    async def begin(self) -> None:
        """Take the first look; what is not as it should be then was told by the start checks."""
        async with self._turn:
            sights = await self._look()
            always = all(sight.fsync == "always" for sight in sights.values())
            self._relies_on_always = always and self._durability == "fsync"
            for node, sight in sights.items():
                self._seen[node] = sight
                self._broken[node] = self._promises_broken(node, sight)

    async def run(self) -> None:
        """Look again after each reconnect and at intervals, for ever."""
        connections, looked_at = self._connections(), trio.current_time()
        while True:
            await trio.sleep(_GLANCE)
            now = self._connections()
            if now == connections and trio.current_time() < looked_at + _INTERVAL:
                continue
            try:
                await self.review()
            except EnvironmentFault as error:
                _log.debug("the servers cannot be looked at: %s", error)
                continue
            connections, looked_at = now, trio.current_time()

    async def review(self) -> None:
        """Look at each primary, and log what has changed. Raises EnvironmentFault where one cannot be asked."""
        async with self._turn:
            for node, sight in (await self._look()).items():
                before = self._seen.get(node)
                if before is not None:
                    self._note_changes(node, before, sight)
                self._seen[node] = sight
                self._tell(node, self._promises_broken(node, sight))

    async def causes(self) -> list[str]:
        """What can have lost data, newest first; empty where nothing points to one."""
        try:
            await self.review()
        except EnvironmentFault as error:
            return [f"the servers cannot be asked: {error}", *reversed(self._events)]
        policies = [told for broken in self._broken.values() for check, told in broken.items() if check == "eviction"]
        return [*policies, *reversed(self._events)]

    def _connections(self) -> tuple[tuple[str, int], ...]:
        return tuple((link.name, link.connections) for link in self._client.status() if link.connected)

    async def _look(self) -> dict[str, Sight]:
        infos = await self._client.on_every_primary("INFO", "default", "commandstats", repeatable=True)
        times = await self._client.on_every_primary("TIME", repeatable=True)
        now = trio.current_time()
        fsync = await read_setting(self._client, "appendfsync") or {}
        return {
            node: Sight(parse_report(info), int(times[node][0]) + int(times[node][1]) / 1e6 - now, fsync.get(node))
            for node, info in infos.items()
            if node in times
        }

    # --- what changed ---------------------------------------------------------------------------------------

    def _note_changes(self, node: str, before: Sight, now: Sight) -> None:
        jump = now.ahead - before.ahead
        if abs(jump) > _LARGEST_JUMP:
            effect = "leases end early and locks may be granted twice" if jump > 0 else "retries and leases end late"
            way = "forward" if jump > 0 else "back"
            self._note(f"the clock of {node} was set {way} by {abs(jump):.1f} s: {effect}", logging.ERROR)
        if before.report.get("run_id") != now.report.get("run_id"):
            kept = "" if now.report.get("aof_enabled") == "1" else ", and writes no append-only file"
            up = now.report.get("uptime_in_seconds", "?")
            self._note(f"{node} is another server process since {up} s ago (a restart or a failover){kept}")
            return  # whose counters begin anew
        evicted = _count(now.report, "evicted_keys") - _count(before.report, "evicted_keys")
        if evicted > 0:
            policy = now.report.get("maxmemory_policy")
            self._note(f"{node} evicted {evicted} keys (maxmemory-policy {policy})", logging.ERROR)
        for command in ("flushall", "flushdb", "swapdb"):
            if _calls(now.report, command) > _calls(before.report, command):
                self._note(f"{node} was sent {command.upper()}", logging.ERROR)

    def _note(self, event: str, level: int = logging.WARNING) -> None:
        _log.log(level, "%s", event)
        self._events.append(
            f"{event}, seen at {datetime.datetime.fromtimestamp(time.time(), datetime.UTC):%H:%M:%S} UTC"
        )

    def _tell(self, node: str, broken: dict[str, str]) -> None:
        before = self._broken.get(node, {})
        for check, told in broken.items():
            if before.get(check) != told:
                _log.error("%s", told)
        for check in before.keys() - broken.keys():
            _log.info("%s keeps its promises again (%s)", node, check)
        self._broken[node] = broken

    def _promises_broken(self, node: str, sight: Sight) -> dict[str, str]:
        report = sight.report
        broken = self._fsync_broken(node, sight.fsync)
        for name, check in (("eviction", check_memory), ("version", check_version)):
            try:
                check(node, report)
            except StorageMisconfigured as error:
                broken[name] = str(error)
        if report.get("role") == "slave":
            broken["role"] = (
                f"{node} is a replica of {report.get('master_host')}:{report.get('master_port')} and takes no writes. "
                "To mend it: point redis_url at the master; if that one is gone for good: redis-cli REPLICAOF NO ONE"
            )
        if report.get("aof_enabled") != "1":
            broken["append-only file"] = (
                f"{node} writes no append-only file: what it acknowledged since its last snapshot is lost when it "
                "stops. To mend it: redis-cli CONFIG SET appendonly yes"
            )
        if self._durability == "replica" and _count(report, "connected_slaves") < self._replicas:
            broken["replicas"] = (
                f"{node} has fewer than {self._replicas} replicas, so durability='replica' refuses writes. "
                f"To mend it: {attaching(node)}"
            )
        return broken

    def _fsync_broken(self, node: str, fsync: str | None) -> dict[str, str]:
        if self._relies_on_always and fsync not in ("always", None):
            told = f"{node} has appendfsync {fsync}: durability='fsync' acknowledges writes before they are on disk"
            return {"appendfsync": f"{told}. To mend it: redis-cli CONFIG SET appendfsync always"}
        if fsync == "no":
            told = f"{node} has appendfsync no: a power cut may lose half a minute of what was acknowledged"
            return {"appendfsync": f"{told}. To mend it: redis-cli CONFIG SET appendfsync everysec"}
        return {}


def _count(report: Report, field: str) -> int:
    text = report.get(field, "0")
    return int(text) if text.isdecimal() else 0


def _calls(report: Report, command: str) -> int:
    fields = dict(part.split("=", 1) for part in report.get(f"cmdstat_{command}", "").split(",") if "=" in part)
    return _count(fields, "calls")
