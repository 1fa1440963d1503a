"""Cases 16 to 20 and 39: bodies on their way in, clients that hang up, and connections that go on."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
import trio

from http_conformance.sites import Site
from http_conformance.talk import Caller, calling, connected, replayed, slug

MIB = 1024 * 1024


async def test_case_16_a_form_under_another_boundary_is_the_same_request(caller: Caller) -> None:
    content = bytes(range(256)) * 2_000  # more than stays in memory

    async def upload(name: str, content: bytes) -> httpx.Response:
        return await caller.send("/form", files={"file": (name, content)})  # each with a new boundary

    first = await upload("a", content)
    assert first.json() == {"run": 1, "name": "a", "length": len(content)}
    again = await upload("a", content)
    assert again.request.headers["content-type"] != first.request.headers["content-type"]
    assert (again.content, replayed(again)) == (first.content, True)
    assert slug(await upload("a", content[1:])) == "payload-mismatch"
    assert slug(await upload("b", content)) == "payload-mismatch"


async def send_chunks(caller: Caller, size: int) -> httpx.Response:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // 65_536):
            yield bytes(65_536)

    return await caller.send("/body", content=chunks())


async def peak(caller: Caller) -> int:
    return int((await caller.client.get(caller.site.url + "/memory")).json()["peak"]) * 1024


@pytest.mark.parametrize("size", [32 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.slow)])
async def test_case_17_a_long_body_is_not_held_in_memory(caller: Caller, size: int) -> None:
    await send_chunks(caller.another(), 4 * MIB)  # what the first long body costs anyway
    before = await peak(caller)
    response = await send_chunks(caller, size)
    assert response.json() == {"run": 1, "length": size, "sha256": hashlib.sha256(bytes(size)).hexdigest()}
    assert await peak(caller) - before < 16 * MIB
    if size == 32 * MIB:
        assert replayed(await send_chunks(caller, size))


@pytest.mark.parametrize("chunked", [False, True], ids=["plain", "chunked"])
async def test_case_17_a_body_over_the_limit_is_a_413_and_claims_nothing(caller: Caller, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield bytes(100)

    refused = await caller.send("/small-body", content=chunks() if chunked else bytes(1_100))
    assert (refused.status_code, slug(refused), refused.json()["limit"]) == (413, "body-too-large", 1_000)
    assert caller.runs == 0
    accepted = await caller.send("/small-body", content=bytes(1_000))  # another body: the key is free
    assert (accepted.status_code, accepted.json()["run"]) == (200, 1)


async def test_case_17_who_asks_first_need_not_send_a_body_that_is_too_long(caller: Caller) -> None:
    asking = [*caller.headers().items(), ("Content-Length", "1001"), ("Expect", "100-continue")]
    async with connected(caller.site) as connection:
        await connection.send("POST /small-body HTTP/1.1", asking)
        assert await connection.answer() == (413, "body-too-large")


async def test_case_18_who_hangs_up_within_his_request_has_asked_for_nothing(caller: Caller) -> None:
    key = ("Idempotency-Key", f'"{caller.key}"')
    async with connected(caller.site) as connection:
        await connection.send(
            "POST /body HTTP/1.1", [("X-Effect", caller.effect), key, ("Content-Length", "10")], b"half"
        )
        await connection.hang_up()
    response = await caller.send("/body", content=b"something else")  # no claim was left, and no fingerprint
    assert (response.status_code, response.json()["run"]) == (200, 1)


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_000])
async def test_case_19_the_app_gets_the_body_as_it_came(caller: Caller, size: int) -> None:
    content = hashlib.shake_128(b"content").digest(size)
    response = await caller.send("/body", content=content)
    assert response.json() == {"run": 1, "length": size, "sha256": hashlib.sha256(content).hexdigest()}


async def test_case_19_the_app_still_hears_that_the_client_went(caller: Caller) -> None:
    async with connected(caller.site) as connection:
        await connection.post(caller, "/waits-for-disconnect", ("Idempotency-Key", caller.key), body=b"12345")
        await caller.noted("body 5")
        await connection.hang_up()
    await caller.noted("disconnected")
    assert caller.entries == ["ran", "body 5", "disconnected"]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_case_20_who_hangs_up_on_a_handler_finds_its_answer_later(site: Site, http2: bool) -> None:
    if http2 and not site.speaks_http2:
        pytest.skip(f"{site.kind} speaks no HTTP/2")
    async with calling(site, http2=http2) as caller:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def impatient() -> None:
                    await caller.send("/gated")

                await caller.noted()
                scope.cancel()
        refused = await caller.send("/gated")
        assert slug(refused) == "in-progress"
        caller.open_gate()
        await caller.noted("finished")
    async with calling(site) as other:
        other.key, other.effect = caller.key, caller.effect
        answer = await other.send("/gated")
        while answer.status_code == 409:  # it has finished its work, and not yet its answer
            answer = await other.send("/gated")
        assert (answer.json(), replayed(answer), other.runs) == ({"run": 1}, True, 1)


async def test_case_20_a_stream_goes_on_without_its_client(caller: Caller) -> None:
    async with connected(caller.site) as connection:
        await connection.post(caller, "/streams?chunks=5", ("Idempotency-Key", caller.key))
        await connection.stream.receive_some()
        await connection.hang_up()
    caller.open_gate()
    answer = await caller.send("/streams?chunks=5")
    while answer.status_code == 409:
        answer = await caller.send("/streams?chunks=5")
    assert (len(answer.content), replayed(answer), caller.runs) == (5_000, True, 1)


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_case_39_a_connection_is_as_good_as_before_after_a_refusal(site: Site, http2: bool) -> None:
    if http2 and not site.speaks_http2:
        pytest.skip(f"{site.kind} speaks no HTTP/2")
    body, large = bytes(10_000), bytes(700_000)
    async with calling(site, http2=http2) as caller:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: caller.send("/gated", content=body))
            await caller.noted()
            for _ in range(2):
                assert (await caller.send("/gated", content=body)).status_code == 409
                assert (await caller.send("/gated", content=body[1:])).status_code == 422
                assert (await caller.send("/small-body", content=body)).status_code == 413
                assert (await caller.send("/required", key="", content=body)).status_code == 400
            caller.open_gate()
        for _ in range(2):  # alone: httpx can wait for ever for room to send while another stream is open
            assert (await caller.send("/small-body", content=large)).status_code == 413
            assert (await caller.send("/required", key='"', content=large)).status_code == 400
        assert (await caller.another().send("/effect")).status_code == 201


async def test_case_39_no_refusal_of_a_long_body_ends_an_http2_server(site: Site) -> None:
    if not site.speaks_http2:
        pytest.skip(f"{site.kind} speaks no HTTP/2")
    async with calling(site, http2=True) as caller:
        for _ in range(2):
            assert (await caller.send("/small-body", content=bytes(3_000_000))).status_code == 413
            assert (await caller.send("/required", key="", content=bytes(3_000_000))).status_code == 400


async def test_case_39_the_same_connection_goes_on_after_409_and_422(caller: Caller) -> None:
    key = ("Idempotency-Key", caller.key)
    async with trio.open_nursery() as nursery, connected(caller.site) as connection:
        nursery.start_soon(lambda: caller.send("/gated", content=b"one"))
        await caller.noted()
        for _ in range(2):
            await connection.post(caller, "/gated", key, body=b"one")
            assert await connection.answer() == (409, "in-progress")
            await connection.post(caller, "/gated", key, body=b"two")
            assert await connection.answer() == (422, "payload-mismatch")
        caller.open_gate()
        await caller.noted("finished")
        await connection.post(caller, "/effect", key)
        assert (await connection.response())[0] == 201
