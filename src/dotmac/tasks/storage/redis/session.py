"""One connection's conversation: what was sent on it and is not answered yet, in order.

A session lives exactly as long as its connection. Late events of an old connection therefore reach an old session
and can do no harm, and the one rule that everything rests on is kept in one place: *replies come in the order of
commands, so the n-th reply belongs to the n-th call, whether or not anybody still waits for it.*

All of it runs in the trio thread, wherever the asyncio loop lives.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import hiredis
import trio

from dotmac.tasks.errors import InternalError, StorageUnavailable

from .address import Address
from .barrier import Barrier
from .calls import Call, preface
from .replies import ErrorReply
from .wire import Wire

_INCOMPLETE = object()
_YOUNG = 0.5  # seconds
#: hiredis before 3.2 cannot tell a push from a list; on a connection without subscriptions the server sends none.
_PUSH = getattr(hiredis, "PushNotification", None)


class Session:
    """The receiving and sending end of one connection that carries commands.

    Attributes:
        unanswered: Calls (and prefaces) in the order in which they were sent.
        heard_at: When bytes last came, on trio's clock; the start of the session before that.
        ended: Set when the connection is gone.
        failure: Why it went: `StorageUnavailable`, or `InternalError` when our own code is at fault.
        writable: Whether the connection takes more bytes now.
        batch: How many calls the last write had.
        held: Answered writes whose answer does not count before the barrier behind them was answered.
    """

    def __init__(self, address: Address, on_progress: Callable[[], None], barrier: Barrier | None = None) -> None:
        self.address = address
        self.unanswered: deque[Call] = deque()
        self.heard_at = self.began_at = trio.current_time()
        self.ended = trio.Event()
        self.failure: Exception | None = None
        self.writable = True
        self.batch = 0
        self.held: deque[Call] = deque()
        self._barrier = barrier
        self._on_progress = on_progress
        self._wire: Wire | None = None
        self._finishing: str | None = None
        self._reader = hiredis.Reader(
            replyError=ErrorReply, protocolError=hiredis.ProtocolError, notEnoughData=_INCOMPLETE
        )

    def opened(self, wire: Wire) -> None:
        """Takes the connection, ready for commands."""
        self._wire = wire

    def send(self, calls: Collection[Call]) -> None:
        """Writes all calls at once. They count as sent from here on, though the bytes may still be in a buffer."""
        if self._wire is None:
            raise InternalError("a session cannot send before it has a connection")
        self.batch = len(calls)
        now = trio.current_time()
        parts: list[bytes] = []
        unanswered = self.unanswered
        for call in calls:
            for packed in call.prefaces:
                ahead = preface(packed, call)
                ahead.sent_at = now
                unanswered.append(ahead)
                parts.append(packed)
            call.sent_at = now
            unanswered.append(call)
            parts.append(call.packed)
        if self._barrier is not None:
            self._append_barrier(self._barrier, calls, parts)
        self._wire.write(b"".join(parts))

    def ask(self, call: Call, patience: float) -> bool:
        """Writes a call that is the only one, and whose task does not wait yet; whether its reply is there already.

        Args:
            call: The call.
            patience: Seconds to look for the reply, in which nothing else happens here; 0: not even once.
        """
        self.send((call,))
        if not patience or self._barrier is not None or self._wire is None:  # behind a barrier, a reply may not count
            return False
        ends = time.perf_counter() + patience
        while self._wire.read() and self.unanswered and time.perf_counter() < ends:
            pass
        return not self.unanswered  # answered then, whatever else was found wrong with the connection

    def _append_barrier(self, barrier: Barrier, calls: Collection[Call], parts: list[bytes]) -> None:
        writes = sum(call.durable for call in calls)
        if writes:
            behind = Call(barrier.packed, barrier.what, None, math.inf, repeatable=True)
            behind.releases = writes
            self.unanswered.append(behind)
            parts.append(barrier.packed)

    @property
    def is_quiet(self) -> bool:
        """Whether the last call went alone and is answered, and another can be written."""
        return self.batch == 1 and not self.unanswered and self.writable

    def is_outdated_by(self, call: Call) -> bool:
        """Whether the answer to `call`, that this server is no master, is a reason to look for another one.

        Not if it came on an earlier connection. Nor if it came on a young one, that led to who was found just now: as
        long as there is no other, each caller would end it at each try.
        """
        return call.sent_at >= self.began_at + _YOUNG

    @property
    def silent_since(self) -> float:
        """Since when the server owes an answer and has sent nothing; this moment if it owes none."""
        if not self.unanswered:
            return trio.current_time()
        return max(self.heard_at, self.unanswered[0].sent_at)

    @property
    def unsettled(self) -> list[Call]:
        """All calls that were sent and whose outcome is open, in the order in which they were sent.

        Replies that are held count as not there: what they say may be lost with the server.
        """
        return [*self.held, *self.unanswered]

    def still_unsettled(self) -> list[Call]:
        """As `unsettled`, after what has come already is handed out: whoever slept through it may judge too early."""
        if self._wire is not None:
            self._wire.read()
        return self.unsettled

    def take_unsettled(self) -> list[Call]:
        """As `unsettled`; from now on they are no longer this session's."""
        calls = self.unsettled
        self.held.clear()
        self.unanswered.clear()
        return calls

    def close(self, reason: str) -> None:
        """Drops the connection; `ended` follows. Unanswered calls stay where they are, for the link to decide."""
        self._end(StorageUnavailable(f"{self.address}: {reason}"))
        if self._wire is not None:
            self._wire.abort()

    def finish(self, reason: str) -> None:
        """Sends nothing more, and drops the connection once every call on it is answered."""
        self._finishing = reason
        self.writable = False
        if not self.unanswered:
            self.close(reason)

    # --- events of the connection ---------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Hands each complete reply in `data` to the call whose turn it is."""
        if self.failure is not None:
            return  # what still comes on a connection that was given up belongs to calls that were dealt with
        self.heard_at = trio.current_time()
        try:
            self._reader.feed(data)
            self._distribute()
        except hiredis.ProtocolError as error:
            self.close(f"what came is not the Redis protocol ({error})")
        except Exception as error:  # must not reach the event loop, which would end the process: the link raises it
            bug = InternalError(f"{self.address}: the replies can no longer be matched with their commands: {error!r}")
            bug.__cause__ = error
            self._end(bug)
            self.close("after a bug")
        if self._finishing is not None and not self.unanswered:
            self.close(self._finishing)
        self._on_progress()

    def _distribute(self) -> None:
        gets: Callable[[], Any] = self._reader.gets
        take = self.unanswered.popleft
        reschedule = trio.lowlevel.reschedule
        while (reply := gets()) is not _INCOMPLETE:
            if reply.__class__ is _PUSH:
                continue
            call = take()
            if self._barrier is not None and (call.durable or call.releases):
                self._hold_or_release(self._barrier, call, reply)
                continue
            task = call.task
            call.reply = reply
            if task is not None:
                call.task = None
                reschedule(task)
            elif call.principal is not None and reply.__class__ is ErrorReply:
                call.principal.refused = reply

    def _hold_or_release(self, barrier: Barrier, call: Call, reply: Any) -> None:
        if call.durable:
            call.reply = reply
            self.held.append(call)
            return
        kept = barrier.holds(reply)
        for _ in range(call.releases):
            write = self.held.popleft()
            # A refused write wrote nothing, so there is nothing to wait for in its case.
            if kept or write.reply.__class__ is ErrorReply:
                task, write.task = write.task, None
                if task is not None:
                    trio.lowlevel.reschedule(task)
            else:
                write.fail(
                    StorageUnavailable(
                        f"{self.address}: {write.what} was carried out, but is not known to be durable: "
                        f"{barrier.what} answered {reply!r}"
                    )
                )

    def lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._end(StorageUnavailable(f"{self.address}: the connection was lost ({error or 'closed by the server'})"))

    def paused(self) -> None:
        """The connection's buffer is full: nothing more until `resumed`."""
        self.writable = False

    def resumed(self) -> None:
        """The connection takes bytes again."""
        self.writable = self._finishing is None and self.failure is None
        self._on_progress()

    def _end(self, failure: Exception) -> None:
        if self.failure is None:
            self.failure = failure
            self.writable = False
            self.ended.set()
