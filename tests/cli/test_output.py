"""What commands print, on terminals of every kind: without colours, without Unicode, not wide."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dotmac.tasks import BackgroundOperationsManager, Finding, OperationStatus, SagaList, Verdict
from dotmac.tasks.commands import app
from dotmac.tasks.commands.connecting import Link
from dotmac.tasks.commands.output import print_table
from dotmac.tasks.commands.saga_view import print_saga
from dotmac.tasks.models import SagaStep, SagaSummary, SagaWorkflow

URL = "redis://127.0.0.1:1/0"  # nobody is asked there
MAIN = [sys.executable, "-c", "from dotmac.tasks.cli import main; main()"]
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


def on_a_terminal(*words: str, **environment: str) -> str:
    """What the command prints on a terminal."""
    here, there = pty.openpty()
    settings = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "REDIS_URL"}}
    try:
        subprocess.run(
            [*MAIN, *words],
            stdin=there, stdout=there, stderr=there,
            env={**settings, "TERM": "xterm", **environment}, check=False,
        )  # fmt: skip
        return os.read(here, 65_536).decode()
    finally:
        os.close(here)
        os.close(there)


def test_errors_have_the_colours_that_are_wanted() -> None:
    loud, quiet = on_a_terminal("workers"), on_a_terminal("workers", NO_COLOR="1")
    assert COLOUR.search(loud)
    assert not COLOUR.search(quiet)
    assert "dotmac-tasks: --redis: say where" in quiet


def run(*words: str, charset: str = "utf-8") -> Result:
    return CliRunner(charset=charset).invoke(app, [*words, "--redis", URL])


@pytest.fixture
def _findings(monkeypatch: pytest.MonkeyPatch) -> None:
    async def examine(_manager: BackgroundOperationsManager) -> list[Finding]:
        return [Finding("eviction", Verdict.PROBLEM, "it may throw ☃ away", "a:1", "redis-cli mend")]

    monkeypatch.setattr(BackgroundOperationsManager, "examine", examine)


@pytest.mark.usefixtures("_findings")
def test_what_a_terminal_cannot_show_does_not_end_the_command() -> None:
    for charset, sign, snowman in (("utf-8", "→", "☃"), ("ascii", "->", r"\u2603")):
        result = run("doctor", charset=charset)
        assert result.exit_code == 1, result.exception
        assert f"{sign} redis-cli mend" in result.stdout
        assert f"it may throw {snowman} away" in result.stdout
        document = json.loads(run("doctor", "--json", charset=charset).stdout)
        assert document[0]["message"] == "it may throw ☃ away"


SAGA_ID = "019a1b2c3d4-5e6f708192a3b4c5-0c"


def test_ids_are_not_wrapped_where_there_is_room(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    row = [SAGA_ID, "a-tenant-with-a-long-name", "a-type-of-workflow-with-a-long-name", "completed", "1/1", "3 min"]
    columns = ["saga", "tenant", "type", "status", "step", "age"]
    monkeypatch.setattr("dotmac.tasks.commands.output._WIDE", 80)
    print_table(columns, [row], "none", whole="saga")
    told = capsys.readouterr().out
    assert SAGA_ID in told
    assert all(len(line) <= 80 for line in told.splitlines())
    monkeypatch.setattr("dotmac.tasks.commands.output._WIDE", 40)
    print_table(columns, [row], "none", whole="saga")  # wrapped rather than cut
    assert "".join(re.findall(r"^[0-9a-f-]+", capsys.readouterr().out, re.MULTILINE)) == SAGA_ID


def test_the_list_of_sagas_keeps_its_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    saga = SagaSummary(SAGA_ID, "t" * 30, "w" * 40, OperationStatus.COMPLETED, 1, 1, now, now)
    monkeypatch.setattr(Link, "ask", lambda _link, _work: SagaList([saga], None))
    monkeypatch.setattr("dotmac.tasks.commands.output._WIDE", 80)
    assert SAGA_ID in run("sagas", "list").stdout


def test_a_failed_saga_is_called_by_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    step = SagaStep("ship", "ship", {}, status=OperationStatus.FAILED, compensation_status=OperationStatus.FAILED)
    at = datetime(2026, 11, 1, tzinfo=UTC)
    print_saga(SagaWorkflow("id", "acme", "order", [step], status=OperationStatus.FAILED, created_at=at, updated_at=at))
    head, _, row = capsys.readouterr().out.partition("result or error")
    assert "status   failed" in head
    assert row.count("failed") == 2
