"""Live events: a saga's history as it grows, and what a process does; both can be resumed."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from dotmac.tasks import MemoryStorage, StorageUnavailable
from dotmac.tasks.metrics import emit
from dotmac.tasks.service.api import events
from dotmac.tasks.service.feed import KEPT, Feed
from dotmac.tasks.storage.records import SagaRecord
from service.house import PARKS, PATIENCE, House, problem, step

HEADERS = [(b"host", b"localhost")]


class Listener:
    """Somebody who reads a stream event by event, which the test client cannot."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[dict[str, Any]](math.inf)
        self.hang_up = trio.Event()
        self._text = ""

    async def listen(self, service: House, path: str, last: str | None) -> None:
        headers = HEADERS if last is None else [*HEADERS, (b"last-event-id", last.encode())]
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": headers, "scheme": "http", "server": ("localhost", 80), "root_path": "",
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            await self.hang_up.wait()
            return {"type": "http.disconnect"}

        async with self._send:
            await service.app(scope, receive, self._send.send)  # type: ignore[arg-type]

    async def event(self) -> dict[str, str]:
        """The next event; an empty one at the end of the stream."""
        with trio.fail_after(PATIENCE):
            while True:
                block, found, rest = self._text.partition("\n\n")
                if not found:
                    try:
                        message = await self._receive.receive()
                    except trio.EndOfChannel:
                        return {}
                    self._text += message.get("body", b"").decode()
                    continue
                self._text = rest
                fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
                if "event" in fields:
                    return fields

    async def named(self, name: str) -> dict[str, str]:
        """The next event of this name."""
        with trio.fail_after(PATIENCE):
            while (event := await self.event()) and event["event"] != name:
                pass
        assert event, f"the stream ended before {name}"
        return event


@asynccontextmanager
async def listening(service: House, path: str, last: str | None = None) -> AsyncIterator[Listener]:
    listener = Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.listen, service, path, last)
        yield listener
        listener.hang_up.set()


async def test_a_saga_is_followed_to_its_end(service: House) -> None:
    saga_id = await service.start(step("a", holds=True), step("b"))
    async with listening(service, f"/v1/sagas/{saga_id}/events") as listener:
        assert (await listener.named("step_started"))["id"].startswith("3-")
        service.goes_on.set()
        completed = await listener.named("step_completed")
        assert json.loads(completed["data"])["step"] == "a"
        assert json.loads((await listener.named("end"))["data"])["status"] == "completed"
        assert await listener.event() == {}


async def test_whoever_comes_again_gets_the_rest(service: House) -> None:
    saga_id = await service.run()
    path = f"/v1/sagas/{saga_id}/events"
    async with listening(service, path) as listener:
        ids = [(await listener.event())["id"] for _ in range(5)]
    async with listening(service, path, ids[2]) as listener:
        assert [(await listener.event())["id"] for _ in range(2)] == ids[3:]
    over = await service.client.get(path, headers={"Last-Event-ID": ids[4]})
    assert (over.status_code, over.content) == (204, b"")
    for unknown in ("", "x", "-1", "3", "0-1", "9" * 30, f"{'9' * 11}-{'9' * 16}"):
        answer = await service.client.get(path, headers={"Last-Event-ID": unknown})
        assert answer.text.count("event: saga_created") == 1
    assert (await service.client.head(path)).content == b""


async def test_a_stream_reads_each_entry_once(service: House, monkeypatch: pytest.MonkeyPatch) -> None:
    saga_id = await service.start(step("a", holds=True))
    load, read = service.manager.storage.load_saga, list[SagaRecord]()

    async def counted(*args: Any) -> Any:
        record = await load(*args)
        assert record is not None
        read.append(record)
        return record

    monkeypatch.setattr(service.manager.storage, "load_saga", counted)
    async with listening(service, f"/v1/sagas/{saga_id}/events") as listener:
        await listener.named("step_started")
        await service.manager.add_saga_note(saga_id, "looked_at", {})
        await listener.named("looked_at")
        service.goes_on.set()
        assert json.loads((await listener.named("end"))["data"])["status"] == "completed"
        streamed = list(read)
    monkeypatch.undo()
    record = await load(saga_id)
    assert record is not None
    assert len(streamed) > 2
    assert [line for part in streamed for line in part.journal] == record.journal
    assert [line for part in streamed for line in part.notes] == record.notes


