"""Log lines: JSON that any collector reads, or words for people; both name the saga."""

from __future__ import annotations

import io
import json
import logging

from dotmac.tasks.service.logs import LogStyle, configure_logging


def logged(style: LogStyle, level: str = "info") -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    configure_logging(style, level, stream)
    return logging.getLogger("dotmac.tasks.test"), stream


def test_json_has_one_object_a_line() -> None:
    log, stream = logged(LogStyle.JSON)
    log.debug("not told")
    log.warning("saga %s\nis \x1b[31mparked", "s1", extra={"saga_id": "s1", "step": "Ship", "tenant_id": None})
    try:
        raise ValueError("half a pair \ud800")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning", "logger": "dotmac.tasks.test", "message": "saga s1\nis \x1b[31mparked",
        "saga_id": "s1", "step": "Ship",
    }  # fmt: skip
    assert second["error"].endswith("ValueError: half a pair \\ud800")


def test_a_line_end_beyond_ascii_does_not_split_a_json_line() -> None:
    log, stream = logged(LogStyle.JSON)
    text = "one\u2028two\u2029three\u0085four\x0b\x0c\x1c"
    log.info("%s", text, extra={"saga_id": text})
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == json.loads(line)["saga_id"] == text


def test_words_for_people_add_what_the_message_does_not_tell() -> None:
    log, stream = logged(LogStyle.CONSOLE)
    log.info("saga %s is parked", "s1", extra={"saga_id": "s1", "tenant_id": "acme"})
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed")
    line, second, *trace = stream.getvalue().splitlines()
    assert line[12:] == " INFO     saga s1 is parked  [tenant_id=acme]"
    assert second[12:] == " ERROR    failed"
    assert trace[-1] == "ValueError: no"


def test_nothing_can_write_to_a_terminal_what_is_no_text() -> None:
    log, stream = logged(LogStyle.CONSOLE)
    log.info("operation %s", "\x1b]0;owned\x07\nforged line")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
