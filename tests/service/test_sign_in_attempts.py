"""Failed sign-ins are limited, per client address and over all addresses."""

from __future__ import annotations

import httpx
import trio
from trio.testing import MockClock

from dotmac.tasks.service.attempts import FAILURES, REFILL, Attempts
from service.house import HERE, OPERATOR, House, guarded_access, house


async def sign_in(service: House, token: str, address: str = "192.0.2.1") -> httpx.Response:
    transport = httpx.ASGITransport(service.app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
        return await client.post("/login", data={"token": token})


async def test_an_address_that_failed_too_often_waits(autojump_clock: MockClock) -> None:
    async with house(guarded_access()) as service:
        for _ in range(FAILURES):
            assert (await sign_in(service, "wrong")).status_code == 403
        for token in ("wrong", OPERATOR):
            refused = await sign_in(service, token)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, str(int(REFILL)))
            assert "set-cookie" not in refused.headers
        assert (await sign_in(service, OPERATOR, "192.0.2.2")).status_code == 303
        await trio.sleep(REFILL)
        assert (await sign_in(service, "wrong")).status_code == 403
        assert (await sign_in(service, OPERATOR)).status_code == 429
        await trio.sleep(REFILL)
        assert (await sign_in(service, OPERATOR)).status_code == 303


async def test_sign_ins_that_succeed_are_not_counted(autojump_clock: MockClock) -> None:
    async with house(guarded_access()) as service:
        for _ in range(3 * FAILURES):
            assert (await sign_in(service, OPERATOR)).status_code == 303


async def test_an_ipv6_network_counts_as_one_address(autojump_clock: MockClock) -> None:
    attempts = Attempts()
    for number in range(FAILURES):
        attempts.failed(f"2001:db8::{number:x}")
    assert attempts.wait("2001:db8::ffff") > 0
    assert attempts.wait("2001:db8:0:1::1") == 0
    for _ in range(FAILURES):
        attempts.failed("::ffff:192.0.2.1")
    assert attempts.wait("192.0.2.1") > 0
    assert attempts.wait("") == 0  # a Unix socket


async def test_all_addresses_together_are_limited(autojump_clock: MockClock) -> None:
    attempts = Attempts()
    failures = 0
    while not attempts.wait(address := f"10.0.{failures // 250}.{failures % 250}"):
        attempts.failed(address)
        failures += 1
    assert failures == 100
    await trio.sleep(attempts.wait(address))
    assert attempts.wait(address) == 0


async def test_many_addresses_take_constant_memory(autojump_clock: MockClock) -> None:
    attempts = Attempts()
    for number in range(3000):
        attempts.failed(f"10.1.{number // 250}.{number % 250}")
    assert len(attempts._by_address) == 1000
