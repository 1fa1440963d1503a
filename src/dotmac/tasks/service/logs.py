"""Logs of a service process: one line a record, as JSON for machines or in plain words for people."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

import msgspec

from .plain import plain

FIELDS = ("saga_id", "tenant_id", "workflow_type", "step", "attempt", "worker", "who", "reason")
"""Fields of a record that are told beside its message, where it has them."""

_NEWLINE = "\n"
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""Line ends beyond ASCII, which JSON allows in a string, and at which many readers of lines split."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


class LogStyle(StrEnum):
    """How log lines look."""

    JSON = "json"
    CONSOLE = "console"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, the fields, and ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        document: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["error"] = self.formatException(record.exc_info)
        return _encode(_clean(document)).decode().translate(_LINE_ENDS)


class ConsoleFormatter(logging.Formatter):
    """Time, level and message, then the fields that the message does not tell."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback below it where there is one."""
        message = plain(record.getMessage())
        told = {name: plain(value) for name, value in _fields(record).items()}
        fields = " ".join(f"{name}={value}" for name, value in told.items() if value not in message)
        line = f"{_time(record):%H:%M:%S.%f}"[:-3] + f" {record.levelname:<8} {message}"
        if fields:
            line = f"{line}  [{fields}]"
        return f"{line}\n{plain(self.formatException(record.exc_info), keep=_NEWLINE)}" if record.exc_info else line


def configure_logging(style: LogStyle, level: str, stream: TextIO | None = None) -> None:
    """Send all records to standard error, in this style.

    Args:
        style: How lines look.
        level: The lowest level that is told, such as ``info``.
        stream: Instead of standard error.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if style is LogStyle.JSON else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name in FIELDS if (value := getattr(record, name, None)) not in (None, "")}


def _clean(document: dict[str, Any]) -> dict[str, Any]:
    # Half a surrogate pair can be in any text that came from outside, and UTF-8 cannot carry it.
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in document.items()
    }
