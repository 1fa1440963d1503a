"""Shapes of sagas: steps in the form that `start_saga` takes, for the handlers of `crew_worker`."""

from __future__ import annotations

from random import Random
from typing import Any

Steps = list[dict[str, Any]]
PATIENT = {"max_retries": 8, "initial_delay": 0.05, "max_delay": 0.5}


def step(name: str, *, kind: str = "compensatable", operation: str = "act", **parameters: Any) -> dict[str, Any]:
    """A step, with an undo if it is one that can have one. `undo_…` are parameters of the undo."""
    forward = {name: value for name, value in parameters.items() if not name.startswith("undo_")}
    undo = {name.removeprefix("undo_"): value for name, value in parameters.items() if name.startswith("undo_")}
    made: dict[str, Any] = {
        "name": name,
        "operation": operation,
        "parameters": forward,
        "kind": kind,
        "retry": PATIENT,
    }
    if kind == "compensatable":
        made["compensation_operation"] = "undo"
        made["compensation_parameters"] = undo
        made["compensation_retry"] = {**PATIENT, "max_retries": 50}
    return made


def _success(random: Random) -> Steps:
    return [step(name, seconds=random.uniform(0, 0.1)) for name in "abc"]


def _transient(random: Random) -> Steps:
    return [
        step("a"),
        step("b", fail_attempts=random.randint(1, 2)),
        step("c", fail_attempts=1, kind_of_error="unknown"),
    ]


def _final(random: Random) -> Steps:
    """Fails for good at the last step; one of the undos fails at first."""
    return [
        step("a", undo_fail_attempts=1, seconds=random.uniform(0, 0.05)),
        step("b", undo_seconds=random.uniform(0, 0.2)),
        step("c", fail_attempts=99, kind_of_error="final", seconds=random.uniform(0, 0.2)),
    ]


def _unknown(_random: Random) -> Steps:
    """The last step never says whether it happened, so it is undone too."""
    steps = [step("a"), step("b", fail_attempts=99, kind_of_error="unknown")]
    steps[-1]["retry"] = {**PATIENT, "max_retries": 2}
    return steps


def _pivot(random: Random) -> Steps:
    return [
        step("a"),
        step("b", kind="pivot", seconds=random.uniform(0, 0.3)),
        step("c", kind="retriable", fail_attempts=random.randint(0, 2)),
    ]


def _stuck(_random: Random) -> Steps:
    """Nobody can tell whether the pivot happened: parked, for an operator to decide."""
    steps = [step("a"), step("b", kind="pivot", fail_attempts=99, kind_of_error="unknown")]
    steps[-1]["retry"] = {**PATIENT, "max_retries": 1}
    return steps


def _not_undone(_random: Random) -> Steps:
    """One compensation is out of retries: the others are made all the same, and the saga is parked."""
    steps = [step("a"), step("b", undo_fail_attempts=99), step("c", fail_attempts=99, kind_of_error="final")]
    steps[1]["compensation_retry"] = {**PATIENT, "max_retries": 2}
    return steps


def _long(random: Random) -> Steps:
    return [step("a", seconds=random.uniform(0.5, 2.5)), step("b", seconds=random.uniform(0.5, 1.5))]


def _threads(random: Random) -> Steps:
    return [step(name, operation="block", seconds=random.uniform(0, 0.2)) for name in "ab"]


SHAPES = {
    "success": _success,
    "transient": _transient,
    "final": _final,
    "unknown": _unknown,
    "pivot": _pivot,
    "stuck": _stuck,
    "not undone": _not_undone,
    "long": _long,
    "threads": _threads,
}


def draw(random: Random) -> tuple[str, Steps]:
    """One of the shapes, and its name."""
    name = random.choice(sorted(SHAPES))
    return name, SHAPES[name](random)
