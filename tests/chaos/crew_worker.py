"""One worker process of a crew: `python crew_worker.py CONFIG`, where CONFIG is JSON (see `crew.Crew.hire`).

It takes commands as JSON lines on its standard input, tells the ledger what comes of them, and drains on SIGTERM.
An error that nobody expects ends it with a traceback, which the tests look for.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trio

from chaos.outside import Ledger
from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.errors import EnvironmentFault, NonRetryableError, NotStarted, SagaStateError
from dotmac.tasks.runtime.context import HandlerContext
from dotmac.tasks.storage.redis import RedisStorage

ERRORS = {"transient": RuntimeError, "final": NonRetryableError, "unknown": TimeoutError}


def register(manager: BackgroundOperationsManager, ledger: Ledger) -> None:
    """Handlers that do what their parameters say.

    ``seconds`` they take; ``until`` a file exists; ``fail_attempts`` attempts fail, with this ``kind_of_error``.
    """

    def maybe_fail(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
        if context.attempt <= parameters.get("fail_attempts", 0):
            raise ERRORS[parameters.get("kind_of_error", "transient")]("as it was told")
        return {"attempt": context.attempt}

    async def act(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
        with ledger.attempt(context):
            gate = parameters.get("until")
            while gate is not None and not os.access(gate, os.F_OK):  # noqa: ASYNC110 - opened by another process
                await trio.sleep(0.01)
            await trio.sleep(parameters.get("seconds", 0))
            return maybe_fail(parameters, context)

    def block(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
        with ledger.attempt(context):
            time.sleep(parameters.get("seconds", 0))
            return maybe_fail(parameters, context)

    manager.register_operation_handler("act", act)
    manager.register_operation_handler("block", block)
    manager.register_compensation_handler("undo", act)


class Worker:
    """The process: a manager, and what it is told to do with it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.ledger = Ledger(config["ledger"], config["name"])
        storage = RedisStorage(config["url"], config["prefix"], **config["storage"])
        self.manager = BackgroundOperationsManager(storage, **config["settings"])
        register(self.manager, self.ledger)
        self._under_way = 0  # commands

    async def run(self) -> None:
        """Work until SIGTERM; where the storage is not there yet, try again."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            while True:
                try:
                    await self._work(signals)
                except* EnvironmentFault as group:
                    self.ledger.tell("not started", note=repr(group.exceptions[0]))
                    await trio.sleep(0.05)
                else:
                    return

    async def _work(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            async with self.manager:
                self.ledger.tell("ready")
                nursery.start_soon(self._obey)
                async for _signal in signals:
                    break
                self.ledger.tell("stopping")
            self.ledger.tell("stopped")
            nursery.cancel_scope.cancel()

    async def _obey(self) -> None:
        rest = b""
        async with trio.lowlevel.FdStream(0) as stream, trio.open_nursery() as nursery:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    command = json.loads(line)
                    self._under_way += 1
                    nursery.start_soon(self._do, getattr(self, command.pop("do")), command)

    async def _do(self, method: Callable[[dict[str, Any]], Awaitable[None]], command: dict[str, Any]) -> None:
        await method(command)
        self._under_way -= 1

    async def rest(self, command: dict[str, Any]) -> None:
        """Say when everything that was asked for before is done, so that it begins nothing more by itself."""
        while self._under_way > 1:  # noqa: ASYNC110 - seldom, and only at the end of a test
            await trio.sleep(0.01)
        self.ledger.tell("at rest", request=command["request"])

    async def start(self, command: dict[str, Any]) -> None:
        """Start a saga and say which one it is."""
        request = command.pop("request")
        try:
            handle = await self.manager.start_saga(tenant_id="chaos", **command)
        except (EnvironmentFault, NotStarted) as error:
            self.ledger.tell("refused", request=request, note=repr(error))
        else:
            self.ledger.tell("started", request=request, saga=handle.saga_id)

    async def cancel(self, command: dict[str, Any]) -> None:
        """Cancel a saga."""
        try:
            await self.manager.cancel_saga(command["saga"], "for a test")
        except (EnvironmentFault, NotStarted, SagaStateError) as error:
            self.ledger.tell("not cancelled", saga=command["saga"], note=repr(error))
        else:
            self.ledger.tell("cancelled", saga=command["saga"])

    async def wait(self, command: dict[str, Any]) -> None:
        """Wait for a saga's end and say how it ended."""
        self.ledger.tell("waiting", saga=command["saga"])
        while True:
            try:
                outcome = await self.manager.saga_handle(command["saga"]).result()
            except EnvironmentFault as error:
                self.ledger.tell("wait refused", saga=command["saga"], note=repr(error))
            else:
                self.ledger.tell("outcome", saga=command["saga"], note=str(outcome.status))
                return


logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
# Handlers fail as they are told, and the last attempt's traceback is logged. The crew looks for tracebacks of others.
logging.getLogger("dotmac.tasks.runtime.attempt").setLevel(logging.ERROR)
trio.run(Worker(json.loads(sys.argv[1])).run)
