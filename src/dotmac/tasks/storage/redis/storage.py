"""`RedisStorage`: the shared memory of any number of runtime processes, on Redis 7.0+ or Valkey 8+."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from dotmac.tasks.models import Finding

from ..embedded_urls import embedded_url
from ..records import MICROSECONDS, Purged
from ..seed import SeedMethods
from .connecting import Fsync, Target, connected
from .examination import examine
from .key_search import RedisKeySearch
from .locks import RedisLocks
from .search import RedisSearch
from .server_watch import ServerWatch
from .shared import Shared

DEFAULT_PREFIX = "dotmac_tasks"
DEFAULT_URL = "redis://localhost:6379/0"


class RedisStorage(RedisSearch, RedisKeySearch, RedisLocks, SeedMethods):
    """A storage on Redis or Valkey: standalone, behind Sentinels, or a Cluster.

    Args:
        redis_url: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://…/service/db`` or
            ``redis+cluster://…`` or ``embedded://./folder``; None: ``REDIS_URL``, else ``redis://localhost:6379/0``.
        prefix: Begins every key. Runtimes that share a prefix share their work.
        partitions: How many parts the namespace has, so how many nodes of a Cluster it can spread over; fixed
            when the namespace is created. None: as it was created, or 16.
        **options: ``durability``: what an acknowledged write survives: ``server`` (as the server is configured),
            ``fsync`` (it is on disk) or ``replica`` (``replicas=1`` replicas have it); and all of `RedisOptions`:
            ``socket_timeout`` (seconds a call may take), ``retry_on_timeout``, ``cluster``, ``username``,
            ``password`` …

    Raises:
        InvalidInput: The URL or an option cannot be used; the message names it.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        *,
        partitions: int | None = None,
        **options: Any,
    ) -> None:
        RedisSearch.__init__(self)
        SeedMethods.__init__(self)
        durability = {name: options.pop(name) for name in ("durability", "replicas", "fsync") if name in options}
        self._target = Target(
            url=redis_url or os.environ.get("REDIS_URL") or DEFAULT_URL,
            settings=options,
            prefix=prefix,
            partitions=partitions,
            **durability,
        )
        self._shared = Shared(self._connected)
        self._server_watch: ServerWatch | None = None

    @classmethod
    def embedded(cls, path: str | Path, *, fsync: Fsync = "everysec", **options: Any) -> RedisStorage:
        """A storage with a private Valkey of its own in this folder; needs the ``embedded`` extra.

        The first process that opens the folder starts the server, others join it, the last one stops it.

        Args:
            path: The folder; made if need be. ``~`` is the home directory.
            fsync: When the server makes writes durable: ``everysec`` (a power cut loses up to a second, a crash of
                a process nothing), or ``always``.
            **options: As for the class.
        """
        return cls(embedded_url(path), fsync=fsync, **options)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connect, check the server and the namespace, and stay connected while inside.

        Raises:
            StorageUnavailable: The server does not answer.
            StorageMisconfigured: It would not keep our promises; the message has the setting to change.
        """
        async with self._shared.used():
            yield

    async def examine(self) -> list[Finding]:
        """See `StorageProtocol`."""
        return await examine(self._target)

    async def causes_of_loss(self) -> list[str]:
        """See `StorageProtocol`."""
        return [] if self._server_watch is None else await self._server_watch.causes()

    async def purge(self, limit: int) -> Purged:
        """See `StorageProtocol`."""
        await self.forget_ended_locks()
        return await super().purge(limit)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        async with connected(self._target) as (client, layout):
            seconds, micro = await client.execute("TIME", repeatable=True)
            self.tell_time(int(seconds) * MICROSECONDS + int(micro))
            self._opened = (client, layout)
            self.look_anew()
            self._server_watch = ServerWatch(client, self._target.durability, self._target.replicas)
            await self._server_watch.begin()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._server_watch.run)
                    yield
                    nursery.cancel_scope.cancel()
            finally:
                self._opened = self._server_watch = None
