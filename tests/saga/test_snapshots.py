"""A snapshot and the journal's results give back the state that the fold of the journal gives."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dotmac.tasks.saga.snapshots import pack, unpack
from dotmac.tasks.saga.state import SagaState
from saga.model import Budget, begin, choices, saga

KINDS = ("C", "CNC", "CPR", "NPRR")


@example("CPR", [0] * 40, 0)
@given(st.sampled_from(KINDS), st.lists(st.integers(0, 15), max_size=40), st.integers(0, 9))
def test_a_state_survives_its_snapshot(kinds: str, picks: list[int], fruitless: int) -> None:
    state = state_after(kinds, picks)
    # The journal holds results; the sequence numbers here are the steps' own positions.
    results = {at: at + 1 for at, step in enumerate(state.steps) if step.result is not None}

    def result_at(step: int, sequence: int) -> msgspec.Raw:
        assert sequence == step + 1
        result = state.steps[step].result
        assert result is not None
        return result

    unpacked = unpack(pack(state, fruitless), state.definition, results, result_at)
    assert unpacked == (state, fruitless)


def test_a_snapshot_holds_neither_the_definition_nor_results() -> None:
    state = state_after("CC", [0] * 40)
    assert state.steps[0].result is not None
    data = pack(state, 0)
    assert b"r-1" not in data
    assert b"saga-CC" not in data


def test_damaged_data_is_an_error() -> None:
    with pytest.raises(msgspec.MsgspecError):
        unpack(b'{"head":', saga("C"), {}, lambda _step, _sequence: msgspec.Raw(b"null"))


def state_after(kinds: str, picks: list[int]) -> SagaState:
    """The live state after these choices of the outside world; 0 is the undisturbed one."""
    node = begin(saga(kinds, max_retries=1), Budget(deaths=2, stops=1, cancels=1, resumes=1))
    for pick in picks:
        ways = choices(node)
        if not ways:
            break
        node = ways[pick % len(ways)][1]
    return node.live
