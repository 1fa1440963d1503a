"""The resource refuses a writer whose fence is too old, and nobody else."""

from __future__ import annotations

import sqlite3

import pytest

from dotmac.tasks import LockLost
from dotmac.tasks.fences import FENCE_GUARD, fenced_set, require_current
from support.servers import standalone


def test_a_refused_write_is_an_error() -> None:
    require_current(1, "the row", 5)
    with pytest.raises(LockLost, match=r"the row has been written under a higher fence than 5"):
        require_current(0, "the row", 5)


def test_rows_of_a_sql_database() -> None:
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE t (id INTEGER, value TEXT, fence INTEGER)")
        database.execute("INSERT INTO t (id, value) VALUES (1, 'first')")

        def write(value: str, fence: int) -> int:
            statement = f"UPDATE t SET value = :value, fence = :fence WHERE id = 1 AND {FENCE_GUARD}"  # noqa: S608 - ours
            return database.execute(statement, {"value": value, "fence": fence}).rowcount

        assert [write("a", 10), write("again", 10), write("late", 9), write("b", 11)] == [1, 1, 0, 1]
        assert database.execute("SELECT value, fence FROM t").fetchall() == [("b", 11)]
    database.close()


@pytest.mark.redis
def test_values_in_redis() -> None:
    """Also where numbers of Lua would take two fences for one, and where they have different lengths."""
    large = 2**53
    with standalone() as server:

        def write(key: str, value: str, fence: int) -> int:
            return int(server.cli(*fenced_set(key, value, fence)))

        steps = [("a", 9), ("again", 9), ("late", 8), ("b", 10), ("late", 9), ("c", large + 1), ("late", large)]
        assert [write("k", *each) for each in steps] == [1, 1, 0, 1, 0, 1, 0]
        assert server.cli("GET", "k") == "c"
        assert write("{tag}:k", "v", 1) == 1
        assert sorted(server.cli("KEYS", "*")) == ["k", "{k}:fence", "{tag}:k", "{tag}:k:fence"]
