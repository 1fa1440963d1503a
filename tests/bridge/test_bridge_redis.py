"""Everything once more on a real server, in a program that is an asyncio program from its first line to its last."""

from __future__ import annotations

import pytest

from bridge.hosts import errors_of, run_asyncio
from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.models import Verdict
from dotmac.tasks.storage.redis import RedisStorage
from support.servers import standalone


@pytest.mark.redis
def test_an_asyncio_program_on_redis_keeps_asyncio_to_itself() -> None:
    with standalone("appendonly yes") as server:
        errors = errors_of("bridge.redis_program", server.url)
    assert [line for line in errors.splitlines() if " is parked: " not in line] == []


@pytest.mark.redis
def test_a_program_that_came_to_asyncio_after_trio_is_an_asyncio_program() -> None:
    with standalone("appendonly yes") as server:
        errors_of("bridge.both_hosts_program", server.url)


@pytest.mark.redis
def test_a_manager_that_is_not_started_looks_its_storage_over_under_asyncio() -> None:
    with standalone(aof=True) as server:
        findings = run_asyncio(BackgroundOperationsManager(RedisStorage(server.url)).examine)
    assert {finding.verdict for finding in findings} <= {Verdict.OK, Verdict.ADVICE}
