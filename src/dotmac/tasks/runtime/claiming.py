"""Asking for a claim on an idempotency key, and giving back one that was asked for.

Between the question and its answer a reply can be lost, or the caller cancelled. The key may be claimed then, with
nobody at work on it: it is given back at once, so that whoever comes next need not wait for the lease to end.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import trio

from ..errors import ClaimLost, EnvironmentFault
from ..storage.key_records import IN_PROGRESS, ClaimVerdict, NewRecord
from ..storage.protocol import StorageProtocol, record_topic
from .looking import look_or_wait

_LONGEST_POLL = 1.0
_SIGN_OFF = 1.0  # seconds that one word to the storage may take although its caller was cancelled
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimWish:
    """A claim to be asked for.

    Attributes:
        token: Of this very claim: asking again with it is asking the same.
        owner: For people to read.
        lease: Seconds until others may claim the key unless the claim is renewed.
    """

    new: NewRecord
    token: str
    owner: str
    lease: float


async def claim_key(storage: StorageProtocol, wish: ClaimWish, *, wait: float | None) -> tuple[float, ClaimVerdict]:
    """Claim the key, waiting for whoever has it.

    Args:
        storage: Where the key is.
        wish: What to claim, and for whom.
        wait: Seconds to wait for another claim to end; None: for as long as it takes.

    Returns:
        When it was asked for (trio's clock), so that the lease can be counted from there, and the verdict. It is
        ``in_progress`` only if the other claim did not end within `wait`.
    """
    try:
        latest = await _ask(storage, wish)
        if latest[1].outcome == IN_PROGRESS and wait != 0:
            latest = await _ask_until_it_ends(storage, wish, latest, math.inf if wait is None else wait)
    except BaseException:
        await give_back(storage, wish.new.key, wish.token)
        raise
    return latest


async def _ask(storage: StorageProtocol, wish: ClaimWish) -> tuple[float, ClaimVerdict]:
    asked_at = trio.current_time()
    verdict = await storage.claim_record(wish.new, token=wish.token, owner=wish.owner, lease=wish.lease)
    return asked_at, verdict


async def _ask_until_it_ends(
    storage: StorageProtocol, wish: ClaimWish, latest: tuple[float, ClaimVerdict], seconds: float
) -> tuple[float, ClaimVerdict]:
    deadline = latest[0] + seconds

    async def settled() -> tuple[float, ClaimVerdict] | None:
        nonlocal latest
        latest = await _ask(storage, wish)
        return None if latest[1].outcome == IN_PROGRESS else latest

    while latest[1].outcome == IN_PROGRESS and (left := deadline - trio.current_time()) > 0:
        await look_or_wait(storage, record_topic(wish.new.key), settled, min(left, _LONGEST_POLL))
    return latest


async def give_back(storage: StorageProtocol, key: str, token: str) -> None:
    """Free a key that was claimed under this token, or may have been, if the storage can be reached."""
    with trio.move_on_after(_SIGN_OFF, shield=True):
        try:
            await storage.abandon_claim(key, token)
        except (ClaimLost, EnvironmentFault) as error:
            # Its lease ends by itself. What brought us here is the error to raise, not this.
            _log.debug("a claim was not given back: %s", error)
