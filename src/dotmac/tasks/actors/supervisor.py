"""A supervisor: starts its children in order, restarts those that fail, and stops them in reverse order.

This is what others hold and call; each run of it is a `Supervision`, which does the work. A supervisor that is itself
a child and restarted gets a new run, and with it starts from its first children.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import trio

from dotmac.tasks.actors.child import ChildSpec, Restart, current_child
from dotmac.tasks.actors.failures import Report, log_failure
from dotmac.tasks.actors.policy import RestartPolicy
from dotmac.tasks.actors.spawned import OnExit
from dotmac.tasks.actors.supervision import StartChild, StopChild, Supervision
from dotmac.tasks.errors import InvalidInput, UsageError


class Supervisor:
    """Runs children and keeps them running. See the module's text for how, `run` for the promises.

    Args:
        name: Names it in errors and in reports.
        children: Started in this order by `run`.
        policy: Whom to restart, how often, after what wait.
        spawned_shutdown_seconds: How long spawned children may take to heed `stopping` before they are cancelled.
        report: Called once with the name and the error of each child that failed, whatever follows from it, but for
            one that fails before it had started in the first start of all, which `run` raises. It must neither raise
            nor block. The default logs to ``dotmac.tasks.actors``.

    Raises:
        InvalidInput: Two children have the same name.
    """

    def __init__(
        self,
        name: str,
        children: Sequence[ChildSpec] = (),
        *,
        policy: RestartPolicy | None = None,
        spawned_shutdown_seconds: float = 5.0,
        report: Report = log_failure,
    ) -> None:
        names = [spec.name for spec in children]
        if len(set(names)) < len(names):
            raise InvalidInput("children", f"names must be unique, got {', '.join(names)}")
        self.name = name
        self._specs = tuple(children)
        self._policy = policy if policy is not None else RestartPolicy()
        self._spawned_shutdown_seconds = spawned_shutdown_seconds
        self._report: Report = lambda child, error: report(f"{name}/{child}", error)
        self._supervision: Supervision | None = None  # the present run, or the last one

    @property
    def stopping(self) -> trio.Event:
        """Set when this run is politely asked to stop: what spawned children wait for."""
        return self._present().stopping

    @property
    def child_names(self) -> tuple[str, ...]:
        """The names of the children, in order of start; of those too that wait for their restart."""
        return tuple(self._present().children)

    async def run(self, *, task_status: trio.TaskStatus[Supervisor] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the children, keep them running until the stop, and stop them in reverse order.

        Returns after `request_stop` or `stop`. However it ends, no task of it is left behind. When cancelled, all
        children are cancelled at once.

        Args:
            task_status: ``started(supervisor)`` is called when all children have started.

        Raises:
            RestartsExceeded: The intensity was exceeded; the other children were stopped in order. The last failure
                is the ``__cause__`` (None where the child had just returned), in a group with the failures of those
                who failed while they were stopped.
            Exception: A child failed before it had started, in the first start of all; those before it were stopped.
            ExceptionGroup: Children failed while they were being stopped.
            UsageError: It is running already.
        """
        await self._begin().serve(self._specs, lambda: task_status.started(self))

    def child_spec(self, restart: Restart = Restart.PERMANENT, shutdown_seconds: float = math.inf) -> ChildSpec:
        """Return the spec that makes this supervisor a child of another; by default its children set the pace."""
        return ChildSpec(self.name, self._run_as_child, restart, shutdown_seconds, handshake=True)

    def request_stop(self) -> None:
        """Ask for the orderly stop, and return at once. Asking again does nothing.

        Raises:
            UsageError: The supervisor has not been run.
        """
        self._present().request_stop()

    async def stop(self) -> None:
        """Stop the supervisor in order and wait until it has ended. What it ends with is raised by `run`.

        Raises:
            UsageError: The supervisor has not been run.
        """
        supervision = self._present()
        supervision.request_stop()
        await supervision.ended.wait()

    async def start_child(self, spec: ChildSpec) -> None:
        """Start a child after all the others, and wait until it has started. It is supervised like the first ones.

        Raises:
            UsageError: The name is taken, the supervisor has not been run, or the caller is a child still starting.
            ActorDied: The supervisor is stopping or has ended.
            Exception: The child failed before it had started; it is not kept.

        When cancelled, the child has either not been started or is supervised; `stop_child` tells.
        """
        supervision = self._present()
        if supervision.starting is not None and supervision.starting.is_waiting_here:
            raise UsageError(f"{supervision.starting.spec.name} starts a sibling before it has started: a deadlock")
        await supervision.inbox.ask(StartChild(spec), timeout=math.inf)

    async def stop_child(self, name: str) -> None:
        """Stop a child, politely and then by cancellation at its deadline, and forget it. Its name is free again.

        A child that waits for its restart is simply forgotten.

        Raises:
            UsageError: There is no such child (any more), or the supervisor has not been run.
            ActorDied: The supervisor is stopping or has ended.
            Exception: The child failed while it was being stopped. It has ended all the same.

        When cancelled, the stop is carried out or was not begun.
        """
        await self._present().inbox.ask(StopChild(name), timeout=math.inf)

    def spawn(
        self, name: str, function: Callable[..., Awaitable[object]], *args: object, on_exit: OnExit | None = None
    ) -> None:
        """Start a light child: never restarted, harmless to the others whatever it fails with.

        It should heed `stopping` (`current_child` is not for it); in the orderly shutdown spawned children end before
        any other child is stopped.

        Args:
            name: For reports; need not be unique.
            function: Called with `args` in a task of its own.
            args: The function's arguments.
            on_exit: Called when it has ended, with its failure, the Cancelled that ended it, or None if it returned.
                Without one, a failure goes to the supervisor's report.

        Raises:
            ActorDied: The supervisor is stopping or has ended. Nothing was started, and `on_exit` will not be called.
            UsageError: The supervisor has not been run.
        """
        self._present().spawned.spawn(name, function, args, on_exit)

    def _present(self) -> Supervision:
        if self._supervision is None:
            raise UsageError(f"supervisor {self.name} is not running")
        return self._supervision

    def _begin(self) -> Supervision:
        if self._supervision is not None and not self._supervision.ended.is_set():
            raise UsageError(f"supervisor {self.name} is running already")
        self._supervision = Supervision(
            self.name, self._policy, self._report, spawned_shutdown_seconds=self._spawned_shutdown_seconds
        )
        return self._supervision

    async def _run_as_child(self) -> None:
        life = current_child()
        supervision = self._begin()
        life.on_stop(supervision.request_stop)
        await supervision.serve(self._specs, life.started)
