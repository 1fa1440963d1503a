"""Runs every example and checks what it prints."""

from __future__ import annotations

import subprocess
import sys

import pytest

from docs.documents import ROOT

PRINTS = {
    "fenced_counter.py": ["awake: wrote 1", "sleeper: refused, ", "the counter is 1"],
    "fenced_redis.py": ["50 tasks counted to 50", "a write under an old fence is carried out: False"],
    "http_saga.py": [
        "5 requests, 1 charge, 4 repetitions",
        "everybody got {'charge': {'charge': 'ch_1'}}: True",
        "another amount under that key: 422",
    ],
    "idempotent_charge.py": ["10 callers, 1 charge", "everybody got {'charge': 1, 'cents': 4200}: True", "refused: "],
    "onboarding.py": [
        "created user testuser",
        "opened mailbox of testuser at attempt 2",
        "closed mailbox of testuser",
        "deleted user testuser",
        "compensated: step 'Grant Licence' failed: NonRetryableError",
        "left behind: 0 users, 0 mailboxes",
    ],
    "operator_retry.py": ["failed", "open: step 'Ticket'", "completed {'ticket': 'paid 900'}", "payments made: 1"],
    "takeover.py": [
        "attempt 1, highest fence: True, token known: False",
        "the first worker is lost",
        "attempt 2, highest fence: True, token known: True",
        "completed with {'cents': 4200}; charges made: 1",
    ],
}


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == PRINTS.keys()


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_prints_what_it_shows(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == len(PRINTS[name])
    for line, beginning in zip(lines, PRINTS[name], strict=True):
        assert line.startswith(beginning)
