"""Handlers of an asyncio program: they run in its event loop, whatever the runtime decides in its own thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import replace
from typing import Any

import trio

from ..callables import close_unawaited
from ..errors import OutcomeUnknown
from ..runtime.containment import contained
from ..runtime.context import HandlerContext
from ..runtime.handlers import Handler
from ..runtime.log_fields import attempt_fields
from .asyncio_calls import AsyncioCall, LoopClosed
from .runtime_loop import RuntimeLoop

_log = logging.getLogger(__name__)
_LAST_MOMENT = 1.0  # seconds after which a task that was cancelled was not cancelled because its loop ends


class AsyncioHandlers:
    """Runs handlers in an event loop.

    Args:
        loop: Of the host.
        home: The runtime's trio run.
        hurry: Stops the runtime in a hurry; called there.
        grace: Seconds that a cancelled handler may take to end; then its task is left behind.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, home: RuntimeLoop, hurry: Callable[[], None], grace: float
    ) -> None:
        self._loop = loop
        self._home = home
        self._hurry = hurry
        self._grace = grace
        self._loop_ends = trio.Event()
        self._calls: set[AsyncioCall[Any]] = set()
        self._given_up = False

    def loop_ends(self) -> None:
        """The event loop will run nothing more; called from there."""
        self._home.post(self._loop_ends.set)

    def give_up(self) -> None:
        """The event loop does not run and never will again; called in the trio run."""
        self._given_up = True
        for call in tuple(self._calls):
            call.give_up()

    def hosted(self, handler: Handler) -> Handler:
        """The handler, as the runtime is to call it."""

        async def call(parameters: dict[str, Any], context: HandlerContext) -> Any:
            return await self._call(lambda: handler.call(parameters, context), context)

        return replace(handler, call=call)

    async def wait_for(self, awaitable: Awaitable[Any], context: HandlerContext) -> Any:
        """See `HandlerHost`."""
        begun = False

        async def wait() -> Any:
            nonlocal begun
            begun = True
            return await contained(lambda: awaitable)

        try:
            return await self._call(wait, context)
        finally:
            if not begun:
                close_unawaited(awaitable)

    async def _call(self, function: Callable[[], Awaitable[Any]], context: HandlerContext) -> Any:
        to_loop = self._home.queue_for(self._loop).put
        call = AsyncioCall(self._loop, to_loop, self._home.post, function, copy_context(), grace=self._grace)
        began_at = trio.current_time()
        self._calls.add(call)
        try:
            if not self._given_up:
                return await call.run()
        except asyncio.CancelledError as error:
            with trio.move_on_after(_LAST_MOMENT):
                await self._loop_ends.wait()
            if not self._loop_ends.is_set():
                raise OutcomeUnknown("the handler's task was cancelled in its event loop") from error
        except LoopClosed:
            self._hurry()
        finally:
            self._calls.discard(call)
            if call.left:
                _log.warning(
                    "the task of %r (%s) ignores its cancellation and is left behind, %.1f s after its start",
                    context.operation_type,
                    context.saga_id or context.token,
                    trio.current_time() - began_at,
                    extra=attempt_fields(context),
                )
        # A handler that cannot run has not failed: its attempt is cut off when the runtime stops, as it is about to.
        await trio.sleep_forever()
        raise AssertionError  # pragma: no cover - it never gets here
