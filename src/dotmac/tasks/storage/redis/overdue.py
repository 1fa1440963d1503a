"""Calls whose time is up."""

from __future__ import annotations

import math
from collections.abc import Iterable

from dotmac.tasks.errors import StorageUnavailable

from .calls import Call
from .outbox import Outbox


def fail_overdue(name: object, sent: Iterable[Call], outbox: Outbox, trouble: str | None, now: float) -> float:
    """Fail them; gives the time of the next one, or infinity.

    Args:
        name: Of the link, for the message.
        sent: What was sent and is not settled.
        outbox: What was not sent; those that fail are taken out.
        trouble: Why there is no connection, if that is known.
        now: On trio's clock.
    """
    nearest = math.inf
    for calls, state in (
        (sent, "sent, but not answered"),
        (list(outbox.ready), f"not sent: {trouble or 'no connection yet'}"),
        (list(outbox.crowd), f"not sent: {outbox.window} commands are under way already"),
    ):
        for call in calls:
            if call.task is None:
                continue
            if call.deadline > now:
                nearest = min(nearest, call.deadline)
                continue
            call.fail(StorageUnavailable(f"{name} did not answer {call.what} within {call.timeout:g} s ({state})"))
            outbox.drop(call)
    return nearest
