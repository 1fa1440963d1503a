"""Readings of a saga from a position, where the sagas lie on several nodes."""

from __future__ import annotations

import pytest

from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import entry, head, put_saga, whole
from support.servers import cluster

pytestmark = pytest.mark.redis


async def test_sagas_of_all_nodes_of_a_cluster_are_read_from_a_position() -> None:
    with cluster(3) as nodes:
        storage = RedisStorage(nodes.url.replace("redis://", "redis+cluster://"), partitions=5)
        async with storage.opened():
            for _ in range(10):
                saga_id = (await put_saga(storage, owner="w1")).saga_id
                mark = (await whole(storage, saga_id)).mark
                await storage.append(entry(await head(storage, saga_id), events=b'["%s"]' % (b"x" * 300_000)))
                await storage.append_saga_history(saga_id, {"event": "note"})
                record, everything = await storage.load_saga(saga_id, mark), await whole(storage, saga_id)
                assert record is not None
                assert (record.journal, record.notes) == (everything.journal[1:], everything.notes)
                assert (record.after, record.mark) == (mark, everything.mark)
