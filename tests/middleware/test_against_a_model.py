"""Random histories of requests, outages of time and dying processes, against a model of a few lines."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import given, settings
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsMiddleware, IdempotencyOptions, MemoryStorage, declare_no_effect
from middleware.apps import answer, app_of
from middleware.asgi_client import Client, Response
from runtime.nodes import Node, until

LEASE, TTL = 6.0, 60.0
KEPT = ("created", "refused", "broken")


@dataclass(frozen=True)
class Send:
    """One request, and what the handler makes of it if it gets it."""

    tenant: str
    key: str
    body: bytes
    outcome: str
    process: int


@dataclass(frozen=True)
class Wait:
    seconds: float


sends = st.builds(
    Send,
    tenant=st.sampled_from(["acme", "umbrella"]),
    key=st.sampled_from(["k1", "k2"]),
    body=st.sampled_from([b"one", b"two"]),
    outcome=st.sampled_from(["created", "refused", "broken", "unauthorized", "no effect", "raises", "dies"]),
    process=st.integers(0, 1),
)
histories = st.lists(st.one_of(sends, sends, sends, st.builds(Wait, st.sampled_from([1.0, 10.0, 70.0]))), max_size=14)


@dataclass
class Entry:
    """What the model knows of one key: the ``status`` and ``what`` that repetitions get from ``since`` on."""

    body: bytes
    status: int
    what: Any
    since: float
    crashed: bool = False


@dataclass
class Model:
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    runs: int = 0

    def expected(self, send: Send, now: float) -> tuple[int, Any, bool]:
        """Status, what, and whether the handler gets the request."""
        place = (send.tenant, send.key)
        entry = self.entries.get(place)
        if entry is not None and not entry.crashed and now > entry.since + TTL:
            entry = None
        if entry is not None and entry.crashed and now > entry.since + LEASE + TTL:
            entry = None
        if entry is None:
            return self._run(send, place, now)
        if entry.body != send.body:
            return 422, "payload-mismatch", False
        if entry.crashed and now <= entry.since + LEASE:
            return 409, "in-progress", False
        if entry.crashed:
            self.entries[place] = entry = Entry(entry.body, 409, "outcome-unknown", now)
        return entry.status, entry.what, False

    def _run(self, send: Send, place: tuple[str, str], now: float) -> tuple[int, Any, bool]:
        self.runs += 1
        status = {"created": 201, "refused": 402, "broken": 500, "unauthorized": 401, "no effect": 503}
        self.entries.pop(place, None)
        if send.outcome in KEPT:
            self.entries[place] = Entry(send.body, status[send.outcome], self.runs, now)
        elif send.outcome == "raises":
            self.entries[place] = Entry(send.body, 500, "handler-failed", now)
        elif send.outcome == "dies":
            self.entries[place] = Entry(send.body, 0, None, now, crashed=True)
        return status.get(send.outcome, 0), self.runs, True


class World:
    """Two processes behind one storage; one that dies is replaced."""

    def __init__(self) -> None:
        self.shared = MemoryStorage()
        self.runs = 0
        self.outcome = ""
        self.nodes: list[Node] = []
        self.clients: list[Client] = []

    async def boot(self, place: int) -> None:
        node = Node(self.shared, lambda _: None, poll_interval=30, worker_lease=120)
        app = BackgroundOperationsMiddleware(
            app_of(self._handle), node.manager, options=IdempotencyOptions(lease=LEASE, ttl=TTL)
        )
        await node.manager.start()
        self.nodes[place : place + 1] = [node]
        self.clients[place : place + 1] = [Client(app)]

    async def _handle(self, scope: Any, _body: bytes, send: Any) -> None:
        self.runs += 1
        if self.outcome == "raises":
            raise KeyError(self.outcome)
        if self.outcome == "dies":
            await trio.sleep_forever()
        if self.outcome == "no effect":
            declare_no_effect(scope)
        status = {"created": 201, "refused": 402, "broken": 500, "unauthorized": 401, "no effect": 503}[self.outcome]
        await answer(send, status, {"run": self.runs})

    async def send(self, send: Send) -> Response | None:
        """The response; None: there was none."""
        client, node, before = self.clients[send.process], self.nodes[send.process], self.runs
        client.tenant, self.outcome = send.tenant, send.outcome
        got: list[Response] = []

        async def post() -> None:
            with suppress(KeyError):
                got.append(await client.post("/orders", send.body, key=send.key))

        async with trio.open_nursery() as nursery:
            if send.outcome != "dies":
                nursery.start_soon(post)
            else:
                node.scope = trio.CancelScope()
                nursery.start_soon(node.run, post)
                await until(lambda: got or self.runs > before)
                if not got:
                    await node.kill()
                    await self.boot(send.process)
        return got[0] if got else None


@given(history=histories)
@settings(max_examples=60)
def test_every_history_is_answered_as_the_model_says(history: list[Any]) -> None:
    async def main() -> None:
        world, model = World(), Model()
        for place in (0, 1):
            await world.boot(place)
        for act in history:
            if isinstance(act, Wait):
                await trio.sleep(act.seconds)
                continue
            status, what, runs = model.expected(act, trio.current_time())
            response = await world.send(act)
            assert world.runs == model.runs
            assert (response is None) == (runs and act.outcome in ("raises", "dies"))
            if response is not None:
                assert response.status == status
                told = response.json.get("run") or response.problem
                assert told == what
        for node in world.nodes:
            await node.manager.stop()

    trio.run(main, clock=MockClock(autojump_threshold=0))
