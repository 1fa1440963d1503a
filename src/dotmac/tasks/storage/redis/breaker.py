"""The circuit breaker of one node: when waiting for the node is over, and what calls raise from then on.

A dropped connection does not open it: a short reconnect is bridged by waiting. It opens when the node has not
answered for a whole ``socket_timeout`` and a try to connect anew has failed as well. It closes with the next
connection whose greeting is answered. The task that keeps the connection is the only probe, with back-off and jitter.

A node that answers and refuses (it loads its data, is read-only, or belongs to a Cluster that is down) needs no
probe: each call is sent once. After a ``socket_timeout`` of refusals the call is no longer repeated.
"""

from __future__ import annotations

import datetime
import logging
import math
import time

import trio

from dotmac.tasks.errors import EnvironmentFault, StorageMisconfigured, StorageUnavailable
from dotmac.tasks.metrics import emit

from .calls import Call

_RECONNECT = 0.5  # of the time-out: what one try to connect may take
_log = logging.getLogger(__name__)


class Breaker:
    """Counts the seconds for which a node has not answered.

    Args:
        name: The node, for messages and metrics.
        patience: Seconds without an answer after which it opens.

    Attributes:
        is_open: Whether calls fail at once.
        refused_since: Since when the node has refused what it should carry out (trio's clock); None: it has not.
        opens_at: When it opens unless the node answers before, on trio's clock; infinity while the node answers.
    """

    __slots__ = ("_failure", "_name", "_patience", "_refusing", "_since", "is_open", "opens_at", "refused_since")

    def __init__(self, name: object, patience: float) -> None:
        self._name = name
        self._patience = patience
        self._since = math.inf
        self._failure: EnvironmentFault | None = None
        self.is_open = False
        self.opens_at = math.inf
        self.refused_since: float | None = None
        self._refusing = False

    def lost(self, since: float, failure: EnvironmentFault | None = None) -> None:
        """The node has had no working connection from `since` on (trio's clock)."""
        self._since = since
        self._failure = failure
        self.opens_at = max(since + self._patience, trio.current_time() + self._patience * _RECONNECT)

    def failed(self, failure: EnvironmentFault) -> None:
        """A try to connect failed."""
        self._failure = failure
        if not self.is_open:
            self.opens_at = min(self.opens_at, max(self._since + self._patience, trio.current_time()))

    def check(self, now: float) -> bool:
        """Open it if its time has come; whether it was opened by this call."""
        if self.is_open or now < self.opens_at:
            return False
        self.is_open, self.opens_at = True, math.inf
        _log.error("%s; its calls fail at once until it answers", self._story())
        emit("storage_breaker_opened", str(self._name), "", seconds=now - self._since, error=self._reason())
        return True

    def close(self) -> None:
        """The node answered."""
        since, away = self._since, trio.current_time() - self._since
        self._since = self.opens_at = math.inf
        if self.is_open:
            self.is_open = False
            self.refused_since = since  # until the first write succeeds: it may have yet to load its data
            _log.warning("%s answers again after %.1f s", self._name, away)
            emit("storage_breaker_closed", str(self._name), "", seconds=away)

    def refused(self, answer: object) -> bool:
        """The node refused a call that may succeed later; whether it has done so for too long to try again."""
        now = trio.current_time()
        if self.refused_since is None:
            self.refused_since = now
        if now - self.refused_since < self._patience:
            return False
        if not self._refusing:
            self._refusing = True
            _log.error("%s refuses calls (%s); they fail at once until it carries out a write", self._name, answer)
        return True

    def served(self) -> None:
        """The node carried out a write."""
        if self._refusing:
            self._refusing = False
            away = trio.current_time() - (self.refused_since or 0.0)
            _log.warning("%s carries out writes again after %.1f s", self._name, away)
        self.refused_since = None

    def discard(self) -> None:
        """The node is no longer asked for anything."""
        if self.is_open:
            self.is_open = False
            emit("storage_breaker_closed", str(self._name), "", seconds=trio.current_time() - self._since)
        self._since = self.opens_at = math.inf

    def error(self, call: Call) -> EnvironmentFault:
        """What the call raises while the breaker is open."""
        fate = "was sent before, so it may or may not have been carried out" if call.sent_at else "was not sent"
        kind = StorageMisconfigured if isinstance(self._failure, StorageMisconfigured) else StorageUnavailable
        return kind(f"{self._story()}; {call.what} {fate}")

    def _story(self) -> str:
        seconds = trio.current_time() - self._since
        moment = datetime.datetime.fromtimestamp(time.time() - seconds, datetime.UTC)
        return f"{self._name} has not answered since {moment:%Y-%m-%d %H:%M:%S} UTC ({self._reason()})"

    def _reason(self) -> str:
        return str(self._failure or "no connection yet")
