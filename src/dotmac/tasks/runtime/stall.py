"""Notices when a handler blocks the event loop, and says which, while it does.

A blocked loop renews no lease: after a while the worker's sagas are adopted by others, and nobody would know why. A
task beats at intervals; a thread beside the loop listens. When the beat stays away, the thread looks at what the
loop's thread is executing at that moment, and logs it, once for each block.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from types import FrameType

import trio

from .attempt import run_attempt

_BEATS_PER_LIMIT = 4
_SUSPENDED = 2.0  # a wait that took this many times what was asked: the whole process stood still
_BUSY_LOOKS = 2
_log = logging.getLogger(__name__)


class StallWatch:
    """Watches the loop of the trio run that `run` is called in.

    Args:
        limit: Seconds without a beat after which the loop counts as blocked.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._interval = limit / _BEATS_PER_LIMIT
        self._loop_thread = 0
        self._last_beat = 0.0
        self._over = threading.Event()

    async def run(self) -> None:
        """Beat for ever."""
        self._loop_thread = threading.get_ident()
        self._last_beat = time.monotonic()
        thread = threading.Thread(target=self._listen, name="dotmac.tasks stall watch", daemon=True)
        thread.start()
        try:
            while True:
                await trio.sleep(self._interval)
                self._last_beat = time.monotonic()
        finally:
            self._over.set()

    def _listen(self) -> None:
        told_about = 0.0
        busy_looks = 0  # in a row: one alone may have met a loop that was just about to wait
        while True:
            before = time.monotonic()
            if self._over.wait(self._interval):
                return
            now, beat = time.monotonic(), self._last_beat
            suspended = now - before > self._interval * _SUSPENDED
            if now - beat < self._limit / 2 or suspended or beat == told_about:
                busy_looks = 0
                continue
            frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented, for debugging as here
            if frame is None or _is_idle(frame):
                busy_looks = 0
                continue
            busy_looks += 1
            if busy_looks >= _BUSY_LOOKS and now - beat >= self._limit:
                told_about = beat
                _log.error(
                    "the event loop has been blocked for %.1f s by %s; leases cannot be renewed meanwhile. Use "
                    "'await', or register the handler as a plain function, which runs in a thread.\n%s",
                    now - beat,
                    _culprit(frame),
                    "".join(traceback.format_stack(frame)),
                )


def _is_idle(frame: FrameType) -> bool:
    """Whether the loop only waits for something to do (as it does for long under a virtual clock)."""
    return frame.f_code.co_name == "get_events"


def _culprit(frame: FrameType | None) -> str:
    while frame is not None:
        if frame.f_code is run_attempt.__code__:
            return f"the handler of {frame.f_locals['handler'].name!r} ({frame.f_locals['context'].token})"
        frame = frame.f_back
    return "code that is no handler of a saga"
