"""What the actor kernel costs, beside a bare trio memory channel in the same run.

Prints messages per second through `tell`, asks per second, spawns with exit per second, and bytes per idle actor.
The best of several rounds is printed: what disturbs a round only ever makes it slower.
"""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from dotmac.tasks.actors import ActorRef, Inbox, Supervisor

ROUNDS = 3
MESSAGES = 50_000
ASKS = 20_000
SPAWNS = 10_000
IDLE = 5_000
CAPACITY = 100


async def best(work: Callable[[], Awaitable[None]], count: int) -> float:
    fastest = math.inf
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        await work()
        fastest = min(fastest, time.perf_counter() - begin)
    return count / fastest


async def tell() -> None:
    inbox = Inbox[int](CAPACITY)
    ref = ActorRef(inbox)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, inbox.get)
        for number in range(MESSAGES):
            await ref.tell(number)


async def take(get: Callable[[], Awaitable[int]]) -> None:
    while await get() < MESSAGES - 1:
        pass


async def channel_send() -> None:
    send, receive = trio.open_memory_channel[int](CAPACITY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, receive.receive)
        for number in range(MESSAGES):
            await send.send(number)


async def ask() -> None:
    inbox = Inbox[Any](CAPACITY)
    ref = ActorRef(inbox)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, inbox)
        for number in range(ASKS):
            await ref.ask(number, timeout=math.inf)
        nursery.cancel_scope.cancel()


async def answer(inbox: Inbox[Any]) -> None:
    with inbox:
        while True:
            question = await inbox.get()
            question.reply.send(question.request)


async def channel_ask() -> None:
    """Ask the usual way: a channel made for the one answer, sent along with the question."""
    send, receive = trio.open_memory_channel[tuple[int, trio.MemorySendChannel[int]]](CAPACITY)

    async def serve() -> None:
        async for number, reply in receive:
            reply.send_nowait(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        for number in range(ASKS):
            reply, answered = trio.open_memory_channel[int](1)
            with trio.fail_after(60):
                await send.send((number, reply))
                await answered.receive()
        nursery.cancel_scope.cancel()


async def spawn() -> None:
    supervisor = Supervisor("bench")
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        for _ in range(SPAWNS):
            supervisor.spawn("child", trio.lowlevel.checkpoint)
        await wait_all_tasks_blocked()
        await supervisor.stop()


async def start_soon() -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(SPAWNS):
            nursery.start_soon(trio.lowlevel.checkpoint)


async def idle_actors() -> tuple[float, float]:
    """Return the bytes of one idle inbox, and of one idle actor with its task."""
    supervisor = Supervisor("bench")
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        tracemalloc.start()
        inboxes = [Inbox[int](CAPACITY) for _ in range(IDLE)]
        for_inbox = tracemalloc.get_traced_memory()[0]
        for inbox in inboxes:
            supervisor.spawn("idle", inbox.get)
        await wait_all_tasks_blocked()
        for_actor = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
    return for_inbox / IDLE, for_actor / IDLE


async def idle_channels() -> tuple[float, float]:
    async with trio.open_nursery() as nursery:
        tracemalloc.start()
        channels = [trio.open_memory_channel[int](CAPACITY) for _ in range(IDLE)]
        for_channel = tracemalloc.get_traced_memory()[0]
        for _, receive in channels:
            nursery.start_soon(receive.receive)
        await wait_all_tasks_blocked()
        for_actor = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
        for send, receive in channels:
            send.close()
            receive.close()
    return for_channel / IDLE, for_actor / IDLE


async def main() -> None:
    print(f"{'':34}{'actors':>12}{'bare trio':>12}")
    for title, ours, bare, count in (
        ("tell (memory channel), messages/s", tell, channel_send, MESSAGES),
        ("ask (a channel per answer), asks/s", ask, channel_ask, ASKS),
        ("spawn (start_soon), with exit, /s", spawn, start_soon, SPAWNS),
    ):
        print(f"{title:34}{await best(ours, count):12,.0f}{await best(bare, count):12,.0f}")
    inbox, actor = await idle_actors()
    channel, task = await idle_channels()
    print(f"{'bytes, an inbox that nobody reads':34}{inbox:12,.0f}{channel:12,.0f}")
    print(f"{'bytes, an idle actor with its task':34}{actor:12,.0f}{task:12,.0f}")


if __name__ == "__main__":
    trio.run(main)
