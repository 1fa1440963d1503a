"""Cases 33 to 38 and 42: what of a response is stored, and what a replay sends."""

from __future__ import annotations

import httpx
import pytest
import trio

from http_conformance.sites import Site
from http_conformance.talk import Caller, ask_over_http2, calling, connected, replayed, slug

NEVER = ("set-cookie", "x-request-id", "ratelimit")


async def test_case_33_chunks_pass_undelayed_and_are_stored(caller: Caller) -> None:
    url, headers = caller.site.url + "/streams?chunks=5", caller.headers()
    async with caller.client.stream("POST", url, headers=headers) as response:
        chunks = response.aiter_bytes()
        with trio.fail_after(30):
            first = await anext(chunks)  # the gate is closed: this is all there is so far
        caller.open_gate()
        whole = first + b"".join([chunk async for chunk in chunks])
    assert len(whole) == 5_000
    again = await caller.send("/streams?chunks=5")
    assert (again.status_code, again.content, replayed(again), caller.runs) == (202, whole, True, 1)
    assert again.headers["content-length"] == "5000"


async def test_case_33_beyond_the_limit_the_body_is_not_kept_and_that_is_said(caller: Caller) -> None:
    caller.open_gate()
    first = await caller.send("/streams?chunks=150")
    assert len(first.content) == 150_000
    again = await caller.send("/streams?chunks=150")
    assert (again.status_code, slug(again), replayed(again)) == (202, "body-not-kept", True)
    assert again.headers["x-run"] == "1"
    assert "etag" not in again.headers  # it was that of the body
    assert caller.runs == 1


async def test_the_result_that_a_handler_set_outlives_a_body_that_was_not_kept(caller: Caller) -> None:
    assert len((await caller.send("/result")).content) == 200_000
    again = await caller.send("/result")
    assert (again.status_code, replayed(again), caller.runs) == (200, True, 1)
    assert again.json() == {"order": 1}


async def test_case_34_an_endless_stream_is_left_to_its_client(caller: Caller) -> None:
    before = int((await caller.client.get(caller.site.url + "/memory")).json()["peak"])
    async with connected(caller.site) as connection:
        await connection.post(caller, "/events", ("Idempotency-Key", caller.key))
        received = 0
        with trio.fail_after(30):
            while received < 3_000_000:
                received += len(await connection.stream.receive_some())
        await connection.hang_up()
    await caller.noted("ended")  # the handler heard that its client went
    after = int((await caller.client.get(caller.site.url + "/memory")).json()["peak"])
    assert after - before < 8_192
    assert (await caller.send("/effect")).status_code == 201


async def test_case_35_what_belongs_to_one_exchange_or_receiver_is_not_replayed(caller: Caller) -> None:
    first = await caller.send("/effect", headers={"Origin": "https://one.example"})
    again = await caller.send("/effect")
    for name in NEVER:
        assert name in first.headers
        assert name not in again.headers
    assert "access-control-allow-origin" in first.headers
    assert "access-control-allow-origin" not in again.headers
    for name in ("content-type", "location", "etag", "x-order", "x-answered-at"):
        assert again.headers.get_list(name) == first.headers.get_list(name)
    assert "X-Order" in again.headers["vary"]
    assert again.headers["content-length"] == str(len(again.content))
    for name in ("date", "server", "content-length"):
        assert len(again.headers.get_list(name)) == 1


async def test_case_35_a_route_may_leave_out_more(caller: Caller) -> None:
    assert "x-answered-at" in (await caller.send("/unstored")).headers
    assert "x-answered-at" not in (await caller.send("/unstored")).headers


