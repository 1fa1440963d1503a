"""The recorder compares a response's body with its Content-Length."""

from __future__ import annotations

from typing import Any

import pytest

from dotmac.tasks.http.recorder import Recorder


@pytest.mark.parametrize(
    ("status", "length", "is_short"),
    [
        (200, b"3", False),
        (200, b"4", True),
        (200, b"2", False),
        (200, b"9" * 5000, True),  # beyond the digits that Python reads
        (200, b"many", False),
        (200, None, False),
        (204, b"4", False),
        (304, b"4", False),
    ],
)
async def test_a_body_is_short_of_its_content_length(status: int, length: bytes | None, is_short: bool) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None: ...

    async def on_last(_recorder: Recorder) -> None: ...

    recorder = Recorder(receive, send, 2, on_last)  # counts what exceeds the limit too
    headers = [] if length is None else [(b"Content-Length", length)]
    await recorder.send({"type": "http.response.start", "status": status, "headers": headers})
    await recorder.send({"type": "http.response.body", "body": b"a", "more_body": True})
    await recorder.send({"type": "http.response.body", "body": b"bc"})
    assert recorder.is_short is is_short
