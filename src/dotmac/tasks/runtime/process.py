"""Who a process is, and how another one on the same machine learns for certain that it has died.

A worker's lease has to be long, since a process can stand still for seconds and live. That a process is dead can be
known much sooner, but only by the kernel that ran it. So a worker says in its registration which process it is, in
terms that only that kernel's other processes can compare:

- the *kernel*: the boot id, and the namespaces in which a pid and a start time mean what they say. The number of a
  namespace is given out again only when nothing lives in it any more, so a match can never be with one that does;
- the *pid*, and the *start time* in clock ticks, which tells a process from a later one that got its pid.

What counts as dead: there is no such pid, it belongs to a process with another start time, or it is a zombie. A
stopped process (SIGSTOP) lives. Whatever cannot be read or compared is not known, and what is not known is not dead.
One thing deceives this: machines cloned from a snapshot of a running one share its boot id. They must not share a
namespace of the storage; should they, the journal is still fenced, and a worker taken for dead comes back as a new one.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import trio

_LOOK = 0.5  # seconds between two looks at a process where the kernel cannot tell of its end
_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys" / "kernel" / "random" / "boot_id"
# Positions in /proc/PID/stat after the name; see proc_pid_stat(5), which counts from one and has two fields before.
_STATE, _THREADS, _STARTED = 0, 17, 19


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one kernel.

    Attributes:
        kernel: Boot id and namespaces; `pid` and `started` can be compared only where it is the same.
        pid: As seen in that pid namespace.
        started: Clock ticks since the boot.
    """

    kernel: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> Process | None:
        """The calling process, or None where the system does not say enough about it (it is not Linux, say)."""
        try:
            boot = _BOOT_ID.read_text().strip()
            namespaces = [(_PROC / "self" / "ns" / name).readlink() for name in ("pid", "time")]
            pid, started = os.getpid(), int(_stat(os.getpid())[_STARTED])
            seen_as = int((_PROC / "self").readlink().name)
        except (OSError, ValueError, IndexError):
            return None
        # Where /proc shows another pid namespace than ours, its pids are not those that we could ask for.
        return cls("/".join([boot, *map(str, namespaces)]), pid, started) if seen_as == pid else None

    @classmethod
    def of(cls, info: dict[str, str]) -> Process | None:
        """The process that registered with this info, or None where it did not say."""
        try:
            kernel, pid, started = info["kernel"], int(info["pid"]), int(info["started"])
        except (KeyError, ValueError):
            return None
        return cls(kernel, pid, started) if kernel and pid > 0 else None

    def info(self) -> dict[str, str]:
        """What `of` reads."""
        return {"kernel": self.kernel, "pid": str(self.pid), "started": str(self.started)}

    def has_died(self) -> bool:
        """Whether it is certain that it has. To be asked only by a process of the same kernel."""
        try:
            os.kill(self.pid, 0)  # a mount of /proc can hide the processes of other users; this cannot
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is there, and not ours to signal
        try:
            stat = _stat(self.pid)
            state, threads, started = stat[_STATE], int(stat[_THREADS]), int(stat[_STARTED])
        except (OSError, ValueError, IndexError):
            return False
        # The first thread of a process can end before the others: a zombie that still works.
        return started != self.started or state == "X" or (state == "Z" and threads <= 1)

    async def wait_until_dead(self) -> None:
        """Return when it is certain that it has died. To be asked only by a process of the same kernel."""
        while not self.has_died():
            descriptor = _open(self.pid)
            if descriptor is None:
                await trio.sleep(_LOOK)
                continue
            try:
                # Not dead after opening: the descriptor is of this process. Where that cannot be known, it may be of
                # a later one with its pid, and when that one ends, this one ended before.
                if not self.has_died():
                    await trio.lowlevel.wait_readable(descriptor)
                return
            finally:
                os.close(descriptor)


def _stat(pid: int) -> list[str]:
    """The fields of its stat after the name, which can have spaces and parentheses in it."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _open(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends, or None where there is no such thing."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, a sandbox, no descriptors left; or it has just ended, which the next look finds
        return None
