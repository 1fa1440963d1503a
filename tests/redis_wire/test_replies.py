"""Error replies become errors of our tree: who is at fault, and what to change."""

from __future__ import annotations

import pytest

from dotmac.tasks.errors import DotmacTasksError, InternalError, StorageMisconfigured, StorageRefused
from dotmac.tasks.storage.redis.address import Address
from dotmac.tasks.storage.redis.replies import ErrorReply, Remedy, as_error, redirection, remedy_for

NODE = Address("node", 7000)


@pytest.mark.parametrize(
    ("message", "kind", "says"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StorageRefused, "maxmemory"),
        ("READONLY You can't write against a read only replica.", StorageRefused, "read-only"),
        ("LOADING Redis is loading the dataset in memory", StorageRefused, "loading"),
        ("MASTERDOWN Link with MASTER is down", StorageRefused, "lost its master"),
        ("NOREPLICAS Not enough good replicas to write.", StorageRefused, "min-replicas-to-write"),
        ("MISCONF Redis is configured to save RDB snapshots", StorageRefused, "disk"),
        ("BUSY Redis is busy running a script.", StorageRefused, "SCRIPT KILL"),
        ("CLUSTERDOWN Hash slot not served", StorageRefused, "CLUSTER INFO"),
        ("NOAUTH Authentication required.", StorageMisconfigured, "redis_url"),
        ("WRONGPASS invalid username-password pair", StorageMisconfigured, "redis_url"),
        ("NOPERM User app has no permissions", StorageMisconfigured, "ACL SETUSER"),
        ("ERR ACL failure in script: User app has no permissions", StorageMisconfigured, "ACL SETUSER"),
        ("ERR The user executing the script can't publish to the channel", StorageMisconfigured, "ACL SETUSER"),
        ("MOVED 1 other:7001", StorageMisconfigured, "cluster=True"),
        ("ERR wrong number of arguments", InternalError, "wrong number"),
        ("WRONGTYPE Operation against a key", InternalError, "WRONGTYPE"),
    ],
)
def test_each_code_is_an_error_that_says_what_to_do(message: str, kind: type[DotmacTasksError], says: str) -> None:
    error = as_error(ErrorReply(message), NODE, "commit")
    assert type(error) is kind
    assert says in str(error)
    assert "node:7000" in str(error)
    assert "commit" in str(error)


def test_only_what_passes_has_a_remedy() -> None:
    assert remedy_for(ErrorReply("BUSY Redis is busy")) is Remedy.WAIT
    assert remedy_for(ErrorReply("OOM full")) is Remedy.NONE
    assert remedy_for(ErrorReply("ERR no")) is Remedy.NONE


def test_redirections_are_read() -> None:
    assert redirection(ErrorReply("MOVED 3999 10.0.0.1:6381"), NODE) == (3999, Address("10.0.0.1", 6381))
    assert redirection(ErrorReply("ASK 3999 :6381"), NODE) == (3999, Address("node", 6381))
    assert redirection(ErrorReply("ASK 3999 ?:6381"), NODE) == (3999, Address("node", 6381))
    assert redirection(ErrorReply("ASK 1 ::1:6381"), NODE) == (1, Address("::1", 6381))
    with pytest.raises(InternalError):
        redirection(ErrorReply("MOVED somewhere"), NODE)
