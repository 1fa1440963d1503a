"""How waiting lock actors hear that they should ask again, before their poll would tell them.

A message says on which topic, never for what: so a process listens to a few topics and spreads its names over them,
and a message makes a few names look instead of all. All of them share one connection. A topic is listened to from the
first wait that needs it to the end of the process: subscribing for each wait would double what a wait costs.
Messages are hints. While a topic cannot be listened to, actors poll.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

import trio

from ..errors import EnvironmentFault
from ..storage.protocol import StorageProtocol, lock_topic

_TOPICS = 16
_PAUSE = 1.0
_log = logging.getLogger(__name__)


class Wakeups:
    """The topics of this process, and who waits on each.

    Args:
        storage: Where messages come from.
    """

    def __init__(self, storage: StorageProtocol) -> None:
        self._storage = storage
        self._process = secrets.token_hex(8)
        self._topics = tuple(lock_topic(f"{self._process}:{number}") for number in range(_TOPICS))
        self._waiting: dict[str, dict[object, Callable[[], None]]] = {topic: {} for topic in self._topics}
        self._wanted: dict[str, trio.Event] = {}
        self._listening: set[str] = set()
        self._news = trio.Event()

    def topic(self, name: str) -> str:
        """Where this process wants to be told of a lock."""
        return self._topics[hash(name) % _TOPICS]

    def is_listening(self, topic: str) -> bool:
        """Whether a message on the topic would be heard."""
        return topic in self._listening

    async def listen(self, topic: str) -> None:
        """Return when the topic is listened to, or was found not to be possible at the moment."""
        if topic not in self._wanted:
            self._wanted[topic] = trio.Event()
            self._news.set()
        await self._wanted[topic].wait()

    def add(self, topic: str, waiter: object, knock: Callable[[], None]) -> None:
        """Call `knock` on each message of the topic until `remove`."""
        self._waiting[topic][waiter] = knock

    def remove(self, topic: str, waiter: object) -> None:
        """Call it no more."""
        self._waiting[topic].pop(waiter, None)

    async def run(self) -> None:
        """Listen to what is wanted, for ever."""
        begun: set[str] = set()
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                for topic in self._wanted.keys() - begun:
                    begun.add(topic)
                    nursery.start_soon(self._hear, topic)
                await self._news.wait()

    async def _hear(self, topic: str) -> None:
        while True:
            try:
                async with self._storage.watch(topic) as watch:
                    self._listening.add(topic)
                    self._wanted[topic].set()
                    while True:
                        await watch.wait()
                        self._knock(topic)
            except EnvironmentFault as error:
                _log.warning("cannot hear of locks that become free, polling meanwhile: %s", error)
            finally:
                self._listening.discard(topic)
                self._wanted[topic].set()
            await trio.sleep(_PAUSE)

    def _knock(self, topic: str) -> None:
        for knock in tuple(self._waiting[topic].values()):
            knock()
