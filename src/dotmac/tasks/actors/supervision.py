"""One run of a supervisor: the task that decides, and the table of children that only this task changes.

Children that end, and requests to start or stop one, are messages in an inbox, handled one after the other; so no
restart, start or stop is half done when the next one looks at the children. Three things do not queue. The polite stop
of the whole supervisor interrupts waiting for a child's start or for a back-off. Spawned children (`spawned.py`) are
nobody's message. And cancellation from outside is just that: it reaches all tasks at once and in no order.

Back-off is not waited for in place: a child that is to be restarted is put down with a time, and the inbox is read
with the earliest such time as the deadline. A child that waits for its restart can be stopped like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import trio

from dotmac.tasks.actors.child import ChildLife, ChildSpec, Restart
from dotmac.tasks.actors.failures import Report
from dotmac.tasks.actors.mailbox import Inbox
from dotmac.tasks.actors.policy import RestartPolicy
from dotmac.tasks.actors.questions import Ask
from dotmac.tasks.actors.restarts import Verdict
from dotmac.tasks.actors.spawned import SpawnedChildren
from dotmac.tasks.errors import ActorDied, RestartsExceeded, UsageError


@dataclass(slots=True, eq=False)
class _Child:
    """A child through all its lives. Between two of them it has no life but, unless it is being started, a time."""

    spec: ChildSpec
    life: ChildLife | None = None
    failures: int = 0
    restart_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Ended:
    """A life is over."""

    life: ChildLife


@dataclass(frozen=True, slots=True)
class StartChild:
    """A request to start one more child."""

    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class StopChild:
    """A request to stop and forget a child."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The whole supervisor was asked to stop; wakes the deciding task, which looks at `Supervision.stopping`."""


_Message: TypeAlias = Ended | Stop | Ask[StartChild | StopChild, None]


