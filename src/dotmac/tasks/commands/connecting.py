"""How a command reaches a namespace: as a process that looks, submits and steers, and runs nothing itself."""

from __future__ import annotations

import getpass
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, NoReturn, TypeVar

import trio
import typer
from rich.text import Text

from ..errors import DotmacTasksError, EnvironmentFault, InvalidInput, UsageError
from ..manager import BackgroundOperationsManager
from ..service.exits import FAILED, STORAGE, USAGE, killed_by
from ..service.plain import plain
from .output import console

T = TypeVar("T")

Redis = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", envvar="REDIS_URL", help="Where everything is kept.", show_default=False),
]
Prefix = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The namespace, if the application names one.", show_default=False),
]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show values of fields such as token, password or card, too.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")]


@dataclass(frozen=True, slots=True)
class Link:
    """Where the storage is."""

    redis: str | None
    prefix: str | None

    def manager(self) -> BackgroundOperationsManager:
        """A manager that runs nothing.

        Raises:
            InvalidInput: Nobody said where, or it makes no sense.
        """
        from ..storage.redis import RedisStorage  # noqa: PLC0415 - needs the redis extra

        if not self.redis:
            raise InvalidInput("--redis", "say where: --redis redis://HOST:PORT/0, or REDIS_URL in the environment")
        storage = RedisStorage(self.redis) if self.prefix is None else RedisStorage(self.redis, self.prefix)
        return BackgroundOperationsManager(storage, works=False)

    def ask(self, work: Callable[[BackgroundOperationsManager], Awaitable[T]]) -> T:
        """Do something with the manager while it is connected; an error ends the command and says why."""

        async def connected(manager: BackgroundOperationsManager) -> T:
            async with manager:
                return await work(manager)

        return self._told(connected)

    def ask_unconnected(self, work: Callable[[BackgroundOperationsManager], Awaitable[T]]) -> T:
        """The same without connecting first."""
        return self._told(work)

    def _told(self, work: Callable[[BackgroundOperationsManager], Awaitable[T]]) -> T:
        if not logging.getLogger().handlers:  # what matters here is raised, and told by `fail`
            logging.getLogger().addHandler(logging.NullHandler())
        try:
            return trio.run(work, self.manager())
        except DotmacTasksError as error:
            fail(error)
        except KeyboardInterrupt:
            raise typer.Exit(killed_by(signal.SIGINT)) from None


def fail(error: DotmacTasksError) -> NoReturn:
    """Say what went wrong, on standard error, and end with the exit code for it."""
    # By a console, which knows whether colours are wanted; not wrapped, so that it stays one line in a log.
    console(error=True).print(Text(plain(f"dotmac-tasks: {error}"), style="red"), soft_wrap=True)
    if isinstance(error, UsageError):
        raise typer.Exit(USAGE) from error
    raise typer.Exit(STORAGE if isinstance(error, EnvironmentFault) else FAILED) from error


def who() -> str:
    """Who steers by the command line, for audit entries."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user has no name here, as in some containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
