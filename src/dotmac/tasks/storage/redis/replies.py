"""Error replies: what each code of the server means for us, and which error of our tree says so.

The server answers an error as ``CODE text``. Codes fall into three heaps: those after which sending the same
command again can help (`Remedy`), those that tell that the server will not or may not do it, and those that can
only be a mistake in our own commands. Every one of them says that the command was *not* carried out, so trying
again is safe whether or not the command is safe to repeat.
"""

from __future__ import annotations

import enum
import re

from dotmac.tasks.errors import DotmacTasksError, InternalError, StorageMisconfigured, StorageRefused

from .address import Address


class ErrorReply(Exception):
    """An error as it came off the wire. Handed around as a value; it leaves the gateway only translated."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]
        self.message = message


class Remedy(enum.Enum):
    """What may make the same command succeed."""

    NONE = enum.auto()
    WAIT = enum.auto()  # the state passes by itself
    MASTER = enum.auto()  # we talk to a node that is no master (any more): find the one that is
    MOVED = enum.auto()  # the slot lives elsewhere
    ASK = enum.auto()  # this key lives elsewhere already, the slot not yet
    LOAD = enum.auto()  # the script is unknown there: restarted, failed over, or flushed


_REMEDIES = {
    "LOADING": Remedy.WAIT,
    "BUSY": Remedy.WAIT,
    "TRYAGAIN": Remedy.WAIT,
    "CLUSTERDOWN": Remedy.MASTER,
    "MASTERDOWN": Remedy.MASTER,
    "READONLY": Remedy.MASTER,
    "MOVED": Remedy.MOVED,
    "ASK": Remedy.ASK,
    "NOSCRIPT": Remedy.LOAD,
}

_REFUSALS = {
    "OOM": "is full: raise its maxmemory (redis-cli CONFIG SET maxmemory BYTES), or delete what is not needed",
    "READONLY": "is read-only (a replica): point redis_url at the master, or wait for the failover to end",
    "LOADING": "is still loading its data after a start",
    "MASTERDOWN": "is a replica that has lost its master",
    "NOREPLICAS": "has too few replicas connected: attach them (redis-cli -h REPLICA REPLICAOF HOST PORT), or ask for "
    "fewer: redis-cli CONFIG SET min-replicas-to-write 0",
    "MISCONF": "cannot save to disk and therefore refuses writes: see its log, mend the disk, then: redis-cli BGSAVE",
    "BUSY": "is busy with a script that does not end: end it with redis-cli SCRIPT KILL",
    "CLUSTERDOWN": "belongs to a Cluster that does not serve this slot now: see CLUSTER INFO",
    "TRYAGAIN": "is moving the keys of this slot to another node, which has not ended yet",
}

_MISCONFIGURATIONS = {
    "NOAUTH": "asks for a password: put it into redis_url (redis://user:password@host:port)",
    "WRONGPASS": "does not know this user and password: correct them in redis_url",
    "NOPERM": "does not allow this user to do that: grant it with",
    "MOVED": "is a node of a Redis Cluster: use redis+cluster:// or cluster=True",
    "ASK": "is a node of a Redis Cluster: use redis+cluster:// or cluster=True",
}

#: What stands for the host of a node of a Cluster that does not know its own, or must not tell.
UNNAMED = {"", "?"}

# Of a script that may be called, but not do what it does; Redis 7.0 says it otherwise than what came later.
_FORBIDDEN_IN_SCRIPT = ("ERR ACL failure in script", "ERR The user executing the script can't")


def remedy_for(error: ErrorReply) -> Remedy:
    """Says what may help against this error reply."""
    return _REMEDIES.get(error.code, Remedy.NONE)


def as_error(error: ErrorReply, where: Address | str, what: str) -> DotmacTasksError:
    """Translates an error reply for which there is no (further) remedy.

    Args:
        error: The reply.
        where: The node that sent it.
        what: The command or script, as the caller knows it; arguments do not belong here, they may be secret.

    Returns:
        `StorageRefused`, `StorageMisconfigured`, or `InternalError` for what only a bug of ours can cause.
    """
    if error.code in _REFUSALS:
        return StorageRefused(f"{where} {_REFUSALS[error.code]} ({what}: {error.message})")
    if error.code in _MISCONFIGURATIONS:
        told = _MISCONFIGURATIONS[error.code]
        grant = f" {grant_for(error.message)}" if error.code == "NOPERM" else ""
        return StorageMisconfigured(f"{where} {told}{grant} ({what}: {error.message})")
    if error.message.startswith(_FORBIDDEN_IN_SCRIPT):
        told = f"{_MISCONFIGURATIONS['NOPERM']} {grant_for(error.message)}"
        return StorageMisconfigured(f"{where} {told} ({what}: {error.message})")
    return InternalError(f"{what} failed at {where}: {error.message}")


def grant_for(refusal: str) -> str:
    """The command that grants what was refused. USER and PREFIX stand for the user and the storage's prefix.

    Args:
        refusal: The server's words.
    """
    named = re.search(r"the '([a-z|-]+)' command", refusal)
    if named is not None:
        rule = f"+{named[1]}"
    elif "channel" in refusal:
        rule = "'&PREFIX:*'"
    elif "key" in refusal:
        rule = "'~{PREFIX:*'"  # a brace opens each key: what belongs together has one hash tag
    else:
        rule = "+@all -@dangerous +info +role '+config|get'"
    return f"redis-cli ACL SETUSER USER {rule}"


def redirection(error: ErrorReply, asked: Address) -> tuple[int, Address]:
    """Reads ``MOVED slot host:port`` and ``ASK slot host:port``.

    No host, or the ``?`` of a node that was told to give its name and has none: the host that was asked.

    Raises:
        InternalError: The reply does not have this form.
    """
    try:
        _, slot, location = error.message.split(" ")
        host, _, port = location.rpartition(":")
        return int(slot), Address(asked.host if host in UNNAMED else host, int(port))
    except ValueError:
        raise InternalError(f"{asked} redirects in a form nobody knows: {error.message}") from None
