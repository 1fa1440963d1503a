"""The world outside: a file to which handlers of all processes write what they did.

It exists because the journal cannot testify for itself. One line is one `write` to a file opened for appending, so
lines of several processes never mix, and what was written survives the SIGKILL of its writer (only a power cut,
which no test makes, would need an fsync).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

if TYPE_CHECKING:
    from dotmac.tasks.runtime.context import HandlerContext


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that a process did.

    Attributes:
        what: Of an attempt: ``begin``, then ``end`` (the effect happened), ``fail`` (it did not), ``unknown``
            (nobody can tell) or ``cut`` (cancelled). Else a notice of the process, such as ``ready``.
        at: Unix seconds; the servers run on this machine, so their clock is the same.
        clock: Monotonic seconds, the same for all processes of the machine.
    """

    what: str
    by: str
    pid: int
    at: float
    clock: float
    saga: str = ""
    step: str = ""
    attempt: int = 0
    undo: bool = False
    token: str = ""
    fence: int = 0
    request: str = ""
    note: str = ""

    @property
    def of_attempt(self) -> tuple[str, str, bool, int]:
        """Which attempt it is about."""
        return self.saga, self.step, self.undo, self.attempt


class Ledger:
    """The file, for one writer or for those who read."""

    def __init__(self, path: str | Path, by: str = "") -> None:
        self._path = Path(path)
        self._by = by
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def close(self) -> None:
        os.close(self._file)

    def tell(self, what: str, **fields: object) -> None:
        """Write a line."""
        line = {"what": what, "by": self._by, "pid": os.getpid(), "at": time.time(), "clock": time.monotonic()}
        os.write(self._file, msgspec.json.encode({**line, **fields}) + b"\n")

    @contextmanager
    def attempt(self, context: HandlerContext) -> Iterator[None]:
        """Write how an attempt begins, and how it ends."""
        about = {
            "saga": context.saga_id,
            "step": context.step,
            "attempt": context.attempt,
            "undo": context.compensating,
            "token": context.token,
            "fence": context.fence,
        }
        self.tell("begin", **about)
        try:
            yield
        except trio.Cancelled:
            self.tell("cut", **about)
            raise
        except TimeoutError:
            self.tell("unknown", **about)
            raise
        except Exception:
            self.tell("fail", **about)
            raise
        self.tell("end", **about)

    def read(self, *whats: str, saga: str | None = None, step: str | None = None) -> list[Line]:
        """All lines so far, in the order of writing, or those of these kinds, this saga, this step."""
        written, _, _ = self._path.read_bytes().rpartition(b"\n")  # behind it, somebody is writing a line
        lines = [msgspec.json.decode(line, type=Line) for line in written.splitlines()]
        return [
            line
            for line in lines
            if (not whats or line.what in whats) and saga in (None, line.saga) and step in (None, line.step)
        ]
