"""What cancel requests leave in Redis where their caller, or the answer to a saga's end, is lost on the way."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dotmac.tasks.errors import StorageUnavailable
from dotmac.tasks.storage.records import SagaMeta
from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import COMPLETED, LONG, entry, put_saga
from support.proxy import Fault, FaultProxy
from support.servers import Server

pytestmark = pytest.mark.redis
DAY = 86_400.0


async def asked_to_cancel(storage: RedisStorage) -> SagaMeta:
    meta = await put_saga(storage, owner="w1")
    await storage.request_cancel(meta.saga_id, "why")
    assert (await storage.renew_worker("w1", LONG)).cancels == [meta.saga_id]
    return meta


async def test_a_notice_that_nobody_took_away_goes_by_its_age(server: Server) -> None:
    prefix = f"test-{uuid4().hex[:8]}"
    notices = f"{{{prefix}:w}}:cancels:w1"
    async with FaultProxy((server.host, server.port)) as proxy:
        storage = RedisStorage(proxy.url, prefix, partitions=1, socket_timeout=0.3)
        async with storage.opened():
            await storage.register_worker("w1", LONG, {})
            await storage.append(entry(await asked_to_cancel(storage), COMPLETED))  # with it, all scripts are known
            assert (await storage.renew_worker("w1", LONG)).cancels == []

            meta = await asked_to_cancel(storage)
            last = entry(meta, COMPLETED)
            proxy.script(Fault.NONE, Fault.STALL_REQUEST)
            with pytest.raises(StorageUnavailable):  # it has ended, and the notice should go with the next command
                await storage.append(last)
            await storage.append(last)  # which does not know any more that there is one
            assert (await storage.renew_worker("w1", LONG)).cancels == [meta.saga_id]

            assert 0 < server.cli("PTTL", notices) <= DAY * 1000
            server.cli("ZADD", notices, int((storage.now() - DAY - 60) * 1_000_000), meta.saga_id)
            assert (await storage.renew_worker("w1", LONG)).cancels == []
            assert server.cli("EXISTS", notices) == 0
