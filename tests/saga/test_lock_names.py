"""The lock that a step names: which templates are refused at the edge, and what name they stand for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.saga.lock_names import check_lock, lock_name
from dotmac.tasks.saga.validation import KnownHandlers, parse_steps

ANY = KnownHandlers(operations=None, compensations=None)


@pytest.mark.parametrize(
    ("template", "parameters", "name"),
    [
        ("report", {}, "report"),
        ("invoice:{parameters.id}", {"id": 17}, "invoice:17"),
        ("{tenant_id}/{parameters.a.b}", {"a": {"b": "x"}}, "acme/x"),
        ("{saga_id}", {}, "s-1"),
    ],
)
def test_a_template_stands_for_a_name(template: str, parameters: dict[str, Any], name: str) -> None:
    check_lock("lock", template, parameters)
    assert lock_name(template, parameters, "acme", "s-1") == name


@pytest.mark.parametrize(
    ("template", "parameters", "reason"),
    [
        ("", {}, "string of 1 to 255"),
        ("a{", {}, "brace"),
        ("a}b", {}, "brace"),
        ("{parameters}", {}, "cannot be filled in"),
        ("{user_id}", {}, "cannot be filled in"),
        ("{parameters.id}", {}, "no such parameter"),
        ("{parameters.a.b}", {"a": 1}, "no such parameter"),
        ("{parameters.id}", {"id": True}, "must be text or an integer, not bool"),
        ("{parameters.id}", {"id": [1]}, "must be text or an integer, not list"),
        ("{parameters.id}", {"id": None}, "must be text or an integer, not NoneType"),
    ],
)
def test_a_template_that_no_name_can_be_made_of_is_refused_at_the_edge(
    template: str, parameters: dict[str, Any], reason: str
) -> None:
    step = {"name": "a", "operation": "o", "parameters": parameters, "lock": template}
    with pytest.raises(InvalidInput, match=reason) as refused:
        parse_steps([step], ANY)
    assert refused.value.field == "steps[0].lock"


@pytest.mark.parametrize("path", ["id", "id.deeper"])
def test_what_an_earlier_step_will_return_is_looked_at_when_it_is_there(path: str) -> None:
    unknown = {"id": {"$ref": "steps.first.result.id"}}
    check_lock("lock", f"x:{{parameters.{path}}}", unknown)
    with pytest.raises(InvalidInput, match="must be text or an integer, not float"):
        lock_name("x:{parameters.id}", {"id": 1.5}, "t", "s")
    with pytest.raises(InvalidInput, match="printable"):
        lock_name("x:{parameters.id}", {"id": "line\nbreak"}, "t", "s")


def test_a_literal_in_the_parameters_is_opened_before_its_value_is_looked_at() -> None:
    check_lock("lock", "x:{parameters.id}", {"id": {"$literal": "a"}})
    check_lock("lock", "x:{parameters.order.id}", {"$literal": {"order": {"id": 7}}})
    for parameters in ({"id": {"$literal": {"$ref": "steps.a.result"}}}, {"$literal": {"id": {"$ref": "b"}}}):
        with pytest.raises(InvalidInput, match="must be text or an integer, not dict"):
            check_lock("lock", "x:{parameters.id}", parameters)


def test_an_expression_in_a_value_that_is_there_already_is_data() -> None:
    for value in ({"$ref": "steps.a.result"}, {"$literal": "a"}):
        with pytest.raises(InvalidInput, match="must be text or an integer, not dict"):
            lock_name("x:{parameters.id}", {"id": value}, "t", "s")


@pytest.mark.parametrize(
    ("template", "values", "name"),
    [
        ("{tenant_id}:{parameters.x}", ("a", "b:c"), "a:b%3Ac"),
        ("{tenant_id}:{parameters.x}", ("a:b", "c"), "a%3Ab:c"),
        ("{tenant_id}:{parameters.x}", ("a%3Ab", "c"), "a%253Ab:c"),
        ("{tenant_id}/x-{parameters.x}", ("a:b", "c-d"), "a:b/x-c%2Dd"),
        ("{tenant_id}→{parameters.x}", ("a→b", "ü"), "a%E2%86%92b→ü"),
        ("of:{parameters.x}", ("a", "b:c%"), "of:b:c%"),
    ],
)
def test_a_separator_inside_a_value_is_encoded(template: str, values: tuple[str, str], name: str) -> None:
    check_lock("lock", template, {"x": values[1]})
    assert lock_name(template, {"x": values[1]}, values[0], "s-1") == name


TEXTS = st.text("ab:%-3A", min_size=1, max_size=5)


@given(st.sampled_from([":", "::", "-:", "a:", ":a%", "%3A:", " - "]), st.lists(st.tuples(TEXTS, TEXTS), min_size=2))
def test_different_values_give_different_names(separator: str, values: list[tuple[str, str]]) -> None:
    template = f"x{{tenant_id}}{separator}{{parameters.x}}y"
    names = {lock_name(template, {"x": x}, tenant, "s") for tenant, x in values}
    assert len(names) == len(set(values))


@pytest.mark.parametrize("between", ["", "and", "%", "42"])
def test_two_fields_without_a_separator_are_refused(between: str) -> None:
    with pytest.raises(InvalidInput, match="separator"):
        check_lock("lock", f"{{tenant_id}}{between}{{parameters.x}}", {"x": "a"})
