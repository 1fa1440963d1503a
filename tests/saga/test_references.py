"""A `$ref` is found, refused when malformed, and replaced by a copy of its value; a `$literal` holds no `$ref`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.jsonvalue import encode
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.events import SagaCreated, decode_events, encode_events
from dotmac.tasks.saga.references import Reference, find_references, literal, ref, resolve
from saga.json_values import objects, values

NOTHING = dict[str, Raw]().__getitem__
names = st.text(min_size=1, max_size=12).filter(lambda name: ".result" not in name)
parts = st.text(max_size=6).filter(lambda part: "." not in part)


def _resolve(text: str, result: Any) -> Any:
    return resolve({"$ref": text}, stored(a=result), field="p")


def stored(**results: Any) -> Callable[[str], Raw]:
    return {name: Raw(encode(result)) for name, result in results.items()}.__getitem__


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
        resolve([value], NOTHING, field="p")


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


def test_each_reference_gives_a_copy_of_its_own() -> None:
    reference = {"$ref": "steps.a.result.items"}
    first, second = resolve([reference, reference], stored(a={"items": [1]}))
    first.append(2)
    assert second == [1]


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
    assert resolve(parameters, stored(**results)) == wanted


# --- data that looks like an expression -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"schema": {"$ref": "#/components/schemas/Pet"}},
        {"$ref": "https://example.org/pet.json"},
        {"$ref": "steps.login.result", "description": "a sibling"},
        {"$ref": {"type": "string"}},
        {"$literal": 1, "more": 2},
        {"$literal": 1, "$ref": "steps.a.result"},
    ],
)
def test_data_that_looks_like_an_expression_is_refused_with_the_way_to_pass_it(value: Any) -> None:
    hint = r"pass data that holds such a key as literal\(value\)"
    with pytest.raises(InvalidInput, match=hint) as refused:
        list(find_references({"x": value}, "p"))
    assert refused.value.field.startswith("p.x")
    with pytest.raises(InvalidInput, match=hint):
        resolve({"x": value}, NOTHING, field="p")


@given(values, st.lists(st.sampled_from(["$ref", "$literal", "x"]), max_size=4))
def test_a_literal_is_passed_as_it_is_whatever_it_holds(value: Any, around: list[str]) -> None:
    for key in around:
        value = {key: value}
    assert resolve({"x": [literal(value)]}, NOTHING) == {"x": [value]}
    assert list(find_references({"x": [literal(value)]}, "p")) == []


def test_a_literal_shields_a_path_that_would_be_a_valid_reference() -> None:
    attack = {"$ref": "steps.login.result.api_key"}
    secret = stored(login={"api_key": "s3cr3t"})
    assert resolve({"note": literal(attack)}, secret) == {"note": attack}
    assert resolve(literal({"note": attack}), secret) == {"note": attack}
    assert resolve({"note": ref("steps.login.result.api_key")}, secret) == {"note": "s3cr3t"}


def test_a_literal_is_a_copy() -> None:
    value = {"items": [1]}
    parameters = literal(value)
    value["items"].append(2)
    resolve(parameters, NOTHING)["items"].append(3)
    assert parameters == {"$literal": {"items": [1]}}


def test_other_keys_with_a_dollar_are_data() -> None:
    value = {"$set": {"a": 1}, "nested": [{"$schema": "x", "$id": 1}, {"$gt": 5}]}
    assert resolve(value, NOTHING) == value
    assert list(find_references(value, "p")) == []


def test_the_helpers_refuse_what_cannot_be_stored() -> None:
    with pytest.raises(InvalidInput, match=r"^value: "):
        literal({1, 2})
    with pytest.raises(InvalidInput, match=r"^path: .* is not of the form"):
        ref("login.api_key")
    with pytest.raises(InvalidInput, match="must be a string"):
        ref(7)  # type: ignore[arg-type]


# --- sizes ------------------------------------------------------------------------------------------------------


def test_a_result_is_read_once_however_many_references_point_into_it() -> None:
    read: list[str] = []

    def result_of(name: str) -> Raw:
        read.append(name)
        return Raw(encode({"items": [{"n": n} for n in range(50)]}))

    parameters = {f"n{n}": ref(f"steps.a.result.items.{n}.n") for n in range(50)}
    assert resolve(parameters, result_of) == {f"n{n}": n for n in range(50)}
    assert read == ["a"]


@pytest.mark.parametrize("count", [2, 3, 100])
def test_references_cannot_make_parameters_larger_than_the_limit(count: int) -> None:
    parameters = {"all": [ref("steps.a.result")] * count}
    with pytest.raises(InvalidInput, match=r"bytes of JSON.*at most 150 can be passed") as refused:
        resolve(parameters, stored(a="x" * 98), limit=150, field="steps[1].parameters")
    assert refused.value.field.startswith("steps[1].parameters")


def test_the_limit_counts_what_stands_round_the_references() -> None:
    parameters = {"a": "y" * 100, "b": ref("steps.a.result")}
    size = len(encode(resolve(parameters, stored(a="x" * 98), limit=300)))
    resolve(parameters, stored(a="x" * 98), limit=size)
    with pytest.raises(InvalidInput, match=f"have 100 bytes of JSON, which makes {size} in all"):
        resolve(parameters, stored(a="x" * 98), limit=size - 1)


@pytest.mark.parametrize("value", [None, 7, "text"])
def test_a_scalar_holds_no_expression(value: Any) -> None:
    assert list(find_references(value, "p")) == []
    assert resolve(value, NOTHING) == value
