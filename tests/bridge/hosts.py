"""Programs of every kind that a manager can be used from."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import trio
import uvloop

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage
from dotmac.tasks.bridge.contexts import Stay

T = TypeVar("T")
Program = Callable[[BackgroundOperationsManager], Awaitable[T]]
Host = Callable[[BackgroundOperationsManager, Program[T]], T]

PATIENCE = 30.0
TESTS = Path(__file__).parents[1]


def under_trio(manager: BackgroundOperationsManager, program: Program[T]) -> T:
    """The manager's own trio run."""

    async def main() -> T:
        with trio.fail_after(PATIENCE):
            async with manager:
                return await program(manager)

    return trio.run(main)


def under_asyncio(manager: BackgroundOperationsManager, program: Program[T]) -> T:
    return _in_loop(plain_loop, manager, program)


def under_uvloop(manager: BackgroundOperationsManager, program: Program[T]) -> T:
    return _in_loop(uvloop.new_event_loop, manager, program)


def under_another_trio(manager: BackgroundOperationsManager, program: Program[T]) -> T:
    """The manager runs elsewhere, the program in a trio run that is not the manager's."""

    async def main() -> T:
        with trio.fail_after(PATIENCE):
            return await program(manager)

    with manager.sync:
        return trio.run(main)


def _in_loop(
    make: Callable[[], asyncio.AbstractEventLoop], manager: BackgroundOperationsManager, program: Program[T]
) -> T:
    async def main() -> T:
        async with asyncio.timeout(PATIENCE):
            async with manager:
                return await program(manager)

    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(main())


def plain_loop() -> asyncio.AbstractEventLoop:
    """By name: trio-asyncio, where another test has imported it, puts a loop of its own in asyncio's place."""
    return asyncio.SelectorEventLoop()


HOSTS = {
    "trio": under_trio,
    "asyncio": under_asyncio,
    "uvloop": under_uvloop,
    "another trio": under_another_trio,
}
ASYNCIO_HOSTS = {"asyncio": under_asyncio, "uvloop": under_uvloop}
ELSEWHERE = {name: host for name, host in HOSTS.items() if name != "trio"}


def a_manager(storage: MemoryStorage | None = None, **settings: Any) -> BackgroundOperationsManager:
    return BackgroundOperationsManager(storage or MemoryStorage(), **settings)


def run_asyncio(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function under asyncio, not for ever."""

    async def limited() -> T:
        async with asyncio.timeout(PATIENCE):
            return await main()

    with asyncio.Runner(loop_factory=plain_loop) as runner:
        return runner.run(limited())


def bridge_calls(manager: BackgroundOperationsManager) -> set[Any]:
    """What is being carried out in the manager's trio run on behalf of others, beside their ``async with manager``."""
    calls = manager._hosted().home._calls
    return {call for call in tuple(calls) if not (isinstance(call, Stay) and call.entered and call.value is None)}


def runtime_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dotmac.tasks runtime"]


@contextmanager
def no_thread_left() -> Iterator[None]:
    assert not runtime_threads()
    yield
    assert not runtime_threads()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds."""
    while not await condition():  # noqa: ASYNC110 - nobody sends an event
        await anyio.sleep(0.002)


def block_until(condition: Callable[[], bool]) -> None:
    """Block this thread, whatever runs in it, until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def errors_of(program: str, *arguments: str) -> str:
    """What a program of the tests writes to its standard error; it makes errors of warnings, and ends well."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=TESTS,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr
