"""A storm: workers at work, sagas submitted, and everything going wrong as the schedule says."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from random import Random

import trio

from chaos.aftermath import QUIET_SECONDS
from chaos.crew import Crew, Member, eventually
from chaos.faults import Planned, Trouble
from chaos.shapes import Steps, draw
from support.proxy import Fault, FaultProxy
from support.servers import Server

ODDS = {Fault.LOSE_REPLY: 0.05, Fault.CUT_REPLY: 0.03, Fault.DROP_REQUEST: 0.05, Fault.DELAY: 0.1}


class Storm:
    """One run.

    Args:
        server: Which it may kill.
        proxy: Between the workers and the server.
        workers: The crew; the storm hires.
        seed: Draws the sagas.

    Attributes:
        keyed: Requests under an idempotency key, with what they ask for.
        submitted: How many sagas were asked for.
    """

    def __init__(self, server: Server, proxy: FaultProxy, workers: Crew, seed: int) -> None:
        self._server = server
        self._proxy = proxy
        self._workers = workers
        self._random = Random(seed)
        self._server_lock = trio.Lock()
        self._slots: list[Member] = []
        self._slot_locks: list[trio.Lock] = []
        self.keyed: dict[str, Steps] = {}
        self.submitted = 0

    async def run(self, schedule: list[Planned], seconds: float, size: int, pause: float) -> None:
        """Have `size` workers, submit a saga every `pause` seconds, and carry the schedule out; then calm down."""
        for _ in range(size):
            self._slots.append(await self._workers.hire_ready(self._proxy.url))
            self._slot_locks.append(trio.Lock())
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._submit, began + seconds, pause)
            for planned in schedule:
                await trio.sleep_until(began + planned.at)
                nursery.start_soon(self._do, planned)
        self._proxy.calm()
        self._proxy.drop_all()  # also the one that says nothing any more
        await self._ask_again()
        for member in self._slots:
            await self._workers.at_rest(member, QUIET_SECONDS)

    @property
    def crew(self) -> list[Member]:
        """The workers in service."""
        return list(self._slots)

    # --- sagas ----------------------------------------------------------------------------------------------

    async def _submit(self, until: float, pause: float) -> None:
        while trio.current_time() < until:
            self.submitted += 1
            shape, steps = draw(self._random)
            request = f"{shape}-{self.submitted}"
            first, second = self._random.choices(range(len(self._slots)), k=2)
            if self._random.random() < 0.3:
                self.keyed[request] = steps
                self._start(self._slots[first], request, steps)
                self._start(self._slots[second], request, steps)
            else:
                deadline = 1.0 if self._random.random() < 0.1 else None
                self._start(self._slots[first], request, steps, timeout_seconds=deadline)
            await trio.sleep(self._random.uniform(0, 2 * pause))

    def _start(self, member: Member, request: str, steps: Steps, *, timeout_seconds: float | None = None) -> None:
        fields = {"idempotency_key": request} if request in self.keyed else {"timeout_seconds": timeout_seconds}
        member.tell("start", request=request, workflow_type=request.partition("-")[0], steps=steps, **fields)

    async def _ask_again(self) -> None:
        """Repeat what was asked for under a key and never acknowledged, as a client would."""

        def missing() -> set[str]:
            return self.keyed.keys() - {line.request for line in self._workers.ledger.read("started")}

        for _ in range(10):
            for request in missing():
                self._start(self._random.choice(self._slots), request, self.keyed[request])
            with trio.move_on_after(QUIET_SECONDS / 10):
                await eventually(lambda: not missing(), seconds=math.inf)
                return
        raise AssertionError(f"never acknowledged: {missing()}")

    # --- troubles -------------------------------------------------------------------------------------------

    async def _do(self, planned: Planned) -> None:
        doers: dict[Trouble, Callable[[Planned], Awaitable[None]]] = {
            Trouble.KILL_WORKER: self._replace_worker,
            Trouble.FREEZE_WORKER: self._freeze_worker,
            Trouble.DRAIN_WORKER: self._replace_worker,
            Trouble.KILL_SERVER: self._kill_server,
            Trouble.FREEZE_SERVER: self._freeze_server,
            Trouble.KILL_CONNECTIONS: self._command,
            Trouble.KILL_SUBSCRIPTIONS: self._command,
            Trouble.FLUSH_SCRIPTS: self._command,
            Trouble.LOSE_REPLIES: self._lose_replies,
            Trouble.STALL: self._stall,
            Trouble.CANCEL: self._cancel,
        }
        await doers[planned.trouble](planned)

    async def _replace_worker(self, planned: Planned) -> None:
        slot = planned.target % len(self._slots)
        async with self._slot_locks[slot]:
            member = self._slots[slot]
            if planned.trouble is Trouble.KILL_WORKER:
                member.kill()
            else:
                member.terminate()
                await eventually(lambda: not member.is_running, seconds=QUIET_SECONDS, what=f"{member.name} drained")
                # Before it had a handler for the signal, the signal itself ended it.
                had_begun = any(line.by == member.name for line in self._workers.ledger.read("ready"))
                assert member.process.returncode == 0 or not had_begun, member.log.read_text()
            await trio.sleep(planned.seconds)
            self._slots[slot] = self._workers.hire(self._proxy.url)

    async def _freeze_worker(self, planned: Planned) -> None:
        slot = planned.target % len(self._slots)
        async with self._slot_locks[slot]:
            self._slots[slot].pause()
            await trio.sleep(planned.seconds)
            self._slots[slot].resume()

    async def _kill_server(self, planned: Planned) -> None:
        async with self._server_lock:
            await trio.to_thread.run_sync(self._server.kill)
            await trio.sleep(planned.seconds)
            await trio.to_thread.run_sync(self._server.start)

    async def _freeze_server(self, planned: Planned) -> None:
        async with self._server_lock:
            self._server.pause()
            await trio.sleep(planned.seconds)
            self._server.resume()

    async def _command(self, planned: Planned) -> None:
        commands = {
            Trouble.KILL_CONNECTIONS: ("CLIENT", "KILL", "TYPE", "normal"),
            Trouble.KILL_SUBSCRIPTIONS: ("CLIENT", "KILL", "TYPE", "pubsub"),
            Trouble.FLUSH_SCRIPTS: ("SCRIPT", "FLUSH"),
        }
        async with self._server_lock:
            await trio.to_thread.run_sync(self._server.cli, *commands[planned.trouble])

    async def _lose_replies(self, planned: Planned) -> None:
        self._proxy.randomize(planned.target, ODDS)
        await trio.sleep(planned.seconds * 2)
        self._proxy.calm()

    async def _stall(self, planned: Planned) -> None:
        self._proxy.script(Fault.STALL_REQUEST if planned.target % 2 else Fault.STALL_REPLY)
        await trio.sleep(planned.seconds)

    async def _cancel(self, planned: Planned) -> None:
        started = self._workers.ledger.read("started")[-20:]
        if started:
            saga = started[planned.target % len(started)].saga
            self._slots[planned.target % len(self._slots)].tell("cancel", saga=saga)
