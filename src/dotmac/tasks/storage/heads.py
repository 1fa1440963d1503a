"""The head of a saga as it is created, the same in every storage."""

from __future__ import annotations

from .records import NewSaga, SagaMeta


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
        size=new.size,
        priority=new.priority,
        due_at=None if owned else due_at,
        idempotency_key=None if new.key is None else new.key.key,
    )
