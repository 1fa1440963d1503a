"""What all parts of the Redis storage share: the client, the keys, the server's clock, and what makes a verb."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

import trio

from dotmac.tasks.errors import NotStarted

from ..protocol import Observer
from ..records import MICROSECONDS
from .gateway import RedisClient
from .layout import Layout
from .pubsub import Watch

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


class RedisCore:
    """The client while the storage is open, and the clock.

    The server's time is known from replies that carry it, as an offset to trio's clock. A reply may have been long on
    its way, so the clock can be behind; it is never ahead. Behind, a lease is taken for over a little late; ahead, it
    would be taken for over while its holder works.
    """

    def __init__(self) -> None:
        self.observer: Observer | None = None
        self._opened: tuple[RedisClient, Layout] | None = None
        self._offset = 0.0

    @property
    def client(self) -> RedisClient:
        """The gateway. Raises NotStarted outside `opened`."""
        return self._here()[0]

    @property
    def layout(self) -> Layout:
        """The keys of the namespace. Raises NotStarted outside `opened`."""
        return self._here()[1]

    def now(self) -> float:
        """The server's time in Unix seconds, as known here."""
        return self._offset + trio.current_time()

    def watch(self, topic: str) -> AbstractAsyncContextManager[Watch]:
        """Listen to a topic while inside."""
        return self.client.watch(self.layout.channel(topic))

    def tell_time(self, microseconds: int) -> float:
        """Take the server's time out of a reply that has just come; in seconds."""
        seconds = microseconds / MICROSECONDS
        self._offset = seconds - trio.current_time()
        return seconds

    def _here(self) -> tuple[RedisClient, Layout]:
        if self._opened is None:
            raise NotStarted("the storage is not open; start the manager, or use 'async with storage.opened():'")
        return self._opened


def verb(method: F) -> F:
    """Tell the observer of each call of an async method, if there is one."""

    async def observed(observer: Observer, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        failure: BaseException | None = None
        try:
            return await method(*args, **kwargs)
        except BaseException as error:
            failure = error
            raise
        finally:
            observer(method.__name__, time.perf_counter() - start, failure)

    @functools.wraps(method)
    def call(self: RedisCore, *args: Any, **kwargs: Any) -> Any:
        if self.observer:  # not a coroutine round each call: it would be resumed with each reply
            return observed(self.observer, self, *args, **kwargs)
        return method(self, *args, **kwargs)

    return cast("F", call)


def micros(seconds: float) -> int:
    """Seconds as the scripts take them."""
    return round(seconds * MICROSECONDS)


def fields_of(flat: list[bytes]) -> dict[bytes, bytes]:
    """A hash as scripts return it: names and values in turn."""
    each = iter(flat)
    return dict(zip(each, each, strict=True))


def marked(text: str | None) -> str:
    """What stands for a text that may be empty, or None, where both must be told apart."""
    return "" if text is None else f"={text}"


def optional(data: bytes | str | None) -> bytes | str:
    """What stands for None in a script's arguments."""
    return b"" if data is None else data
