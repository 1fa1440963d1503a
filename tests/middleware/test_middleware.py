"""What a request under a key meets, message by message, on a clock that jumps and a storage that can fail."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    BackgroundOperationsMiddleware,
    IdempotencyOptions,
    Identity,
    InvalidInput,
    MemoryStorage,
    MiddlewareNotInstalled,
    NotStarted,
    RouteRule,
    declare_no_effect,
    get_idempotency_key,
    metrics,
    set_operation_result,
)
from dotmac.tasks.storage.key_records import ClaimVerdict, NewRecord
from middleware.apps import answer, app_of
from middleware.asgi_client import Client
from runtime.nodes import Node, at_call, lose_reply, refuse, until


class Shop:
    """An app whose orders are counted, behind the middleware."""

    def __init__(self, shared: MemoryStorage, **arguments: Any) -> None:
        self.node = Node(shared, lambda _: None)
        self.orders: list[bytes] = []
        self.entered = 0
        self.hold: trio.Event | None = None
        self.error: Exception | None = None
        self.before_answer: Any = lambda _scope: None
        self.status = 201
        app = BackgroundOperationsMiddleware(app_of(self._order), self.node.manager, **arguments)
        self.client = Client(app)

    async def _order(self, scope: Any, body: bytes, send: Any) -> None:
        self.entered += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.orders.append(body)
        self.before_answer(scope)
        await answer(send, self.status, {"order": len(self.orders)})

    async def __aenter__(self) -> Shop:
        await self.node.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.node.__aexit__(*exc)


def options(**chosen: Any) -> IdempotencyOptions:
    return IdempotencyOptions(**chosen)


# --- who is looked at -------------------------------------------------------------------------------------------


async def test_a_repetition_gets_the_response_and_the_mark(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared) as shop:
        first = await shop.client.post(body=b"one")
        again = await shop.client.post(body=b"one")
    assert (first.status, first.json, first.replayed) == (201, {"order": 1}, False)
    assert (again.status, again.json, again.replayed) == (201, {"order": 1}, True)
    assert shop.orders == [b"one"]


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("/", {"key": None}),
        ("/", {"method": "GET"}),
        ("/", {"method": "PUT"}),
        ("/docs", {}),
        ("/docs/oauth2-redirect", {}),
        ("/app/metrics", {"root_path": "/app"}),
    ],
)
async def test_what_is_passed_on_untouched(
    autojump_clock: MockClock, shared: MemoryStorage, path: str, how: Any
) -> None:
    async with Shop(shared) as shop:
        for turn in (1, 2):
            assert (await shop.client.post(path, **how)).json == {"order": turn}
        assert "claim_record" not in shop.node.wire.calls


async def test_a_path_that_only_begins_like_an_exempt_one_is_protected(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Shop(shared) as shop:
        await shop.client.post("/docsearch")
        assert (await shop.client.post("/docsearch")).replayed


async def test_a_key_that_is_required_and_one_that_is_none(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared, options=options(required=True)) as shop:
        assert (await shop.client.post(key=None)).problem == "key-missing"
        refused = await shop.client.post(key='"secret-key')
        assert (refused.status, refused.problem) == (400, "key-malformed")
        assert b"secret-key" not in refused.body
        assert shop.entered == 0
        assert "claim_record" not in shop.node.wire.calls


async def test_rules_for_paths_change_the_options(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    rules = [RouteRule("PUT /files/**", methods={"PUT"}), RouteRule("/pay/*", required=True)]
    async with Shop(shared, routes=rules) as shop:
        await shop.client.post("/files/a/b", method="PUT")
        assert (await shop.client.post("/files/a/b", method="PUT")).replayed
        assert (await shop.client.post("/pay/1", key=None)).status == 400
        assert (await shop.client.post("/pay", key=None)).status == 201


async def test_own_header_names(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    names = {"idempotency_header": "Custom-Idempotency-Key", "cache_hit_header": "Custom-Cache-Hit"}
    async with Shop(shared, **names) as shop:
        for _ in range(2):
            response = await shop.client.post(key=None, headers=[("Custom-Idempotency-Key", "k")])
        assert response.header("custom-cache-hit") == "true"
        assert len(shop.orders) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"exempt_paths": "/docs"},
        {"exempt_paths": {"docs"}},
        {"idempotency_header": "Not a name"},
        {"cache_hit_header": ""},
    ],
)
def test_arguments_that_make_no_sense_are_named(shared: MemoryStorage, arguments: Any) -> None:
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        Shop(shared, **arguments)


# --- who is who -------------------------------------------------------------------------------------------------


async def test_nobody_gets_another_s_response(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared) as shop:
        await shop.client.post(headers=[("X-User-ID", "ann")])
        for headers in ([("X-User-ID", "bob")], [("Authorization", "Bearer ann")], []):
            assert not (await shop.client.post(headers=headers)).replayed
        assert not (await shop.client.post("/other", headers=[("X-User-ID", "ann")])).replayed
        shop.client.tenant = "umbrella"
        assert not (await shop.client.post(headers=[("X-User-ID", "ann")])).replayed
        shop.client.tenant = "acme"
        renewed = [("X-User-ID", "ann"), ("Authorization", "Bearer renewed")]
        assert (await shop.client.post(headers=renewed)).replayed


async def test_a_callable_says_who_it_is(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async def who(scope: Any) -> Identity | None:
        token = dict(scope["headers"]).get(b"authorization")
        return None if token is None else Identity("acme", token.decode().partition("-")[0])

    async with Shop(shared, identity=who) as shop:
        await shop.client.post(headers=[("Authorization", "ann-1")])
        assert (await shop.client.post(headers=[("Authorization", "ann-2")])).replayed
        assert not (await shop.client.post(headers=[("Authorization", "bob-1")])).replayed
        assert not (await shop.client.post()).replayed


async def test_a_tenant_that_is_none_is_refused(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared) as shop:
        response = await shop.client.post(headers=[("X-Tenant-ID", "second")])
    assert (response.status, response.problem) == (400, "identity-malformed")
    assert shop.entered == 0


# --- what is the same request -----------------------------------------------------------------------------------


async def test_another_request_under_the_key_is_refused_also_while_the_first_runs(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Shop(shared) as shop:
        shop.hold = trio.Event()
        nursery.start_soon(lambda: shop.client.post(body=b"one"))
        await until(lambda: shop.entered)
        for path, body in (("/", b"two"), ("/?a=1", b"one")):
            refused = await shop.client.post(path, body)
            assert (refused.status, refused.problem) == (422, "payload-mismatch")
        shop.hold.set()
        await until(lambda: shop.orders)
        assert (await shop.client.post(body=b"two")).status == 422


async def test_strict_keys_mean_one_path(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared, options=options(strict=True)) as shop:
        await shop.client.post("/a")
        assert (await shop.client.post("/b")).status == 422


async def test_json_is_compared_by_its_meaning_where_it_is_asked_for(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    as_json = [("Content-Type", "application/json; charset=utf-8")]
    async with Shop(shared, options=options(fingerprint="json", ignored_fields=["sent_at"])) as shop:
        await shop.client.post(body=b'{"a": 1, "b": 2, "sent_at": 1}', headers=as_json)
        again = await shop.client.post(body=b'{"b":2,"a":1,"sent_at":2}', headers=as_json)
        assert again.replayed
        assert (await shop.client.post(body=b'{"b":2,"a":2}', headers=as_json)).status == 422


# --- bodies -----------------------------------------------------------------------------------------------------


async def test_a_body_in_many_chunks_arrives_whole_and_large_ones_go_through_a_file(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    chunks = [bytes([number]) * 50_000 for number in range(20)]
    async with Shop(shared) as shop:
        await shop.client.post(body=chunks)
        assert (await shop.client.post(body=b"".join(chunks))).replayed
    assert shop.orders == [b"".join(chunks)]


async def test_a_body_over_the_limit_is_refused_before_anything_is_claimed(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Shop(shared, options=options(body_limit=10)) as shop:
        refused = await shop.client.post(body=[b"123456", b"123456"])
        assert (refused.status, refused.problem) == (413, "body-too-large")
        assert shop.entered == 0
        assert "claim_record" not in shop.node.wire.calls
        assert (await shop.client.post(body=b"1234567890")).status == 201


async def test_a_client_that_hangs_up_in_its_body_leaves_nothing(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Shop(shared) as shop:
        shop.client.hang_up.set()

        messages: list[Any] = [{"type": "http.request", "body": b"half", "more_body": True}]

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"idempotency-key", b"k")]}
        await shop.client.app(scope, receive, send)
        assert (sent, shop.entered) == ([], 0)
        assert "claim_record" not in shop.node.wire.calls


# --- in flight --------------------------------------------------------------------------------------------------


async def test_a_repetition_meanwhile_is_told_to_come_back(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Shop(shared) as shop:
        shop.hold = trio.Event()
        nursery.start_soon(shop.client.post)
        await until(lambda: shop.entered)
        meanwhile = await shop.client.post()
        assert (meanwhile.status, meanwhile.problem) == (409, "in-progress")
        assert 1 <= int(meanwhile.header("retry-after") or 0) <= 5
        shop.hold.set()
        await until(lambda: shop.orders)
        assert (await shop.client.post()).replayed


async def test_a_repetition_meanwhile_waits_where_the_route_says_so(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Shop(shared, options=options(in_flight="wait", wait_seconds=60)) as shop:
        shop.hold = trio.Event()
        nursery.start_soon(shop.client.post)
        await until(lambda: shop.entered)
        nursery.start_soon(_set_later, shop.hold, 20)
        assert (await shop.client.post()).replayed
        assert trio.current_time() == pytest.approx(20, abs=2)
        shop.hold = trio.Event()
        nursery.start_soon(lambda: shop.client.post(key="other"))
        await until(lambda: shop.entered == 2)
        before = trio.current_time()
        assert (await shop.client.post(key="other")).status == 409
        assert trio.current_time() - before == pytest.approx(60, abs=2)
        shop.hold.set()


async def test_a_repetition_that_waits_is_not_run_because_the_storage_is_away(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    """Not even where requests run unprotected then: this one is known to be a second one."""
    waits = options(in_flight="wait", wait_seconds=60, on_storage_error="pass")
    async with Shop(shared) as first, Shop(shared, options=waits) as second:
        first.hold = trio.Event()
        nursery.start_soon(first.client.post)
        await until(lambda: first.entered)

        async def outage() -> None:
            await trio.sleep(10)
            second.node.wire.away = True

        nursery.start_soon(outage)
        answer = await second.client.post()
        second.node.wire.away = False
        assert (answer.status, answer.problem, second.entered) == (409, "in-progress", 0)
        assert answer.header("retry-after")
        first.hold.set()
        await until(lambda: first.orders)


async def _set_later(event: trio.Event, seconds: float) -> None:
    await trio.sleep(seconds)
    event.set()


async def test_a_repetition_meanwhile_is_accepted_where_the_route_says_so(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Shop(shared, options=options(in_flight="accepted")) as shop:
        shop.hold = trio.Event()
        nursery.start_soon(shop.client.post)
        await until(lambda: shop.entered)
        meanwhile = await shop.client.post()
        assert (meanwhile.status, meanwhile.json) == (202, {"status": "in_progress"})
        assert meanwhile.header("retry-after")
        shop.hold.set()


async def test_a_handler_may_take_ten_times_the_lease(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Shop(shared, options=options(lease=3)) as shop, Shop(shared, options=options(lease=3)) as other:
        shop.hold = trio.Event()
        nursery.start_soon(shop.client.post)
        await until(lambda: shop.entered)
        for _ in range(30):
            await trio.sleep(1)
            assert (await other.client.post()).status == 409
        shop.hold.set()
        await until(lambda: shop.orders)
        assert (await other.client.post()).replayed
    assert (len(shop.orders), other.entered) == (1, 0)


# --- how it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 404, 409, 422, 500, 502, 503, 504])
async def test_errors_of_the_handler_are_answers_too(
    autojump_clock: MockClock, shared: MemoryStorage, status: int
) -> None:
    async with Shop(shared) as shop:
        shop.status = status
        await shop.client.post()
        again = await shop.client.post()
        assert (again.status, again.replayed, len(shop.orders)) == (status, True, 1)


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_a_status_that_says_that_nothing_was_done_frees_the_key(
    autojump_clock: MockClock, shared: MemoryStorage, status: int
) -> None:
    async with Shop(shared) as shop:
        shop.status = status
        await shop.client.post()
        shop.status = 201
        assert (await shop.client.post()).json == {"order": 2}


async def test_a_handler_declares_that_nothing_was_done(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared) as shop:
        shop.status, shop.before_answer = 503, declare_no_effect
        assert (await shop.client.post()).status == 503
        shop.status, shop.before_answer = 201, lambda _: None
        assert (await shop.client.post()).json == {"order": 2}


async def test_an_exception_passes_and_is_recorded(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared) as shop:
        shop.error = KeyError("mine")
        with pytest.raises(KeyError, match="mine"):
            await shop.client.post()
        shop.error = None
        again = await shop.client.post()
        assert (again.status, again.problem, again.replayed) == (500, "handler-failed", True)
        assert shop.entered == 1


async def test_an_exception_frees_the_key_where_the_route_says_so(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Shop(shared, options=options(on_exception="release")) as shop:
        shop.error = KeyError("mine")
        with pytest.raises(KeyError):
            await shop.client.post()
        shop.error = None
        assert (await shop.client.post()).json == {"order": 1}


async def test_an_answer_that_breaks_off_is_never_taken_for_one(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def broken(_scope: Any, _body: bytes, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise KeyError("mine")

    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(app_of(broken), node.manager))
        with pytest.raises(KeyError):
            await client.post()
        again = await client.post()
        assert (again.status, again.problem) == (409, "outcome-unknown")


async def test_a_handler_that_is_cut_off_from_outside_leaves_an_unknown_outcome(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Shop(shared) as shop:
        shop.hold = trio.Event()
        with trio.move_on_after(5):
            await shop.client.post()
        again = await shop.client.post()
        assert (again.status, again.problem, shop.entered) == (409, "outcome-unknown", 1)


async def test_a_client_that_hangs_up_has_its_request_carried_out(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def slow(_scope: Any, _body: bytes, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await trio.sleep(1)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(app_of(slow), node.manager))
        client.on_send = lambda message: client.hang_up.set() if "body" in message else None
        await client.post()
        client.hang_up, client.on_send = trio.Event(), lambda _: None
        again = await client.post()
        assert (again.body, again.replayed) == (b"xxxend", True)


async def test_the_record_is_there_before_the_last_byte_is_sent(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Shop(shared) as shop:
        seen: list[tuple[str, bool]] = []

        def look(message: dict[str, Any]) -> None:
            seen.append((message["type"], "complete_record" in shop.node.wire.calls))

        shop.client.on_send = look
        await shop.client.post()
    assert seen == [("http.response.start", False), ("http.response.body", True)]


async def test_a_long_body_is_passed_on_at_once_and_not_kept(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async def long(scope: Any, _body: bytes, send: Any) -> None:
        set_operation_result(scope, {"exported": 3})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/csv")]})
        for _ in range(3):
            await trio.sleep(10)
            await send({"type": "http.response.body", "body": b"x" * 40, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(app_of(long), node.manager, options=options(response_limit=100)))
        times: list[float] = []
        client.on_send = lambda _: times.append(trio.current_time())
        first = await client.post()
        assert [round(time - times[0]) for time in times] == [0, 10, 20, 30, 30]
        again = await client.post()
    assert (len(first.body), again.replayed, again.status) == (120, True, 200)
    assert again.json == {"exported": 3}


async def test_an_event_stream_hears_that_its_client_is_gone(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    ended = trio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        assert (await receive())["type"] == "http.disconnect"
        ended.set()
        await send({"type": "http.response.body", "body": b"bye"})

    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(stream, node.manager))
        client.hang_up.set()
        await client.post()
        assert ended.is_set()


# --- the storage fails ------------------------------------------------------------------------------------------


async def test_without_its_storage_a_request_runs_unprotected_and_marked(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    unregister = metrics.register_metrics_hooks(http_storage_failed_hook=lambda *args: told.append(args))
    try:
        async with Shop(shared) as shop:
            shop.node.wire.fault = refuse
            response = await shop.client.post()
            shop.node.wire.fault = None
            assert (response.status, response.header("idempotency-degraded")) == (201, "storage-unavailable")
            assert not (await shop.client.post()).replayed
    finally:
        unregister()
    assert "runs unprotected" in caplog.text
    assert told[0][:2] == ("POST", "acme")
    assert told[0][2]["passed"] is True


async def test_without_its_storage_a_request_is_refused_where_the_route_says_so(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Shop(shared, options=options(on_storage_error="reject")) as shop:
        shop.node.wire.fault = refuse
        refused = await shop.client.post()
        shop.node.wire.fault = None
    assert (refused.status, refused.problem, shop.entered) == (503, "storage-unavailable", 0)
    assert refused.header("retry-after")


async def test_a_runtime_that_cannot_be_started_is_not_waited_for_for_ever(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def hang(_wire: Any, _verb: str, _call: Any) -> Any:
        await trio.sleep_forever()

    shop = Shop(shared)
    shop.node.wire.fault = hang
    response = await shop.client.post()
    assert (response.status, response.header("idempotency-degraded")) == (201, "storage-unavailable")
    assert trio.current_time() < 10
    shop.node.wire.fault = None
    assert (await shop.client.post()).header("idempotency-degraded") == "storage-unavailable"  # fails at once
    await trio.sleep(1)
    assert (await shop.client.post()).header("idempotency-degraded") is None  # started by the request, as it should be
    await shop.node.manager.stop()


async def test_an_ending_that_cannot_be_stored_at_once_is_stored_later(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async def no_endings(_wire: Any, verb: str, call: Any) -> Any:
        if verb == "complete_record":
            return await refuse(_wire, verb, call)
        return await call()

    async with Shop(shared) as shop:
        shop.node.wire.fault = no_endings
        served = trio.Event()
        shop.client.on_send = lambda message: served.set() if "body" in message else None
        nursery.start_soon(shop.client.post)
        await served.wait()
        assert trio.current_time() < 10  # the client does not wait for the storage to come back
        await trio.sleep(10)
        assert (await shop.client.post()).status == 409
        shop.node.wire.fault = None
        await trio.sleep(1)
        assert (await shop.client.post()).replayed
    assert len(shop.orders) == 1


async def test_an_ending_that_can_never_be_stored_becomes_an_unknown_outcome(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def no_endings(_wire: Any, verb: str, call: Any) -> Any:
        return await (refuse(_wire, verb, call) if verb == "complete_record" else call())

    async with Shop(shared) as shop, Shop(shared) as other:
        shop.node.wire.fault = no_endings
        assert (await shop.client.post()).status == 201
        await trio.sleep(60)
        unknown = await other.client.post()
        assert (unknown.status, unknown.problem) == (409, "outcome-unknown")
        again = await other.client.post()
        assert (again.problem, again.replayed) == ("outcome-unknown", True)
        shop.node.wire.fault = None
    assert (len(shop.orders), other.entered) == (1, 0)


# --- a process dies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "status"), [("unknown", 409), ("rerun", 201)])
async def test_a_process_that_dies_blocks_the_key_for_its_lease_only(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery, policy: Any, status: int
) -> None:
    async with Shop(shared) as shop, Shop(shared, options=options(on_crash=policy)) as other:
        shop.hold = trio.Event()
        nursery.start_soon(shop.node.run, shop.client.post)
        await until(lambda: shop.entered)
        await shop.node.kill()
        before = trio.current_time()
        response = await other.client.post()
        while response.status == 409 and response.problem == "in-progress":
            await trio.sleep(1)
            response = await other.client.post()
        assert trio.current_time() - before < 32
        assert response.status == status
        assert (await other.client.post()).replayed


async def test_a_process_that_dies_after_longer_than_the_record_is_kept_has_left_an_unknown_outcome(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    short = options(lease=3, ttl=10)
    async with Shop(shared, options=short) as shop, Shop(shared, options=short) as other:
        shop.hold = trio.Event()
        nursery.start_soon(shop.node.run, shop.client.post)
        await trio.sleep(60)
        await shop.node.kill()
        await trio.sleep(5)
        assert (await other.client.post()).problem == "outcome-unknown"
    assert (shop.entered, other.entered) == (1, 0)


async def test_a_claim_whose_answer_is_lost_hides_no_death_before_it(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Shop(shared) as shop, Shop(shared, options=options(on_storage_error="reject")) as other:
        shop.hold = trio.Event()
        nursery.start_soon(shop.node.run, shop.client.post)
        await until(lambda: shop.entered)
        await shop.node.kill()
        await trio.sleep(40)
        other.node.wire.fault = at_call(0, lose_reply, frozenset({"claim_record"}))
        assert (await other.client.post()).status == 503  # and the key was given back, as nothing was done under it
        assert (await other.client.post()).problem == "outcome-unknown"
    assert (shop.entered, other.entered) == (1, 0)


async def test_a_process_that_loses_its_claim_stops_its_handler(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async with Shop(shared) as shop, Shop(shared, options=options(on_crash="rerun")) as other:
        shop.hold = trio.Event()
        got: list[Any] = []

        async def first() -> None:
            got.append(await shop.client.post())

        nursery.start_soon(first)
        await until(lambda: shop.entered)
        shop.node.wire.fault = refuse
        await until(lambda: got)
        assert (got[0].status, got[0].problem) == (409, "claim-lost")
        assert shop.orders == []
        await trio.sleep(5)
        assert (await other.client.post()).status == 201
        shop.node.wire.fault = None
    assert "could not be kept" in caplog.text


async def test_requests_that_come_while_the_first_one_starts_the_runtime_wait_for_it(autojump_clock: MockClock) -> None:
    class SlowToOpen(MemoryStorage):
        is_open = False

        @asynccontextmanager
        async def opened(self) -> AsyncIterator[None]:
            await trio.sleep(1)
            async with super().opened():
                self.is_open = True
                yield

        async def claim_record(self, new: NewRecord, *, token: str, owner: str, lease: float) -> ClaimVerdict:
            if not self.is_open:
                raise NotStarted("the storage is not open")
            return await super().claim_record(new, token=token, owner=owner, lease=lease)

    manager = BackgroundOperationsManager(SlowToOpen())
    client = Client(
        BackgroundOperationsMiddleware(app_of(lambda _scope, _body, send: answer(send, 201, {})), manager),
    )
    degraded: list[str | None] = []

    async def post(key: str) -> None:
        degraded.append((await client.post(key=key)).header("idempotency-degraded"))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(post, str(number))
    await manager.stop()
    assert degraded == [None] * 3


# --- helpers and neighbours -------------------------------------------------------------------------------------


async def test_helpers_without_the_middleware_say_so() -> None:
    with pytest.raises(MiddlewareNotInstalled, match="add_background_operations_middleware"):
        get_idempotency_key({"type": "http"})
    with pytest.raises(InvalidInput, match="request"):
        get_idempotency_key(object())  # type: ignore[arg-type]


async def test_a_result_that_is_no_json_is_refused(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared) as shop:
        shop.before_answer = lambda scope: set_operation_result(scope, {"when": object()})
        with pytest.raises(InvalidInput, match=r"result\.when: has no JSON form"):
            await shop.client.post()


async def test_two_middlewares_claim_once(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Shop(shared) as shop:
        outer = Client(BackgroundOperationsMiddleware(shop.client.app, shop.node.manager))
        assert (await outer.post()).status == 201
        assert (await outer.post()).replayed
        assert shop.node.wire.calls.count("claim_record") == 2


async def test_other_scopes_pass_the_original_callables(shared: MemoryStorage) -> None:
    seen: list[Any] = []

    async def app(*call: Any) -> None:
        seen.extend(call)

    call = ({"type": "websocket", "path": "/"}, object(), object())
    node = Node(shared, lambda _: None)
    await BackgroundOperationsMiddleware(app, node.manager)(*call)  # type: ignore[arg-type]
    assert all(one is other for one, other in zip(seen, call, strict=True))


async def test_extensions_that_would_pass_by_the_record_are_hidden(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    seen: list[Any] = []
    async with Shop(shared) as shop:
        shop.before_answer = lambda scope: seen.append(scope["extensions"])
        await shop.client.post(extensions={"http.response.pathsend": {}, "http.response.early_hint": {}})
    assert seen == [{"http.response.early_hint": {}}]


async def test_headers_that_can_be_read_once_reach_the_client(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = ((name, b"yes") for name in (b"x-first", b"x-second"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"done"})

    async with Shop(shared) as shop:
        client = Client(BackgroundOperationsMiddleware(app, shop.node.manager))
        first, again = await client.post(), await client.post()
        assert [(name, value) for name, value in first.messages[0]["headers"] if name.startswith(b"x-")] == [
            (b"x-first", b"yes"),
            (b"x-second", b"yes"),
        ]
    assert (again.header("x-first"), again.header("x-second"), again.replayed) == ("yes", "yes", True)


async def test_keys_are_not_logged(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Shop(shared) as shop:
        for fault in (None, refuse):
            shop.node.wire.fault = fault
            await shop.client.post(key="very-secret-key")
            await shop.client.post(key="very-secret-key", body=b"other")
        shop.node.wire.fault = None
    assert "very-secret-key" not in caplog.text
    assert not any("very-secret-key" in key for key in shared._records)
