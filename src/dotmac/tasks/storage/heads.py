"""What is the same in every storage: the first head of a saga, stamps that rise, and the refusal of newer formats."""

from __future__ import annotations

from ..errors import UnreadableSaga
from .records import MICROSECONDS, NewSaga, SagaMeta


def first_head(new: NewSaga, at: float, due_at: float | None) -> SagaMeta:
    """The head of a saga that was created at this moment; `due_at` as the storage keeps it, where nobody owns it."""
    owned = new.owner is not None
    return SagaMeta(
        saga_id=new.saga_id,
        tenant_id=new.tenant_id,
        workflow_type=new.workflow_type,
        status=new.status,
        created_at=at,
        updated_at=at,
        owner=new.owner,
        epoch=1 if owned else 0,
        cursor=new.cursor,
        format=new.format,
        size=new.size,
        priority=new.priority,
        due_at=None if owned else due_at,
        idempotency_key=None if new.key is None else new.key.key,
    )


def next_stamp(previous: float, now: float) -> float:
    """The time of a journal's next entry, or of a key's next claim, in whole microseconds.

    It is above the previous one, even where the clock stood still or went back: stamps are fences.
    """
    return max(int(now * MICROSECONDS), round(previous * MICROSECONDS) + 1) / MICROSECONDS


def too_new(saga_id: str, needed: int, reads: int) -> UnreadableSaga:
    """The error for a journal that a newer version wrote."""
    return UnreadableSaga(
        f"the journal of saga {saga_id} needs format {needed}, this process reads format {reads}: a newer version of "
        "dotmac-tasks wrote it; upgrade this process"
    )
