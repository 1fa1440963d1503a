"""Messages as wake-up hints: any number of watchers on one connection of its own.

A connection with subscriptions is kept apart from the one with commands, because messages come on it unasked. What
a watcher learns is "look again", never what was said: messages are lost whenever a connection is, so whoever waits
for something must be able to find it out by looking, and a hint may come for nothing. For the same reason a
reconnect wakes every watcher.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Self

import trio
from trio.lowlevel import enable_ki_protection

from dotmac.tasks.errors import EnvironmentFault, StorageMisconfigured, StorageUnavailable

from ..patience import is_patient
from .backoff import backoff
from .commands import pack
from .listener import Listener
from .replies import ErrorReply, as_error

if TYPE_CHECKING:
    from types import TracebackType

    from .address import Address
    from .dialing import Dialer
    from .options import RedisOptions

_PING = pack((b"PING",))


class Watch:
    """A place to wait for messages on one channel, within ``async with``.

    Once the context is entered, the server has acknowledged the subscription: look at what you wait for *after*
    entering, and no message can fall in between.
    """

    def __init__(self, subscriptions: Subscriptions, channel: bytes) -> None:
        self._subscriptions = subscriptions
        self._channel = channel
        self._hinted = trio.Event()
        self.ready = trio.Event()
        self.failure: EnvironmentFault | None = None

    async def __aenter__(self) -> Self:
        """Subscribes.

        Raises:
            StorageUnavailable: The server did not acknowledge within the socket time-out.
            StorageMisconfigured: The user may not connect, or not listen on this channel.
        """
        try:
            await self._subscriptions.add(self, self._channel)
        except BaseException:
            self._subscriptions.remove(self, self._channel)
            raise
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._subscriptions.remove(self, self._channel)

    async def wait(self) -> None:
        """Returns when there was a hint since the last return (at once, if it came meanwhile). One task may wait.

        Raises:
            StorageUnavailable: The client was closed; there will be no more hints.
        """
        await self._hinted.wait()
        if self.failure is not None:
            raise self.failure
        self._hinted = trio.Event()

    def hint(self) -> None:
        """Wakes the watcher, or lets its next wait return at once."""
        self._hinted.set()

    def fail(self, failure: EnvironmentFault) -> None:
        """Ends the watch: entering or waiting raises `failure`."""
        self.failure = failure
        self.ready.set()
        self._hinted.set()


class Subscriptions:
    """All watches of a client, and the connection that serves them. It is made for the first watch."""

    def __init__(self, dialer: Dialer, options: RedisOptions) -> None:
        self._dialer = dialer
        self._timeout = options.socket_timeout
        self._watches: dict[bytes, set[Watch]] = {}
        self._needed = trio.Event()
        self._listener: Listener | None = None
        self._trouble: str | None = None
        # After this moment of trio's clock a caller without patience no longer waits for a connection.
        self._away_at = math.inf
        self._closed = False
        # Each SUBSCRIBE, UNSUBSCRIBE and PING is answered once, in order; so the n-th answer is for the n-th of these.
        self._asked: deque[tuple[bytes, bytes]] = deque()
        # How many SUBSCRIBEs of a channel are unanswered: only the answer to the last one counts, because an
        # UNSUBSCRIBE may have gone out between two of them.
        self._pending: dict[bytes, int] = {}
        self._acknowledged: set[bytes] = set()

    # --- watchers -------------------------------------------------------------------------------------------

    def watch(self, channel: bytes) -> Watch:
        """Makes a watch on a channel; entering it subscribes."""
        return Watch(self, channel)

    async def add(self, watch: Watch, channel: bytes) -> None:
        """Subscribes a watch and waits until the server has acknowledged it. Raises as `Watch.__aenter__`."""
        if self._closed:
            raise StorageUnavailable("the client was closed")
        self._needed.set()
        first = channel not in self._watches
        self._watches.setdefault(channel, set()).add(watch)
        if channel in self._acknowledged:
            watch.ready.set()
        elif first or channel not in self._pending:  # a pending one may have an UNSUBSCRIBE behind it
            self._ask(b"SUBSCRIBE", channel)
        asked_at = trio.current_time()
        with trio.move_on_after(self._timeout) as waiting:
            if not is_patient.get():
                waiting.deadline = min(waiting.deadline, max(self._away_at, asked_at))
            await watch.ready.wait()
        if watch.failure is not None:
            raise watch.failure
        if not watch.ready.is_set():
            seconds = trio.current_time() - asked_at
            if self._listener is not None and self._listener.heard_at < asked_at and seconds >= self._timeout:
                self._listener.close(f"silent for {seconds:.3g} s with a subscription unanswered")
            raise StorageUnavailable(
                f"no subscription to {channel.decode(errors='replace')} within {seconds:.3g} s "
                f"({self._trouble or 'the server did not answer'})"
            )

    def remove(self, watch: Watch, channel: bytes) -> None:
        """Takes a watch away; the last one of a channel unsubscribes. Never fails."""
        watches = self._watches.get(channel)
        if watches is None or watch not in watches:
            return
        watches.discard(watch)
        if not watches:
            del self._watches[channel]
            self._acknowledged.discard(channel)
            if self._listener is not None:
                self._ask(b"UNSUBSCRIBE", channel)

    # --- life -----------------------------------------------------------------------------------------------

    @enable_ki_protection
    async def run(self) -> None:
        """Serves the watches until it is cancelled; they end then."""
        try:
            await self._needed.wait()
            await self._keep_connected()
        finally:
            self.close()

    def close(self) -> None:
        """Ends all watches with StorageUnavailable; there will be no others."""
        self._closed = True
        for watches in self._watches.values():
            for watch in watches:
                watch.fail(StorageUnavailable("the client was closed"))

    async def _keep_connected(self) -> None:
        attempt = 0
        self._away_at = trio.current_time() + self._timeout
        while True:
            try:
                listener = await self._dialer.dial(self._new_listener)
            except EnvironmentFault as failure:
                self._trouble = str(failure)
                if isinstance(failure, StorageMisconfigured):
                    self._fail_unready(failure)
            else:
                heard = await self._listen(listener)
                attempt = 0 if heard else attempt
            await trio.sleep(backoff(attempt))
            attempt += 1

    def _new_listener(self, address: Address) -> Listener:
        return Listener(address, self._heard)

    async def _listen(self, listener: Listener) -> bool:
        self._listener = listener
        self._away_at = math.inf
        for channel in self._watches:
            self._ask(b"SUBSCRIBE", channel)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_alive, listener)
                await listener.ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._listener = None
            self._away_at = trio.current_time() + (self._timeout if listener.heard else 0.0)
            self._asked.clear()
            self._pending.clear()
            self._acknowledged.clear()
            listener.close("the client was closed")  # only if it is open still: we were cancelled
        self._trouble = listener.failure
        return listener.heard

    @enable_ki_protection
    async def _keep_alive(self, listener: Listener) -> None:
        """Asks now and then whether the connection lives: nothing else would tell, if no message comes for hours."""
        while True:
            listener.heard = False
            self._ask(b"PING", b"")
            await trio.sleep(2 * self._timeout)
            if not listener.heard:
                listener.close(f"silent for {2 * self._timeout:g} s")
            await trio.lowlevel.checkpoint()

    def _fail_unready(self, failure: StorageMisconfigured) -> None:
        for watches in self._watches.values():
            for watch in watches:
                if not watch.ready.is_set():
                    watch.fail(StorageMisconfigured(str(failure)))

    # --- the conversation -----------------------------------------------------------------------------------

    def _ask(self, verb: bytes, channel: bytes) -> None:
        if self._listener is None:
            return
        if verb == b"SUBSCRIBE":
            self._pending[channel] = self._pending.get(channel, 0) + 1
        self._asked.append((verb, channel))
        self._listener.write(_PING if verb == b"PING" else pack((verb, channel)))

    def _heard(self, listener: Listener, said: Any) -> None:
        if listener is not self._listener:
            return
        if isinstance(said, list) and said and said[0] == b"message":
            for watch in self._watches.get(said[1], ()):
                watch.hint()
            return
        if not self._asked:
            listener.close("it answered what was not asked")
            return
        verb, channel = self._asked.popleft()
        if verb == b"PING":
            return  # a sign of life, whatever it says: who loads, cannot save, or has lost its master, refuses it
        counts = verb == b"SUBSCRIBE" and self._settle(channel)
        if isinstance(said, ErrorReply):
            self._refused(listener, channel, said)
        elif counts:
            self._acknowledge(channel)

    def _settle(self, channel: bytes) -> bool:
        left = self._pending[channel] = self._pending[channel] - 1
        if left:
            return False
        del self._pending[channel]
        return True

    def _acknowledge(self, channel: bytes) -> None:
        watches = self._watches.get(channel)
        if watches is None:
            return  # the last one left meanwhile; its UNSUBSCRIBE is on its way
        self._acknowledged.add(channel)
        for watch in watches:
            if watch.ready.is_set():
                watch.hint()  # it was subscribed on a connection before, and may have missed a message since
            else:
                watch.ready.set()

    def _refused(self, listener: Listener, channel: bytes, error: ErrorReply) -> None:
        failure = as_error(error, listener.address, f"SUBSCRIBE {channel.decode(errors='replace')}")
        if not isinstance(failure, StorageMisconfigured):
            listener.close(str(failure))  # nothing that the subscription itself is to blame for: try again
            listener.heard = False  # but as after a failure to connect, ever later
            return
        for watch in self._watches.get(channel, ()):
            watch.fail(failure)
