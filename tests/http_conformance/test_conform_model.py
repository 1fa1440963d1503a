"""Case 43: any row of requests, deaths and pauses at two processes, held against a model that fits on a page."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsMiddleware, IdempotencyOptions, MemoryStorage, declare_no_effect
from middleware.apps import answer, app_of
from middleware.asgi_client import Client, Response
from runtime.nodes import Node, until

LEASE, TTL = 30.0, 100.0
Name = tuple[int, int]  # user and key: what a record stands for


@dataclass(frozen=True)
class Send:
    """A request; `how` is what its handler does if it runs."""

    node: int
    name: Name
    body: int
    how: str


@dataclass(frozen=True)
class Pass:
    seconds: float


@dataclass(frozen=True)
class Kill:
    node: int


class Release:
    """The handler that has been held for longest may end."""


nodes, few = st.integers(0, 1), st.integers(0, 1)
behaviours = st.sampled_from(["answer", "error", "refuse", "raise", "break", "hold", "hold"])
actions = st.lists(
    st.builds(Send, nodes, st.tuples(few, few), few, behaviours)
    | st.builds(Pass, st.sampled_from([1.0, LEASE / 2, LEASE + 3, TTL + 3]))
    | st.builds(Kill, nodes)
    | st.builds(Release),
    min_size=5,
    max_size=30,
)


@dataclass
class Known:
    """What the model knows of a record: that somebody works, that nobody knows, or what repetitions get."""

    body: int
    held_at: int | None = None
    orphaned_at: float | None = None
    got: tuple[int, bytes] | None = None
    expires: float = float("inf")


@dataclass
class Held:
    """A request whose handler waits."""

    name: Name
    release: trio.Event = field(default_factory=trio.Event)
    process: trio.CancelScope = field(default_factory=trio.CancelScope)
    response: Response | None = None


class World:
    """Two processes that share a storage."""

    def __init__(self) -> None:
        self.shared = MemoryStorage()
        self.runs: Counter[Name] = Counter()
        self.held: list[Held] = []
        self.nodes: list[Node] = []
        self.clients: list[Client] = []

    async def start(self, place: int) -> None:
        node = Node(self.shared, lambda _: None)
        app = BackgroundOperationsMiddleware(
            app_of(self._handle), node.manager, options=IdempotencyOptions(lease=LEASE, ttl=TTL)
        )
        self.nodes[place : place + 1] = [node]
        self.clients[place : place + 1] = [Client(app)]
        await node.__aenter__()

    async def _handle(self, scope: Any, body: bytes, send: Any) -> None:
        headers = dict(scope["headers"])
        name = (int(headers[b"x-user-id"]), int(headers[b"idempotency-key"]))
        how = headers[b"x-how"].decode()
        self.runs[name] += 1
        if how == "hold":
            await next(held for held in self.held if held.name == name).release.wait()
        elif how == "raise":
            raise RuntimeError("before any answer")
        elif how == "break":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError("in the midst of the answer")
        elif how == "refuse":
            declare_no_effect(scope)
        status = {"error": 500, "refuse": 503}.get(how, 200)
        await answer(send, status, {"run": self.runs[name], "body": body.decode()})

    async def send(self, action: Send) -> Response | None:
        """The response; None: the handler raised."""
        headers = [("X-User-ID", str(action.name[0])), ("X-How", action.how)]
        try:
            return await self.clients[action.node].post(
                body=str(action.body).encode(), key=str(action.name[1]), headers=headers
            )
        except RuntimeError:
            return None


Model = dict[Name, Known | None]


async def play(row: list[Any]) -> None:
    world = World()
    model: Model = defaultdict(lambda: None)
    expected: Counter[Name] = Counter()
    async with trio.open_nursery() as nursery:
        for place in (0, 1):
            await world.start(place)
        for action in row:
            match action:
                case Pass(seconds):
                    await trio.sleep(seconds)
                case Kill(place):
                    await kill(world, model, place)
                case Release() if world.held:
                    name, response = await release(world)
                    known = model[name]
                    assert known is not None
                    known.held_at, known.got, known.expires = None, (200, response.body), trio.current_time() + TTL
                case Send():
                    await check(world, model, expected, action, nursery)
            assert world.runs == expected
        while world.held:
            await release(world)
        for node in world.nodes:
            await node.__aexit__(None, None, None)


async def kill(world: World, model: Model, place: int) -> None:
    await world.nodes[place].kill()
    for held in tuple(world.held):
        known = model[held.name]
        if known is not None and known.held_at == place:
            known.held_at, known.orphaned_at = None, trio.current_time()
            known.expires = known.orphaned_at + LEASE + TTL
            world.held.remove(held)
            held.process.cancel()
    await world.start(place)


async def release(world: World) -> tuple[Name, Response]:
    held = world.held.pop(0)
    held.release.set()
    await until(lambda: held.response is not None)
    assert held.response is not None
    return held.name, held.response


async def check(world: World, model: Model, expected: Counter[Name], action: Send, nursery: trio.Nursery) -> None:
    known = model[action.name]
    if known is not None:
        await leave_the_edge(known)
    if known is None or known.expires < trio.current_time():
        expected[action.name] += 1
        model[action.name] = await first(world, action, nursery)
        return
    response = await world.send(action)
    assert response is not None
    if action.body != known.body:
        assert (response.status, response.problem) == (422, "payload-mismatch")
    elif known.got is not None:
        assert (response.status, response.body, response.replayed) == (*known.got, True)
    elif known.held_at is not None:
        assert (response.status, response.problem, response.replayed) == (409, "in-progress", False)
    else:
        assert known.orphaned_at is not None
        lapsed = trio.current_time() > known.orphaned_at + LEASE + 2
        assert response.status == 409
        if lapsed or response.problem != "in-progress":
            assert response.problem == "outcome-unknown"
            known.got, known.expires = (409, response.body), trio.current_time() + TTL


async def leave_the_edge(known: Known) -> None:
    """Wait where two answers would be right: about when it expires, for an orphan within a lease of that."""
    now = trio.current_time()
    begins = known.expires - 2
    if known.got is None and known.orphaned_at is not None:  # its last renewal is not known
        begins = known.orphaned_at + TTL
    if begins < now < known.expires + 2:
        await trio.sleep(known.expires + 3 - now)


async def first(world: World, action: Send, nursery: trio.Nursery) -> Known | None:
    """The request has to run; gives what is known of its record then."""
    if action.how == "hold":
        held = Held(action.name)
        world.held.append(held)
        before = world.runs[action.name]

        async def carry_out() -> None:
            with held.process:
                held.response = await world.send(action)

        nursery.start_soon(carry_out)
        await until(lambda: world.runs[action.name] > before)
        return Known(action.body, held_at=action.node)
    response = await world.send(action)
    ended = trio.current_time() + TTL
    if action.how == "refuse":
        assert response is not None
        assert (response.status, response.replayed) == (503, False)
        return None
    if response is not None:
        assert (response.status, response.replayed) == (500 if action.how == "error" else 200, False)
        assert json.loads(response.body)["run"] == world.runs[action.name]
        return Known(action.body, got=(response.status, response.body), expires=ended)
    again = await world.send(action)
    assert again is not None
    assert again.problem == ("handler-failed" if action.how == "raise" else "outcome-unknown")
    return Known(action.body, got=(again.status, again.body), expires=ended)


@settings(max_examples=40)
@given(actions)
def test_case_43_any_row_of_requests_deaths_and_pauses(row: list[Any]) -> None:
    trio.run(play, row, clock=MockClock(autojump_threshold=0))
