"""A `$ref` is found, refused when malformed, and replaced by a copy of what it names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.events import SagaCreated, decode_events, encode_events
from dotmac.tasks.saga.references import Reference, find_references, resolve
from saga.json_values import objects, values

NOTHING = dict[str, Any]().__getitem__
names = st.text(min_size=1, max_size=12).filter(lambda name: ".result" not in name)
parts = st.text(max_size=6).filter(lambda part: "." not in part)


def _resolve(text: str, result: Any) -> Any:
    return resolve({"$ref": text}, {"a": result}.__getitem__, "p")


@given(names, st.lists(parts, max_size=4))
def test_a_reference_round_trips(name: str, path: list[str]) -> None:
    text = ".".join([f"steps.{name}.result", *path])
    reference = Reference(text, "p")
    assert (reference.step, reference.path, reference.text) == (name, path, text)


@pytest.mark.parametrize("name", ["a", "a b", "a.b", "steps.a", "step.1 (of 2)", "ünï", ".", "result"])
def test_a_step_may_have_dots_and_spaces_in_its_name(name: str) -> None:
    assert Reference(f"steps.{name}.result.id", "p").step == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "steps",
        "steps.",
        "steps.a",
        "steps..result",
        "steps.result",
        "a.result",
        "steps.a.resultx",
        "steps.a.results.x",
    ],
)
def test_a_malformed_reference_is_refused_where_it_stands(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"steps\.<name>\.result\.<field>") as refused:
        list(find_references({"x": [1, {"$ref": text}]}, "p"))
    assert refused.value.field == "p.x[1]"


@pytest.mark.parametrize("value", [{"$ref": 1}, {"$ref": None}, {"$ref": "steps.a.result", "more": 1}])
def test_a_reference_stands_alone_and_is_a_string(value: Any) -> None:
    with pytest.raises(InvalidInput, match="stands alone"):
        list(find_references([value], "p"))
    with pytest.raises(InvalidInput, match="stands alone"):
        resolve([value], NOTHING, "p")


def test_every_reference_is_found_with_its_place() -> None:
    value = {"x": {"$ref": "steps.a.result"}, "y": [0, {"z": {"$ref": "steps.b c.result.d.0"}}], "n": None}
    found = [(path, reference.step, reference.path) for path, reference in find_references(value, "p")]
    assert found == [("p.x", "a", []), ("p.y[1].z", "b c", ["d", "0"])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps.a.result", {"id": 7, "items": [{"n": 1}, {"n": 2}], "": "empty", "0": "zero", "no": None}),
        ("steps.a.result.id", 7),
        ("steps.a.result.items.1.n", 2),
        ("steps.a.result.items.01.n", 2),
        ("steps.a.result.", "empty"),
        ("steps.a.result.0", "zero"),
        ("steps.a.result.no", None),
    ],
)
def test_a_reference_is_replaced_by_what_it_names(text: str, expected: Any) -> None:
    result = {"id": 7, "items": [{"n": 1}, {"n": 2}], "": "empty", "0": "zero", "no": None}
    assert _resolve(text, result) == expected


@pytest.mark.parametrize(
    "path", ["x", "id.x", "items.2", "items.-1", "items.x", "items.1.x", "items.\u0661", "items." + "9" * 5000, "no.x"]
)
def test_a_field_that_the_result_does_not_have_is_named(path: str) -> None:
    with pytest.raises(InvalidInput, match="has no") as refused:
        _resolve(f"steps.a.result.{path}", {"id": 7, "items": [1, {"n": 2}], "no": None})
    assert refused.value.field == "p"


def test_a_result_that_is_not_known_gives_none_at_any_depth() -> None:
    assert resolve({"$ref": "steps.b.result.id.x"}, NOTHING) is None
    assert resolve([{"$ref": "steps.b.result"}], NOTHING) == [None]


def test_a_result_that_is_none_is_known_and_has_no_fields() -> None:
    assert _resolve("steps.a.result", None) is None
    with pytest.raises(InvalidInput, match="has no 'id'"):
        _resolve("steps.a.result.id", None)


def test_what_a_reference_gives_can_be_changed_without_changing_the_result() -> None:
    result = {"items": [1]}
    _resolve("steps.a.result.items", result).append(2)
    assert result == {"items": [1]}


def test_a_reference_inside_a_result_is_data() -> None:
    result = {"$ref": "steps.b.result"}
    assert _resolve("steps.a.result", result) == result


@given(objects)
def test_parameters_without_references_are_copied_as_they_are(parameters: dict[str, Any]) -> None:
    assert list(find_references(parameters, "p")) == []
    assert resolve(parameters, NOTHING) == parameters


@given(objects, st.lists(names, min_size=1, max_size=3, unique=True), st.data())
def test_random_parameters_with_references_are_stored_and_resolved(
    parameters: dict[str, Any], steps: list[str], data: st.DataObject
) -> None:
    results = {name: data.draw(values) for name in steps}
    wanted = dict(parameters)
    for name in steps:
        parameters = {**parameters, f"-> {name}": [{"$ref": f"steps.{name}.result"}]}
        wanted = {**wanted, f"-> {name}": [results[name]]}
    step = StepDefinition("last", "do", parameters, compensation_operation="undo", compensation_parameters=parameters)
    created = SagaCreated(SagaDefinition("s", "t", "w", (step,)))
    assert decode_events(encode_events([created])) == [created]
    assert sorted(ref.step for _, ref in find_references(parameters, "p")) == sorted(steps)
    assert resolve(parameters, results.__getitem__) == wanted