async def replaced(service: House, saga_id: str) -> None:
    """Other entries stand where the saga's entries stood, as after a fail-over that lost some."""
    storage = service.manager.storage
    assert isinstance(storage, MemoryStorage)
    saga = storage._sagas[saga_id]
    last = saga.journal[-1]
    at = last.at + 0.001
    saga.journal[-1] = replace(last, entry_id="another", at=at)
    saga.meta = replace(saga.meta, updated_at=at)


async def test_a_history_that_was_replaced_is_streamed_again_from_its_start(service: House) -> None:
    saga_id = await service.start(step("a", holds=True))
    path = f"/v1/sagas/{saga_id}/events"
    async with listening(service, path) as listener:
        started = await listener.named("step_started")
        await replaced(service, saga_id)
        assert json.loads((await listener.named("restarted"))["data"]) == {"saga_id": saga_id}
        assert (await listener.event())["event"] == "saga_created"
        again = await listener.named("step_started")
        assert (again["data"] == started["data"], again["id"] == started["id"]) == (False, False)
    async with listening(service, path, started["id"]) as listener:
        assert [(await listener.event())["event"] for _ in range(2)] == ["restarted", "saga_created"]


async def test_a_history_that_became_shorter_is_streamed_again_from_its_start(service: House) -> None:
    saga_id = await service.start(step("a"), step("b", holds=True))
    storage = service.manager.storage
    assert isinstance(storage, MemoryStorage)
    async with listening(service, f"/v1/sagas/{saga_id}/events") as listener:
        await listener.named("step_completed")
        saga = storage._sagas[saga_id]
        del saga.journal[1:]
        saga.meta = replace(saga.meta, length=1)
        await listener.named("restarted")
        assert (await listener.event())["event"] == "saga_created"


async def test_a_journal_that_becomes_unreadable_ends_the_stream_with_its_problem(service: House) -> None:
    saga_id = await service.start(step("a", holds=True))
    storage = service.manager.storage
    assert isinstance(storage, MemoryStorage)
    async with listening(service, f"/v1/sagas/{saga_id}/events") as listener:
        await listener.named("step_started")
        saga = storage._sagas[saga_id]
        saga.journal.append(replace(saga.journal[-1], sequence=len(saga.journal), events=b'[{"e":"from_the_future"}]'))
        saga.meta = replace(saga.meta, length=len(saga.journal))
        told = json.loads((await listener.named("problem"))["data"])
        assert "cannot be read" in told["detail"]
        assert await listener.event() == {}


async def test_a_parked_saga_may_go_on_so_its_stream_does(service: House) -> None:
    saga_id = await service.run(*PARKS)
    async with listening(service, f"/v1/sagas/{saga_id}/events") as listener:
        await listener.named("saga_parked")
        service.mended = True
        await service.client.post(f"/v1/sagas/{saga_id}/retry")
        await listener.named("operator_retry")
        await listener.named("end")


