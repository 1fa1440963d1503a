"""Reports what this process holds by a lease and the storage no longer has.

No other process may remove such data while the lease lasts. So the storage lost what it had acknowledged (evicted,
flushed, an older state after a failover), or its clock jumped. Each loss is logged as ERROR with
the likely cause, and counted.
"""

from __future__ import annotations

import logging
import math

import trio

from ..errors import EnvironmentFault
from ..metrics import emit
from ..storage.protocol import StorageProtocol

_MOST_NAMED = 20  # in one report
_LOOK_AGAIN = 1.0  # seconds after a look that the storage did not answer
_log = logging.getLogger(__name__)
NO_CAUSE = "the servers show no cause; a command may have deleted its keys"


class Losses:
    """Gathers losses, and reports those of one moment together, with one question for their cause.

    Args:
        storage: What lost them.
        retention: Seconds that the storage keeps a saga that has ended.
    """

    def __init__(self, storage: StorageProtocol, retention: float) -> None:
        self._storage = storage
        self._retention = retention
        self._suspects: dict[str, float] = {}
        self._suspected = trio.Event()
        self._send: trio.MemorySendChannel[tuple[str, str]] | None = None

    def note(self, kind: str, name: str, tenant_id: str = "") -> None:
        """Count a loss, and have it reported.

        Args:
            kind: ``saga``, ``worker``, ``claim`` or ``lock``.
            name: Which one.
            tenant_id: Whose it was, where that is known.
        """
        emit("storage_data_lost", kind, tenant_id, name=name)
        if self._send is not None:
            self._send.send_nowait((kind, name))
        else:
            _report([(kind, name)], [])

    def suspect(self, saga_id: str, owned_until: float) -> None:
        """Have the storage asked for a saga whose actor a lost lease ended; an absent one is reported.

        Args:
            saga_id: Which one.
            owned_until: The `trio.current_time` until which this process certainly owned it.
        """
        self._suspects[saga_id] = owned_until
        self._suspected.set()

    async def run(self) -> None:
        """Report for ever."""
        self._send, receive = trio.open_memory_channel[tuple[str, str]](math.inf)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_for_suspects)
                while True:
                    lost = [await receive.receive()]
                    causes = await self._storage.causes_of_loss()
                    while True:
                        try:
                            lost.append(receive.receive_nowait())
                        except trio.WouldBlock:
                            break
                    _report(lost, causes)
        finally:
            self._send = None

    async def _look_for_suspects(self) -> None:
        while True:
            await self._suspected.wait()
            self._suspected = trio.Event()
            # The storage is often away when a lease ends: a suspect is kept until the storage has answered.
            while self._suspects:
                try:
                    await self._look()
                except EnvironmentFault as error:
                    _log.warning("cannot look which sagas the storage has lost: %s", error)
                    await trio.sleep(_LOOK_AGAIN)

    async def _look(self) -> None:
        for saga_id, owned_until in list(self._suspects.items()):
            absent = await self._storage.saga_meta(saga_id) is None
            del self._suspects[saga_id]
            # After the retention, another worker may have ended the saga and a janitor may have removed it.
            if absent and trio.current_time() - owned_until < self._retention:
                self.note("saga", saga_id)


def _report(lost: list[tuple[str, str]], causes: list[str]) -> None:
    cause = "; ".join(causes) or NO_CAUSE
    for kind in dict.fromkeys(kind for kind, _ in lost):
        names = [name for each, name in lost if each == kind]
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        _log.error(
            "the storage lost %d %s(s) that this process holds: %s%s. Likely cause: %s",
            len(names),
            kind,
            ", ".join(names[:_MOST_NAMED]),
            more,
            cause,
        )