class Supervision:
    """One run. `Supervisor` makes one for each `run` and documents what is promised."""

    def __init__(self, name: str, policy: RestartPolicy, report: Report, *, spawned_shutdown_seconds: float) -> None:
        self.name = name
        self.children: dict[str, _Child] = {}
        self.inbox: Inbox[_Message] = Inbox(math.inf, name=f"supervisor {name}")
        self.stopping = trio.Event()
        self.ended = trio.Event()
        self.starting: ChildLife | None = None
        self.spawned = SpawnedChildren(self.stopping, shutdown_seconds=spawned_shutdown_seconds, report=report)
        self._policy = policy
        self._report = report
        self._window = policy.intensity.window()
        self._nursery: trio.Nursery  # there as soon as `serve` runs, and nothing is started before

    def request_stop(self) -> None:
        """Ask for the orderly stop; see `Supervisor.request_stop`."""
        if self.stopping.is_set() or self.inbox.closed:
            return
        self.stopping.set()
        if self.starting is not None:
            self.starting.settled.set()
        self.inbox.put_nowait(Stop())

    async def serve(self, specs: Iterable[ChildSpec], started: Callable[[], None]) -> None:
        """Run from the first start to the last stop; see `Supervisor.run`."""
        error: Exception | None = None
        try:
            async with trio.open_nursery() as self._nursery:
                with self.inbox:
                    await self._nursery.start(self.spawned.host)
                    error = await self._start_first(specs)
                    if error is None:
                        started()
                        error = await self._control()
                    self.stopping.set()
                # The inbox is closed before anybody is stopped: a child that is asking us for something now would
                # otherwise wait for an answer until its own deadline.
                await self.spawned.gone.wait()
                for child in reversed(self.children.values()):
                    if child.life is not None:
                        await child.life.stop()
        except BaseException as passing:
            conclusion = self._conclude(error)
            if conclusion is None:
                raise
            raise BaseExceptionGroup(f"supervisor {self.name} was cut off", [passing, conclusion]) from None
        finally:
            self.stopping.set()
            self.ended.set()
        conclusion = self._conclude(error)
        if conclusion is not None:
            raise conclusion

    def _conclude(self, error: Exception | None) -> Exception | None:
        """Join what the run failed with and what children failed with since nobody restarts them any more."""
        lives = [child.life for child in self.children.values() if child.life is not None]
        late = [life.failure for life in lives if life.failure is not None]
        if not late:
            return error
        if isinstance(error, RestartsExceeded):
            causes = [error.__cause__] if isinstance(error.__cause__, Exception) else []
            error.__cause__ = ExceptionGroup("the last failure, and those while stopping", [*causes, *late])
            return error
        failures = late if error is None else [error, *late]
        return ExceptionGroup(f"children of supervisor {self.name} failed while it stopped", failures)

    # --- the deciding task ------------------------------------------------------------------------------------

    async def _start_first(self, specs: Iterable[ChildSpec]) -> Exception | None:
        for spec in specs:
            child = self.children[spec.name] = _Child(spec)
            life = await self._start(child, first=True)
            if life.failed_to_start:
                return life.failure
            if self.stopping.is_set():
                break
        return None

    async def _control(self) -> RestartsExceeded | None:
        """Handle messages and restarts until the stop; return why it gave up, if it did."""
        exceeded: RestartsExceeded | None = None
        while exceeded is None and not self.stopping.is_set():
            due = min((child.restart_at for child in self.children.values()), default=math.inf)
            if due <= trio.current_time():
                exceeded = await self._restart_next(due)
                continue
            message: _Message | None = None
            with trio.move_on_at(due):
                message = await self.inbox.get()
            if isinstance(message, Ended):
                exceeded = await self._on_ended(message.life)
            elif isinstance(message, Ask):
                await self._on_request(message)
        return exceeded

    async def _restart_next(self, due: float) -> RestartsExceeded | None:
        """Restart the first child that is due. Only one: if it fails to start, its group has to be looked at anew."""
        child = next(child for child in self.children.values() if child.restart_at == due)
        life = await self._start(child)
        return await self._restart(child, life) if life.failed_to_start else None

    async def _on_ended(self, life: ChildLife) -> RestartsExceeded | None:
        child = self.children.get(life.spec.name)
        if child is None or child.life is not life:
            return None  # whoever stopped or started it has dealt with its end
        child.life = None
        if not child.spec.restart.follows(failed=life.failure is not None):
            del self.children[child.spec.name]
            return None
        return await self._restart(child, life)

    async def _restart(self, child: _Child, life: ChildLife) -> RestartsExceeded | None:
        """Stop those who share the fate of this child, and put all of them down for a restart."""
        now = trio.current_time()
        self._window, verdict = self._window.record(now)
        if verdict is Verdict.GIVE_UP:
            intensity = self._policy.intensity
            exceeded = RestartsExceeded(
                f"supervisor {self.name} gave up at {child.spec.name}: more than {intensity.max_restarts} restarts "
                f"within {intensity.within_seconds} s"
            )
            exceeded.__cause__ = life.failure
            return exceeded
        child.failures = self._policy.backoff.failures_in_a_row(child.failures, now - life.born_at)
        restart_at = now + self._policy.backoff.delay(child.failures, self._policy.jitter())
        group = self._policy.strategy.group(list(self.children.values()), child)
        for member in reversed(group):
            await self._stop_for_restart(member)
            # One that waited for its restart already may have to wait longer, never shorter: its back-off stands.
            # All of the group get one time, because they are started in order of start and of time.
            restart_at = restart_at if member.restart_at == math.inf else max(restart_at, member.restart_at)
        for member in group:
            member.restart_at = restart_at
        return None

    async def _stop_for_restart(self, member: _Child) -> None:
        life = member.life
        if life is None:
            return
        by_itself = life.ended.is_set()
        await life.stop()
        member.life = None
        restart = member.spec.restart
        if restart is Restart.TEMPORARY or (by_itself and not restart.follows(failed=life.failure is not None)):
            del self.children[member.spec.name]

    # --- requests ---------------------------------------------------------------------------------------------

    async def _on_request(self, question: Ask[StartChild | StopChild, None]) -> None:
        if isinstance(question.request, StartChild):
            failure = await self._start_more(question.request.spec)
        else:
            failure = await self._stop_child(question.request.name)
        if failure is None:
            question.reply.send(None)
        else:
            question.reply.fail(failure)

    async def _start_more(self, spec: ChildSpec) -> Exception | None:
        if spec.name in self.children:
            return UsageError(f"supervisor {self.name} has a child {spec.name} already")
        child = self.children[spec.name] = _Child(spec)
        life = await self._start(child)
        if life.failed_to_start:
            del self.children[spec.name]
            return life.failure
        if not life.is_started and self.stopping.is_set():
            return ActorDied(f"supervisor {self.name} is stopping")
        return None

    async def _stop_child(self, name: str) -> Exception | None:
        child = self.children.get(name)
        if child is None:
            return UsageError(f"supervisor {self.name} has no child {name}")
        if child.life is not None:
            await child.life.stop()
        del self.children[name]  # only now: until it has ended it counts, and if this is cut off it is still looked at
        return child.life.failure if child.life is not None else None

    # --- lives ------------------------------------------------------------------------------------------------

    async def _start(self, child: _Child, *, first: bool = False) -> ChildLife:
        """Give the child a life and wait until it started, ended, or the whole supervisor is asked to stop."""
        life = ChildLife(child.spec, on_end=self._note_end, report=self._report, raised_unless_started=first)
        child.life, child.restart_at = life, math.inf
        self.starting = life
        self._nursery.start_soon(life.guard, name=f"{self.name}/{child.spec.name}")
        try:
            await life.settled.wait()
        finally:
            self.starting = None
        if life.failed_to_start:
            child.life = None  # whoever started it deals with the failure, nobody else has to
        return life

    def _note_end(self, life: ChildLife) -> None:
        if not self.inbox.closed:
            self.inbox.put_nowait(Ended(life))
