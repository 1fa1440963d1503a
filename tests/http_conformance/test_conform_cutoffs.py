"""Servers that are told to end while a handler runs, and cut it off: each server has the same effect on the record."""

from __future__ import annotations

import signal

import httpx
import pytest
import trio

from http_conformance.sites import KINDS, Ledger, Site, serving
from http_conformance.talk import Caller, calling, slug
from support.servers import Server

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hypercorn-trio"])
async def test_a_server_that_ends_leaves_the_ending_that_the_route_chose(
    kind: str, ledger: Ledger, records_server: Server, prefix: str, second: Site
) -> None:
    with serving(kind, ledger, records_server, prefix, graceful=1) as site:
        async with calling(site) as unknown:
            rerun = unknown.another()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send, unknown, "/gated")
                nursery.start_soon(_send, rerun, "/gated/rerun-long-lease")
                await unknown.noted()
                await rerun.noted()
                site.process.send_signal(signal.SIGTERM)
                await trio.to_thread.run_sync(site.process.wait)
            site.stop()
            rerun.open_gate()
            assert "is not running" not in site.log
            answer = await unknown.at(second).send("/gated")
            assert (answer.status_code, slug(answer)) == (409, "outcome-unknown")
            again = await rerun.at(second).send("/gated/rerun-long-lease")
            assert (again.status_code, rerun.runs) == (200, 2)


async def _send(caller: Caller, path: str) -> None:
    """Send a request; what becomes of its connection is left to the server."""
    try:
        await caller.send(path)
    except httpx.TransportError:
        return
