"""`Inbox` against a plain list: whatever is done in whatever order, inbox and list agree after every step.

The machine's rules are synchronous and trio is not, so each example hosts one run of trio as a guest: a rule hands it a
step and pumps it until all tasks are blocked again.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import wait_all_tasks_blocked

from dotmac.tasks.actors import Ask, Inbox
from dotmac.tasks.errors import ActorDied, InboxFull

DEADLINE = 30  # seconds of real time: reached only if a step hangs


class Guest:
    """A run of trio that goes on only while `settle` pumps it."""

    def __init__(self) -> None:
        self._callbacks: queue.Queue[Callable[[], object]] = queue.Queue()
        self._finished = False
        self._nursery: trio.Nursery | None = None
        trio.lowlevel.start_guest_run(
            self._main, run_sync_soon_threadsafe=self._callbacks.put, done_callback=self._note_finished
        )
        self._pump(lambda: self._nursery is not None)

    async def _main(self) -> None:
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def _note_finished(self, result: object) -> None:
        self._finished = True

    def _pump(self, until: Callable[[], bool]) -> None:
        while not until():
            self._callbacks.get(timeout=DEADLINE)()

    def settle(self, step: Callable[[trio.Nursery], None]) -> None:
        """Do the step in a task of the run, and go on until no task can."""
        done: list[bool] = []

        async def do() -> None:
            assert self._nursery is not None
            step(self._nursery)
            await wait_all_tasks_blocked()
            done.append(True)

        assert self._nursery is not None
        self._nursery.start_soon(do)
        self._pump(lambda: bool(done) or self._finished)  # it finishes by itself only when a step failed
        assert done

    def close(self) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._cancel)
        self._pump(lambda: self._finished)

    async def _cancel(self) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()


class InboxAgainstAList(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 4))
    def begin(self, capacity: int) -> None:
        self.guest = Guest()
        self.inbox = Inbox[object](capacity)
        self.arrivals = 0
        self.inbox.on_arrival = self._note_arrival
        # The model: what is in the inbox, who waits to put in, who waits for an answer, all by number.
        self.held: list[int] = []
        self.waiting: list[int] = []
        self.unanswered: set[int] = set()
        self.model_arrivals = 0
        self.closed = False
        # What the tasks saw.
        self.number = 0
        self.scopes: dict[int, trio.CancelScope] = {}
        self.outcomes: dict[int, str] = {}
        self.expected: dict[int, str] = {}
        self.taken: dict[int, Ask[int, str]] = {}

    def teardown(self) -> None:
        if hasattr(self, "guest"):
            self.guest.close()

    def _note_arrival(self) -> None:
        self.arrivals += 1

    async def _sender(self, number: int, *, asks: bool) -> None:
        with trio.CancelScope() as scope:
            self.scopes[number] = scope
            try:
                if asks:
                    self.outcomes[number] = await self.inbox.ask(number, timeout=float("inf"))
                else:
                    await self.inbox.put(number)
                    self.outcomes[number] = "put"
            except ActorDied:
                self.outcomes[number] = "died"
        if scope.cancelled_caught:
            self.outcomes[number] = "cancelled"

    def _arrive(self, number: int) -> None:
        self.held.append(number)
        self.model_arrivals += 1
        if number not in self.unanswered:
            self.expected[number] = "put"

    def _make_room(self) -> None:
        if self.waiting:
            self._arrive(self.waiting.pop(0))

    @rule(asks=st.booleans())
    def send(self, *, asks: bool) -> None:
        self.number += 1
        number = self.number
        self.guest.settle(lambda nursery: nursery.start_soon(lambda: self._sender(number, asks=asks)))
        if self.closed:
            self.expected[number] = "died"
            return
        if asks:
            self.unanswered.add(number)
        if len(self.held) < self.inbox.capacity:
            self._arrive(number)
        else:
            self.waiting.append(number)

    @rule()
    def put_nowait(self) -> None:
        self.number += 1
        number, seen = self.number, []

        def step(_: trio.Nursery) -> None:
            try:
                self.inbox.put_nowait(number)
                seen.append("put")
            except (InboxFull, ActorDied) as error:
                seen.append(type(error).__name__)

        self.guest.settle(step)
        if self.closed:
            assert seen == ["ActorDied"]
        elif len(self.held) < self.inbox.capacity:
            assert seen == ["put"]
            self._arrive(number)
            del self.expected[number]
        else:
            assert seen == ["InboxFull"]

    @precondition(lambda self: self.held)
    @rule(waits=st.booleans())
    def take(self, *, waits: bool) -> None:
        got: list[object] = []

        async def get() -> None:
            got.append(await self.inbox.get())

        def step(nursery: trio.Nursery) -> None:
            if waits:
                nursery.start_soon(get)
            else:
                got.append(self.inbox.get_nowait())

        self.guest.settle(step)
        number = self.held.pop(0)
        (message,) = got
        if isinstance(message, Ask):
            assert message.request == number
            self.taken[number] = message
        else:
            assert message == number
        self._make_room()

    @precondition(lambda self: not self.held and not self.closed)
    @rule()
    def take_from_an_empty_inbox_and_be_cancelled(self) -> None:
        scope = trio.CancelScope()

        async def get() -> None:
            with scope:
                await self.inbox.get()

        self.guest.settle(lambda nursery: nursery.start_soon(get))
        self.guest.settle(lambda _: scope.cancel())
        assert scope.cancelled_caught

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.taken)))
        question = self.taken.pop(number)
        self.guest.settle(lambda _: question.reply.send("answered"))
        if number in self.unanswered:
            self.unanswered.remove(number)
            self.expected[number] = "answered"

    @precondition(lambda self: self.waiting or self.unanswered)
    @rule(data=st.data())
    def cancel_a_sender(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted({*self.waiting, *self.unanswered})))
        self.guest.settle(lambda _: self.scopes[number].cancel())
        self.expected[number] = "cancelled"
        self.unanswered.discard(number)
        if number in self.waiting:
            self.waiting.remove(number)
        elif number in self.held:  # a question still in the inbox is withdrawn
            self.held.remove(number)
            self._make_room()

    @precondition(lambda self: self.number > 5)
    @rule()
    def close(self) -> None:
        self.guest.settle(lambda _: self.inbox.close())
        for number in (*self.waiting, *self.unanswered):
            self.expected[number] = "died"
        self.held, self.waiting, self.unanswered, self.closed = [], [], set(), True

    @invariant()
    def inbox_and_list_agree(self) -> None:
        if hasattr(self, "inbox"):
            assert len(self.inbox) == len(self.held)
            assert self.outcomes == self.expected
            assert self.arrivals == self.model_arrivals


InboxAgainstAList.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestInboxAgainstAList = InboxAgainstAList.TestCase
