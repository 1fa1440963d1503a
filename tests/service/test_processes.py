"""Services as processes: they share the work, drain, hasten, are killed, and say by their exit code how it was."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.service_process import PATIENCE, ServiceProcess, charge, reached, running, serving, start_by_http
from support.processes import port_candidates, wait_until
from support.servers import standalone

pytestmark = pytest.mark.redis
SHIP = {"name": "Ship", "operation": "ship"}


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with standalone(aof=True) as server:
        yield server.url


def get(process: ServiceProcess, path: str) -> Any:
    return httpx.get(process.url + path, timeout=PATIENCE).raise_for_status().json()


def ended(process: ServiceProcess, saga_id: str) -> dict[str, Any]:
    """The saga once it has ended, as this process tells it."""

    def look() -> dict[str, Any]:
        saga: dict[str, Any] = get(process, f"/v1/sagas/{saga_id}")
        return saga if saga["status"] in ("completed", "compensated", "failed") else {}

    return wait_until(look, seconds=PATIENCE, what=f"the end of {saga_id}")


def events(process: ServiceProcess, saga_id: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = get(process, f"/v1/sagas/{saga_id}/history")["entries"]
    return entries


def test_workers_share_all_sagas_of_a_service_that_runs_none(tmp_path: Path, redis_url: str) -> None:
    with ExitStack() as stack:
        front = stack.enter_context(serving(tmp_path, redis_url, "--no-work"))
        for _ in range(2):
            stack.enter_context(running(tmp_path, redis_url, "worker", "shop_app:manager")).logged("working")
        started = [start_by_http(front, charge()) for _ in range(40)]
        for saga_id in started:
            assert ended(front, saga_id)["status"] == "completed"
        owners = [events(front, saga_id)[1]["details"]["worker"] for saga_id in started]
        assert len(set(owners)) == 2
        assert min(owners.count(owner) for owner in set(owners)) >= 5
        assert {worker["worker_id"] for worker in get(front, "/v1/workers")["workers"]} == set(owners)


def test_one_drains_one_is_killed_and_the_other_goes_on(tmp_path: Path, redis_url: str) -> None:
    first_gate, second_gate = tmp_path / "first", tmp_path / "second"
    with ExitStack() as stack:
        one, two, three = (stack.enter_context(serving(tmp_path, redis_url)) for _ in range(3))
        drained = start_by_http(one, charge(first_gate), SHIP)
        taken_over = start_by_http(two, charge(second_gate), SHIP)
        reached(first_gate)
        reached(second_gate)
        assert len(get(three, "/v1/workers")["workers"]) == 3
        for process in (one, two, three):
            process.signal(signal.SIGHUP)
            process.logged("SIGHUP: nothing to do")
        one.signal(signal.SIGTERM)
        one.logged("SIGTERM: draining")
        two.kill()
        first_gate.touch()
        second_gate.touch()
        assert one.ended() == 0
        one.logged("stopped; everything is handed over")
        assert ended(three, drained)["status"] == ended(three, taken_over)["status"] == "completed"
        # The running attempt was let finish, and the rest went on elsewhere.
        begun = [entry for entry in events(three, drained) if entry["event"] == "step_started"]
        assert [(entry["step"], entry["attempt"]) for entry in begun] == [("Charge", 1), ("Ship", 1)]
        # The takeover is told, and what was cut off is tried again.
        history = events(three, taken_over)
        (adopted,) = [entry for entry in history if entry["event"] == "saga_adopted"]
        assert adopted["details"]["previous"] not in (None, adopted["details"]["worker"])
        assert [e["attempt"] for e in history if e["event"] == "step_started" and e["step"] == "Charge"] == [1, 2]


def test_a_second_signal_cuts_running_attempts_off(tmp_path: Path, redis_url: str) -> None:
    gate = tmp_path / "never"
    with serving(tmp_path, redis_url) as one:
        saga_id = start_by_http(one, charge(gate))
        reached(gate)
        one.signal(signal.SIGTERM)
        one.logged("SIGTERM: draining")
        one.signal(signal.SIGINT)
        assert one.ended() == 128 + signal.SIGINT
    gate.touch()
    with running(tmp_path, redis_url, "worker", "shop_app:manager") as worker, serving(tmp_path, redis_url) as two:
        assert ended(two, saga_id)["status"] == "completed"
        (failed,) = [entry for entry in events(two, saga_id) if entry["event"] == "step_failed"]
        assert failed["details"]["failure"]["error"] == "Drained"
        worker.logged("working")  # until then, a signal ends its start
        worker.signal(signal.SIGINT)
        assert worker.ended() == 0


def test_logs_are_json_lines_that_name_the_saga(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path, redis_url, "--log-level", "info") as one:
        ship = {**SHIP, "parameters": {"carrier": str(tmp_path / "nobody")}, "max_retries": 0}
        saga_id = start_by_http(one, charge(), ship)
        assert ended(one, saga_id)["status"] == "compensated"
        (line,) = [line for line in one.lines() if "NonRetryableError" in line["message"]]
        assert (line["saga_id"], line["tenant_id"], line["step"], line["level"]) == (saga_id, "acme", "Ship", "warning")
        assert "NonRetryableError: no carrier" in line["error"]


def test_a_storage_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    nobody = f"redis://127.0.0.1:{next(port_candidates())}/0?socket_timeout=0.5"
    with serving(tmp_path, nobody) as one:
        assert one.ended() == 3
        assert one.lines()[-1]["message"].startswith("cannot start: ")


def test_a_storage_that_would_lose_sagas_is_refused(tmp_path: Path) -> None:
    with (
        standalone("maxmemory 100mb", "maxmemory-policy allkeys-lru") as server,
        serving(tmp_path, server.url) as one,
    ):
        assert one.ended() == 3
        assert "maxmemory-policy" in one.lines()[-1]["message"]


def test_an_address_that_is_taken_ends_it(tmp_path: Path, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with serving(tmp_path, redis_url, "--bind", address) as one:
            assert one.ended() == 1  # it may be free later, so supervisors try again
            assert not one.lines()  # the manager was not started for it
