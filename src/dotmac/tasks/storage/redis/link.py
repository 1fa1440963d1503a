"""The gateway actor of one node: all callers' commands on one connection, whatever happens to it.

A call stands in the *outbox*, then among its session's *unanswered*. Three tasks serve a link: one keeps a
connection, one writes (everything that has gathered goes out in one write), one fails calls whose time is up.
Replies need no task; they are handed out by the session, in the connection's own callback.

When a connection is lost: what was not sent waits for the next one; what was sent and is safe to repeat goes to
the front of the outbox, in its old order; what was sent and is not safe to repeat fails, because nobody can know
whether it was carried out.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from dotmac.tasks.errors import EnvironmentFault, InternalError, StorageMisconfigured, StorageUnavailable

from ..patience import is_patient
from .address import Address
from .alarm import Alarm
from .alone import LoneCaller
from .backoff import backoff
from .breaker import Breaker
from .calls import Call
from .dialing import Dialer
from .options import RedisOptions
from .outbox import Outbox
from .overdue import fail_overdue
from .session import Session
from .status import LinkStatus


class Keeper(Protocol):
    """Who owns a link: the topology."""

    def troubled(self, link: Link) -> None:
        """The link lost its connection, or could not get one."""

    def adopt(self, calls: list[Call]) -> None:
        """Takes over calls of a retired link, each of them waited for, in their order."""


class Link:
    """Carries the commands for one node.

    Attributes:
        name: The node, or what the sentinels call it.
        address: The server of the present connection, or of the last one.
        breaker: Says whether calls wait for a connection or fail at once.
    """

    def __init__(self, name: Address | str, dialer: Dialer, options: RedisOptions, keeper: Keeper) -> None:
        self.name = name
        self.address = name if isinstance(name, Address) else options.addresses[0]
        self._dialer = dialer
        self._options = options
        self._keeper = keeper
        self._outbox = Outbox(options.window)
        self._alarm = Alarm()
        self._session: Session | None = None
        self._connections = 0
        self._lone_caller = LoneCaller()
        self._trouble: str | None = None
        self._closed: str | None = None
        self._idle_writer: trio.lowlevel.Task | None = None
        self._life = trio.CancelScope()
        self.breaker = Breaker(name, options.socket_timeout)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._session is not None

    def status(self) -> LinkStatus:
        """Tells how the link is doing."""
        return LinkStatus(
            name=str(self.name),
            connected=self.connected,
            connections=self._connections,
            queued=len(self._outbox),
            unanswered=self._unanswered(),
            trouble=None if self.connected else self._trouble,
            away=self.breaker.is_open,
        )

    def _unanswered(self) -> int:
        return len(self._session.unanswered) if self._session is not None else 0

    # --- callers --------------------------------------------------------------------------------------------

    @enable_ki_protection  # half a send, or half a read, and each reply after it would belong to another call
    async def ask(self, call: Call) -> Any:
        """Sends a command and waits for its reply.

        Returns:
            The reply; an `ErrorReply` too is returned, not raised.

        Raises:
            StorageUnavailable: No reply within the call's time, the connection was lost with a reply outstanding
                to a command that is not safe to repeat, the node is away (see `Breaker`), or the link was closed.
            StorageMisconfigured: The server does not let us in.
        """
        await checkpoint_if_cancelled()  # who finds each reply at once would never hear of it else, nor of Ctrl-C
        if self._closed is not None:
            raise StorageUnavailable(f"{self.name}: {self._closed}")
        task, session = trio.lowlevel.current_task(), self._session
        if session is not None and self._is_alone(session):
            call.link = self
            self._watch_time(call)
            if self._lone_caller.ask(session, call, task):
                await self._lone_caller.let_others()
                return call.reply
            call.task = task
        else:
            if self.breaker.is_open and not self.waits(call, task):
                raise self.breaker.error(call)
            call.task = task
            self.enqueue(call)
        await trio.lowlevel.wait_task_rescheduled(call.abort)
        return call.reply

    def enqueue(self, call: Call) -> None:
        """Puts a call, which its task waits for from now on, into the queue."""
        call.link = self
        session = self._session
        if session is None:
            self._outbox.put(call, 0)
        elif self._outbox.put(call, len(session.unanswered)):
            self._wake_writer()
        self._watch_time(call)

    def accept(self, call: Call) -> None:
        """Takes over a call whose task sleeps already, from another link."""
        if self._closed is not None:
            call.fail(StorageUnavailable(f"{self.name}: {self._closed}"))
        elif self.breaker.is_open and not self.waits(call, call.task):
            call.fail(self.breaker.error(call))
        else:
            self.enqueue(call)

    def waits(self, call: Call, task: trio.lowlevel.Task | None) -> bool:
        """Whether the call stays queued while the node is away: background work, or a caller with a longer time."""
        return call.timeout > self._options.socket_timeout or (task is not None and task.context.get(is_patient, False))

    def forget(self, call: Call) -> None:
        """See `Queue.forget`. What has been sent keeps its place: its reply will come and must not go to another."""
        self._outbox.drop(call)
        self._progress()

    def _is_alone(self, session: Session) -> bool:
        """Whether the present task is the only caller, as the last batch tells."""
        return session.is_quiet and self._idle_writer is not None and not self._outbox.ready

    def _watch_time(self, call: Call) -> None:
        if call.deadline < self._alarm.when:
            self._alarm.advance(call.deadline)

    # --- life -----------------------------------------------------------------------------------------------

    @enable_ki_protection
    async def run(self) -> None:
        """Serves the link until it is closed or retired. Whoever still waits then gets StorageUnavailable.

        Raises:
            InternalError: Replies and commands no longer matched, which only a bug can cause.
        """
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_writing)
                    nursery.start_soon(self._alarm.keep_ringing, self._sweep)
                    await self._keep_connected()
                    nursery.cancel_scope.cancel()
        finally:
            self.close("the client was closed")

    def close(self, reason: str) -> None:
        """Fails every waiting call with StorageUnavailable, drops the connection and takes no calls any more."""
        if self._closed is None:
            self._closed = reason
        self.breaker.discard()
        sent = self._session.unsettled if self._session is not None else []
        for call in [*sent, *self._outbox.drain()]:
            call.fail(StorageUnavailable(f"{self.name}: {self._closed}"))
        if self._session is not None:
            self._session.close(self._closed)
        self._life.cancel()

    def retire(self) -> None:
        """Ends the link without haste: hands over what was not sent, waits for what was, then closes."""
        self._closed = "this node is no longer in charge"
        self.breaker.discard()
        if self._session is None:
            self._life.cancel()
        else:
            self._session.finish(self._closed)
        self._keeper.adopt(self._outbox.drain())

    def renew(self, call: Call) -> None:
        """Looks for the server anew, because it answered `call` as only a wrong one does.

        Calls that were sent earlier get their replies first. See `Session.is_outdated_by` for what is ignored.
        """
        session = self._session
        if session is not None and session.is_outdated_by(call):
            session.finish("it is no master any more")

    async def _keep_connected(self) -> None:
        attempt = 0
        self._miss(trio.current_time())
        while self._closed is None:
            try:
                session = await self._dialer.dial(self._new_session)
            except EnvironmentFault as failure:
                self._unreachable(failure)
            else:
                await self._converse(session)
                if session.heard_at > session.began_at:
                    attempt = 0  # the server spoke, so this was a connection and not another failed attempt
            await trio.sleep(backoff(attempt))
            attempt += 1

    def _new_session(self, address: Address) -> Session:
        return Session(address, self._progress, self._options.barrier)

    def _unreachable(self, failure: EnvironmentFault) -> None:
        self._trouble = str(failure)
        self.breaker.failed(failure)
        self._watch_breaker()
        if isinstance(failure, StorageMisconfigured):  # waiting will not mend it
            for call in self._outbox.drain():
                call.fail(StorageMisconfigured(self._trouble))
        self._keeper.troubled(self)

    async def _converse(self, session: Session) -> None:
        self._session = session
        self.address = session.address
        self._connections += 1
        self.breaker.close()
        self._progress()
        try:
            await session.ended.wait()
        finally:
            session.close("the client was closed")  # only if it is open still: we were cancelled
            self._session = None
            self._miss(session.silent_since, session.failure)
            self._sort_out(session)
        if isinstance(session.failure, InternalError):
            raise session.failure
        self._trouble = str(session.failure)
        self._keeper.troubled(self)

    def _miss(self, since: float, failure: Exception | None = None) -> None:
        """There is no connection; the node has been silent since then."""
        self.breaker.lost(since, failure if isinstance(failure, EnvironmentFault) else None)
        self._watch_breaker()

    def _watch_breaker(self) -> None:
        if self.breaker.opens_at < self._alarm.when:
            self._alarm.advance(self.breaker.opens_at)

    def _sort_out(self, session: Session) -> None:
        again: list[Call] = []
        for call in session.take_unsettled():
            if call.task is None:
                continue
            if call.repeatable and self._options.retry_on_timeout:
                again.append(call)
            else:
                doubt = "was sent before, so it may or may not have been carried out"
                call.fail(StorageUnavailable(f"{session.failure}; {call.what} {doubt}"))
        self._outbox.put_first(again)
        if self._closed is not None:
            self._keeper.adopt(self._outbox.drain())

    # --- writing --------------------------------------------------------------------------------------------

    @enable_ki_protection
    async def _keep_writing(self) -> None:
        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._idle_writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            session = self._session
            if self._outbox.ready and session is not None and session.writable:
                session.send(self._outbox.take())
            self._idle_writer = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake_writer(self) -> None:
        # Woken once per batch: until the writer has run, all further calls of this turn join the same write.
        writer, self._idle_writer = self._idle_writer, None
        if writer is not None:
            trio.lowlevel.reschedule(writer)

    def _progress(self) -> None:
        """Something changed that may let calls move on: replies came, room was made, a connection was opened."""
        if self._outbox.crowd:
            self._outbox.admit(self._unanswered())
        if self._outbox.ready:
            self._wake_writer()

    # --- deadlines ------------------------------------------------------------------------------------------

    def _sweep(self) -> float:
        """Fails calls whose time is up; returns the time of the next one."""
        now = trio.current_time()
        session = self._session
        sent = session.still_unsettled() if session else []
        nearest = fail_overdue(self.name, sent, self._outbox, self._trouble, now)
        if self.breaker.check(now):
            self._fail_impatient()
        nearest = min(nearest, self.breaker.opens_at)
        self._progress()
        if session is not None and sent:
            nearest = min(nearest, self._check_silence(session, sent[0], now))
        return nearest

    def _fail_impatient(self) -> None:
        for call in [*self._outbox.ready, *self._outbox.crowd]:
            if call.task is not None and not self.waits(call, call.task):
                call.fail(self.breaker.error(call))
                self._outbox.drop(call)

    def _check_silence(self, session: Session, oldest: Call, now: float) -> float:
        """Drops a connection that has said nothing for too long, else returns when that would be."""
        patience = max(self._options.socket_timeout, oldest.timeout)
        too_long = max(session.heard_at, oldest.sent_at) + patience
        if too_long > now:
            return too_long
        session.close(f"silent for {patience:g} s with {len(session.unanswered)} commands unanswered")
        return math.inf
