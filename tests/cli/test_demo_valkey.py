"""The demo on a real server, with a process that really dies of kill -9."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from dotmac.tasks.demo import app
from dotmac.tasks.demo.valkey import valkey_stage
from support.processes import is_alive

pytestmark = pytest.mark.redis


def test_a_real_server_is_the_first_choice() -> None:
    assert app.best_stage() is valkey_stage


async def test_every_promise_holds_across_two_processes_and_a_kill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "PACE", 0.05)
    console = Console(file=io.StringIO(), width=100)
    assert await app.play(console, valkey_stage) == 0
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    killed = re.search(r"killed: kill -9 (\d+)", text)
    assert killed is not None
    assert not is_alive(int(killed[1]))
    assert "taken over by worker" in text
    assert "Every promise held." in text
