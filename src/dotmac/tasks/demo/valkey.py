"""The demo's stage on a real server: an embedded Valkey, and a worker process that dies of ``kill -9``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from ..manager import BackgroundOperationsManager
from ..storage.redis import RedisStorage
from .ledger import Ledger
from .sagas import DemoSaga, register_handlers
from .stage import DoomedRuntime, Stage


class ValkeyStage:
    """A runtime in this process, and one in another, on one embedded server."""

    title = "an embedded Valkey, two worker processes"

    def __init__(self, folder: Path, ledger: Ledger, pace: float) -> None:
        self._folder = folder
        self.ledger = ledger
        self.pace = pace
        self.manager = BackgroundOperationsManager(RedisStorage.embedded(folder), poll_interval=0.2)
        register_handlers(self.manager, ledger, pace)

    @asynccontextmanager
    async def doomed(self) -> AsyncIterator[DoomedRuntime]:
        """See `Stage`."""
        command = [sys.executable, "-m", "dotmac.tasks.demo.worker"]
        arguments = [str(self._folder), str(self.ledger.path), str(self.pace)]
        # A session of its own: Ctrl-C in the terminal is for the demo, which then ends its worker itself.
        process = await trio.lowlevel.open_process(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            yield _DoomedProcess(process)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@asynccontextmanager
async def valkey_stage(folder: Path, pace: float) -> AsyncIterator[Stage]:
    """The demo's stage on an embedded Valkey in `folder`."""
    stage = ValkeyStage(folder / "valkey", Ledger(folder / "ledger.jsonl"), pace)
    async with stage.manager:
        yield stage


class _DoomedProcess:
    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def start_saga(self, saga: DemoSaga) -> str:
        assert self._process.stdin is not None  # noqa: S101 - both pipes were asked for
        assert self._process.stdout is not None  # noqa: S101
        async with self._process.stdin as pipe:
            await pipe.send_all(msgspec.json.encode(saga))
        answer = b""
        while not answer.endswith(b"\n"):
            chunk = await self._process.stdout.receive_some()
            if not chunk:
                raise RuntimeError("the worker process ended before it started its saga")
            answer += chunk
        return answer.decode().strip()

    async def kill(self) -> str:
        self._process.kill()
        await self._process.wait()
        return f"kill -9 {self._process.pid}"
