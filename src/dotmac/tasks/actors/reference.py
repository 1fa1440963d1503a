"""The sending side of an inbox: what an actor hands out, so that others can talk to it but not read its messages."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from dotmac.tasks.actors.mailbox import Inbox

M = TypeVar("M")


class ActorRef(Generic[M]):
    """A reference to an actor. Cheap, may be copied and kept; it goes on working, with `ActorDied`, after the end."""

    __slots__ = ("_inbox",)

    def __init__(self, inbox: Inbox[M]) -> None:
        self._inbox = inbox

    def __repr__(self) -> str:
        return f"<ActorRef {self._inbox.name}>"

    @property
    def name(self) -> str:
        """The actor's name."""
        return self._inbox.name

    @property
    def alive(self) -> bool:
        """Whether the actor still took messages just now. It may end before the next line; errors tell for certain."""
        return not self._inbox.closed

    async def tell(self, message: M) -> None:
        """Deliver a message, waiting for room in turn; says nothing about whether or when it is handled.

        Raises:
            ActorDied: The actor has ended. Nothing was delivered.

        When cancelled, nothing was delivered.
        """
        await self._inbox.put(message)

    def tell_nowait(self, message: M) -> None:
        """Deliver a message if there is room now.

        Raises:
            InboxFull: There is no room. Nothing was delivered.
            ActorDied: The actor has ended. Nothing was delivered.
        """
        self._inbox.put_nowait(message)

    async def ask(self, request: object, timeout: float) -> Any:  # noqa: ASYNC109  # decides between two errors
        """Ask and wait for the answer; see `Inbox.ask`.

        Args:
            request: What is asked; the actor reads ``Ask(request, reply)``.
            timeout: Seconds for all of it; ``math.inf`` for no limit.

        Raises:
            AskTimeout: No answer came in time. The question may still be handled if the actor had taken it out.
            ActorDied: The actor has ended, or ended without answering.
            UsageError: The asking task is the actor's own.
            Exception: What the actor answered with ``reply.fail``.
        """
        return await self._inbox.ask(request, timeout=timeout)
