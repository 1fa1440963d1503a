"""Cases 10, 25, 27, 28 and 30: several processes, of which some die, freeze or lose their storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import trio

from http_conformance.sites import Ledger, Site, serving
from http_conformance.talk import Caller, calling, replayed, slug, until_answer
from support.servers import Server, standalone

pytestmark = pytest.mark.redis


@pytest.fixture
async def at_victim(victim: Site) -> AsyncIterator[Caller]:
    async with calling(victim) as caller:
        yield caller


async def dropped(caller: Caller, path: str) -> None:
    """Send a request whose server dies of it, or during it."""
    with pytest.raises(httpx.TransportError):
        await caller.send(path)


async def test_case_10_of_a_hundred_at_two_processes_one_runs(at_victim: Caller, second: Site) -> None:
    at_second = at_victim.at(second)
    answers: list[httpx.Response] = []

    async def one(caller: Caller) -> None:
        answers.append(await caller.send("/gated"))
        if len(answers) == 99:
            caller.open_gate()

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one, at_victim)
            nursery.start_soon(one, at_second)
    assert Counter(answer.status_code for answer in answers) == {409: 99, 200: 1}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers[:99])
    assert at_second.runs == 1
    assert replayed(await at_victim.send("/gated"))
    assert replayed(await at_second.send("/gated"))


async def test_cases_25_and_28_a_process_that_dies(at_victim: Caller, second: Site, victim: Site) -> None:
    unknown, rerun, crashing = at_victim, at_victim.another(), at_victim.another()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dropped, unknown, "/gated/short-lease")
        nursery.start_soon(dropped, rerun, "/gated/rerun")
        await unknown.noted()
        await rerun.noted()
        nursery.start_soon(dropped, crashing, "/crashing")  # has its effect, and takes the others with it
    victim.died()
    rerun.open_gate()
    rerun = rerun.at(second)
    answer = await until_answer(lambda: rerun.send("/gated/rerun"), has_ended)  # the lease is waited for, not the ttl
    assert (answer.status_code, answer.json(), rerun.runs) == (200, {"run": 2}, 2)
    await assert_unknown(unknown.at(second), "/gated/short-lease")
    await assert_unknown(crashing.at(second), "/crashing")


def has_ended(answer: httpx.Response) -> bool:
    return answer.status_code != 409 or slug(answer) != "in-progress"


async def assert_unknown(caller: Caller, path: str) -> None:
    answer = await until_answer(lambda: caller.send(path), has_ended)
    assert (answer.status_code, slug(answer)) == (409, "outcome-unknown")
    again = await caller.send(path)
    assert (again.content, replayed(again), caller.runs) == (answer.content, True, 1)  # and never run again


async def test_case_27_a_process_that_freezes_beyond_its_lease(at_victim: Caller, second: Site, victim: Site) -> None:
    at_second = at_victim.at(second)
    answers: list[httpx.Response] = []

    async def at_frozen() -> None:
        answers.append(await at_victim.send("/gated/rerun", headers={"X-Gate": "never"}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(at_frozen)
        await at_victim.noted()
        victim.freeze()
        at_second.open_gate()
        taken = await until_answer(lambda: at_second.send("/gated/rerun"), has_ended)
        assert taken.json() == {"run": 2}
        victim.thaw()
    assert (answers[0].status_code, slug(answers[0])) == (409, "claim-lost")
    assert at_victim.entries == ["ran", "ran", "finished", "cut off"]  # stopped on waking
    again = await at_victim.send("/gated/rerun")
    assert (again.json(), replayed(again)) == ({"run": 2}, True)  # what the frozen one did changed nothing


async def test_a_saga_outlives_the_process_that_began_it(at_victim: Caller, second: Site, victim: Site) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dropped, at_victim, "/saga")
        await at_victim.noted("waits")  # so that the step before is in the journal, and not done again
        victim.kill()
    at_second = at_victim.at(second)
    at_second.open_gate()
    answer = await until_answer(lambda: at_second.send("/saga"), lambda answer: answer.status_code == 200)
    assert answer.json()["status"] == "completed"
    assert answer.json()["results"]["charge"] == {"noted": 2}
    assert replayed(answer)
    assert (at_second.runs, at_second.entries.count("charged")) == (1, 1)


async def test_who_does_not_wait_for_his_saga_is_told_where_it_is(second: Site) -> None:
    async with calling(second) as caller:
        for marked in (False, True):
            accepted = await caller.send("/saga/briefly")
            assert (accepted.status_code, replayed(accepted)) == (202, marked)
            assert accepted.headers["location"] == f"/sagas/{accepted.json()['saga_id']}"
            assert int(accepted.headers["retry-after"]) >= 1
        caller.open_gate()
        done = await until_answer(lambda: caller.send("/saga/briefly"), lambda answer: answer.status_code == 200)
        assert done.json()["saga_id"] == accepted.json()["saga_id"]
        assert caller.runs == 1


@pytest.fixture
def lonely_server() -> Iterator[Server]:
    with standalone(aof=True) as server:
        yield server


async def test_case_30_a_storage_that_goes_and_comes_back(ledger: Ledger, lonely_server: Server) -> None:
    with serving("hypercorn-trio", ledger, lonely_server, "lonely", patience=1.0) as site:
        async with calling(site) as caller:
            strict = caller.another()
            assert (await caller.send("/effect")).status_code == 201
            lonely_server.kill()
            answers: dict[str, httpx.Response] = {}

            async def ask(name: str, asker: Caller, path: str) -> None:
                answers[name] = await asker.send(path)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "passed", caller, "/effect")
                nursery.start_soon(ask, "refused", strict, "/stored-or-nothing")
            passed, refused = answers["passed"], answers["refused"]
            assert (passed.status_code, passed.json()["run"]) == (201, 2)  # unprotected, and says so
            assert passed.headers["idempotency-degraded"] == "storage-unavailable"
            assert "runs unprotected" in site.log
            assert (refused.status_code, slug(refused), strict.runs) == (503, "storage-unavailable", 0)
            assert int(refused.headers["retry-after"]) >= 1
            lonely_server.start()
            again = await until_answer(lambda: caller.send("/effect"), replayed)
            assert again.json()["run"] == 1


def test_a_storage_that_cannot_be_used_ends_the_start(ledger: Ledger, lonely_server: Server) -> None:
    lonely_server.kill()
    with (
        pytest.raises(RuntimeError, match="ended with") as refused,
        serving("hypercorn-trio", ledger, lonely_server, "lonely", patience=1.0),
    ):
        pass
    assert "the runtime could not be started" in str(refused.value)
