"""One command on its way: what is to be sent, who waits for it, and until when.

A `Call` is its own place in every queue it stands in, so that giving up (cancellation, deadline) is one step from
wherever it is. The waiting task is woken by `trio.lowlevel.reschedule` straight from the parser: no event, no
future and no cancel scope per call, which is most of what a command costs in other clients.

The life of a call: *queued* (in its link's crowd or outbox) → *unanswered* (in a session, sent) → *settled*.
Whoever settles it first wins: `task` is None from then on, and a reply that comes later only takes its place in
the order of replies and is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from .address import Address


class Queue(Protocol):
    """What a call needs of the link it stands in."""

    def forget(self, call: Call) -> None:
        """Takes a call that nobody waits for any more out of the queues, if it has not been sent."""


class Call:
    """A command that somebody waits for.

    Attributes:
        packed: The command as bytes of the protocol.
        what: Command or script name, for messages.
        slot: Hash slot that decides which node of a Cluster gets it; None: it is meant for the node it was given to.
        deadline: On trio's clock, in seconds.
        timeout: Seconds that the caller allowed, for messages.
        repeatable: Whether it may be sent again when it may have been carried out already.
        loader: The packed SCRIPT LOAD that helps when the server does not know the script.
        prefaces: Commands that must go directly before it on the same connection (SCRIPT LOAD, ASKING).
        target: The node that a redirection named for the next try.
        task: Who waits; None once it is settled.
        reply: The answer, valid once the waiting task runs again.
        refused: The error reply to a preface, if there was one.
        principal: For a preface: the call that it belongs to.
        sent_at: When it was given to the connection, on trio's clock.
        durable: Whether its reply counts only once a barrier says that what it wrote is durable.
        releases: For a barrier: how many held replies it lets go.
        link: Where it stands.
    """

    __slots__ = (
        "deadline",
        "durable",
        "link",
        "loader",
        "packed",
        "prefaces",
        "principal",
        "refused",
        "releases",
        "repeatable",
        "reply",
        "sent_at",
        "slot",
        "target",
        "task",
        "timeout",
        "what",
    )

    link: Queue

    def __init__(self, packed: bytes, what: str, slot: int | None, timeout: float, repeatable: bool) -> None:
        self.packed = packed
        self.what = what
        self.slot = slot
        self.timeout = timeout
        self.deadline = trio.current_time() + timeout
        self.repeatable = repeatable
        self.loader: bytes | None = None
        self.prefaces: tuple[bytes, ...] = ()
        self.target: Address | None = None
        self.task: trio.lowlevel.Task | None = None
        self.reply: Any = None
        self.refused: Any = None
        self.principal: Call | None = None
        self.sent_at = 0.0
        self.durable = False
        self.releases = 0

    def abort(self, _raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        """Called by trio when the waiting task is cancelled: from here on nobody waits."""
        self.task = None
        self.link.forget(self)
        return trio.lowlevel.Abort.SUCCEEDED

    def fail(self, error: Exception) -> None:
        """Settles the call: its task wakes up with this error, unless it is settled already."""
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Error(error))


def preface(packed: bytes, principal: Call) -> Call:
    """Makes the place that the reply to a preface takes in the order of replies."""
    call = Call(packed, principal.what, None, principal.timeout, repeatable=True)
    call.principal = principal
    return call
