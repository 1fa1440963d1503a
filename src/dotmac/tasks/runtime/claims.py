"""Claims on idempotency keys that this process holds, kept alive for as long as their work takes.

They are renewed when they got old enough to need it: a request that is done within a third of its lease costs nothing.
Each claim's work runs in a cancel scope whose deadline is the lease, so work whose claim cannot be kept is cancelled
before anybody else may claim the key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from ..errors import ClaimLost, EnvironmentFault, NotStarted
from ..storage.protocol import StorageProtocol
from .losses import Losses
from .renewals import Renewals, certain_until, due_at, is_due_again
from .unresponsive import RunningHandlers

_GRACE = 2.0  # seconds beyond `cancel_grace` that cut-off work gets to come to its end
_log = logging.getLogger(__name__)


class ClaimHolder(Protocol):
    """Whoever works under a claim, and must stop when it is lost."""

    def granted_until(self, deadline: float) -> None:
        """Stop at this time (trio's clock), unless told a later one before."""

    def lose(self) -> None:
        """Stop now: the claim is another's."""


class HeldClaim:
    """One claim, and who works under it: a `Renewable`."""

    __slots__ = ("certain_until", "holder", "key", "lease", "renew_at", "token")

    def __init__(self, key: str, token: str, lease: float, holder: ClaimHolder) -> None:
        self.key = key
        self.token = token
        self.lease = lease
        self.holder = holder
        self.renew_at = self.certain_until = 0.0

    def granted(self, asked_at: float) -> None:
        """The lease was granted or renewed by a request that was sent at this time."""
        self.renew_at = due_at(asked_at, self.lease)
        self.certain_until = certain_until(asked_at, self.lease)
        self.holder.granted_until(self.certain_until)


class ScopeHolder:
    """Works inside a cancel scope of this trio run."""

    __slots__ = ("scope",)

    def __init__(self) -> None:
        self.scope = trio.CancelScope()

    def granted_until(self, deadline: float) -> None:
        """See `ClaimHolder`."""
        self.scope.deadline = deadline

    def lose(self) -> None:
        """See `ClaimHolder`."""
        self.scope.cancel()


class ClaimKeeper:
    """Renews the claims that are held.

    Args:
        storage: Where they are.
        losses: Told of keys that vanished.
        running: The handlers that run.

    Attributes:
        running: The same.
    """

    def __init__(self, storage: StorageProtocol, losses: Losses, running: RunningHandlers) -> None:
        self._storage = storage
        self._losses = losses
        self.running = running
        self._held = Renewals(self._renew)
        self._works: set[HeldClaim] = set()
        self._closed = False
        self._drain = trio.CancelScope()
        self._idle = trio.Event()
        self.run = self._held.run

    def keep(self, claim: HeldClaim) -> None:
        """Keep the claim alive from now on, and tell its holder when that fails."""
        self._held.add(claim)

    def drop(self, claim: HeldClaim) -> None:
        """The work under the claim is over, or the claim has another keeper now."""
        self._held.remove(claim)

    @contextmanager
    def holding(self, claim: HeldClaim, scope: trio.CancelScope) -> Iterator[None]:
        """Keep the claim alive while inside, and cancel the inside when that fails.

        Args:
            claim: What is kept.
            scope: Of the claim's holder.

        Raises:
            ClaimLost: The claim could not be kept, so the work was cancelled.
            NotStarted: The runtime is stopping, and nothing was begun.
        """
        if self._closed:
            raise NotStarted("the runtime is stopping")
        self.keep(claim)
        try:
            with scope:
                yield
        finally:
            self.drop(claim)
        if scope.cancelled_caught:
            raise ClaimLost(f"the claim on {claim.key!r} could not be kept, so its work was cancelled")

    @contextmanager
    def working(self, claim: HeldClaim) -> Iterator[None]:
        """Have the runtime's stop wait for the inside: the work under the claim, and the word on how it ended."""
        self._works.add(claim)
        try:
            yield
        finally:
            self._works.discard(claim)
            if self._closed and not self._works:
                self._idle.set()

    async def drain(self, until: float) -> None:
        """Have no more work begun, let what is under way end until then (trio's clock), and cut off the rest."""
        self._closed = True
        if not self._works:
            return
        with self._drain:
            self._drain.deadline = until
            await self._idle.wait()
        for claim in tuple(self._works):
            claim.holder.lose()
        with trio.move_on_after(self.running.grace + _GRACE):
            await self._idle.wait()

    def hasten(self) -> None:
        """End the drain, whether it has begun or not."""
        self._drain.cancel()

    async def _renew(self, claim: HeldClaim) -> None:
        asked_at = trio.current_time()
        try:
            await self._storage.renew_claim(claim.key, claim.token, claim.lease)
        except ClaimLost:
            if claim in self._held:  # otherwise it was completed while we asked
                self._held.remove(claim)
                if trio.current_time() < claim.certain_until:
                    self._losses.note("claim", claim.key)
                claim.holder.lose()
        except EnvironmentFault as error:
            is_due_again(claim)
            _log.warning("could not renew a claim: %s", error)
        else:
            claim.granted(asked_at)
