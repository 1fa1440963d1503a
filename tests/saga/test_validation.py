"""What cannot run is refused before anything is stored, by the path of the field and with what would do."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from dotmac.tasks.errors import InvalidInput, UnknownOperation
from dotmac.tasks.models import SagaStep, StepKind
from dotmac.tasks.retry import COMPENSATION_RETRY, RetryPolicy
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.validation import MAX_STEPS, KnownHandlers, check_definition, parse_steps

ANY = KnownHandlers(None, None)
SOME = KnownHandlers({"do"}, {"undo"})
STEP: dict[str, Any] = {"name": "a", "operation": "do"}
PIVOT: dict[str, Any] = {"name": "p", "operation": "do", "kind": "pivot"}


def _refusal(steps: Any, known: KnownHandlers = ANY) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        parse_steps(steps, known)
    return refused.value


def _head(**fields: Any) -> SagaDefinition:
    return SagaDefinition(**{"saga_id": "s", "tenant_id": "t", "workflow_type": "w", "steps": (), **fields})


def test_a_step_is_filled_with_defaults() -> None:
    assert parse_steps([STEP], SOME) == (StepDefinition("a", "do"),)


def test_a_saga_step_object_is_taken_as_the_mapping_of_its_fields() -> None:
    step = SagaStep("a", "do", {"n": 1}, compensation_operation="undo", max_retries=0, timeout_seconds=2)
    (parsed,) = parse_steps([step], SOME)
    assert parsed == StepDefinition(
        "a", "do", {"n": 1}, compensation_operation="undo", retry=RetryPolicy(max_retries=0), timeout_seconds=2.0
    )
    assert _refusal([SagaStep("a", "do", {"n": {1}})]).field == "steps[0].parameters.n"
    assert _refusal([step, SagaStep("", "do", {})]).field == "steps[1].name"


def test_every_field_of_a_step_is_kept() -> None:
    retry = {"max_retries": 1, "non_retryable": ["ValueError"]}
    given = {
        **STEP,
        "parameters": {"n": 1},
        "kind": "compensatable",
        "compensation_operation": "undo",
        "compensation_parameters": {"id": {"$ref": "steps.a.result.id"}},
        "retry": retry,
        "compensation_retry": {"max_retries": 7},
        "timeout_seconds": 2,
        "compensation_timeout_seconds": 3.5,
    }
    (step,) = parse_steps([given], SOME)
    assert step == StepDefinition(
        "a",
        "do",
        {"n": 1},
        StepKind.COMPENSATABLE,
        "undo",
        {"id": {"$ref": "steps.a.result.id"}},
        RetryPolicy(max_retries=1, non_retryable=("ValueError",)),
        RetryPolicy(max_retries=7),
        2.0,
        3.5,
    )
    assert parse_steps([step], SOME) == (step,), "a definition is accepted as well as a mapping"


def test_max_retries_stands_for_a_whole_policy() -> None:
    (step,) = parse_steps([{**STEP, "max_retries": 0}], ANY)
    assert step.retry == RetryPolicy(max_retries=0)
    assert step.compensation_retry == COMPENSATION_RETRY


def test_a_pivot_is_followed_by_retriable_steps() -> None:
    steps = parse_steps([STEP, PIVOT, {"name": "r", "operation": "do", "kind": "retriable"}], SOME)
    assert [step.kind for step in steps] == [StepKind.COMPENSATABLE, StepKind.PIVOT, StepKind.RETRIABLE]


@pytest.mark.parametrize("steps", ["ab", b"ab", {"name": "a"}, {1}, None, 5, iter([])])
def test_steps_are_a_list(steps: Any) -> None:
    assert _refusal(steps).field == "steps"


@pytest.mark.parametrize("count", [0, MAX_STEPS + 1])
def test_a_saga_has_one_to_a_thousand_steps(count: int) -> None:
    assert _refusal([STEP] * count).reason == f"must hold 1 to 1000 steps, not {count}"


DUPLICATE = [STEP, {**STEP, "operation": "other"}]
WHEN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("steps", "field", "reason"),
    [
        ([5], "steps[0]", "must be a mapping or a SagaStep, not int"),
        ([{"operation": "do"}], "steps[0].name", "is required"),
        ([{**STEP, "tmeout": 1}], "steps[0].tmeout", "a step has: name, operation"),
        ([{**STEP, "kind": "sideways"}], "steps[0].kind", "no kind 'sideways'; there are: compensatable, pivot"),
        ([{**STEP, "timeout_seconds": "1"}], "steps[0].timeout_seconds", "expected `float | null`, got `str`"),
        ([{**STEP, "name": ""}], "steps[0].name", "1 to 255"),
        ([{**STEP, "name": "a.result"}], "steps[0].name", "must not contain '.result'"),
        ([{**STEP, "operation": "a\nb"}], "steps[0].operation", "printable"),
        (DUPLICATE, "steps[1].name", "the name 'a' is used by an earlier step"),
        ([{**STEP, "parameters": {"when": WHEN}}], "steps[0].parameters.when", "datetime"),
        ([{**STEP, "compensation_parameters": {"x": {1}}}], "steps[0].compensation_parameters.x", "set"),
        ([{**STEP, "parameters": []}], "steps[0].parameters", "expected `object | null`, got `array`"),
        ([{**STEP, "timeout_seconds": 0}], "steps[0].timeout_seconds", "seconds"),
        ([{**STEP, "timeout_seconds": -1.5}], "steps[0].timeout_seconds", "seconds"),
        ([{**STEP, "timeout_seconds": float("nan")}], "steps[0].timeout_seconds", "seconds"),
        ([{**STEP, "compensation_timeout_seconds": -1}], "steps[0].compensation_timeout_seconds", "seconds"),
        ([{**STEP, "max_retries": -1}], "steps[0].max_retries", "0 or more"),
        ([{**STEP, "max_retries": 1, "retry": {}}], "steps[0].max_retries", "not both"),
        ([{**STEP, "retry": {"multiplier": 0}}], "steps[0].retry.multiplier", "1 or more"),
        ([{**STEP, "retry": {"max_delay": "x"}}], "steps[0].retry.max_delay", "expected `float`, got `str`"),
        ([{**STEP, "retry": RetryPolicy(max_delay=float("inf"))}], "steps[0].retry.max_delay", "number of seconds"),
        ([{**STEP, "compensation_retry": {"max_retries": -1}}], "steps[0].compensation_retry.max_retries", "0 or more"),
        ([{**STEP, "compensation_parameters": {"a": 1}}], "steps[0].compensation_parameters", "to take them"),
        ([{**STEP, "compensation_operation": ""}], "steps[0].compensation_operation", "1 to 255"),
        ([{**PIVOT, "compensation_operation": "u"}], "steps[0].compensation_operation", "a pivot step is never undone"),
        ([PIVOT, STEP], "steps[1].kind", "only retriable steps may follow the pivot"),
        ([PIVOT, {**PIVOT, "name": "q"}], "steps[1].kind", "only retriable steps may follow the pivot"),
        ([{**STEP, "kind": "retriable"}], "steps[0].kind", "there is none before this one"),
        ([{**STEP, "parameters": {"x": {"$ref": "steps.a.result"}}}], "steps[0].parameters.x", "names no earlier step"),
        ([{**STEP, "parameters": {"x": {"$ref": "a"}}}], "steps[0].parameters.x", "is not of the form"),
        (
            [{**STEP, "compensation_operation": "u", "compensation_parameters": {"x": {"$ref": "steps.b.result"}}}],
            "steps[0].compensation_parameters.x",
            "neither this step nor an earlier one",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_its_field(steps: Any, field: str, reason: str) -> None:
    refused = _refusal(steps)
    assert refused.field == field
    assert reason in refused.reason


def test_a_handler_that_is_not_registered_is_refused() -> None:
    unknown = _refusal([{**STEP, "operation": "other"}], SOME)
    assert isinstance(unknown, UnknownOperation)
    assert unknown.field == "steps[0].operation"
    unknown = _refusal([{**STEP, "compensation_operation": "other"}], SOME)
    assert isinstance(unknown, UnknownOperation)
    assert unknown.field == "steps[0].compensation_operation"


def test_a_reference_may_name_an_earlier_step_and_an_undo_its_own() -> None:
    later = {
        "name": "b",
        "operation": "do",
        "parameters": {"x": {"$ref": "steps.a.result"}},
        "compensation_operation": "undo",
        "compensation_parameters": {"x": {"$ref": "steps.a.result"}, "y": {"$ref": "steps.b.result.id"}},
    }
    assert len(parse_steps([STEP, later], SOME)) == 2


@pytest.mark.parametrize("priority", [-1000, 0, 1000])
def test_a_head_that_makes_sense_is_accepted(priority: int) -> None:
    check_definition(_head(priority=priority, timeout_seconds=0.5, metadata={"trace": "x"}))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": None}, "tenant_id"),
        ({"workflow_type": "a\x00"}, "workflow_type"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": True}, "timeout_seconds"),
        ({"timeout_seconds": "1"}, "timeout_seconds"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds"),
        ({"priority": 1001}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 1.0}, "priority"),
        ({"timeout_seconds": 10**400}, "timeout_seconds"),
        ({"metadata": None}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {1: "a"}}, "metadata.1"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused_by_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_definition(_head(**fields))
    assert refused.value.field == field


@pytest.mark.parametrize("policy", ["retry", "compensation_retry"])
def test_a_field_that_no_retry_policy_has_is_named_with_those_it_has(policy: str) -> None:
    step = {"name": "a", "operation": "o", policy: {"max_retries": 1, "mood": "grim"}}
    with pytest.raises(InvalidInput, match="a retry policy has: max_retries") as refused:
        parse_steps([step], KnownHandlers(operations=None, compensations=None))
    assert refused.value.field == f"steps[0].{policy}.mood"


@pytest.mark.parametrize("step", [{**STEP, "kind": "\ud800"}, {**STEP, "\ud800": 1}])
def test_half_a_character_anywhere_in_a_step_is_refused(step: dict[str, Any]) -> None:
    refused = _refusal([step])
    assert refused.field == "steps[0]"
    assert "surrogate" in refused.reason


def test_the_short_way_to_say_how_many_retries_has_the_same_bounds() -> None:
    for retries in (-1, 1_000_001, 10**400):
        refused = _refusal([{**STEP, "max_retries": retries}])
        assert refused.field == "steps[0].max_retries"
        assert "up to 1000000" in refused.reason


@pytest.mark.parametrize("value", ["", "a\nb", "x" * 256])
def test_a_lock_whose_name_can_be_told_to_be_none_is_refused(value: str) -> None:
    step = {**STEP, "lock": "{parameters.id}", "parameters": {"id": value}}
    assert _refusal([step]).field == "steps[0].lock"
    parse_steps([STEP, {**step, "name": "b", "parameters": {"id": {"$ref": "steps.a.result.id"}}}], ANY)


def test_a_literal_stands_in_for_all_parameters_only_with_an_object() -> None:
    parse_steps([{**STEP, "parameters": {"$literal": {"$ref": "x"}}}], ANY)
    for name in ("parameters", "compensation_parameters"):
        step = {**STEP, "compensation_operation": "u", name: {"$literal": [1]}}
        with pytest.raises(InvalidInput, match="must hold an object") as refused:
            parse_steps([step], ANY)
        assert refused.value.field == f"steps[0].{name}"


def test_a_reference_to_a_step_that_does_not_exist_names_the_way_to_pass_data() -> None:
    undo = {"compensation_operation": "u", "compensation_parameters": {"x": {"$ref": "steps.c.result"}}}
    for fields in ({"parameters": {"x": {"$ref": "steps.c.result"}}}, undo):
        with pytest.raises(InvalidInput, match=r"literal\(value\)"):
            parse_steps([{**STEP, **fields}], ANY)
