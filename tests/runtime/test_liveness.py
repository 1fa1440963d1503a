"""A worker whose process is certainly dead is replaced at once; whatever is not certain waits for the lease."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, StorageUnavailable
from dotmac.tasks.runtime import process as process_module
from dotmac.tasks.runtime.process import Process
from dotmac.tasks.storage.records import Adoption
from runtime.nodes import Ledger, Node, only_saga, step, until
from support.processes import spawn

HERE = Process.this()
pytestmark = pytest.mark.skipif(HERE is None, reason="this system does not say who a process is")

LEASE = 60.0  # beyond every deadline here


@pytest.fixture
def dead() -> Process:
    """A process that has ended."""
    with spawn([sys.executable, "-c", ""]) as running:
        running.wait()
    assert HERE is not None
    return replace(HERE, pid=running.pid)


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[bytes], Process]]:
    """A process that lives until it is killed."""
    running = spawn([sys.executable, "-c", "import signal; signal.pause()"])
    with running:
        assert HERE is not None
        yield running, replace(HERE, pid=running.pid, started=int(process_module._stat(running.pid)[19]))
        running.kill()


async def orphan(shared: MemoryStorage, ledger: Ledger, info: dict[str, str], lease: float = LEASE) -> str:
    """A saga that belongs to a worker of another process."""
    async with Node(shared, ledger.register) as node:
        saga = await node.manager.create_saga_workflow("t", "w", [step("a")])
    await shared.register_worker("other", lease, info)
    await shared.adopt_saga(Adoption(saga.saga_id, "other", 0, "entry"))
    return saga.saga_id


async def taken_over(shared: MemoryStorage, seconds: float) -> bool:
    """Whether the orphan is finished by somebody within so many seconds."""
    with trio.move_on_after(seconds):
        await until(lambda: only_saga(shared).status.is_final)
    return bool(only_saga(shared).status.is_final)


async def test_what_a_dead_process_left_is_taken_over_at_the_first_look(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, dead: Process
) -> None:
    await orphan(shared, ledger, dead.info())
    async with Node(shared, ledger.register):
        assert await taken_over(shared, 5)


async def test_a_process_that_dies_under_the_eyes_of_two_is_replaced_by_one(
    shared: MemoryStorage,
    ledger: Ledger,
    child: tuple[subprocess.Popen[bytes], Process],
    caplog: pytest.LogCaptureFixture,
) -> None:
    running, process = child
    await orphan(shared, ledger, process.info())
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        await until(lambda: all("other" in node.worker._recovery.liveness._watches for node in (first, second)), 20)
        assert ledger.entered == []
        running.kill()
        assert await taken_over(shared, 20)
        await until(lambda: all(node.wire.calls.count("retire_worker") for node in (first, second)), 20)
        assert only_saga(shared).epoch == 2
    assert ledger.effects == ["a"]
    assert caplog.text.count("the process of worker other is dead") == 1


async def test_a_process_that_ends_after_it_signed_off_is_nothing_to_warn_of(
    shared: MemoryStorage,
    ledger: Ledger,
    child: tuple[subprocess.Popen[bytes], Process],
    caplog: pytest.LogCaptureFixture,
) -> None:
    running, process = child
    await shared.register_worker("other", LEASE, process.info())
    async with Node(shared, ledger.register) as node:
        watches = node.worker._recovery.liveness._watches
        await until(lambda: "other" in watches, 20)
        await shared.retire_worker("other")
        running.kill()  # before the next look, which would forget it
        await until(lambda: not watches, 20)
    assert "other" not in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "another/pid:[1]/time:[1]"},
        {"kernel": "", "started": "0"},
        {"pid": "unknown"},
        {"started": ""},
    ],
)
async def test_of_what_another_kernel_ran_or_did_not_tell_only_the_lease_speaks(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, dead: Process, change: dict[str, str]
) -> None:
    """Another boot, another pid namespace, a worker of an older version."""
    await orphan(shared, ledger, {**dead.info(), **change})
    async with Node(shared, ledger.register) as node:
        assert not await taken_over(shared, LEASE - 5)
        assert "retire_worker" not in node.wire.calls
        assert await taken_over(shared, 10)


async def test_where_the_system_does_not_say_who_a_process_is_only_the_lease_speaks(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, dead: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await orphan(shared, ledger, dead.info())
    monkeypatch.setattr(Process, "this", lambda: None)
    async with Node(shared, ledger.register) as node:
        (worker,) = [worker for worker in await shared.list_workers() if worker.worker_id != "other"]
        assert worker.info.keys() == {"host", "pid"}
        assert not await taken_over(shared, LEASE - 5)
        assert "retire_worker" not in node.wire.calls
        assert await taken_over(shared, 10)


async def test_a_dead_worker_is_retired_as_soon_as_the_storage_can_be_reached(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, dead: Process
) -> None:
    async with Node(shared, ledger.register) as node:
        refused = 0

        async def away(_wire: object, verb: str, call: object) -> object:
            nonlocal refused
            if verb == "retire_worker" and refused < 3:
                refused += 1
                raise StorageUnavailable("away")
            return await call()  # type: ignore[operator]

        node.wire.fault = away
        await orphan(shared, ledger, dead.info())
        assert await taken_over(shared, 10)
        assert refused == 3


async def test_a_peer_that_signed_off_is_watched_no_more(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, child: tuple[subprocess.Popen[bytes], Process]
) -> None:
    _, process = child
    async with Node(shared, ledger.register) as node:
        watches = node.worker._recovery.liveness._watches
        await shared.register_worker("other", LEASE, process.info())
        await until(lambda: "other" in watches)
        await shared.retire_worker("other")
        await until(lambda: not watches)
        assert "retire_worker" not in node.wire.calls
