"""Cases 21 to 24, 32 and 40: how a handler can end, what is stored of it, and for how long."""

from __future__ import annotations

import httpx
import pytest

from http_conformance.talk import Caller, replayed, slug, until_answer

CLOSE = {"Connection": "close"}  # uvicorn ends a connection after an exception, without a word to its client


async def test_case_21_an_exception_is_recorded(caller: Caller) -> None:
    first = await caller.send("/raises", headers=CLOSE)
    assert (first.status_code, replayed(first)) == (500, False)
    again = await caller.send("/raises", headers=CLOSE)
    assert (again.status_code, slug(again), replayed(again)) == (500, "handler-failed", True)
    assert caller.runs == 1
    assert "before any answer" in caller.site.log  # it went on to the server, which logs it


async def test_case_21_or_gives_the_key_back_where_the_route_wants_that(caller: Caller) -> None:
    for _ in range(2):
        assert (await caller.send("/raises/released", headers=CLOSE)).status_code == 500
    assert caller.runs == 2


async def test_case_22_an_answer_that_broke_off_is_never_taken_for_one(caller: Caller) -> None:
    with pytest.raises(httpx.TransportError):
        await caller.send("/breaks-off")
    again = await until_answer(lambda: caller.send("/breaks-off"), lambda answer: slug(answer) != "in-progress")
    assert (again.status_code, slug(again), replayed(again)) == (409, "outcome-unknown", True)
    assert caller.runs == 1


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504, 507, 599])
async def test_case_23_an_error_of_the_handler_is_an_answer(somewhere: Caller, code: int) -> None:
    first, again = await somewhere.send(f"/status/{code}"), await somewhere.send(f"/status/{code}")
    assert (first.status_code, first.text, replayed(first)) == (code, "run 1", False)
    assert (again.status_code, again.text, replayed(again)) == (code, "run 1", True)


async def test_case_23_unless_the_handler_declares_that_it_did_nothing(somewhere: Caller) -> None:
    for run in (1, 2):
        response = await somewhere.send("/status/503?declare=1")
        assert (response.status_code, response.text, replayed(response)) == (503, f"run {run}", False)


async def test_case_23_or_the_route_says_so_of_the_status(somewhere: Caller) -> None:
    assert [(await somewhere.send("/released/503")).text for _ in range(2)] == ["run 1", "run 2"]
    other = somewhere.another()
    assert [(await other.send("/released/502")).text for _ in range(2)] == ["run 1", "run 1"]


@pytest.mark.parametrize("code", [400, 402, 404, 409, 410, 422])
async def test_case_24_so_is_a_refusal_of_the_handler(somewhere: Caller, code: int) -> None:
    first, again = await somewhere.send(f"/status/{code}"), await somewhere.send(f"/status/{code}")
    assert (again.status_code, again.text, replayed(again)) == (code, first.text, True)


@pytest.mark.parametrize("code", [401, 403, 429])
async def test_case_24_but_who_is_asked_to_log_in_or_to_wait_may_come_again(somewhere: Caller, code: int) -> None:
    assert [(await somewhere.send(f"/status/{code}")).text for _ in range(2)] == ["run 1", "run 2"]


@pytest.mark.parametrize("code", [401, 403, 429])
async def test_case_24_what_an_outer_layer_refuses_is_not_stored(somewhere: Caller, code: int) -> None:
    assert (await somewhere.send("/effect", headers={"X-Turn-Away": str(code)})).status_code == code
    response = await somewhere.send("/effect")
    assert (response.status_code, response.json()["run"], replayed(response)) == (201, 1, False)


async def test_case_32_after_its_retention_a_request_is_a_new_one(caller: Caller) -> None:
    assert (await caller.send("/short-lived")).json()["run"] == 1
    fresh = await until_answer(lambda: caller.send("/short-lived"), lambda answer: not replayed(answer))
    assert fresh.json()["run"] == 2
    assert caller.runs == 2


async def test_case_40_background_tasks_run_once(caller: Caller) -> None:
    first = await caller.send("/background")
    await caller.noted("background")
    again = await caller.send("/background")
    assert (again.content, replayed(again)) == (first.content, True)
    assert caller.entries == ["ran", "background"]


async def test_case_40_who_has_the_answer_can_rely_on_it(caller: Caller) -> None:
    for _ in range(30):
        each = caller.another()
        await each.send("/effect")
        assert replayed(await each.send("/effect"))  # never a 409: it was stored before the last byte came
