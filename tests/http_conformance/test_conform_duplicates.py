"""Cases 9 to 15: what a repeated request gets, and which request is a repetition."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest
import trio

from http_conformance.sites import Site
from http_conformance.talk import Caller, calling, replayed, slug


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_case_09_a_repeated_request_runs_once(site: Site, http2: bool) -> None:
    if http2 and not site.speaks_http2:
        pytest.skip(f"{site.kind} speaks no HTTP/2")
    async with calling(site, http2=http2) as caller:
        first = await caller.send("/effect")
        assert first.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        for _ in range(3):
            again = await caller.send("/effect")
            assert (again.status_code, again.content) == (201, first.content)
            assert again.headers.get_list("x-order") == ["1", "2"]
            assert dict(again.headers.raw)[b"x-name"] == "Grüße".encode("latin-1")
            assert replayed(again)
        assert not replayed(first)
        assert caller.runs == 1


async def test_case_10_of_a_hundred_at_once_one_runs(caller: Caller) -> None:
    """At one process here; at two in `test_conform_processes`."""
    answers: list[httpx.Response] = []

    async def one() -> None:
        answers.append(await caller.send("/gated"))
        if len(answers) == 99:
            caller.open_gate()  # all but the one that runs have their answers

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one)
    assert Counter(answer.status_code for answer in answers) == {409: 99, 200: 1}
    assert caller.runs == 1
    refused = answers[0]
    assert slug(refused) == "in-progress"
    assert int(refused.headers["retry-after"]) >= 1
    assert not replayed(refused)
    assert replayed(await caller.send("/gated"))


async def test_case_11_who_waits_is_woken_by_the_end(caller: Caller) -> None:
    answers: list[httpx.Response] = []

    async def one() -> None:
        answers.append(await caller.send("/gated/wait"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await caller.noted()
        for _ in range(5):
            nursery.start_soon(one)
        await trio.sleep(0.2)  # so that they wait; were they slower, they would be replays all the same
        assert not answers
        caller.open_gate()
    assert Counter((answer.status_code, answer.text, replayed(answer)) for answer in answers) == {
        (200, '{"run":1}', False): 1,
        (200, '{"run":1}', True): 5,
    }


async def test_case_11_the_wait_is_bounded(caller: Caller) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.send, "/gated/wait-briefly")
        await caller.noted()
        refused = await caller.send("/gated/wait-briefly")
        assert (refused.status_code, slug(refused)) == (409, "in-progress")
        caller.open_gate()


async def test_a_route_may_answer_202_meanwhile(caller: Caller) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.send, "/gated/accepted")
        await caller.noted()
        accepted = await caller.send("/gated/accepted")
        assert (accepted.status_code, accepted.json()) == (202, {"status": "in_progress"})
        assert int(accepted.headers["retry-after"]) >= 1
        caller.open_gate()
    assert (await caller.send("/gated/accepted")).status_code == 200


async def test_case_12_other_content_is_a_422_also_while_the_first_runs(caller: Caller) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: caller.send("/gated", content=b"one"))
        await caller.noted()
        early = await caller.send("/gated", content=b"two")
        assert (early.status_code, slug(early)) == (422, "payload-mismatch")
        caller.open_gate()
    late = await caller.send("/gated", content=b"two")
    assert (late.status_code, slug(late)) == (422, "payload-mismatch")
    assert replayed(await caller.send("/gated", content=b"one"))
    assert caller.runs == 1


async def test_case_13_another_method_or_path_is_another_request(somewhere: Caller) -> None:
    answers = [
        await somewhere.send("/effect"),
        await somewhere.send("/effect", "PATCH"),
        await somewhere.send("/other"),
    ]
    assert [answer.json()["run"] for answer in answers] == [1, 2, 3]
    assert not any(map(replayed, answers))


async def test_case_13_another_query_is_other_content(somewhere: Caller) -> None:
    assert (await somewhere.send("/effect?a=1")).status_code == 201
    assert slug(await somewhere.send("/effect?a=2")) == "payload-mismatch"
    assert replayed(await somewhere.send("/effect?a=1"))


async def test_case_13_in_strict_mode_a_key_is_for_one_method_and_path(somewhere: Caller) -> None:
    assert (await somewhere.send("/strict/one")).status_code == 201
    assert slug(await somewhere.send("/strict/two")) == "payload-mismatch"
    assert slug(await somewhere.send("/strict/one", "PATCH")) == "payload-mismatch"
    assert replayed(await somewhere.send("/strict/one"))
    assert somewhere.runs == 1


async def test_case_14_tenants_and_users_are_kept_apart(somewhere: Caller) -> None:
    who = [
        {},
        {"X-Tenant-ID": "a"},
        {"X-Tenant-ID": "b"},
        {"X-Tenant-ID": "a", "X-User-ID": "b"},
        {"X-User-ID": "b"},
        {"X-User-ID": "ab"},
        {"Authorization": "Bearer one"},
        {"Authorization": "Bearer two"},
        {"X-Tenant-ID": "a", "Authorization": "Bearer one"},
        {"X-API-Key": "one"},
    ]
    runs = [(await somewhere.send("/effect", headers=headers)).json()["run"] for headers in who]
    assert runs == list(range(1, len(who) + 1))
    again = [await somewhere.send("/effect", headers=headers) for headers in who]
    assert [answer.json()["run"] for answer in again] == runs
    assert all(map(replayed, again))


async def test_case_14_a_renewed_token_keeps_the_scope_of_its_user(somewhere: Caller) -> None:
    user = {"X-Tenant-ID": "a", "X-User-ID": "b"}
    await somewhere.send("/effect", headers={**user, "Authorization": "Bearer one"})
    assert replayed(await somewhere.send("/effect", headers={**user, "Authorization": "Bearer two"}))


async def test_case_14_who_names_himself_twice_is_refused(somewhere: Caller) -> None:
    twice = [("X-User-ID", "a"), ("X-User-ID", "b"), *somewhere.headers().items()]
    refused = await somewhere.client.post(somewhere.site.url + "/effect", headers=twice)
    assert (refused.status_code, slug(refused), somewhere.runs) == (400, "identity-malformed", 0)


@pytest.mark.parametrize(
    ("path", "one", "other", "same"),
    [
        ("/effect", '{"a":1}', '{"a":1}', True),
        ("/effect", '{"a":1}', '{"a": 1}', False),
        ("/json", '{"a":1,"b":2}', '{ "b": 2, "a": 1.0 }', True),
        ("/json", '{"a":"ü"}', '{"a":"\\u00fc"}', True),
        ("/json", '{"a":1}', '{"a":"1"}', False),
        ("/json", '{"a":1,"a":2}', '{"a":1,"a":2}', True),
        ("/json", '{"a":1,"a":2}', '{"a":2}', False),
        ("/json", '{"a":NaN}', '{"a": NaN}', False),
        ("/json", '{"a":NaN}', '{"a":NaN}', True),
        ("/json/chosen", '{"amount":1,"note":2}', '{"amount":1.0,"note":3}', True),
        ("/json/chosen", '{"amount":1}', '{"amount":2}', False),
        ("/json/ignored", '{"a":1,"sent_at":2}', '{"sent_at":3,"a":1}', True),
        ("/json/ignored", '{"a":1,"sent_at":2}', '{"a":2,"sent_at":2}', False),
    ],
)
async def test_case_15_what_makes_two_requests_the_same(
    somewhere: Caller, path: str, one: str, other: str, same: bool
) -> None:
    headers = {"Content-Type": "application/json"}
    await somewhere.send(path, content=one, headers=headers)
    answer = await somewhere.send(path, content=other, headers=headers)
    assert replayed(answer) if same else slug(answer) == "payload-mismatch"


async def test_case_15_long_json_is_compared_by_its_meaning_too(somewhere: Caller) -> None:
    document = {f"item {number}": number for number in range(5_000)}
    assert (await somewhere.send("/json", json=document)).status_code == 201
    again = await somewhere.send("/json", json=dict(reversed(document.items())))
    assert (replayed(again), somewhere.runs) == (True, 1)
