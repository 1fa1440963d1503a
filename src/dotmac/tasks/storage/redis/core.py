"""What all parts of the Redis storage share: the client, the keys, the server's clock, and what makes a verb."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import trio

from dotmac.tasks.errors import NotStarted

from ..protocol import Observer
from .gateway import RedisClient
from .layout import Layout
from .pubsub import Watch

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="RedisCore")

MICROSECONDS = 1_000_000


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


def verb(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Tell the observer of each call, if there is one."""

    async def observed(observer: Observer, self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        start = time.perf_counter()
        failure: BaseException | None = None
        try:
            return await method(self, *args, **kwargs)
        except BaseException as error:
            failure = error
            raise
        finally:
            observer(method.__name__, time.perf_counter() - start, failure)

    @functools.wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        if self.observer:  # not a coroutine round each call: it would be resumed with each reply
            return observed(self.observer, self, *args, **kwargs)
        return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[S, P], Coroutine[Any, Any, R]]", call)


def micros(seconds: float) -> int:
    """Seconds as the scripts take them."""
    return round(seconds * MICROSECONDS)


def fields_of(flat: list[bytes]) -> dict[bytes, bytes]:
    """A hash as scripts return it: names and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def marked(text: str | None) -> str:
    """What stands for a text that may be empty, or None, where both must be told apart."""
    return "" if text is None else f"={text}"


def optional(data: bytes | str | None) -> bytes | str:
    """What stands for None in a script's arguments."""
    return b"" if data is None else data
