"""The example service runs, what stands beside it fits it, and the guide tells what there is."""

from __future__ import annotations

import configparser
import importlib
import re
import shlex
import sys
from collections.abc import Iterator

import httpx
import pytest
import trio
from typer.main import get_command

from docs.documents import ROOT
from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, Settings
from dotmac.tasks.commands import app
from dotmac.tasks.service import exits
from dotmac.tasks.service.app import create_app
from support.servers import standalone

SERVICE = ROOT / "examples" / "service"
GUIDE = (ROOT / "docs" / "service.md").read_text()
ORDER = {"article": "tea", "pieces": 1, "cents": 450}


@pytest.fixture
def _examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(SERVICE))
    with standalone(aof=True) as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        yield
    for name in ("shop", "shop_api"):
        sys.modules.pop(name, None)


def test_every_example_of_the_service_is_known() -> None:
    assert {path.name for path in SERVICE.iterdir() if path.is_file()} == {
        "Containerfile", "compose.yaml", "dotmac-tasks.service", "shop.py", "shop_api.py",
    }  # fmt: skip


@pytest.mark.redis
@pytest.mark.usefixtures("_examples")
async def test_the_api_submits_what_the_shop_runs() -> None:
    shop, shop_api = importlib.import_module("shop"), importlib.import_module("shop_api")
    transport = httpx.ASGITransport(shop_api.app)
    async with (
        shop.manager,
        shop_api.app.router.lifespan_context(shop_api.app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as customer,
    ):
        placed = [await customer.post("/orders", json=ORDER, headers={"Idempotency-Key": "o-1"}) for _ in range(2)]
        assert [answer.status_code for answer in placed] == [202, 202]
        order = placed[0].json()["order"]
        assert placed[1].json()["order"] == order
        with trio.fail_after(20):
            assert (await shop.manager.saga_handle(order).result()).completed
            refused = await customer.post("/orders", json={**ORDER, "pieces": 500}, headers={"Idempotency-Key": "o-2"})
            await shop.manager.saga_handle(refused.json()["order"]).result()
        assert (await customer.get(f"/orders/{order}")).json() == {"status": "completed"}
        assert (await customer.get(f"/orders/{refused.json()['order']}")).json() == {"status": "compensated"}


def command_lines() -> list[list[str]]:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(SERVICE / "dotmac-tasks.service")
    container = (SERVICE / "Containerfile").read_text()
    quoted = re.findall(r"^CMD \[(.*)\]$", container, re.MULTILINE)
    quoted += re.findall(r'command: \[("worker".*)\]$', (SERVICE / "compose.yaml").read_text(), re.MULTILINE)
    assert len(quoted) == 2
    return [
        shlex.split(unit["Service"]["ExecStart"])[1:],
        *([word.strip().strip('"') for word in line.split(",")] for line in quoted),
    ]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_the_command_lines_have_only_options_that_there_are(words: list[str]) -> None:
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert words[1] == "shop:manager"


def test_supervisors_wait_longer_than_a_drain_lasts() -> None:
    patience = re.findall(r"(?:TimeoutStopSec=|stop_grace_period: )(\d+)", "".join(
        (SERVICE / name).read_text() for name in ("dotmac-tasks.service", "compose.yaml")
    ))  # fmt: skip
    assert len(patience) == 3
    assert all(int(seconds) > Settings().drain_timeout for seconds in patience)


async def test_the_guide_lists_every_request() -> None:
    listed = re.findall(r"^\| `(GET|POST) (\S+)` \|", GUIDE, re.MULTILINE)
    service = create_app(BackgroundOperationsManager(storage=MemoryStorage()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://localhost") as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    described = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert sorted(listed) == sorted([*described, ("GET", "/openapi.json")])


def test_the_guide_lists_every_exit_code() -> None:
    listed = re.findall(r"^\| ([0-9 +n]+) \|", GUIDE, re.MULTILINE)
    assert listed == [*map(str, (exits.DRAINED, exits.FAILED, exits.USAGE, exits.STORAGE)), "128 + n"]
    assert exits.killed_by(15) == 143
