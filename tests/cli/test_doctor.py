"""`dotmac-tasks doctor` tells what it finds, and its exit code says whether that is bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dotmac.tasks import BackgroundOperationsManager, Finding, Verdict
from dotmac.tasks.commands import app
from support.processes import port_candidates

URL = "redis://127.0.0.1:1/0"  # nobody is asked there
FINDINGS = [
    Finding("version", Verdict.OK, "Valkey 8.1", "a:1"),
    Finding("eviction", Verdict.PROBLEM, "it may throw sagas away", "b:2", "redis-cli -h b -p 2 " + "x" * 100),
    Finding("memory", Verdict.ADVICE, "[red]no limit[/red]", "a:1", "redis-cli -h a -p 1 y"),
]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def found(monkeypatch: pytest.MonkeyPatch, findings: list[Finding]) -> None:
    async def examine(_manager: BackgroundOperationsManager) -> list[Finding]:
        return findings

    monkeypatch.setattr(BackgroundOperationsManager, "examine", examine)


def test_problems_are_told_with_commands_that_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, FINDINGS)
    result = doctor("--redis", URL)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ok", "version", "Valkey", "8.1", "(a:1)"]
    assert lines[2].endswith("→ redis-cli -h b -p 2 " + "x" * 100)
    assert "[red]no limit[/red]" in lines[3]
    assert lines[-1] == "1 problem, 1 piece of advice"


def test_advice_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, [FINDINGS[0], FINDINGS[2]])
    result = doctor("--redis", URL)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "0 problems, 1 piece of advice")
    assert "(a:1)" not in result.stdout  # there is only one


def test_json_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, FINDINGS)
    result = doctor("--redis", URL, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[1] == {
        "check": "eviction",
        "verdict": "problem",
        "message": "it may throw sagas away",
        "node": "b:2",
        "remedy": FINDINGS[1].remedy,
    }


@pytest.mark.redis
def test_a_storage_is_examined_by_its_url(tmp_path: Path) -> None:
    result = doctor("--redis", f"embedded://{tmp_path}/data", "--prefix", "mine", "--json")
    assert result.exit_code == 0
    messages = [finding["message"] for finding in json.loads(result.stdout)]
    assert any("namespace 'mine' does not exist yet" in message for message in messages)


def test_a_server_that_is_not_there_is_a_problem() -> None:
    result = doctor("--redis", f"redis://127.0.0.1:{next(port_candidates())}/0?socket_timeout=0.5")
    assert result.exit_code == 1
    assert "problem" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say where"),
        (["--redis", "http://x"], "url"),
        (["--redis", URL, "--prefix", "a b"], "prefix"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], words: str) -> None:
    result = doctor(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
