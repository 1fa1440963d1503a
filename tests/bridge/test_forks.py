"""A manager that runs in a process from which another one is forked off."""

from __future__ import annotations

from bridge.hosts import errors_of


def test_a_forked_process_is_told_that_the_manager_runs_elsewhere() -> None:
    assert errors_of("bridge.fork_program") == ""
