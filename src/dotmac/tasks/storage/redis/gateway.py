"""The client that trio code uses: commands and scripts on a Redis deployment, many callers on few connections.

What costs time in a client is not the network but the work per command, so a command here is: pack it in C, stand
in a queue, sleep, be woken with the reply. Everything else (connections, time-outs, redirections) happens per
batch, per connection, or only when something goes wrong.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import trio

from dotmac.tasks.errors import DotmacTasksError, StorageUnavailable

from .calls import Call
from .commands import Argument, as_bytes, name_of, pack_arguments, pack_checked
from .deployment import Deployment
from .link import Link
from .options import RedisOptions
from .pubsub import Subscriptions, Watch
from .replies import ErrorReply, Remedy, as_error, remedy_for
from .script import Script, common_slot
from .status import LinkStatus
from .topology import Topology

_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25
_REFUSING = {Remedy.WAIT, Remedy.MASTER}


class RedisClient:
    """Commands, scripts and messages of one Redis deployment. Made by `open_client`.

    Every method that asks the server takes `timeout`: seconds until it raises, whatever it is waiting for at that
    moment; without it the `socket_timeout` of the options. They all raise:

    - StorageUnavailable: no answer in time, or the connection was lost and the command is not safe to repeat. It
      may or may not have been carried out.
    - StorageRefused: the server said that it will not do this now. It was not carried out.
    - StorageMisconfigured: credentials, permissions or topology are wrong. It was not carried out.
    - InternalError: the server rejects the command itself, which only a bug of ours can cause.

    A cancelled call may or may not be carried out; its reply is dropped.
    """

    def __init__(self, options: RedisOptions, topology: Topology, subscriptions: Subscriptions) -> None:
        self._options = options
        self._timeout = options.socket_timeout
        self._topology = topology
        self._subscriptions = subscriptions

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over nodes, so that what looks through all keys must ask each of them."""
        return self._options.topology == "cluster"

    async def execute(
        self,
        *command: Argument,
        key: bytes | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a scope per call is what this module avoids
        repeatable: bool = False,
    ) -> Any:
        """Sends one command and returns its reply: bytes, int, float, bool, None, or lists and dicts of these.

        Args:
            command: The command and its arguments, each one item.
            key: The key that decides which node of a Cluster gets it; without one, any node.
            timeout: Seconds until it raises.
            repeatable: Whether the command may be carried out twice without harm; then it is sent again when the
                connection was lost before the reply came.

        Raises:
            InvalidInput: The command is empty, has an argument that is not bytes, text or a number, or is one that
                a shared connection cannot carry (transactions, subscriptions, blocking reads).
        """
        slot = 0 if key is None else common_slot((key,))
        call = Call(
            pack_checked(command), name_of(command), slot, self._timeout if timeout is None else timeout, repeatable
        )
        link = self._topology.route(call)
        reply = await link.ask(call)
        if reply.__class__ is ErrorReply:
            return await self._insist(call, link, reply)
        return reply

    async def run(  # noqa: PLR0913 - how to send it, all by keyword
        self,
        script: Script,
        keys: Sequence[bytes | str] = (),
        args: Sequence[Argument] = (),
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        repeatable: bool = True,
        durable: bool = True,
        slot: int | None = None,
    ) -> Any:
        """Runs a script on the node that has its keys; loads it there first where it is missing.

        Args:
            script: What to run.
            keys: All keys it touches; in one hash slot.
            args: Its ARGV.
            timeout: Seconds until it raises.
            repeatable: Whether it may run twice without harm.
            durable: Whether it writes, so that its reply counts only when the options' barrier holds.
            slot: The hash slot of its keys, where the caller made them and knows it.

        Raises:
            InvalidInput: The keys lie in different slots, or an argument is not bytes, text or a number.
        """
        if slot is None:
            slot = common_slot(keys)
        packed = pack_arguments((b"EVALSHA", script.sha, len(keys), *keys, *args))
        call = Call(packed, script.name, slot, self._timeout if timeout is None else timeout, repeatable)
        call.loader = script.loader
        call.durable = durable
        link = self._topology.route(call)
        reply = await link.ask(call)
        if reply.__class__ is ErrorReply:
            return await self._insist(call, link, reply)
        if durable and link.breaker.refused_since is not None:
            link.breaker.served()
        return reply

    async def on_every_primary(
        self,
        *command: Argument,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        repeatable: bool = False,
    ) -> dict[str, Any]:
        """Sends one command to every node that takes writes, and returns the replies by the nodes' names.

        Raises:
            DotmacTasksError: The first failure, as `execute` raises it. Other nodes may have carried it out.
        """
        packed, what = pack_checked(command), name_of(command)
        limit = self._timeout if timeout is None else timeout
        deadline = trio.current_time() + limit
        replies: dict[str, Any] = {}
        failures: list[DotmacTasksError] = []

        async def ask(link: Link) -> None:
            call = Call(packed, what, None, limit, repeatable)
            call.deadline = deadline
            try:
                reply = await link.ask(call)
                if reply.__class__ is ErrorReply:
                    reply = await self._insist(call, link, reply, pinned=True)
                replies[str(link.name)] = reply
            except DotmacTasksError as failure:
                failures.append(failure)

        links = await self._topology.primaries(limit)
        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(ask, link)
        if failures:
            raise failures[0]
        return replies

    def watch(self, channel: bytes | str) -> Watch:
        """Listens for messages on a channel: ``async with client.watch(b"news") as watch: await watch.wait()``.

        Messages wake up, nothing more: see `Watch`.
        """
        return self._subscriptions.watch(as_bytes(channel))

    def status(self) -> list[LinkStatus]:
        """Tells how each node's link is doing, at this moment and without asking the server."""
        return [link.status() for link in self._topology.links]

    # --- a call and its obstacles ---------------------------------------------------------------------------

    async def _insist(self, call: Call, link: Link, error: ErrorReply, *, pinned: bool = False) -> Any:
        """Tries again, in the call's time, as long as there is something that can help."""
        attempt = 0
        while True:
            pause = self._mend(call, error, link, attempt)
            if trio.current_time() + pause >= call.deadline:
                _out_of_time(error, link, call)
            if pause:
                await trio.sleep(pause)
            attempt += 1
            if not pinned:
                link = self._topology.route(call)
            try:
                reply = await link.ask(call)
            except StorageUnavailable as failure:
                # Why it had to be tried again says more than that the last try got no answer.
                raise StorageUnavailable(f"{failure}; before that, it said: {error}") from failure
            if reply.__class__ is not ErrorReply:
                if call.durable:
                    link.breaker.served()
                return reply
            # Where a preface was refused, its error is the reason of the one that followed.
            error, call.refused = call.refused or reply, None

    def _mend(self, call: Call, error: ErrorReply, link: Link, attempt: int) -> float:
        """Does what can make the next try succeed; returns the seconds to wait before it, or raises."""
        pause: float = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        remedy = remedy_for(error)
        if remedy in _REFUSING and link.breaker.refused(error) and not link.waits(call, trio.lowlevel.current_task()):
            _give_up(error, link, call)
        if remedy is Remedy.NONE or (remedy is Remedy.LOAD and call.loader is None):
            _give_up(error, link, call)
        if remedy is Remedy.LOAD and call.loader is not None:
            call.prefaces = (call.loader, *(packed for packed in call.prefaces if packed != call.loader))
            return pause if attempt > 2 else 0.0  # noqa: PLR2004 - flushed again at once: somebody does it in a loop
        if remedy in {Remedy.MOVED, Remedy.ASK}:
            if not self._topology.redirect(call, error, link):
                _give_up(error, link, call)
            return pause if attempt > 2 else 0.0  # noqa: PLR2004 - two nodes that send us to each other
        if remedy is Remedy.MASTER:
            self._topology.doubt(call, link)
        call.target, call.prefaces = None, ()
        return pause