async def test_a_storage_that_goes_away_is_told_and_ends_the_stream(
    service: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = await service.start(step("a", holds=True))

    async def away(*_arguments: Any) -> None:
        raise StorageUnavailable("nobody answers")

    async with listening(service, f"/v1/sagas/{saga_id}/events") as listener:
        await listener.named("step_started")
        with monkeypatch.context() as patch:
            patch.setattr(service.manager.storage, "load_saga", away)
            told = json.loads((await listener.named("problem"))["data"])
            assert (told["status"], told["detail"]) == (503, "nobody answers")
            assert await listener.event() == {}


async def test_streams_end_with_the_service(service: House) -> None:
    saga_id = await service.start(step("a", holds=True))
    async with (
        listening(service, f"/v1/sagas/{saga_id}/events") as one,
        listening(service, "/v1/events") as all_of_them,
    ):
        await one.named("step_started")
        await all_of_them.named("counts")
        service.app.state.closing.set()
        while await one.event():
            pass
        while await all_of_them.event():
            pass


async def test_everything_that_a_process_does_is_told(service: House) -> None:
    async with listening(service, "/v1/events") as listener:
        counts = json.loads((await listener.named("counts"))["data"])
        assert counts["completed"] == 0
        saga_id = await service.run(step("a", result={"secret": "s3cret"}))
        created = await listener.named("saga_created")
        assert json.loads(created["data"]) == {
            "subject": "order", "tenant_id": "acme", "saga_id": saga_id, "status": "pending",
        }  # fmt: skip
        completed = await listener.named("saga_step_completed")
        assert "s3cret" not in completed["data"]
    await service.run()
    async with listening(service, "/v1/events", created["id"]) as listener:
        assert int((await listener.event())["id"].partition("-")[2]) == int(created["id"].partition("-")[2]) + 1
    async with listening(service, "/v1/events", "00000000-1") as listener:
        assert (await listener.event())["event"] == "counts"


async def test_whoever_was_away_for_too_long_is_told_so(service: House) -> None:
    async with listening(service, "/v1/events") as listener:
        await listener.named("counts")
        await service.run()
        first = await listener.named("saga_created")
    for _ in range(KEPT):
        emit("saga_created", "order", "acme", saga_id="x", status="pending")
    async with listening(service, "/v1/events", first["id"]) as listener:
        missed = await listener.event()
        assert missed["event"] == "missed"
        assert json.loads(missed["data"])["events"] > 0


def test_a_feed_keeps_the_newest_only() -> None:
    feed = Feed()
    for number in range(KEPT + 10):
        feed.take("saga_created", "order", "acme", {"saga_id": str(number)})
    assert feed.number == KEPT + 10
    assert [happening.number for happening in feed.since(0)] == list(range(11, KEPT + 11))
    assert [happening.number for happening in feed.since(KEPT + 8)] == [KEPT + 9, KEPT + 10]
    assert feed.since(KEPT + 10) == []


async def test_what_is_not_there_has_no_events(service: House) -> None:
    problem(await service.client.get("/v1/sagas/nothing/events"), 404, "saga-not-found")
    problem(await service.client.get("/v1/events?since=1"), 400, "invalid-input")


async def test_streams_of_one_saga_share_their_looks(service: House, monkeypatch: pytest.MonkeyPatch) -> None:
    saga_id = await service.start(step("a", holds=True))
    looks, load = [0], service.manager.storage.load_saga

    async def counted(*args: Any) -> Any:
        looks[0] += 1
        return await load(*args)

    monkeypatch.setattr(service.manager.storage, "load_saga", counted)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(listening(service, f"/v1/sagas/{saga_id}/events")) for _ in range(20)
        ]
        for stream in streams:
            await stream.named("step_started")
        began, before = trio.current_time(), looks[0]
        while looks[0] - before < 2:  # noqa: ASYNC110 - the streams look by themselves
            await trio.sleep(0.02)
        assert trio.current_time() - began >= 0.5  # 20 streams that look by themselves need a tenth of it
        service.goes_on.set()
        for stream in streams:
            await stream.named("end")
    assert looks[0] < 60


async def test_streams_beyond_the_bound_are_refused_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS", 1)
    service = House()
    async with service.manager:
        saga_id = await service.start(step("a", holds=True))
        for path in (f"/v1/sagas/{saga_id}/events", "/v1/events"):
            async with listening(service, path) as stream:
                await stream.event()
                refused = await service.client.get(path)
                problem(refused, 503, "too-many-streams")
                assert int(refused.headers["retry-after"]) >= 1
            async with listening(service, path) as stream:
                assert await stream.event()
        service.goes_on.set()
