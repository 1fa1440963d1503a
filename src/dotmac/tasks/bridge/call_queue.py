"""Brings calls to another thread, in order, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import RLock


class CallQueue:
    """One wake-up of the other thread for whatever has gathered until it comes round.

    Args:
        wake: Has the other thread call a function soon, such as ``loop.call_soon_threadsafe``.
    """

    def __init__(self, wake: Callable[[Callable[[], None]], object]) -> None:
        self._wake = wake
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        self._lock = RLock()  # a collected object may put something in, in the thread that is about to

    def put(self, call: Callable[[], None]) -> None:
        """Have the other thread make this call.

        Raises what the wake-up raises; the call is not made then. Where it was Ctrl-C that came in between, the call
        may have been made all the same.
        """
        with self._lock:  # who finds the other thread woken must not rely on a wake-up that is about to fail
            self._calls.append(call)
            if self._woken:
                return
            try:
                self._woken = True
                self._wake(self.empty)
            except BaseException:  # whatever it is, the next one to put something in must wake again
                self._woken = False
                with suppress(ValueError):  # made in this very moment, as the last of an earlier batch
                    self._calls.remove(call)
                raise

    def empty(self) -> None:
        """Make the calls; in the other thread."""
        # The flag falls before the bag is emptied: a call that is put in meanwhile is either seen by this loop
        # or wakes us again. The other way round it could be left lying.
        self._woken = False
        try:
            while self._calls:
                self._calls.popleft()()
        except BaseException:  # also what ends the thread: who waits for the calls behind it is told by them
            with self._lock:
                if self._calls and not self._woken:  # one that raises does not take the others with it
                    self._woken = True
                    self._wake(self.empty)
            raise
