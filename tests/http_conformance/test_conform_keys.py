"""Cases 1 to 8: which requests are dealt with at all, and what counts as a key."""

from __future__ import annotations

import pytest
import trio

from http_conformance.sites import Site
from http_conformance.talk import Caller, connected, replayed, slug
from support.servers import Server


async def test_case_01_without_a_key_nothing_is_stored(caller: Caller, request: pytest.FixtureRequest) -> None:
    async def stored() -> object:
        if caller.site.redis is None:
            return (await caller.client.get(caller.site.url + "/memory")).json()["records"]
        server: Server = request.getfixturevalue("records_server")
        return sorted(key for key in server.cli("KEYS", f"*{caller.site.prefix}*") if "worker" not in key)

    before = await stored()
    for run in (1, 2):
        response = await caller.send("/effect", key="")
        assert (response.status_code, response.json()["run"]) == (201, run)
        assert not replayed(response)
    assert await stored() == before
    await caller.send("/effect")
    assert await stored() != before


async def test_case_02_a_required_key_that_is_missing_is_a_400(caller: Caller) -> None:
    for path in ("/required", "/ruled/effect", "/mounted/required"):
        response = await caller.send(path, key="")
        assert (response.status_code, slug(response)) == (400, "key-missing")
    assert caller.runs == 0
    assert (await caller.send("/required")).status_code == 201


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_case_03_other_methods_are_untouched(caller: Caller, method: str) -> None:
    for run in (1, 2):
        response = await caller.send("/effect", method, key='"malformed', content=b"" if method == "PUT" else None)
        assert (response.json()["run"], replayed(response)) == (run, False)


async def test_case_03_head_and_options_are_untouched(caller: Caller) -> None:
    assert (await caller.send("/effect", "HEAD", key='"malformed')).status_code in {200, 201}
    assert (await caller.send("/effect", "OPTIONS", key='"malformed')).status_code == 405


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_case_03_put_and_delete_where_a_route_wants_them(caller: Caller, method: str) -> None:
    first, second = await caller.send("/opted", method), await caller.send("/opted", method)
    assert (replayed(first), replayed(second), caller.runs) == (False, True, 1)
    assert second.content == first.content


async def test_case_04_a_websocket_passes(caller: Caller) -> None:
    upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Idempotency-Key", '"malformed'),
        ("X-Effect", caller.effect),
    ]
    async with connected(caller.site) as connection:
        await connection.send("GET /echo HTTP/1.1", upgrade)
        with trio.fail_after(30):
            answer = await connection.stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b'"'],
        [b'"half'],
        [b'half"'],
        [b'"a\\b"'],
        [b'"a\\'],
        [b'"\xc3\xa9"'],
        [b"\xe9"],
        [b'""'],
        [b'"a" "b"'],
        [b'"a", "b"'],
        [b"a,b"],
        [b'"a"', b'"a"'],
        [b"a", b"b"],
    ],
)
async def test_case_05_what_is_no_key_is_a_400(caller: Caller, values: list[bytes]) -> None:
    async with connected(caller.site) as connection:
        await connection.post(caller, "/effect", *(("Idempotency-Key", value) for value in values))
        assert await connection.answer() == (400, "key-malformed")
        await connection.post(caller, "/effect")  # the connection is as good as before
        status, _, _ = await connection.response()
        assert (status, caller.runs) == (201, 1)


async def test_case_05_parameters_of_a_key_are_ignored(caller: Caller) -> None:
    await caller.send("/effect", key=f'"{caller.key}";a=1;b="x"')
    assert replayed(await caller.send("/effect"))


async def test_case_06_a_bare_key_is_its_quoted_form(caller: Caller) -> None:
    first = await caller.send("/effect", key=caller.key)
    assert first.json()["key"] == caller.key
    assert replayed(await caller.send("/effect"))
    refused = await caller.send("/quoted", key=caller.key)
    assert (refused.status_code, slug(refused)) == (400, "key-malformed")
    assert (await caller.send("/quoted")).status_code == 201


async def test_case_07_length_and_grammar(caller: Caller) -> None:
    longest = caller.key.ljust(255, "x")
    assert (await caller.send("/effect", key=f'"{longest}"')).status_code == 201
    assert slug(await caller.send("/effect", key=f'"{longest}x"')) == "key-malformed"
    digits = caller.another()
    assert slug(await digits.send("/digits")) == "key-malformed"
    assert (await digits.send("/digits", key='"1234"')).status_code in {201, 422}


@pytest.mark.parametrize("key", ["*", "[a-z]?", "{tag}:1", "\\0 \\r\\n", "'; DROP --", "%0d%0a", "../../x", "\\\\\\"])
async def test_case_08_no_key_is_too_wild(caller: Caller, key: str) -> None:
    wild = '"' + f"{caller.key} {key}".replace("\\", "\\\\") + '"'
    assert (await caller.send("/effect", key=wild)).json()["key"] == f"{caller.key} {key}"
    assert replayed(await caller.send("/effect", key=wild))
    assert caller.runs == 1


@pytest.mark.redis
async def test_case_08_the_raw_key_is_in_no_log_and_no_store(caller: Caller, request: pytest.FixtureRequest) -> None:
    secret = f"secret-{caller.key}"
    await caller.send("/status/200", key=f'"{secret}"')
    await caller.send("/status/200", key=f'"{secret}"')
    assert caller.runs == 1
    await caller.send("/effect", key=f'"{secret}')
    await caller.send("/raises", key=f'"{secret}"', headers={"Connection": "close"})
    assert secret not in caller.site.log
    if caller.site.redis is not None:
        server: Server = request.getfixturevalue("records_server")
        stored = dump_of(server)
        assert caller.site.prefix.encode() in stored
        assert secret.encode() not in stored
        assert b"x-run" not in stored  # nor is the response, which is sealed


def dump_of(server: Server) -> bytes:
    server.cli("SAVE")
    return (server.folder / "dump.rdb").read_bytes()


async def test_exempt_paths_and_routes_are_left_alone(caller: Caller) -> None:
    for run in (1, 2):
        response = await caller.send("/exempt")
        assert (response.json(), replayed(response)) == ({"run": run, "key": None}, False)
    assert (await caller.send("/health")).status_code == 404  # exempt by default, though there is no such route


async def test_the_server_is_what_it_says(site: Site, caller: Caller) -> None:
    response = await caller.send("/effect")
    assert site.kind.startswith(response.headers["server"].split("-")[0])
