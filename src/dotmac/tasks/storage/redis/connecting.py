"""From what a user asked for to a client that may be used: server, connection, checks, namespace, durability."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import trio

from dotmac.tasks.errors import EnvironmentFault, InvalidInput, StorageRefused

from ..embedded import EmbeddedServer
from ..embedded_urls import parse_embedded_url
from .checks import DURABILITIES, Durability, check_messages, check_server, choose_barrier, open_namespace
from .gateway import RedisClient, open_client
from .layout import Layout
from .options import RedisOptions

Fsync = Literal["always", "everysec"]
_GUARD_INTERVAL = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect, and what to insist on.

    Attributes:
        url: Of the server; ``embedded://…`` starts one.
        settings: Fields of `RedisOptions`.
        prefix: Of the namespace.
        partitions: Of the namespace; None: as it was created.
        fsync: Of an embedded server.
        durability: What acknowledged writes survive.
        replicas: How many replicas must have a write, for ``durability="replica"``.
        folder: Of the embedded server, if there is to be one; absolute, so that it stays the same wherever the
            working directory is later.
    """

    url: str = field(repr=False)  # both can hold a password
    settings: dict[str, Any] = field(repr=False)
    prefix: str
    partitions: int | None
    fsync: Fsync = "everysec"
    durability: Durability = "server"
    replicas: int = 1
    folder: Path | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.durability not in DURABILITIES:
            raise InvalidInput("durability", f"is one of {', '.join(DURABILITIES)}, not {self.durability!r}")
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int) or self.replicas < 1:
            raise InvalidInput("replicas", f"must be 1 or more, not {self.replicas!r}")
        if self.fsync not in ("always", "everysec"):
            raise InvalidInput("fsync", f"is one of always, everysec, not {self.fsync!r}")
        if self.partitions is not None and (isinstance(self.partitions, bool) or not isinstance(self.partitions, int)):
            raise InvalidInput("partitions", f"must be a whole number, not {self.partitions!r}")
        Layout(self.prefix, 1 if self.partitions is None else self.partitions)
        if isinstance(self.url, str) and self.url.partition(":")[0].lower() == "embedded":
            object.__setattr__(self, "folder", parse_embedded_url(self.url).absolute())
            RedisOptions.from_url("redis://localhost", **self.settings)  # where it will be is not known before
        else:
            RedisOptions.from_url(self.url, **self.settings)


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[tuple[RedisClient, Layout]]:
    """A client that passed every check, and the keys of its namespace.

    Raises:
        StorageUnavailable: The server does not answer.
        StorageMisconfigured: It would not keep our promises; the message has the setting to change.
    """
    folder = target.folder
    if folder is None:
        async with _checked(RedisOptions.from_url(target.url, **target.settings), target) as ready:
            yield ready
        return
    # Nothing is asked of the operator here, so the embedded server itself gets the strict setting.
    fsync: Fsync = "always" if target.durability == "fsync" else target.fsync
    async with (
        EmbeddedServer(folder, fsync=fsync) as server,
        _checked(RedisOptions.from_url(server.url, **target.settings), target) as ready,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_guard, server, ready[0])
        yield ready
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _checked(options: RedisOptions, target: Target) -> AsyncIterator[tuple[RedisClient, Layout]]:
    if target.durability != "server":
        async with open_client(options) as client:
            barrier = await choose_barrier(client, target.durability, target.replicas, options.socket_timeout)
        options = replace(options, barrier=barrier)
    async with open_client(options) as client:
        await check_server(client)
        await check_messages(client, Layout(target.prefix, 1))
        yield client, await open_namespace(client, target.prefix, target.partitions)


async def _guard(server: EmbeddedServer, client: RedisClient) -> None:
    """Start the embedded server again in the one case in which its keeper cannot: when that was killed itself.

    And tell of what nobody else notices: a folder that was taken away, or a disk on which the server cannot live.
    """
    told = ""
    while True:
        await trio.sleep(_GUARD_INTERVAL)
        try:
            server.check_in_place()
            if all(link.connected for link in client.status()):
                told = ""
                continue
            if server.is_full():
                raise StorageRefused(f"no space is left on the disk of {server.folder}: free some")
            await server.ensure_running()
        except EnvironmentFault as error:
            if str(error) != told:  # once, not each second
                told = str(error)
                _log.error("the embedded server does not run as it should: %s", error)
