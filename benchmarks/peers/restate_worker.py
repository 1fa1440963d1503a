"""Restate as a peer: a handler whose steps its server logs, called over HTTP.

The address is three URLs with spaces between them: of the server's ingress, of its admin API, and of this service.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx
import hypercorn
import hypercorn.asyncio
import restate
from benchmarks.peers.driving import IN_FLIGHT, STEPS, main, measure, slow_step, stand_by

service = restate.Service("Peer")


@service.handler()
async def workflow(context: restate.Context, payload: str) -> None:
    """Steps that do nothing."""
    for number in range(STEPS):
        await context.run_typed(f"step-{number}", lambda: payload)


@service.handler()
async def slow(context: restate.Context) -> None:
    """Steps that take their time."""
    for number in range(1, STEPS + 1):
        await context.run_typed(f"step-{number}", slow_step, number=number)


class Service:
    """This process: it serves, registers itself, and calls itself by way of the server."""

    def __init__(self, address: str) -> None:
        self._ingress, self._admin, self._own = address.split()
        self.client = httpx.AsyncClient(
            base_url=self._ingress, timeout=120, limits=httpx.Limits(max_connections=max(IN_FLIGHT))
        )

    async def __aenter__(self) -> Service:
        """Serve, and be known to the server."""
        settings = hypercorn.Config()
        settings.bind = [urlsplit(self._own).netloc]
        settings.loglevel = "ERROR"
        self._serving = asyncio.create_task(hypercorn.asyncio.serve(restate.app([service]), settings))
        await asyncio.sleep(0.5)
        async with httpx.AsyncClient(timeout=30) as client:
            reply = await client.post(f"{self._admin}/deployments", json={"uri": self._own, "force": True})
            reply.raise_for_status()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.client.aclose()
        self._serving.cancel()

    async def call(self, path: str, body: object = None) -> None:
        """Call a handler."""
        reply = await self.client.post(f"/Peer/{path}", json=body)
        reply.raise_for_status()


async def measured(address: str, seconds: float, payload: str) -> None:
    """Measure it."""
    async with Service(address) as this:
        await measure(lambda: this.call("workflow", payload), seconds)


async def served(address: str, _name: str) -> None:
    """Be a service at default settings."""
    async with Service(address) as this:
        await stand_by(lambda: this.call("slow/send"))


if __name__ == "__main__":
    main(measured, served)
