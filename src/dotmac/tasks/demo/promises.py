"""What the demo promises, checked against facts: the saga, its history, and the service's ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ..models import OperationStatus, SagaHistoryEntry, SagaWorkflow
from .ledger import Entry


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise in words, and whether it held."""

    text: str
    kept: bool


Check = Callable[[SagaWorkflow, list[SagaHistoryEntry], list[Entry]], list[Finding]]


def of_success(saga: SagaWorkflow, _history: list[SagaHistoryEntry], entries: list[Entry]) -> list[Finding]:
    """A saga whose second step fails once for a passing reason."""
    return [
        Finding("the saga completed", saga.status is OperationStatus.COMPLETED),
        Finding("the busy step was tried again, the others once", [s.attempts for s in saga.steps] == [1, 2, 1]),
        _each_once(entries, ["create_user", "open_mailbox", "send_email"]),
    ]


def of_compensation(saga: SagaWorkflow, history: list[SagaHistoryEntry], entries: list[Entry]) -> list[Finding]:
    """A saga whose third step is refused."""
    done = [entry.step for entry in history if entry.event == "step_completed"]
    undone = [entry.step for entry in history if entry.event == "compensation_completed"]
    return [
        Finding("the saga was compensated", saga.status is OperationStatus.COMPENSATED),
        Finding("every completed step was undone, in reverse order", bool(done) and undone == done[::-1]),
        Finding("the refund was tried again after it failed", saga.steps[1].compensation_attempts > 1),
        _each_once(entries, ["reserve_stock", "charge_card", "refund_card", "release_stock"]),
    ]


def of_takeover(saga: SagaWorkflow, history: list[SagaHistoryEntry], entries: list[Entry]) -> list[Finding]:
    """A saga whose runtime is lost after its second step's effect, before that was journaled."""
    charges = [entry for entry in entries if entry.effect == "charge_card"]
    first_step = [entry for entry in history if entry.event == "step_started" and entry.step == saga.steps[0].name]
    return [
        Finding("the saga completed", saga.status is OperationStatus.COMPLETED),
        Finding("another runtime took it over", any(entry.event == "saga_adopted" for entry in history)),
        Finding("what was journaled was not run again", len(first_step) == 1),
        Finding(
            "the interrupted charge was asked for again with the same token, under a higher fence",
            len(charges) > 1 and len({entry.token for entry in charges}) == 1 and charges[0].fence < charges[-1].fence,
        ),
        _each_once(entries, ["reserve_stock", "charge_card", "ship"]),
    ]


def _each_once(entries: list[Entry], expected: list[str]) -> Finding:
    performed = Counter(entry.effect for entry in entries if entry.performed)
    return Finding(f"done exactly once each: {', '.join(expected)}", performed == Counter(expected))
