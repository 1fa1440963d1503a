"""The inbox of an actor: a bounded queue that knows who still waits for an answer.

It exists beside trio's memory channels because an actor needs three things of its queue that a channel has not: whoever
asked is told at once when the actor ends, whether the question was still queued or taken out already; an actor that
is busy can be told that something arrived; and thousands of idle ones cost next to nothing (everything but the slots is
allocated when first needed and let go when the actor goes to sleep).

Two invariants carry the rest. *Waiting putters imply a full inbox*: each removal admits the first of them in the same
breath, so nobody overtakes. *No await between taking and returning*: a message is in the inbox until the very moment
`get` returns it, so a cancelled `get` cannot lose one; and `put` delivers after its last await, or while it sleeps and
can no longer be cancelled.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import trio

from dotmac.tasks.actors.failures import split_failure
from dotmac.tasks.actors.questions import Ask, Reply
from dotmac.tasks.errors import ActorDied, AskTimeout, InboxFull, InvalidInput, UsageError

M = TypeVar("M")


class _Putter(Generic[M]):
    """A sleeping `put`: its message, and whether it has been taken into the inbox."""

    __slots__ = ("admitted", "message")

    def __init__(self, message: M) -> None:
        self.message = message
        self.admitted = False


class Inbox(Generic[M]):
    """A bounded, fair queue of messages with one reader.

    Used as a context manager by the actor that reads it, ``with inbox: ...``, it is closed when the actor ends, with
    the actor's failure as the cause. Questions arrive as `Ask`, so an actor that is asked reads an
    ``Inbox[Tick | Ask[Any, Any]]``.

    Args:
        capacity: Most messages held, at least 1; ``math.inf`` for no bound.
        name: Names the actor in errors.
        on_arrival: Called, synchronously and in whatever task is running, after each message that comes in; also for
            one whose putter had to wait, when it is admitted. It must not raise. An actor that installs it to cut
            short its own work looks at ``len(inbox)`` first: what arrived before does not call again.

    Raises:
        InvalidInput: The capacity is below 1.
    """

    __slots__ = ("_cause", "_closed", "_messages", "_owner", "_putters", "_questions", "_sleeper", "capacity", "name",
                 "on_arrival")  # fmt: skip

    def __init__(
        self, capacity: float = 1000, *, name: str = "actor", on_arrival: Callable[[], None] | None = None
    ) -> None:
        if not capacity >= 1:
            raise InvalidInput("capacity", "must be 1 or more")
        self.capacity = capacity
        self.name = name
        self.on_arrival = on_arrival
        self._messages: deque[M] | None = None
        self._putters: OrderedDict[trio.lowlevel.Task, _Putter[M]] | None = None
        self._questions: dict[Reply[Any], None] | None = None
        self._sleeper: trio.lowlevel.Task | None = None  # the reader, while it sleeps
        self._owner: trio.lowlevel.Task | None = None  # the task that last read: asking from it would wait for ever
        self._closed = False
        self._cause: BaseException | None = None

    def __len__(self) -> int:
        return len(self._messages) if self._messages else 0

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    # --- in -------------------------------------------------------------------------------------------------

    async def put(self, message: M) -> None:
        """Deliver a message, waiting for room in turn.

        Raises:
            ActorDied: The inbox is closed, or was while this waited. Nothing was delivered.

        When cancelled, nothing was delivered; when it returns, the message is in the inbox.
        """
        await trio.lowlevel.checkpoint()
        if self._has_room():
            self._deliver(message)
        else:
            await self._wait_for_room(message)

    def put_nowait(self, message: M) -> None:
        """Deliver a message if there is room now.

        Raises:
            InboxFull: There is no room. Nothing was delivered.
            ActorDied: The inbox is closed. Nothing was delivered.
        """
        if not self._has_room():
            raise InboxFull(f"the inbox of {self.name} holds {self.capacity} messages and has no room")
        self._deliver(message)

    def _has_room(self) -> bool:
        if self._closed:
            raise self._death()
        return len(self) < self.capacity

    def _deliver(self, message: M) -> None:
        if self._messages is None:
            self._messages = deque()
        self._messages.append(message)
        self._wake_reader()
        if self.on_arrival is not None:
            self.on_arrival()

    async def _wait_for_room(self, message: M) -> None:
        task = trio.lowlevel.current_task()
        putter = _Putter(message)
        if self._putters is None:
            self._putters = OrderedDict()
        self._putters[task] = putter

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            if self._putters is not None:
                del self._putters[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if not putter.admitted:
            raise self._death()

    def _admit(self) -> None:
        """Room was made: take in the message of whoever has waited longest."""
        if self._putters:
            task, putter = self._putters.popitem(last=False)
            putter.admitted = True
            trio.lowlevel.reschedule(task)
            self._deliver(putter.message)

    # --- out ------------------------------------------------------------------------------------------------

    async def get(self) -> M:
        """Take out the oldest message, waiting for one.

        Raises:
            ActorDied: The inbox is closed.
            trio.BusyResourceError: Another task is waiting here; an inbox has one reader.

        When cancelled, no message was taken.
        """
        self._owner = trio.lowlevel.current_task()
        if self._messages or self._closed:
            await trio.lowlevel.checkpoint()
        # Woken is not served: the message may have been taken by get_nowait, or withdrawn by a cancelled asker.
        while not self._messages:
            await self._wait_for_message()
        return self._take()

    def get_nowait(self) -> M:
        """Take out the oldest message if there is one.

        Raises:
            trio.WouldBlock: The inbox is empty.
            ActorDied: The inbox is closed.
        """
        if not self._messages:
            if self._closed:
                raise self._death()
            raise trio.WouldBlock
        self._owner = trio.lowlevel.current_task()
        return self._take()

    def _take(self) -> M:
        assert self._messages  # noqa: S101  # both callers have looked, with no await since
        message = self._messages.popleft()
        self._admit()
        return message

    async def _wait_for_message(self) -> None:
        if self._closed:
            raise self._death()
        if self._sleeper is not None:
            raise trio.BusyResourceError(f"another task reads the inbox of {self.name}")
        self._sleeper = trio.lowlevel.current_task()
        # An actor about to sleep gives back what it does not need: an idle one costs little more than its slots.
        self._messages = None
        self._questions = self._questions or None
        self._putters = None
        await trio.lowlevel.wait_task_rescheduled(self._abort_get)

    def _abort_get(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_reader(self) -> None:
        if self._sleeper is not None:
            trio.lowlevel.reschedule(self._sleeper)
            self._sleeper = None

    # --- questions ------------------------------------------------------------------------------------------

    async def ask(self, request: object, *, timeout: float) -> Any:  # noqa: ASYNC109  # decides between two errors
        """Put ``Ask(request, reply)`` into the inbox and wait for the answer.

        Args:
            request: What is asked.
            timeout: Seconds for all of it, the wait for room included; ``math.inf`` for no limit.

        Returns:
            What the actor passed to ``reply.send``.

        Raises:
            AskTimeout: No answer came in time. A question still in the inbox was withdrawn; one that the actor had
                taken out may still be handled, and its answer is dropped.
            ActorDied: The actor has ended, or ended without answering.
            UsageError: The asking task is the one that reads this inbox.
            Exception: What the actor passed to ``reply.fail``.

        When cancelled, the same holds as for AskTimeout.
        """
        if trio.lowlevel.current_task() is self._owner and not self._closed:
            raise UsageError(f"{self.name} asks itself and would wait for ever")
        question: Ask[object, Any] = Ask(request, Reply())
        with trio.move_on_after(timeout):
            try:
                return await self._ask(question)
            except trio.Cancelled:
                self._withdraw(question)
                raise
            finally:
                if self._questions is not None:
                    self._questions.pop(question.reply, None)
        raise AskTimeout(f"{self.name} did not answer within {timeout} s")

    async def _ask(self, question: Ask[object, Any]) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._questions is None:
            self._questions = {}
        self._questions[question.reply] = None
        message: Any = question  # what an actor may be asked is between its references and itself
        if self._has_room():
            self._deliver(message)
        else:
            await self._wait_for_room(message)
        return await question.reply.wait()

    def _withdraw(self, question: Ask[object, Any]) -> None:
        for position, message in enumerate(self._messages or ()):
            if message is question and self._messages is not None:
                del self._messages[position]
                self._admit()
                return

    # --- the end --------------------------------------------------------------------------------------------

    def close(self, cause: BaseException | None = None) -> None:
        """Refuse everything from now on, and tell everybody who waits.

        Waiting puts and all unanswered questions, still queued or taken out already, fail with `ActorDied`; messages
        still in the inbox are dropped. Closing again does nothing. Never blocks.

        Args:
            cause: What the actor failed with; the ``__cause__`` of each `ActorDied`.
        """
        if self._closed:
            return
        self._closed = True
        self._cause = cause
        questions, self._questions = tuple(self._questions or ()), None
        putters, self._putters = tuple(self._putters or ()), None
        self._messages = self._owner = None
        for reply in questions:
            reply.fail(self._death())
        for task in putters:
            trio.lowlevel.reschedule(task)
        self._wake_reader()

    def _death(self) -> ActorDied:
        died = ActorDied(f"{self.name} has ended")  # a new one for each: tracebacks are not shared between tasks
        died.__cause__ = self._cause
        return died

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close(None if error is None else split_failure(error)[0])
