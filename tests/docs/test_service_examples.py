"""The example service runs, what stands beside it fits it, and the guide tells what there is."""

from __future__ import annotations

import configparser
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml
from typer.main import get_command
from typer.testing import CliRunner

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


COMPOSE: dict[str, Any] = yaml.safe_load((SERVICE / "compose.yaml").read_text())
UNIT = (SERVICE / "dotmac-tasks.service").read_text()


def instruction(name: str) -> list[str]:
    """The words of an instruction of the container file, which has them as a list."""
    (found,) = re.findall(rf"^{name} (\[.*\])$", (SERVICE / "Containerfile").read_text(), re.MULTILINE)
    words: list[str] = json.loads(found)
    return words


def command_lines() -> list[list[str]]:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT)
    own = [part["command"] for part in COMPOSE["services"].values() if "build" in part and "entrypoint" not in part
           and "command" in part]  # fmt: skip
    return [shlex.split(unit["Service"]["ExecStart"])[1:], instruction("CMD"), *own]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_the_command_lines_have_only_options_that_there_are(words: list[str]) -> None:
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert words[1] == "shop:manager"
    # Parsed as a whole: an option without its value is none.
    command.make_context(words[0], list(words[1:]), resilient_parsing=True)


def test_the_parts_of_the_compose_file_fit_together() -> None:
    parts = COMPOSE["services"]
    assert instruction("ENTRYPOINT") == ["dotmac-tasks"]
    assert parts.keys() == {"redis", "service", "worker", "api"}
    for name, part in parts.items():
        assert set(part.get("depends_on", ())) <= parts.keys()
        # An image or a build; and whatever is seen from outside of the machine asks for a token first.
        assert ("image" in part) != ("build" in part), name
        assert all(port.startswith("127.0.0.1:") for port in part.get("ports", ()))
        if "build" in part:
            assert part["environment"]["REDIS_URL"] == "redis://redis:6379/0"
            assert (SERVICE / part["build"]["dockerfile"]).is_file()
    assert "TASKS_TOKENS" in parts["service"]["environment"]
    copied = re.findall(r"^COPY (.*) \S+$", (SERVICE / "Containerfile").read_text(), re.MULTILINE)
    assert {file for line in copied for file in line.split()} == {"shop.py", "shop_api.py"}
    assert set(COMPOSE["volumes"]) == {mount.partition(":")[0] for mount in parts["redis"]["volumes"]}


def test_the_server_of_the_compose_file_keeps_its_promises() -> None:
    """The options of the server are those that `doctor` finds nothing wrong with."""
    words = COMPOSE["services"]["redis"]["command"][1:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    lines = [f"{name.removeprefix('--')} {value}" for name, value in options.items()]
    with standalone(*lines) as server:
        found = CliRunner().invoke(app, ["doctor", "--json"], env={"REDIS_URL": server.url})
    assert found.exit_code == 0, found.output


def test_the_api_of_the_compose_file_is_served_by_options_that_hypercorn_has() -> None:
    part = COMPOSE["services"]["api"]
    assert part["entrypoint"] == ["hypercorn"]
    told = subprocess.run(
        [sys.executable, "-m", "hypercorn", "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert all(word in told for word in part["command"] if word.startswith("--"))
    assert part["command"][-1] == "shop_api:app"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    """But for the command, which is not installed here."""
    unit = tmp_path / "dotmac-tasks.service"
    unit.write_text(UNIT.replace("/srv/shop/venv/bin/dotmac-tasks", "/bin/true"))
    told = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (told.returncode, "dotmac-tasks.service" in told.stderr) == (0, False), told.stderr


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
