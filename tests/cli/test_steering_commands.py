"""The commands, beside a worker that runs what they start: tables for people, JSON for programs, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from typer.testing import CliRunner, Result

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.commands import app
from dotmac.tasks.storage.redis import RedisStorage
from service.service_process import ServiceProcess, running
from support.processes import port_candidates
from support.servers import standalone

pytestmark = pytest.mark.redis


class Shell:
    """Runs commands in this process, beside one worker."""

    def __init__(self, folder: Path, redis_url: str, worker: ServiceProcess) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.worker = worker

    def run(self, *words: str, code: int = 0, given: str | None = None) -> Result:
        result = CliRunner().invoke(app, words, input=given, env={"REDIS_URL": self.redis_url})
        assert result.exit_code == code, (result.output, result.exception)
        return result

    def json(self, *words: str, code: int = 0, given: str | None = None) -> Any:
        return json.loads(self.run(*words, "--json", code=code, given=given).stdout)

    def start(self, *steps: dict[str, Any], tenant: str = "acme", options: tuple[str, ...] = (), code: int = 0) -> Any:
        body = json.dumps({"tenant_id": tenant, "workflow_type": "order", "steps": list(steps)})
        return self.json("sagas", "start", "-", *options, given=body, code=code)

    def park(self, carrier: Path, tenant: str) -> str:
        """A saga that is parked until there is a carrier."""
        ship = {"name": "Ship", "operation": "ship", "kind": "retriable", "parameters": {"carrier": str(carrier)}}
        steps = ({"name": "Pay", "operation": "charge", "kind": "pivot"}, {**ship, "max_retries": 0})
        outcome = self.start(*steps, tenant=tenant, options=("--wait",), code=1)
        assert outcome["status"] == "failed"
        saga_id: str = outcome["saga_id"]
        return saga_id


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("shell")
    with (
        standalone(aof=True) as server,
        running(folder, server.url, "worker", "shop_app:manager") as worker,
    ):
        worker.logged("working")
        yield Shell(folder, server.url, worker)


CHARGE = {"name": "Charge", "operation": "charge"}


def test_a_saga_is_started_and_followed(shell: Shell) -> None:
    file = shell.folder / "order.json"
    file.write_text(json.dumps({"tenant_id": "acme", "workflow_type": "order", "steps": [CHARGE]}))
    told = shell.run("sagas", "start", str(file), "--key", "order-1", "--wait").stdout
    for word in ("saga_created", "step_started", "Charge #1", "saga_completed"):
        assert word in told
    saga_id = told.splitlines()[-1].split()[0]
    assert told.splitlines()[-1] == f"{saga_id} completed"
    assert shell.run("sagas", "start", str(file), "--key", "order-1").stdout == f"{saga_id}\n"
    assert shell.json("sagas", "watch", saga_id)["status"] == "completed"
    record = shell.json("keys", "order-1", "--tenant", "acme")
    assert record["result"]["saga_id"] == saga_id
    assert "completed" in shell.run("keys", record["key"]).stdout


def test_one_saga_is_shown(shell: Shell) -> None:
    saga_id = shell.start(CHARGE, options=("--wait",))["saga_id"]
    told = shell.run("sagas", "show", saga_id, "--history").stdout
    assert saga_id in told
    assert "step_completed" in told
    assert shell.json("sagas", "show", saga_id)["steps"][0]["status"] == "completed"
    shown = shell.json("sagas", "show", saga_id, "--history")
    assert shown["history"][0]["event"] == "saga_created"


def test_lists_are_whole_where_nobody_looks(shell: Shell) -> None:
    ids = {shell.start(CHARGE, tenant="lists", options=("--wait",))["saga_id"] for _ in range(2)}
    told = shell.run("sagas", "list", "--tenant", "lists").stdout
    assert all(saga_id in told for saga_id in ids)
    page = shell.json("sagas", "list", "--tenant", "lists", "--status", "completed", "--limit", "1")
    assert len(page["sagas"]) == 1
    assert "there are more: --cursor" in shell.run("sagas", "list", "--tenant", "lists", "--limit", "1").stdout
    assert shell.json("sagas", "list", "--tenant", "lists", "--before", "2020-01-01")["sagas"] == []
    assert "no sagas" in shell.run("sagas", "list", "--tenant", "lists", "--type", "nothing").stdout


def test_values_of_secret_fields_are_shown_only_where_they_are_asked_for(shell: Shell) -> None:
    step = {**CHARGE, "parameters": {"card_token": "tok-4711", "cents": 5}}
    saga_id = shell.start(step, options=("--wait",))["saga_id"]
    for words in (("show", saga_id, "--history"), ("watch", saga_id)):
        for json_or_not in ((), ("--json",)):
            told = shell.run("sagas", *words, *json_or_not).stdout
            assert "tok-4711" not in told
    assert "tok-4711" in shell.run("sagas", "show", saga_id, "--history", "--reveal", "--json").stdout
    assert "cents" in shell.run("sagas", "show", saga_id, "--history", "--json").stdout


def test_parked_sagas_are_retried_all_at_once(shell: Shell) -> None:
    carrier = shell.folder / "carrier"
    parked = {shell.park(carrier, "retries") for _ in range(2)}
    listed = shell.json("sagas", "list", "--status", "parked", "--tenant", "retries")["sagas"]
    assert listed == shell.json("sagas", "list", "--failed", "--tenant", "retries")["sagas"]
    assert {saga["saga_id"] for saga in listed} == parked
    first = parked.pop()
    assert "open: step 'Ship'" in shell.run("sagas", "show", first).stdout
    carrier.touch()
    told = shell.run("sagas", "retry", first, "--reason", "there is a carrier").stdout
    assert told == "the request is stored for 1 of 1 sagas\n"
    assert set(shell.json("sagas", "retry", "--parked", "--tenant", "retries")["done"]) == parked
    for saga_id in (first, *parked):
        assert shell.json("sagas", "watch", saga_id)["status"] == "completed"
    notes = [entry for entry in shell.json("sagas", "show", first, "--history")["history"] if entry["sequence"] is None]
    assert [note["details"]["reason"] for note in notes] == ["there is a carrier"]
    assert "@" in notes[0]["details"]["who"]


def test_a_parked_saga_goes_on_from_a_step(shell: Shell) -> None:
    carrier = shell.folder / "late-carrier"
    saga_id = shell.park(carrier, "rewinds")
    assert (
        "'Pay' completed and was not undone"
        in shell.run("sagas", "retry", saga_id, "--from-step", "Pay", code=1).stderr
    )
    assert "has no step 'Nothing'" in shell.run("sagas", "retry", saga_id, "--from-step", "Nothing", code=1).stderr
    carrier.touch()
    shell.run("sagas", "retry", saga_id, "--from-step", "Ship")
    assert shell.json("sagas", "watch", saga_id)["status"] == "completed"
    history = shell.json("sagas", "show", saga_id, "--history")["history"]
    (resumed,) = [entry for entry in history if entry["event"] == "saga_resumed"]
    assert resumed["details"]["from_step"] == "Ship"


def test_a_running_saga_is_cancelled(shell: Shell) -> None:
    gate = shell.folder / "never"
    saga_id = shell.start({**CHARGE, "parameters": {"gate": str(gate)}})["saga_id"]
    shell.run("sagas", "cancel", saga_id, "--reason", "not wanted")
    assert shell.json("sagas", "watch", saga_id, code=1)["status"] == "compensated"


def test_what_refuses_is_named(shell: Shell) -> None:
    saga_id = shell.start(CHARGE, options=("--wait",))["saga_id"]
    steered = shell.json("sagas", "cancel", saga_id, "nothing-00", code=1)
    assert steered["done"] == []
    assert set(steered["refused"]) == {saga_id, "nothing-00"}
    assert "it is completed" in shell.run("sagas", "cancel", saga_id, code=1).stderr


def test_keys_are_listed(shell: Shell) -> None:
    assert shell.run("keys", "--tenant", "keyless").stdout == "no idempotency key\n"
    made = {
        shell.start(CHARGE, tenant="keys", options=("--wait", "--key", f"order-{number}"))["saga_id"]
        for number in range(3)
    }
    listed = shell.json("keys", "--tenant", "keys")
    assert {key["saga_id"] for key in listed["keys"]} == made
    assert listed["cursor"] is None
    first = shell.json("keys", "--tenant", "keys", "--limit", "2")
    rest = shell.json("keys", "--tenant", "keys", "--cursor", first["cursor"])
    assert {key["saga_id"] for key in first["keys"] + rest["keys"]} == made
    told = shell.run("keys", "--tenant", "keys", "--limit", "2").stdout
    assert "there are more: --cursor" in told
    assert "order-" not in told


def test_workers_and_locks_are_listed(shell: Shell) -> None:
    (worker,) = shell.json("workers")
    assert (worker["alive"], worker["state"]) == (True, "alive")
    assert worker["worker_id"] in shell.run("workers").stdout
    assert shell.json("locks") == []
    assert shell.run("locks").stdout == "no lock is held\n"
    assert shell.json("locks", "a") == {"name": "a", "held": None, "queue": [], "waiters": 0}
    assert shell.run("locks", "a").stdout == "nobody holds a\nnobody waits for it\n"


def test_a_lock_is_shown_with_those_who_wait_for_it(shell: Shell) -> None:
    async def look() -> None:
        first, second, third = (BackgroundOperationsManager(RedisStorage(shell.redis_url)) for _ in range(3))

        async def hold(manager: BackgroundOperationsManager) -> None:
            async with manager.lock("invoice:42"):
                await trio.sleep_forever()

        async with first, second, third, first.lock("invoice:42"), trio.open_nursery() as nursery:
            for waiters, manager in enumerate((second, third), 1):
                nursery.start_soon(hold, manager)
                with trio.fail_after(10):
                    while (await first.inspect_lock("invoice:42")).waiters < waiters:  # noqa: ASYNC110 - nothing tells of it
                        await trio.sleep(0.01)
            shown = await trio.to_thread.run_sync(lambda: shell.json("locks", "invoice:42"))
            told = await trio.to_thread.run_sync(lambda: shell.run("locks", "invoice:42").stdout)
            short = await trio.to_thread.run_sync(lambda: shell.run("locks", "invoice:42", "--limit", "1").stdout)
            nursery.cancel_scope.cancel()
        assert (shown["held"]["waiters"], len(shown["queue"])) == (2, 2)
        assert told.count(shown["held"]["owner"]) == 3
        assert "and 1 more" in short

    trio.run(look)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sagas", "show", "nothing"), "there is no saga 'nothing'"),
        (("sagas", "watch", "nothing"), "there is no saga 'nothing'"),
        (("sagas", "start", "/nothing.json"), "/nothing.json: No such file"),
        (("sagas", "start", "-"), "body: is no JSON"),
        (("sagas", "list", "--parked", "--status", "completed"), "--failed: contradicts --status completed"),
        (("sagas", "list", "--status", "unknown"), "status: there is no status 'unknown' of sagas; there are: pending"),
        (("sagas", "retry"), "SAGA_ID: name sagas, or give --failed"),
        (("sagas", "retry", "x", "--parked"), "SAGA_ID: name sagas, or give --failed"),
        (("keys", "nothing"), "there is no record of this key"),
        (("workers", "--redis", "http://nowhere"), "redis_url"),
    ],
)
def test_what_cannot_be_done_is_told_on_standard_error(shell: Shell, words: tuple[str, ...], told: str) -> None:
    result = shell.run(*words, code=2)
    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sagas", "list", "--cursor", "\udcff"), "cursor: is not one that a page of this list gave"),
        (("sagas", "list", "--tenant", "\udcff"), "tenant_id: holds half a surrogate pair"),
        (("sagas", "list", "--type", "\udcff"), "workflow_type: holds half a surrogate pair"),
        (("sagas", "show", "\udcff-00"), "saga_id: holds half a surrogate pair"),
        (("sagas", "watch", "\udcff-00"), "saga_id: holds half a surrogate pair"),
        (("sagas", "start", "-", "--key", "\udcff"), "idempotency_key: holds half a surrogate pair"),
        (("keys", "\udcff"), "key: holds half a surrogate pair"),
        (("keys", "\udcff", "--tenant", "acme"), "key: holds half a surrogate pair"),
        (("keys", "a", "--tenant", "\udcff"), "tenant_id: holds half a surrogate pair"),
        (("keys", "--tenant", "\udcff"), "tenant_id: holds half a surrogate pair"),
        (("keys", "--cursor", "\udcff"), "cursor: "),
    ],
)
def test_bytes_that_are_no_text_are_told(shell: Shell, words: tuple[str, ...], told: str) -> None:
    """As a shell passes them on."""
    body = json.dumps({"tenant_id": "acme", "workflow_type": "order", "steps": [CHARGE]})
    result = shell.run(*words, code=2, given=body)
    assert result.stderr.startswith(f"dotmac-tasks: {told}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_saga_that_is_no_text_refuses(shell: Shell, verb: str) -> None:
    told = "saga_id: holds half a surrogate pair, which is no character"
    assert told in shell.run("sagas", verb, "\udcff-00", code=1).stderr
    assert shell.json("sagas", verb, "\udcff-00", code=1) == {"done": [], "refused": {r"\udcff-00": told}}


def test_a_storage_that_does_not_answer_has_a_code_of_its_own() -> None:
    nobody = f"redis://127.0.0.1:{next(port_candidates())}/0?socket_timeout=0.5"
    result = CliRunner().invoke(app, ["workers", "--redis", nobody], env={"REDIS_URL": ""})
    assert result.exit_code == 3, result.output
    assert nobody.removeprefix("redis://").partition("/")[0] in result.stderr


def test_nobody_said_where() -> None:
    result = CliRunner().invoke(app, ["workers"], env={"REDIS_URL": ""})
    assert result.exit_code == 2
    assert "say where: --redis" in result.stderr


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nothing_there:manager",), "there is no module 'nothing_there'"),
        (("json:decoder",), "it must be a BackgroundOperationsManager"),
    ],
)
def test_an_application_that_is_none_is_told(command: str, words: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(app, [command, *words])
    assert result.exit_code == 2, result.exception
    assert told in result.stderr


def test_other_machines_need_a_token() -> None:
    result = CliRunner().invoke(app, ["serve", "service.shop_app:manager", "--bind", "0.0.0.0:8080"])
    assert result.exit_code == 2
    assert "--token-file" in result.stderr
