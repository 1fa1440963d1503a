"""The checker finds what it is for."""

from __future__ import annotations

import pytest

from locks.history import Visit, check

FIRST = Visit(1, 0, 10, "a")


def test_visits_one_after_another_are_fine_in_whatever_order_they_were_written() -> None:
    check([Visit(5, 10, 20, "b"), FIRST, Visit(9, 21, 30, "a")])


def test_two_inside_are_found() -> None:
    with pytest.raises(AssertionError, match="two were inside"):
        check([FIRST, Visit(2, 9, 20, "b")])


@pytest.mark.parametrize("fence", [0, 1])
def test_a_fence_that_does_not_rise_is_found(fence: int) -> None:
    with pytest.raises(AssertionError, match="did not rise"):
        check([FIRST, Visit(fence, 10, 20, "b")])


def test_a_visit_can_be_written_down_and_read() -> None:
    assert Visit.parse(FIRST.line()) == FIRST
