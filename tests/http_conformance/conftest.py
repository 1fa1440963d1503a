"""Every server with one of the storages, each started once; and two processes that share one storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from http_conformance.sites import Ledger, Site, fresh_ledger, serving
from http_conformance.talk import Caller, calling
from support.servers import Server, standalone

# With one of the storages each; where it is Redis, responses are sealed at rest. A fourth server, uvicorn on asyncio's
# own loop, is one of the two processes below.
SITES = [
    pytest.param(("hypercorn-trio", True, True), id="hypercorn-trio-redis", marks=pytest.mark.redis),
    pytest.param(("hypercorn-asyncio", False, False), id="hypercorn-asyncio-memory"),
    pytest.param(("uvicorn-uvloop", True, True), id="uvicorn-uvloop-redis", marks=pytest.mark.redis),
]


@pytest.fixture(scope="session")
def ledger() -> Iterator[Ledger]:
    """What all handlers did, in whichever process."""
    with fresh_ledger() as ledger:
        yield ledger


@pytest.fixture(scope="session")
def records_server() -> Iterator[Server]:
    """The Redis of all sites, each under a prefix of its own. Dumps are not compressed, so that they can be read."""
    with standalone("rdbcompression no", aof=True) as server:
        yield server


@pytest.fixture(scope="session", params=SITES)
def site(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[Site]:
    """One server after the other."""
    kind, on_redis, sealed = request.param
    redis = request.getfixturevalue("records_server") if on_redis else None
    key = Fernet.generate_key() if sealed else None
    with serving(kind, ledger, redis, f"site-{uuid4().hex[:8]}", sealed=key) as site:
        yield site


@pytest.fixture
async def caller(site: Site) -> AsyncIterator[Caller]:
    """A client of the site, with a key and an effect of its own."""
    async with calling(site) as caller:
        yield caller


@pytest.fixture(scope="session")
def prefix() -> str:
    """Of the two processes that share a storage."""
    return f"pair-{uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def second(ledger: Ledger, records_server: Server, prefix: str) -> Iterator[Site]:
    """The process that stays: another server, in another event loop."""
    with serving("uvicorn", ledger, records_server, prefix) as site:
        yield site


@pytest.fixture
def victim(ledger: Ledger, records_server: Server, prefix: str) -> Iterator[Site]:
    """The process that a test may kill or freeze; it shares its storage with `second`."""
    with serving("hypercorn-trio", ledger, records_server, prefix) as site:
        yield site


@pytest.fixture(params=[pytest.param("second", id="uvicorn-redis", marks=pytest.mark.redis)])
async def somewhere(request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    """A client of one server, for what the middleware decides by itself."""
    async with calling(request.getfixturevalue(request.param)) as caller:
        yield caller
