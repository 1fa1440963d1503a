"""What a server reports of itself, judged: pure functions from the fields of INFO to findings."""

from __future__ import annotations

from dotmac.tasks.errors import StorageMisconfigured
from dotmac.tasks.models import Finding, Verdict

from .checks import attaching, check_memory, check_version

Report = dict[str, str]

_OK, _ADVICE, _PROBLEM = Verdict.OK, Verdict.ADVICE, Verdict.PROBLEM
_NEARLY_FULL, _QUITE_FULL = 0.95, 0.80
_LARGEST_LAG = 10
_MIB = 1024 * 1024


def on_node(node: str, command: str) -> str:
    """The command line that sends this command to the node."""
    host, colon, port = node.rpartition(":")
    if node.startswith("unix:"):
        return f"redis-cli -s {node.removeprefix('unix:')} {command}"
    if colon and port.isdecimal():
        return f"redis-cli -h {host.strip('[]')} -p {port} {command}"
    return f"redis-cli {command}"  # a Sentinel service: which node is its master can change


def judge(node: str, report: Report, appendfsync: str | None) -> list[Finding]:
    """Everything that can be told of one primary from its INFO, and its ``appendfsync`` where that could be read."""
    return [
        _version(node, report),
        _persistence(node, report, appendfsync),
        _eviction(node, report),
        _memory(node, report),
        _replication(node, report),
    ]


def _version(node: str, report: Report) -> Finding:
    name = "Valkey" if "valkey_version" in report else "Redis"
    version = report.get("valkey_version") or report.get("redis_version", "unknown")
    try:
        check_version(node, report)
    except StorageMisconfigured:
        return Finding(
            "version",
            _PROBLEM,
            f"{name} {version} is too old",
            node,
            "install Redis 7.0 or later, or Valkey 8 or later",
        )
    return Finding("version", _OK, f"{name} {version}", node)


def _persistence(node: str, report: Report, appendfsync: str | None) -> Finding:
    if report.get("aof_enabled") != "1":
        remedy = on_node(node, "CONFIG SET appendonly yes") + " && " + on_node(node, "CONFIG REWRITE")
        return Finding(
            "persistence",
            _ADVICE,
            "it writes no append-only file: what it acknowledged since its last snapshot is lost when it stops",
            node,
            remedy,
        )
    for field, what, mend in (
        ("aof_last_write_status", "the append-only file cannot be written", "BGREWRITEAOF"),
        ("aof_last_bgrewrite_status", "the append-only file could not be rewritten", "BGREWRITEAOF"),
        ("rdb_last_bgsave_status", "the last snapshot failed, after which it may refuse writes", "BGSAVE"),
    ):
        if report.get(field, "ok") != "ok":
            remedy = f"make room on its disk (df -h), then: {on_node(node, mend)}"
            return Finding("persistence", _PROBLEM, what, node, remedy)
    if appendfsync == "no":
        return Finding(
            "persistence",
            _ADVICE,
            "appendfsync is no: a power cut may lose half a minute of what was acknowledged",
            node,
            on_node(node, "CONFIG SET appendfsync everysec"),
        )
    told = "appendfsync cannot be read here" if appendfsync is None else f"appendfsync {appendfsync}"
    return Finding("persistence", _OK, f"append-only file, {told}", node)


def _eviction(node: str, report: Report) -> Finding:
    policy = report.get("maxmemory_policy", "noeviction")
    try:
        check_memory(node, report)
    except StorageMisconfigured:
        remedy = on_node(node, "CONFIG SET maxmemory-policy noeviction") + " && " + on_node(node, "CONFIG REWRITE")
        return Finding(
            "eviction", _PROBLEM, f"maxmemory-policy is {policy}: it may throw sagas away when it is full", node, remedy
        )
    evicted = int(report.get("evicted_keys", 0))
    if evicted:
        told = f"it evicted {evicted} keys since its start or CONFIG RESETSTAT: sagas may be missing"
        return Finding("eviction", _PROBLEM, told, node, on_node(node, "CONFIG RESETSTAT") + " (after a look at them)")
    return Finding("eviction", _OK, f"maxmemory-policy {policy}", node)


def _memory(node: str, report: Report) -> Finding:
    used, limit, total = (int(report.get(f"{name}memory", 0)) for name in ("used_", "max", "total_system_"))
    if not limit:
        wise = total * 3 // 4 or 1024 * _MIB
        return Finding(
            "memory",
            _ADVICE,
            f"{used // _MIB} MiB used, without a limit: when the host runs out, the system kills the server",
            node,
            on_node(node, f"CONFIG SET maxmemory {wise // _MIB}mb"),
        )
    told = f"{used // _MIB} of {limit // _MIB} MiB used"
    if used > limit * _QUITE_FULL:
        verdict = _PROBLEM if used > limit * _NEARLY_FULL else _ADVICE
        return Finding(
            "memory", verdict, f"{told}; when it is full, it refuses writes", node,
            f"{on_node(node, f'CONFIG SET maxmemory {limit * 2 // _MIB}mb')} (or shorten DOTMAC_TASKS_SAGA_RETENTION)",
        )  # fmt: skip
    return Finding("memory", _OK, told, node)


def _replication(node: str, report: Report) -> Finding:
    if report.get("role") == "slave":
        master = f"{report.get('master_host')}:{report.get('master_port')}"
        promote = on_node(node, "REPLICAOF NO ONE")
        return Finding(
            "replication",
            _PROBLEM,
            f"it is a replica of {master}: it takes no writes, or loses them",
            node,
            f"point the URL at {master}; if that one is gone for good: {promote}",
        )
    count = int(report.get("connected_slaves", 0))
    if not count:
        named = node.rpartition(":")[2].isdecimal()
        remedy = attaching(node) if named else "use servers behind Sentinels, or a Cluster"
        return Finding(
            "replication",
            _ADVICE,
            "no replica: while this server is away everything waits, and its disk is the only copy",
            node,
            remedy,
        )
    late = [name for name, text in report.items() if name.startswith("slave") and _lag(text) > _LARGEST_LAG]
    if late:
        return Finding(
            "replication",
            _ADVICE,
            f"{len(late)} of {count} replicas are more than {_LARGEST_LAG} s behind, or not online",
            node,
            on_node(node, "INFO replication"),
        )
    return Finding("replication", _OK, f"{count} replica{'s' if count > 1 else ''}, up to date", node)


def _lag(text: str) -> float:
    """Seconds that a replica is behind, from its line in INFO."""
    fields = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if "state" not in fields:
        return 0.0  # another field that begins with "slave"
    return float(fields.get("lag", "inf")) if fields["state"] == "online" else float("inf")
