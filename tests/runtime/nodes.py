"""Processes within one: managers that share a storage, can be killed as by ``kill -9``, and whose calls can fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, cast

import trio

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, StorageProtocol, StorageUnavailable
from dotmac.tasks.runtime.worker import Worker
from dotmac.tasks.storage.protocol import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

MUTATING = frozenset({
    "create_record", "claim_record", "renew_claim", "complete_record", "abandon_claim", "create_saga", "append",
    "adopt_saga", "release_saga", "keep_snapshot", "request_cancel", "register_worker", "renew_worker",
    "retire_worker", "purge",
})  # fmt: skip
READING = frozenset({
    "get_record", "list_records", "due_sagas", "orphaned_sagas", "load_saga", "saga_meta", "list_sagas", "count_sagas",
    "list_workers", "request_lock", "extend_lock", "free_lock", "list_locks", "look_at_lock",
})  # fmt: skip
VERBS = MUTATING | READING

Verb = Callable[..., Awaitable[Any]]
Fault = Callable[["Wire", str, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Wire:
    """One process's way to the shared storage.

    Attributes:
        fault: Carries out each verb in its own way: ``fault(wire, verb, call)``; None: all is well.
        away: No verb gets through or answers.
        cut: The process is dead: nothing of it ever reaches the storage.
        calls: The verbs that were sent, in order.
    """

    def __init__(self, shared: MemoryStorage) -> None:
        self.shared = shared
        self.fault: Fault | None = None
        self.away = False
        self.cut = False
        self.calls: list[str] = []
        self.on_cut: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        if name not in VERBS:
            return getattr(self.shared, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await trio.lowlevel.checkpoint()
            self.calls.append(name)
            await self._check()

            async def carry_out() -> Any:
                await self._check()
                return await getattr(self.shared, name)(*args, **kwargs)

            answer = await (carry_out() if self.fault is None else self.fault(self, name, carry_out))
            await self._check()
            await trio.lowlevel.checkpoint()  # the answer travels: who is cancelled here never hears it
            return answer

        return call

    def watch(self, topic: str) -> AbstractAsyncContextManager[Watch]:
        @asynccontextmanager
        async def watch() -> AsyncIterator[Watch]:
            await self._check()
            async with self.shared.watch(topic) as watch:
                yield watch

        return watch()

    def kill(self) -> None:
        self.cut = True
        self.on_cut()

    async def _check(self) -> None:
        if self.cut:
            await trio.sleep_forever()
        if self.away:
            raise StorageUnavailable("the storage is away")


class Node:
    """One process: a manager and its wire. ``async with`` runs it, and leaves it killed or stopped."""

    def __init__(
        self, shared: MemoryStorage, register: Callable[[BackgroundOperationsManager], None], **settings: Any
    ) -> None:
        self.wire = Wire(shared)
        self.wire.on_cut = self._die
        self.manager = BackgroundOperationsManager(cast("StorageProtocol", self.wire), **settings)
        self.scope = trio.CancelScope()
        register(self.manager)

    @property
    def storage(self) -> StorageProtocol:
        return cast("StorageProtocol", self.wire)

    @property
    def worker(self) -> Worker:
        worker = self.manager._hosted()._runtime._worker
        assert worker is not None
        return worker

    async def __aenter__(self) -> Self:
        await self.manager.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.wire.cut:
            await self.manager.stop()
        elif self._hosting is not None:
            await self._hosting._ended.wait()

    async def kill(self) -> None:
        """End it as ``kill -9`` would: nothing of it writes any more."""
        self.wire.kill()
        assert self._hosting is not None
        await self._hosting._ended.wait()

    async def run(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run this on the process's main thread: it dies with it. Storage faults are what it may fail with."""
        with self.scope, suppress(StorageUnavailable):
            await work()

    def _die(self) -> None:
        self._hosting = self.manager._hosting
        self.scope.cancel()
        if self._hosting is not None:
            self._hosting._scope.cancel()

    _hosting: Any = None


# --- faults -----------------------------------------------------------------------------------------------------


async def refuse(_wire: Wire, _verb: str, _call: Callable[[], Awaitable[Any]]) -> Any:
    raise StorageUnavailable("never got through")


async def lose_reply(_wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
    await call()
    raise StorageUnavailable("got through, but the answer was lost")


async def die_before(wire: Wire, _verb: str, _call: Callable[[], Awaitable[Any]]) -> Any:
    wire.kill()
    await trio.sleep_forever()


async def die_after(wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
    await call()
    wire.kill()
    await trio.sleep_forever()


def at_call(k: int, fault: Fault, verbs: frozenset[str] = MUTATING) -> Fault:
    """The fault at the k-th call (from 0) of one of these verbs; all other calls go well."""
    count = -1

    async def choose(wire: Wire, verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal count
        if verb in verbs:
            count += 1
            if count == k:
                return await fault(wire, verb, call)
        return await call()

    return choose


# --- work -------------------------------------------------------------------------------------------------------


class Ledger:
    """The outside world: what handlers did, in order, as ``name`` or ``undo name``.

    Attributes:
        failing: Names whose handler raises, after doing nothing.
        hold: Names whose handler waits for its event before it does anything.
    """

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.hold: dict[str, trio.Event] = {}
        self.entered: list[str] = []
        self.attempts: list[tuple[str, int]] = []
        self.tokens: dict[str, set[str]] = {}

    def register(self, manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("do", self._do)
        manager.register_compensation_handler("undo", self._undo)

    async def _do(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        return await self._act(parameters["name"], context)

    async def _undo(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        return await self._act(f"undo {parameters['name']}", context)

    async def _act(self, name: str, context: Any) -> dict[str, Any]:
        self.entered.append(name)
        self.attempts.append((name, context.attempt))
        self.tokens.setdefault(name, set()).add(context.token)
        if name in self.hold:
            await self.hold[name].wait()
        if name in self.failing:
            raise self.failing[name]
        self.effects.append(name)
        await trio.lowlevel.checkpoint()
        return {"name": name}


def step(name: str, **fields: Any) -> dict[str, Any]:
    """A step of the ledger's, with an undo unless its kind has none."""
    undo = {"compensation_operation": "undo", "compensation_parameters": {"name": name}}
    if fields.get("kind", "compensatable") != "compensatable":
        undo = {}
    retry = {} if {"retry", "max_retries"} & fields.keys() else {"retry": {"max_retries": 3, "initial_delay": 0.5}}
    return {"name": name, "operation": "do", "parameters": {"name": name}, **undo, **retry, **fields}


def steps(*names: str) -> list[dict[str, Any]]:
    return [step(name) for name in names]


async def until(condition: Callable[[], object], seconds: float = 600) -> None:
    """Poll, in the virtual clock's time."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for announces itself in no event
            await trio.sleep(0.01)


def only_saga(shared: MemoryStorage) -> Any:
    """The head of the one saga there is, or None."""
    heads = [saga.meta for saga in shared._sagas.values()]
    assert len(heads) < 2
    return heads[0] if heads else None
