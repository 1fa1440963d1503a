"""Random wishes for two locks, against the plainest model of a lock: who holds it, who waits, and which fences were
given out. All answers are equal.

Leases and places in the queue either outlast the test, or have run out before the next verb comes, so that real time
decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dotmac.tasks.errors import LockLost
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import LockGrant
from storage.stored import LONG, Backend, let_time_pass, lock

NAMES, TOKENS = ("one", "two"), ("a", "b", "c", "d")
_name, _token = st.sampled_from(NAMES), st.sampled_from(TOKENS)
_lasting = st.sampled_from([True, True, True, False])
VERBS = st.one_of(
    st.tuples(st.just("take"), _name, _token, _lasting, st.sampled_from([1, 5])),
    st.tuples(st.just("queue"), _name, _token, _lasting, st.none() | _token),
    st.tuples(st.just("extend"), _name, _token),
    st.tuples(st.just("free"), _name, _token),
)


@dataclass
class Lock:
    """What is true of one lock."""

    holder: str | None = None
    fence: int = 0
    highest: int = 0
    queue: list[str] = field(default_factory=list)

    def ask(self, token: str, fence: int | None, fences: int) -> str:
        """What a request that was answered with this fence, or with none, is answered with."""
        if self.holder == token:
            assert fence == self.fence, "the same grant again"
            return "granted"
        if self.holder is not None or (self.queue or [token])[0] != token:
            return "queued"
        assert fence is None or fence > self.highest, "fences rise"
        self.queue = self.queue[1:]
        self.holder, self.fence = token, fence or 0
        self.highest = self.fence + fences - 1
        return "granted"

    def leave(self, token: str) -> bool:
        """Whether this one held it; in any case it neither holds nor waits any more."""
        held = self.holder == token
        self.holder = None if held else self.holder
        self.queue = [each for each in self.queue if each != token]
        return held


class Driven:
    """A storage and the model, spoken to in the same words."""

    def __init__(self, storage: StorageProtocol, tick: float) -> None:
        self._storage = storage
        self._tick = tick
        self._locks: dict[str, Lock] = defaultdict(Lock)

    async def take(self, name: str, token: str, lasting: bool, fences: int) -> None:
        """Take it if it is free."""
        lease = LONG if lasting else self._tick
        answer = await self._storage.request_lock(lock(token, name=name, lease=lease, fences=fences))
        known, fence = self._locks[name], answer.fence if isinstance(answer, LockGrant) else None
        held = known.holder == token
        assert known.ask(token, fence, fences) == ("queued" if fence is None else "granted")
        if fence is not None and not lasting and not held:
            await let_time_pass(self._storage, 2 * self._tick)
            known.leave(token)

    async def queue(self, name: str, token: str, lasting: bool, former: str | None) -> None:
        """Take it, or a place in its queue, giving up what another token had."""
        wait = LONG if lasting else self._tick
        wish = lock(token, name=name, wait=wait, instead_of=None if former == token else former)
        answer = await self._storage.request_lock(wish)
        known, fence = self._locks[name], answer.fence if isinstance(answer, LockGrant) else None
        if wish.instead_of is not None:
            known.leave(wish.instead_of)
        expected = known.ask(token, fence, 1)
        assert expected == ("queued" if fence is None else "granted")
        if expected == "queued":
            known.queue += [] if token in known.queue else [token]
            assert not isinstance(answer, LockGrant)
            assert answer.ahead >= known.queue.index(token)
            if not lasting:  # a place that lasted longer has been cut short as well: each request says how long
                await let_time_pass(self._storage, 2 * self._tick)
                known.queue.remove(token)

    async def extend(self, name: str, token: str) -> None:
        """Prolong the lease."""
        held = self._locks[name].holder == token
        try:
            assert await self._storage.extend_lock(name, token, LONG) > self._storage.now()
        except LockLost:
            assert not held
        else:
            assert held

    async def free(self, name: str, token: str) -> None:
        """Give up the lock, or the place in its queue."""
        assert await self._storage.free_lock(name, token) == self._locks[name].leave(token)

    async def compare(self) -> None:
        """Everything that can be looked at is as the model has it."""
        for name in NAMES:
            known, state = self._locks[name], await self._storage.look_at_lock(name, 10)
            assert (state.held.token if state.held else None) == known.holder
            assert [waiter.owner for waiter in state.queue] == [f"owner-{token}" for token in known.queue]
            assert state.waiters == len(known.queue)
            if state.held is not None:
                assert state.held.fence == known.fence
        listed = [(record.name, record.token) for record in await self._storage.list_locks(10)]
        assert listed == [(name, self._locks[name].holder) for name in NAMES if self._locks[name].holder is not None]


async def _run(backend: Backend, verbs: list[tuple[Any, ...]]) -> None:
    storage = backend.make()
    async with storage.opened():
        driven = Driven(storage, backend.tick)
        for verb, *arguments in verbs:
            await getattr(driven, verb)(*arguments)
            await driven.compare()


def test_a_lock_answers_as_the_contract_has_it(bare_backend: Backend) -> None:
    @settings(max_examples=bare_backend.examples)
    @example([("take", "one", "a", True, 5), ("queue", "one", "b", True, None), ("queue", "one", "c", True, "a")])
    @example([("take", "one", "a", False, 1), ("queue", "one", "b", True, None), ("take", "one", "a", True, 1)])
    @given(st.lists(VERBS, max_size=25))
    def run(verbs: list[tuple[Any, ...]]) -> None:
        bare_backend.run(partial(_run, bare_backend, verbs))

    run()
