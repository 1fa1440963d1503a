"""Names handlers that ignore their cancellation, for as long as the runtime has to wait for them.

A task of trio cannot be left behind: a handler that shields itself, or swallows `Cancelled`, delays its time-out, the
end of its saga's worker and the stop of the runtime. Tasks in an event loop of asyncio and threads are left behind
elsewhere (`AsyncioHandlers`, `Permits`), and are named there.
"""

from __future__ import annotations

import logging
import math

import trio

from .context import HandlerContext
from .log_fields import attempt_fields

_LONGEST_PAUSE = 60.0  # seconds between two reports of one handler
_log = logging.getLogger(__name__)


class RunningHandler:
    """One call of a handler.

    Args:
        context: Of the call.
        scopes: Cancel scopes around the call; the handler has to end when one of them is cancelled.
    """

    __slots__ = ("context", "cut_at", "pause", "report_at", "scopes")

    def __init__(self, context: HandlerContext, scopes: tuple[trio.CancelScope, ...]) -> None:
        self.context = context
        self.scopes = scopes
        self.cut_at = math.inf
        self.report_at = math.inf
        self.pause = 0.0


class RunningHandlers:
    """The calls of handlers in one runtime.

    Args:
        grace: Seconds that a cancelled handler may take to end before the first report.

    Attributes:
        grace: The same.
        worker_scope: Around all steps of sagas.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._running: set[RunningHandler] = set()
        self.worker_scope = trio.CancelScope()

    def begin(self, context: HandlerContext, *scopes: trio.CancelScope) -> RunningHandler:
        """Watch a call until `end`."""
        running = RunningHandler(context, scopes)
        self._running.add(running)
        return running

    def end(self, running: RunningHandler) -> None:
        """The call has ended."""
        self._running.discard(running)
        if running.pause:
            _log.warning(
                "the handler of %r (%s) has ended, %.1f s after its cancellation",
                *_names(running.context),
                trio.current_time() - running.cut_at,
                extra=attempt_fields(running.context),
            )

    async def watch(self) -> None:
        """Report for ever: once after the grace period, then at growing intervals."""
        while True:
            await trio.sleep(self.grace / 2)
            now = trio.current_time()
            for running in tuple(self._running):
                if running.cut_at == math.inf:
                    if any(scope.cancel_called for scope in running.scopes):
                        running.cut_at, running.report_at = now, now + self.grace
                elif now >= running.report_at:
                    self._report(running, now)

    def _report(self, running: RunningHandler, now: float) -> None:
        running.pause = min(max(running.pause * 2, self.grace), _LONGEST_PAUSE)
        running.report_at = now + running.pause
        _log.warning(
            "the handler of %r (%s) ignores its cancellation for %.1f s; trio cannot leave a task behind, so its "
            "time-out and a stop wait for it",
            *_names(running.context),
            now - running.cut_at,
            extra=attempt_fields(running.context),
        )


def _names(context: HandlerContext) -> tuple[str, str]:
    return context.operation_type, context.saga_id or context.token