def _out_of_time(error: ErrorReply, link: Link, call: Call) -> NoReturn:
    """Raises what it means that the last reply was this error and no time is left to mend it."""
    remedy = remedy_for(error)
    if remedy in {Remedy.MOVED, Remedy.ASK}:  # in a Cluster: elsewhere they are no remedy
        reason = f"the Cluster's nodes do not agree who serves its keys ({error})"
    elif remedy is Remedy.LOAD:
        # The server was restarted or its scripts were flushed, late in the call's time or again and again.
        reason = f"it does not have the script, and no time was left to load it ({error})"
    else:
        raise as_error(error, link.name, call.what)
    raise StorageUnavailable(f"{link.name} did not answer {call.what} within {call.timeout:g} s: {reason}")


def _give_up(error: ErrorReply, link: Link, call: Call) -> NoReturn:
    raise as_error(error, link.name, call.what)


@asynccontextmanager
async def open_client(options: RedisOptions) -> AsyncIterator[RedisClient]:
    """Opens the gateway to a Redis deployment for the time of a context.

    Entering does not wait for a connection: it is made in the background, and the first call waits for it.
    The body may be cancelled from outside and still use the client while it cleans up in a shielded scope: the
    connections live until the body has ended. When the context ends, calls that are still waiting in other tasks
    raise StorageUnavailable, and no task and no connection is left.

    Raises:
        StorageMisconfigured: The chosen host of the asyncio loop does not exist here.
        InternalError: The gateway itself broke, which ends the body.
    """
    deployment = Deployment(options)
    failure: BaseException
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deployment.run)
            try:
                yield RedisClient(options, deployment.topology, deployment.subscriptions)
            finally:
                deployment.close()
        return
    except BaseExceptionGroup as group:
        # The nursery's own wrapping is of no use to the body, whose exceptions should pass as they were raised; and
        # if the gateway broke, that is what happened, and what the body made of it a consequence.
        failure = group.exceptions[0] if len(group.exceptions) == 1 else group
        if deployment.failure is not None and failure is group:
            failure = deployment.failure
            failure.__cause__ = group.split(lambda error: error is deployment.failure)[1]
    try:
        raise failure
    finally:
        del failure
