"""The life of a service process: start, serve, and end as the signals say.

The first SIGTERM or SIGINT drains: no new connection, no new saga; running attempts finish, for `drain_timeout`
seconds, and what is not at its end is handed over. The second one hastens: running attempts are cut off. SIGHUP, which
a lost terminal sends, does nothing.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import trio
from hypercorn.config import Config
from starlette.applications import Starlette

from ..errors import EnvironmentFault
from ..manager import BackgroundOperationsManager
from .exits import DRAINED, FAILED, STORAGE, killed_by
from .server import serve

_CLOSING_SECONDS = 10.0  # that open requests have to end once the process was asked to stop
_BACKLOG = 1024  # connections that the system keeps for the process until it accepts them
_HANDSHAKE_SECONDS = 10.0
_log = logging.getLogger("dotmac.tasks.service")


@dataclass(frozen=True, slots=True)
class Front:
    """What a process serves over HTTP.

    Attributes:
        app: Of `create_app`.
        binds: Addresses to listen on: ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:PATH``.
        certfile: Certificate chain for TLS; None: plain HTTP.
        keyfile: Its key.
    """

    app: Starlette
    binds: list[str]
    certfile: str | None = None
    keyfile: str | None = None

    def config(self) -> Config:
        """The server's settings."""
        config = Config()
        config.bind = self.binds
        config.certfile, config.keyfile = self.certfile, self.keyfile
        config.graceful_timeout = _CLOSING_SECONDS
        config.include_server_header = False
        config.backlog = _BACKLOG
        config.ssl_handshake_timeout = _HANDSHAKE_SECONDS
        config.errorlog = logging.getLogger("hypercorn.error")
        config.errorlog.setLevel(logging.WARNING)
        return config


@dataclass(slots=True)
class _Orders:
    """What the signals said so far."""

    stop: trio.Event = field(default_factory=trio.Event)
    hurry: trio.Event = field(default_factory=trio.Event)
    last: int = 0

    def take(self, number: int) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            _log.info("%s: nothing to do; settings are read at the start", name)
        elif not self.stop.is_set():
            _log.info("%s: draining; send it again to cut running attempts off", name)
            self.stop.set()
        elif not self.hurry.is_set():
            _log.warning("%s again: cutting running attempts off", name)
            self.last = number
            self.hurry.set()


async def run_process(manager: BackgroundOperationsManager, front: Front | None = None) -> int:
    """Run until a signal asks to stop; gives the exit code (see `exits`).

    Args:
        manager: Started here, stopped here.
        front: What to serve over HTTP; None: nothing.
    """
    orders = _Orders()
    process = _Process(manager, front, orders)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, signals, orders)
            nursery.start_soon(process.hurry)
            code = await process.live()
            nursery.cancel_scope.cancel()
    return code


async def _listen(signals: AsyncIterator[int], orders: _Orders) -> None:
    async for number in signals:
        orders.take(number)


class _Process:
    """One run."""

    def __init__(self, manager: BackgroundOperationsManager, front: Front | None, orders: _Orders) -> None:
        self._manager = manager
        self._front = front
        self._orders = orders
        self._start = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._began = False

    async def live(self) -> int:
        """From start to end; gives the exit code."""
        try:
            with self._start:
                async with self._manager:
                    self._began = True
                    await self._work()
                    # Not left to the block's end: that does not hear of the second signal.
                    await self._manager.stop(hurry=self._orders.hurry.is_set())
        except EnvironmentFault as error:
            if self._began:
                _log.critical("the runtime failed: %s", error, exc_info=error)
                return FAILED
            _log.critical("cannot start: %s", error)
            return STORAGE
        except Exception as error:
            _log.critical("failed: %s", _told(error), exc_info=error)
            return FAILED
        if self._orders.hurry.is_set():
            return killed_by(self._orders.last)
        _log.info("stopped; everything is handed over")
        return DRAINED

    async def hurry(self) -> None:
        """Give up a start that a signal asks to end, and cut running attempts off at the second signal."""
        await self._orders.stop.wait()
        if not self._began:
            self._start.cancel()
        await self._orders.hurry.wait()
        self._serving.cancel()
        await self._manager.stop(hurry=True)

    async def _work(self) -> None:
        if self._front is None:
            _log.info("working")
            await self._orders.stop.wait()
            return
        front = self._front
        with self._serving:
            async with trio.open_nursery() as nursery:
                run = partial(serve, front.app, front.config(), shutdown_trigger=self._orders.stop.wait)  # type: ignore[arg-type]
                for address in await nursery.start(run):
                    _log.info("listening on %s", address)
                await self._orders.stop.wait()
                front.app.state.closing.set()  # event streams end, so that the server can


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return str(error) or repr(error)