async def test_case_36_compression_inside_is_replayed_to_who_accepts_it(caller: Caller) -> None:
    accepting = {"Accept-Encoding": "gzip"}
    first = await caller.send("/zipped", headers=accepting)
    again = await caller.send("/zipped", headers=accepting)
    assert first.headers["content-encoding"] == again.headers["content-encoding"] == "gzip"
    assert again.content == first.content == b"plain " * 100
    plain = await caller.send("/zipped", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["vary"]
    assert (plain.content, replayed(plain)) == (b"plain " * 100, True)
    assert caller.runs == 1


async def test_case_36_compression_outside_works_on_replays(caller: Caller) -> None:
    for _ in range(2):
        zipped = await caller.send("/large", headers={"Accept-Encoding": "gzip"})
        assert zipped.headers["content-encoding"] == "gzip"
        assert "Accept-Encoding" in zipped.headers["vary"]
        plain = await caller.send("/large")
        assert "content-encoding" not in plain.headers
        assert zipped.content == plain.content == b"y" * 300_000
    assert caller.runs == 1


@pytest.mark.parametrize("code", [204, 304])
async def test_case_37_statuses_without_a_body(caller: Caller, code: int) -> None:
    async with connected(caller.site) as connection:
        for run in (1, 2):
            await connection.post(caller, f"/status/{code}", ("Idempotency-Key", caller.key))
            status, headers, body = await connection.response()
            names = [name.lower() for name, _ in headers]
            assert (status, body, b"idempotency-replayed" in names) == (code, b"", run == 2)
            assert b"transfer-encoding" not in names
            assert b"content-length" not in names or code == 304


async def test_case_37_an_empty_body(caller: Caller) -> None:
    for marked in (False, True):
        response = await caller.send("/status/200?empty=1")
        assert (response.status_code, response.content, replayed(response)) == (200, b"", marked)
        assert response.headers["content-length"] == "0"


async def test_case_37_repeated_and_latin1_headers_are_replayed_as_they_were(caller: Caller) -> None:
    first, again = await caller.send("/effect"), await caller.send("/effect")

    def own(response: httpx.Response) -> list[tuple[bytes, bytes]]:
        return [
            (name.lower(), value) for name, value in response.headers.raw if name.lower() in {b"x-order", b"x-name"}
        ]

    assert own(again) == own(first) == [(b"x-order", b"1"), (b"x-order", b"2"), (b"x-name", b"Gr\xfc\xdfe")]


async def test_case_38_no_way_around_the_recorder_is_offered(caller: Caller) -> None:
    offered = set((await caller.send("/shortcuts")).json())
    assert not offered & {"http.response.pathsend", "http.response.zerocopysend", "http.response.trailers"}
    assert replayed(await caller.send("/shortcuts"))


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_case_38_early_hints_pass_and_are_not_replayed(site: Site, http2: bool) -> None:
    if http2 and not site.speaks_http2:
        pytest.skip(f"{site.kind} speaks no HTTP/2")
    async with calling(site, http2=http2) as caller:
        first, again = await caller.send("/hints"), await caller.send("/hints")
        assert (first.text, again.text, replayed(again), caller.runs) == ("after", "after", True, 1)
        assert caller.entries == (["ran", "hinted"] if http2 else ["ran"])


async def test_case_38_pushes_pass_and_are_not_replayed(caller: Caller) -> None:
    if not caller.site.speaks_http2:
        pytest.skip(f"{caller.site.kind} speaks no HTTP/2")
    assert await ask_over_http2(caller, "/pushes") == (b"after", False, ["/ready"])
    assert await ask_over_http2(caller, "/pushes") == (b"after", True, [])
    assert caller.entries == ["ran", "pushed"]


async def test_case_42_browsers_may_send_the_key_and_see_the_mark(caller: Caller) -> None:
    asked = {
        "Origin": "https://one.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "idempotency-key",
    }
    preflight = await caller.client.options(caller.site.url + "/effect", headers=asked)
    assert preflight.status_code == 200
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"].lower()
    for origin in ("https://one.example", "https://two.example"):
        response = await caller.send("/effect", headers={"Origin": origin})
        assert response.headers["access-control-allow-origin"] == origin  # the reader's, not that of the first
        assert "Idempotency-Replayed" in response.headers["access-control-expose-headers"]
    assert replayed(response)
    assert caller.runs == 1
