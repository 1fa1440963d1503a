"""Worker processes of a test: hired, killed, frozen, told what to do, and looked at through the ledger they share."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from chaos.outside import Ledger, Line
from support.processes import spawn

TESTS = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("crew_worker.py")
T = TypeVar("T")


class Member:
    """One process."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: drain and end."""
        self.process.send_signal(signal.SIGTERM)

    def tell(self, do: str, **command: Any) -> bool:
        """Send a command; False if nobody is there to hear it. A frozen process hears it when it goes on."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **command}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True


class Crew:
    """The processes of one test, on one namespace.

    Args:
        folder: For the ledger and the logs.
        prefix: Of the namespace.
        settings: Of every manager, such as ``worker_lease``.
        storage: Options of every storage, such as ``socket_timeout``.
    """

    def __init__(self, folder: Path, prefix: str, settings: dict[str, Any], storage: dict[str, Any]) -> None:
        self.folder = folder
        self.prefix = prefix
        self.settings = settings
        self.storage = storage
        self.ledger = Ledger(folder / "ledger")
        self.members: list[Member] = []
        self._requests = itertools.count(1)

    def hire(self, url: str, **settings: Any) -> Member:
        """Start a process; it writes ``ready`` when it works."""
        name = f"w{len(self.members)}"
        log = self.folder / f"{name}.log"
        config = {
            "name": name,
            "url": url,
            "prefix": self.prefix,
            "ledger": str(self.folder / "ledger"),
            "settings": {**self.settings, **settings},
            "storage": self.storage,
        }
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
        with log.open("ab") as output:
            process = spawn(
                [sys.executable, SCRIPT, json.dumps(config)],
                stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment,
            )  # fmt: skip
        member = Member(name, process, log)
        self.members.append(member)
        return member

    async def hire_ready(self, url: str, **settings: Any) -> Member:
        """Start a process and wait until it works."""
        member = self.hire(url, **settings)
        await self.seen("ready", by=member)
        return member

    async def start(self, member: Member, steps: list[dict[str, Any]], **fields: Any) -> str:
        """Have a process start a saga; its id."""
        request = f"start-{next(self._requests)}"
        member.tell("start", request=request, workflow_type="test", steps=steps, **fields)
        line = await self.seen("started", "refused", request=request)
        assert line.what == "started", line.note
        return line.saga

    async def at_rest(self, member: Member, seconds: float) -> None:
        """Wait until a process has done all that it was told: one that was frozen can still have it in its pipe."""
        request = f"rest-{next(self._requests)}"
        member.tell("rest", request=request)
        await self.seen("at rest", by=member, request=request, seconds=seconds)

    async def seen(self, *whats: str, seconds: float = 30, by: Member | None = None, **about: object) -> Line:
        """Wait until the ledger has such a line, and give the first one."""

        def found() -> Line | None:
            for line in self.ledger.read(*whats):
                right = all(getattr(line, name) == value for name, value in about.items())
                if right and (by is None or (line.by == by.name and line.pid == by.pid)):
                    return line
            return None

        return await eventually(found, seconds=seconds, what=f"{whats} {about} by {by and by.name} in the ledger")

    def complaints(self) -> list[str]:
        """What no process may ever say: tracebacks, crashed actors, broken promises."""
        words = ("Traceback", "CRITICAL", "crashed", "InternalError", "JournalConflict", "never awaited", "Warning:")
        return [
            f"{member.name}: {line}"
            for member in self.members
            for line in member.log.read_text().splitlines()
            if any(word in line for word in words)
        ]

    def close(self) -> None:
        """Kill them all."""
        for member in self.members:
            with contextlib.suppress(ProcessLookupError):
                member.kill()
            assert member.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # what was not sent went nowhere
                member.process.stdin.close()
        self.ledger.close()


@contextmanager
def crew(
    folder: Path, *, storage: dict[str, Any] | None = None, prefix: str = "crew", **settings: Any
) -> Iterator[Crew]:
    """A crew for the time of a context; every log must be free of complaints at the end."""
    made = Crew(folder, prefix, {"worker_lease": 1.5, "poll_interval": 0.2, **settings}, storage or {})
    try:
        yield made
        complaints = made.complaints()
        assert not complaints, "\n".join([*complaints, *(member.log.read_text() for member in made.members)])
    finally:
        made.close()


async def eventually(condition: Callable[[], T | None], *, seconds: float = 30, what: str = "") -> T:
    """Poll until the condition gives something true, and give that; AssertionError after the deadline."""
    with trio.move_on_after(seconds):
        while True:
            result = condition()
            if result:
                return result
            await trio.sleep(0.02)
    message = f"not within {seconds} s: {what or condition}"
    raise AssertionError(message)
