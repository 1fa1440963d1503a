"""Case 41, and the life of the runtime in a server."""

from __future__ import annotations

from http_conformance.talk import Caller, replayed


async def test_case_41_a_mounted_route_is_another_path(caller: Caller) -> None:
    outer, mounted = await caller.send("/effect"), await caller.send("/mounted/effect")
    assert (outer.json()["run"], mounted.json()["run"]) == (1, 2)
    assert replayed(await caller.send("/mounted/effect"))


async def test_case_41_context_variables_flow_both_ways(caller: Caller) -> None:
    flow = {"X-Flow": "1"}
    assert (await caller.send("/flow", headers=flow)).text == "outside 1"
    await caller.noted("flow inside")
    assert replayed(await caller.send("/flow", headers=flow))
    await caller.noted("flow outside")  # the handler did not run
    assert caller.entries == ["ran", "flow inside", "flow outside"]
