"""Everything once more on a real server, in a program that is an asyncio program from its first line to its last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.models import Verdict
from dotmac.tasks.storage.redis import RedisStorage
from portal.hosts import run_asyncio
from support.servers import standalone

TESTS = Path(__file__).parents[1]


@pytest.mark.redis
def test_an_asyncio_program_on_redis_keeps_asyncio_to_itself() -> None:
    errors = errors_of("portal.redis_program")
    assert [line for line in errors.splitlines() if " is parked: " not in line] == []


@pytest.mark.redis
def test_a_program_that_came_to_asyncio_after_trio_is_an_asyncio_program() -> None:
    errors_of("portal.both_hosts_program")


@pytest.mark.redis
def test_a_manager_that_is_not_started_looks_its_storage_over_under_asyncio() -> None:
    with standalone(aof=True) as server:
        findings = run_asyncio(BackgroundOperationsManager(RedisStorage(server.url)).examine)
    assert {finding.verdict for finding in findings} <= {Verdict.OK, Verdict.ADVICE}


def errors_of(program: str) -> str:
    with standalone("appendonly yes") as server:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-m", program, server.url],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=TESTS,
        )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr
