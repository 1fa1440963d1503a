"""A snapshot: the state of a saga after so many entries of its journal, so that a long journal need not be folded.

The journal stays the truth: a snapshot of another format is passed over, and the journal folded from its start.
A snapshot holds neither the definition nor results: the journal has them, in entries that never change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from .definition import SagaDefinition
from .state import SagaState, StepState

SNAPSHOT_FORMAT = 1
"""Raise the number with each change of what a state holds, or means."""

_NO_DEFINITION = SagaDefinition("", "", "", ())
_FRESH = StepState()


class _Packed(msgspec.Struct, frozen=True, gc=False):
    head: SagaState
    steps: dict[int, StepState]
    fruitless: int


_decode = msgspec.json.Decoder(_Packed).decode


def pack(state: SagaState, fruitless: int) -> bytes:
    """The state without its definition and its results.

    Args:
        state: After the newest durable entry.
        fruitless: How many adoptions in a row, up to that entry, led to nothing.
    """
    steps = {at: replace(step, result=None) for at, step in enumerate(state.steps) if step is not _FRESH}
    head = replace(state, definition=_NO_DEFINITION, steps=())
    return msgspec.json.encode(_Packed(head, steps, fruitless))


def unpack(
    data: bytes, definition: SagaDefinition, results: Mapping[int, int], result_at: Callable[[int, int], Raw]
) -> tuple[SagaState, int]:
    """The state, and the fruitless adoptions, of a snapshot.

    Args:
        data: From `pack`.
        definition: Of the saga.
        results: For each step that has a result, the entry that holds it.
        result_at: Gives the result of a step in an entry.

    Raises:
        MsgspecError: The data is damaged.
    """
    packed = _decode(data)
    steps = [packed.steps.get(at, _FRESH) for at in range(len(definition.steps))]
    for at, sequence in results.items():
        steps[at] = replace(steps[at], result=result_at(at, sequence))
    return replace(packed.head, definition=definition, steps=tuple(steps)), packed.fruitless
