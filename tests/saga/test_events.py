"""The journal's JSON: every fact is read as it was written, and what is no fact is refused."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.jsonvalue import decode, encode
from dotmac.tasks.saga.events import (
    AttemptFailed,
    AttemptSucceeded,
    Event,
    Failure,
    RetryScheduled,
    SagaAdopted,
    SagaParked,
    SagaResumed,
    SagaStarted,
    decode_events,
    encode_events,
)
from saga.json_values import values
from saga.rows import candidates

texts = st.text(max_size=10)
counts = st.integers(0, 2**31)
times = st.floats(0, 1e11)
failures = st.builds(Failure, texts, texts, st.booleans(), st.booleans())
events = st.one_of(
    st.sampled_from([*candidates(0, 1, 1, undo=False), *candidates(3, 2, 1, undo=True)]),
    st.builds(SagaStarted, st.none() | times),
    st.builds(SagaAdopted, texts, counts, st.none() | texts),
    st.builds(AttemptFailed, counts, counts, failures, st.booleans()),
    st.builds(RetryScheduled, counts, times, st.booleans()),
    st.builds(SagaParked, st.lists(texts, max_size=3).map(tuple)),
    st.builds(SagaResumed, st.booleans(), texts),
)


@given(st.lists(events, max_size=5))
def test_an_entry_is_read_as_it_was_written(entry: list[Event]) -> None:
    assert decode_events(encode_events(entry)) == entry


@given(values)
def test_a_result_is_carried_unread(result: Any) -> None:
    (event,) = decode_events(encode_events([AttemptSucceeded(0, 1, result=msgspec.Raw(encode(result)))]))
    assert isinstance(event, AttemptSucceeded)
    assert decode(event.result) == result


def test_every_event_has_a_name_of_its_own_in_the_journal() -> None:
    tags = [kind.__struct_config__.tag for kind in get_args(Event)]
    assert len(set(tags)) == len(tags) == 16


@pytest.mark.parametrize("entry", [b"", b"{}", b"[{}]", b'[{"e":"unheard_of"}]', b'[{"e":"attempt_started"}]', b"[1]"])
def test_what_is_no_entry_is_refused(entry: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_events(entry)


def test_a_fact_with_more_fields_than_we_know_is_read() -> None:
    assert decode_events(b'[{"e":"cancel_requested","reason":"r","by":"somebody"}]')[0].reason == "r"  # type: ignore[union-attr] # the tag says which


def test_a_failure_reads_as_its_name_and_what_it_said() -> None:
    assert str(Failure("Refused")) == "Refused"
    assert str(Failure("Refused", "no money")) == "Refused: no money"
