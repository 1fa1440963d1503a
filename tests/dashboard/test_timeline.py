"""A timeline shows what took time and what happened between, as the history tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, SagaHistoryEntry
from dotmac.tasks.service.dashboard.timeline import SCALE, Row, timeline
from runtime.nodes import Ledger, Node, step, until

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def entry(seconds: float, event: str, step: str | None = None, attempt: int | None = None, **details: Any) -> Any:
    return SagaHistoryEntry("s", BEGIN + timedelta(seconds=seconds), event, 0, step, attempt, details)


def told(rows: list[Row]) -> list[tuple[str, str | None, str, float | None]]:
    return [(row.kind, row.step, row.text, row.seconds) for row in rows]


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def test_attempts_and_waits_have_their_length() -> None:
    failure = {"error": "ValueError", "message": "busy"}
    history = [
        entry(0, "saga_created"),
        entry(0, "step_started", "a", 1),
        entry(2, "step_failed", "a", 1, failure=failure),
        entry(2, "step_retry_scheduled", "a", retry_at=at(5).isoformat()),
        entry(5, "step_started", "a", 2),
        entry(9, "step_completed", "a", 2, result=None),
        entry(10, "saga_completed"),
    ]
    rows = timeline(history, at(1000), ended=True)
    assert told(rows) == [
        ("moment", None, "created", None),
        ("attempt", "a", "attempt 1: failed", 2),
        ("wait", "a", "waits for its next attempt", 3),
        ("attempt", "a", "attempt 2: completed", 4),
        ("moment", None, "completed", None),
    ]
    assert rows[1].note == "ValueError: busy"
    assert rows[2].note == "due 00:00:05"
    assert [row.tone for row in rows] == ["info", "failed", "info", "ok", "ok"]
    assert [(row.x, row.width) for row in rows[1:4]] == [(0, SCALE / 5), (SCALE / 5, 300), (SCALE / 2, 400)]
    assert all(row.x >= 0 and row.x + row.width <= SCALE for row in rows)


def test_what_goes_on_reaches_to_now() -> None:
    running = timeline([entry(0, "saga_created"), entry(0, "step_started", "a", 1)], at(7), ended=False)
    assert (running[1].open, running[1].tone, running[1].seconds) == (True, "running", 7)
    history = [entry(0, "step_failed", "a", 1, failure={"error": "E"}), entry(0, "step_retry_scheduled", "a")]
    assert [row.seconds for row in timeline(history, at(7), ended=False)] == [7]


def test_a_compensation_is_told_apart() -> None:
    history = [
        entry(0, "compensation_began", reason="no"),
        entry(0, "compensation_started", "a", 1),
        entry(1, "compensation_failed", "a", 1, failure={"error": "E", "unknown": True}),
        entry(1, "compensation_exhausted", "a"),
        entry(1, "saga_parked", open_items=["x", "y"]),
    ]
    rows = timeline(history, at(1), ended=True)
    assert [(row.text, row.undo, row.tone) for row in rows] == [
        ("turns back", False, "warn"),
        ("undo, attempt 1: may have happened", True, "lost"),
        ("no further attempt to undo it", True, "failed"),
        ("parked: an operator decides", False, "failed"),
    ]
    assert [rows[0].note, rows[3].note] == ["no", "x; y"]


def test_what_an_operator_did_is_told_with_the_name() -> None:
    history = [
        entry(0, "operator_retry", who="otto", reason="mended"),
        entry(0, "operator_retry_refused", who="otto", problem="too late"),
        entry(0, "note", text="hello"),
    ]
    rows = timeline(history, at(0), ended=True)
    assert [(row.kind, row.text, row.note) for row in rows] == [
        ("operator", "retry, asked for by otto", "mended"),
        ("operator", "retry refused, asked for by otto", "too late"),
        ("moment", "note", ""),
    ]


def test_nothing_gives_nothing() -> None:
    assert timeline([], at(0), ended=False) == []


async def test_a_takeover_ends_the_attempt_that_its_worker_left(autojump_clock: MockClock) -> None:
    shared, ledger = MemoryStorage(), Ledger()
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        steps = [step("a")]
        handle = await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        await until(lambda: ledger.entered == ["a"])
        await trio.sleep(1)
        lost = first.worker.worker_id
        await first.kill()
        ledger.hold.clear()
        await second.manager.saga_handle(handle.saga_id).result()
        history = await second.manager.get_saga_history(handle.saga_id)
        rows = timeline(history, datetime.now(UTC), ended=True)
    attempts = [row for row in rows if row.kind == "attempt"]
    assert [row.text for row in attempts] == ["attempt 1: its worker was lost", "attempt 2: completed"]
    assert [row.tone for row in attempts] == ["lost", "ok"]
    (takeover,) = [row for row in rows if row.kind == "takeover"]
    assert takeover.note == f"from {lost}, epoch 2"
    assert attempts[0].end == takeover.start
    assert not any(row.open for row in rows)


async def test_every_event_that_a_journal_can_hold_has_words_of_its_own(autojump_clock: MockClock) -> None:
    """Names of events never reach a timeline raw: whatever is not known would show its underscores as spaces."""
    shared, ledger = MemoryStorage(), Ledger()
    ledger.failing = {"b": ValueError("no"), "undo a": ValueError("no")}
    async with Node(shared, ledger.register) as node:
        steps = [step("a", compensation_retry={"max_retries": 1, "initial_delay": 0.1}), step("b", max_retries=0)]
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        await handle.result()
        ledger.failing.clear()
        await (await node.manager.retry_saga(handle.saga_id)).result()
        history = await node.manager.get_saga_history(handle.saga_id)
    rows = timeline(history, datetime.now(UTC), ended=True)
    raw = {line.event.replace("_", " ") for line in history}
    assert not raw & {row.text for row in rows}
    assert {"saga_adopted", "saga_resumed", "compensation_exhausted"} <= {line.event for line in history}
