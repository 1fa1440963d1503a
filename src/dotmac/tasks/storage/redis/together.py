"""Many questions at the same time; the gateway makes one write of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")


async def all_at_once(ask: Callable[..., Awaitable[T]], items: list[Any]) -> list[T]:
    """Ask about all items at the same time; the answers in the order of the items."""
    answers: dict[int, T] = {}
    failures: list[Exception] = []

    async def one(index: int) -> None:
        # Kept, and raised below, because callers expect the error itself and not a group with it inside.
        try:
            answers[index] = await ask(items[index])
        except Exception as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for index in range(len(items)):
            nursery.start_soon(one, index)
    if failures:
        raise failures[0]
    return [answers[index] for index in range(len(items))]
