"""What is certain about the death of another process, and what is not. Real processes, the kernel's own word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dotmac.tasks.runtime import process as process_module
from dotmac.tasks.runtime.process import Process
from support.processes import spawn, wait_until

HERE = Process.this()
pytestmark = pytest.mark.skipif(HERE is None, reason="this system does not say who a process is")

Child = tuple[subprocess.Popen[bytes], Process]


@pytest.fixture
def child() -> Iterator[Child]:
    running = spawn([sys.executable, "-c", "import signal; print(flush=True); signal.pause()"], stdout=subprocess.PIPE)
    with running:
        assert running.stdout is not None
        running.stdout.readline()  # it is itself now, not the one that spawns it
        yield running, identity(running.pid)
        running.kill()


def identity(pid: int) -> Process:
    """The identity that the process itself would find."""
    assert HERE is not None
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return replace(HERE, pid=pid, started=int(stat[19]))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture(params=["the kernel tells", "looks"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the descriptor that the kernel makes readable, where there is one, and without."""
    if request.param == "looks":
        monkeypatch.setattr(process_module, "_open", lambda _pid: None)
        monkeypatch.setattr(process_module, "_LOOK", 0.02)
    elif process_module._open(os.getpid()) is None:
        pytest.skip("this kernel has no process descriptors")
    return str(request.param)


def test_a_process_knows_itself_and_is_not_dead() -> None:
    assert HERE is not None
    assert identity(os.getpid()) == HERE
    assert not HERE.has_died()
    assert Process.of({"host": "here", **HERE.info()}) == HERE


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"host": "h", "pid": "12"},
        {"kernel": "k", "pid": "12"},
        {"kernel": "k", "pid": "many", "started": "1"},
        {"kernel": "k", "pid": "0", "started": "1"},
        {"kernel": "k", "pid": "-1", "started": "1"},
        {"kernel": "", "pid": "12", "started": "1"},
    ],
)
def test_a_worker_that_does_not_say_which_process_it_is_has_none(info: dict[str, str]) -> None:
    assert Process.of(info) is None


def test_a_stopped_process_lives(child: Child) -> None:
    running, process = child
    running.send_signal(signal.SIGSTOP)
    wait_until(lambda: state(running.pid) == "T")
    assert not process.has_died()


def test_a_zombie_is_dead_and_so_is_what_is_gone(child: Child) -> None:
    running, process = child
    assert not process.has_died()
    running.kill()
    wait_until(lambda: state(running.pid) == "Z")
    assert process.has_died()
    running.wait()
    assert process.has_died()


def test_a_later_process_with_its_pid_does_not_make_it_alive(child: Child) -> None:
    _, process = child
    assert replace(process, started=process.started - 1).has_died()


def test_a_process_whose_first_thread_ended_lives_on() -> None:
    """As in a program that leaves its work to threads: its state is that of a zombie."""
    leave = "import ctypes, threading, signal; threading.Thread(target=signal.sigwait, args=[[signal.SIGUSR1]]).start()"
    with spawn([sys.executable, "-c", f"{leave}; ctypes.CDLL(None).pthread_exit(None)"]) as running:
        try:
            wait_until(lambda: state(running.pid) == "Z")
            assert not identity(running.pid).has_died()
        finally:
            running.kill()


@pytest.mark.parametrize("error", [PermissionError(), FileNotFoundError(), ProcessLookupError()])
def test_what_cannot_be_read_is_not_dead(child: Child, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Where /proc hides the processes of others, that one is not there tells nothing."""
    _, process = child

    def hidden(_pid: int) -> list[str]:
        raise error

    monkeypatch.setattr(process_module, "_stat", hidden)
    assert not process.has_died()
    assert Process.this() is None


def test_a_process_of_another_user_is_not_dead(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    _, process = child

    def forbidden(_pid: int, _signal: int) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:  # not for longer: `subprocess` kills by it, too
        patch.setattr(os, "kill", forbidden)
        assert not process.has_died()


async def test_the_death_of_a_process_is_waited_for(child: Child, means: str) -> None:
    running, process = child
    with trio.move_on_after(0.2) as waited:
        await process.wait_until_dead()
    assert waited.cancelled_caught, means
    running.send_signal(signal.SIGSTOP)
    with trio.move_on_after(0.2) as waited:
        await process.wait_until_dead()
    assert waited.cancelled_caught, means
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.wait_until_dead)
            nursery.start_soon(process.wait_until_dead)
            await trio.lowlevel.checkpoint()
            running.kill()
        await process.wait_until_dead()
