"""In a Cluster each command finds its node, through moves of slots and deaths of nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
import trio.testing

from dotmac.tasks.errors import InvalidInput, StorageMisconfigured, StorageRefused, StorageUnavailable
from dotmac.tasks.storage.redis.gateway import RedisClient
from dotmac.tasks.storage.redis.script import Script
from redis_wire.wire_helpers import ECHO, at_rest, client_of, eventually
from support.servers import Cluster, cluster, standalone

pytestmark = pytest.mark.redis
BOTH = Script("both", "return redis.call('MGET', KEYS[1], KEYS[2])")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster(3) as running:
        yield running


def url_of(running: Cluster) -> str:
    return running.url.replace("redis://", "redis+cluster://")


async def test_commands_and_scripts_find_their_nodes(nodes: Cluster, host: str) -> None:
    async with client_of(url_of(nodes), loop_host=host) as client:
        for number in range(100):
            key = f"{{{number}}}k-{host}"
            assert await client.execute("SET", key, number, key=key) == b"OK"
            assert await client.run(ECHO, [f"{{{number}}}runs"], [number]) == str(number).encode()
        sizes = await client.on_every_primary("DBSIZE")
        assert len(sizes) == 3
        assert all(sizes.values())
        await at_rest(client)


async def test_plain_url_with_cluster_setting(nodes: Cluster) -> None:
    async with client_of(nodes.url, cluster=True) as client:
        assert await client.execute("SET", "k", 1, key="k") == b"OK"


async def test_keys_of_several_slots_are_refused(nodes: Cluster) -> None:
    async with client_of(url_of(nodes)) as client:
        with pytest.raises(InvalidInput, match="slots"):
            await client.run(BOTH, ["{a}1", "{b}1"])


async def test_a_server_that_is_no_cluster_says_so() -> None:
    with standalone() as single:
        url = single.url.replace("redis://", "redis+cluster://")
        async with client_of(url, socket_timeout=0.5) as client:
            with pytest.raises(StorageUnavailable, match="cluster support disabled"):
                await client.on_every_primary("DBSIZE")


async def test_client_that_was_not_told_says_what_to_set(nodes: Cluster) -> None:
    mine = nodes.primaries[0]
    async with client_of(mine.url) as client:
        foreign = next(f"k{number}" for number in range(100) if nodes.owner_of(nodes.slot_of(f"k{number}")) is not mine)
        with pytest.raises(StorageMisconfigured, match="cluster=True"):
            await client.execute("SET", foreign, 1)


async def test_slot_under_migration_is_asked_for(nodes: Cluster, host: str) -> None:
    tag = f"{{ask-{host}}}"
    slot = nodes.slot_of(tag)
    async with client_of(url_of(nodes), loop_host=host) as client:
        for number in range(4):
            await client.execute("SET", f"{tag}{number}", number, key=tag)
        migration = nodes.begin_migration(slot, nodes.other_than(nodes.owner_of(slot)))
        migration.move(2)
        for number in range(4):
            assert await client.execute("GET", f"{tag}{number}", key=tag) == str(number).encode()
        fresh = Script("fresh", f"-- {host}, unknown everywhere\nreturn redis.call('INCR', KEYS[1])")
        assert await client.run(fresh, [f"{tag}new"]) == 1  # not there yet: ASK, and NOSCRIPT at the other node
        assert await client.run(fresh, [f"{tag}new"]) == 2
        while migration.move(10):
            pass
        migration.finish()
        for number in range(4):
            assert await client.execute("GET", f"{tag}{number}", key=tag) == str(number).encode()


async def test_keys_on_both_sides_are_waited_for(nodes: Cluster, host: str) -> None:
    tag = f"{{again-{host}}}"
    slot = nodes.slot_of(tag)
    async with client_of(url_of(nodes), loop_host=host, socket_timeout=60) as client:
        for number in range(2):
            await client.execute("SET", f"{tag}{number}", number, key=tag)
        await client.run(BOTH, [f"{tag}0", f"{tag}1"])
        migration = nodes.begin_migration(slot, nodes.other_than(nodes.owner_of(slot)))
        migration.move(1)
        command = ("MGET", f"{tag}0", f"{tag}1")
        with pytest.raises(StorageRefused, match="moving"):
            await client.execute(*command, key=tag, timeout=0.3)
        replies: list[object] = []

        async def read() -> None:
            replies.append(await client.execute(*command, key=tag))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            migration.move(10)
            migration.finish()
        assert replies == [[b"0", b"1"]]


class Counting:
    """Callers that each count their turns under a key of their own, through one script."""

    def __init__(self, client: RedisClient, tag: str) -> None:
        self.client = client
        self.tag = tag
        self.turns = 0
        self.over = False

    async def caller(self, name: int) -> None:
        turn = 0
        while not self.over:
            turn += 1
            said = f"{name}-{turn}"
            keys = [f"{{{self.tag}{name % 4}}}{name}"]
            assert await self.client.run(ECHO, keys, [said], timeout=60) == said.encode()
            self.turns += 1

    async def more(self, turns: int) -> None:
        goal = self.turns + turns
        await eventually(lambda: self.turns >= goal, 60)


async def test_migration_under_load_mixes_nothing(nodes: Cluster, host: str) -> None:
    async with client_of(url_of(nodes), loop_host=host) as client, trio.open_nursery() as nursery:
        load = Counting(client, f"load-{host}")
        for name in range(40):
            nursery.start_soon(load.caller, name)
        await load.more(400)
        for part in range(4):
            slot = nodes.slot_of(f"{{load-{host}{part}}}")
            target = nodes.other_than(nodes.owner_of(slot))
            await trio.to_thread.run_sync(nodes.migrate, slot, target)
            await load.more(200)
        load.over = True


async def test_dead_primary_is_replaced_under_load(host: str) -> None:
    with cluster(3, replicas=1) as running:
        async with client_of(url_of(running), loop_host=host, socket_timeout=60) as client:
            async with client.watch("news") as watch, trio.open_nursery() as nursery:
                load = Counting(client, "dead")
                for name in range(40):
                    nursery.start_soon(load.caller, name)
                await load.more(400)
                running.primaries[0].kill()
                await load.more(2000)
                for number in range(20):
                    await client.execute("SET", f"{{{number}}}", 1, key=f"{{{number}}}")
                heard = False
                with trio.fail_after(60):
                    while not heard:  # the node of the subscription may be the dead one: it moves to another
                        await client.execute("PUBLISH", "news", "x")
                        with trio.move_on_after(0.1):
                            await watch.wait()
                            heard = True
                load.over = True
            assert len(await client.on_every_primary("PING")) == 3
            await at_rest(client)
