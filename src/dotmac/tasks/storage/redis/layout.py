"""How the keys of a namespace are named, and which partition holds what.

``{prefix:p0c}:s:<saga id>``  hash: the head of a saga        ``…:j:<saga id>``  list: its journal
``…:h:<saga id>``             string: a snapshot of its state
``…:n:<saga id>``             zset: notes beside it           ``…:k:<key>``      hash: an idempotency record
``…:due``    zset: unowned sagas by due time                  ``…:own``          zset: who owns what, by name
``…:idx``    zset: what lists are made from, by name          ``…:exp``          zset: ended sagas by end of retention
``…:l:<name>``, ``…:q:<name>``, ``…:w:<name>``  a lock, its queue, its waiters;  ``…:held``  zset: held locks
``{prefix:w}:leases``, ``…:infos``, ``…:cancels:<worker>``    the workers;  ``{prefix:ns}``  the namespace itself

In ``idx``, a saga whose journal needs a newer format than the first one also has a name by that format.

All keys of a partition share a hash tag, so every script finds its keys on one node of a Cluster. In ``own`` and
``idx`` all scores are 0: members are sorted by name, and a name begins with what it is looked up by.
"""

from __future__ import annotations

from redis.crc import key_slot

from dotmac.tasks.errors import InvalidInput

from ..ids import partition_of_key, partition_of_saga
from ..protocol import DUE_TOPIC

MAX_PARTITIONS = 256
SEPARATOR = b"\0"
RECORDS = b"k:"
"""Stands before the keys of idempotency records, behind the tag of their partition."""


def format_field(number: int) -> str:
    """A journal format as stored: texts of this form sort as their numbers."""
    return f"{number:04d}"


def newer_formats(number: int) -> tuple[bytes, bytes]:
    """Bounds of the names in ``idx`` of sagas whose journals need a newer format."""
    start = b"f" + SEPARATOR
    return b"(" + start + format_field(number).encode() + SEPARATOR + b"\xff", b"(" + start + b"\xff"


class Partition:
    """The keys of one partition, and the hash slot that all of them are in."""

    __slots__ = ("_tag", "due", "expiry", "held", "index", "owned", "records", "slot")

    def __init__(self, prefix: str, number: int) -> None:
        self._tag = f"{{{prefix}:p{number:02x}}}:".encode()
        self.slot: int = key_slot(self._tag)
        self.due = self._tag + b"due"
        self.owned = self._tag + b"own"
        self.index = self._tag + b"idx"
        self.expiry = self._tag + b"exp"
        self.held = self._tag + b"held"
        self.records = self._tag + RECORDS

    def saga(self, saga_id: bytes) -> bytes:
        """Head of a saga."""
        return self._tag + b"s:" + saga_id

    def journal(self, saga_id: bytes) -> bytes:
        """Journal of a saga."""
        return self._tag + b"j:" + saga_id

    def snapshot(self, saga_id: bytes) -> bytes:
        """Snapshot of a saga's state."""
        return self._tag + b"h:" + saga_id

    def notes(self, saga_id: bytes) -> bytes:
        """Notes beside a saga."""
        return self._tag + b"n:" + saga_id

    def record(self, key: str) -> bytes:
        """An idempotency record."""
        return self.records + key.encode()

    def lock(self, name: str) -> tuple[bytes, bytes, bytes]:
        """A lock, its queue and its waiters."""
        raw = name.encode()
        return self._tag + b"l:" + raw, self._tag + b"q:" + raw, self._tag + b"w:" + raw


class Layout:
    """The keys of one namespace.

    Args:
        prefix: Begins every key; two namespaces on one server need two prefixes.
        partitions: How many there are.

    Attributes:
        partitions: By number.
        due_channel: Where it is told that a saga is due.
    """

    def __init__(self, prefix: str, partitions: int) -> None:
        if not isinstance(prefix, str) or not prefix or not prefix.isprintable() or set(prefix) & set("{} "):
            raise InvalidInput("prefix", "must be printable text without braces and spaces")
        if not 0 < partitions <= MAX_PARTITIONS:
            raise InvalidInput("partitions", f"must lie between 1 and {MAX_PARTITIONS}, not {partitions}")
        self.prefix = prefix
        self.tag = f"{{{prefix}".encode()
        self.partitions = tuple(Partition(prefix, number) for number in range(partitions))
        self.namespace = f"{{{prefix}:ns}}".encode()
        self.leases = f"{{{prefix}:w}}:leases".encode()
        self.infos = f"{{{prefix}:w}}:infos".encode()
        self._cancels = f"{{{prefix}:w}}:cancels:".encode()
        self._channel = f"{prefix}:".encode()
        self.due_channel = self.channel(DUE_TOPIC)
        self._by_suffix = {f"-{number:02x}": partition for number, partition in enumerate(self.partitions)}

    def of_saga(self, saga_id: str) -> Partition:
        """The partition of a saga. Raises SagaNotFound if the id cannot be one of this namespace."""
        partition = self._by_suffix.get(saga_id[-3:])
        return partition or self.partitions[partition_of_saga(saga_id, len(self.partitions))]

    def of_key(self, key: str) -> Partition:
        """The partition of an idempotency key, or of a lock's name."""
        return self.partitions[partition_of_key(key, len(self.partitions))]

    def cancels(self, worker_id: str) -> bytes:
        """Sagas of a worker that somebody asked to cancel."""
        return self._cancels + worker_id.encode()

    def channel(self, topic: str) -> bytes:
        """Where messages of a topic are published."""
        return self._channel + topic.encode()
