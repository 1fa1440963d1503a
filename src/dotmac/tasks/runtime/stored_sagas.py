"""What is stored of one saga, which must be there."""

from __future__ import annotations

from ..errors import SagaNotFound
from ..storage.protocol import SagaStore
from ..storage.records import SagaMark, SagaMeta, SagaRecord


async def meta_of(storage: SagaStore, saga_id: str) -> SagaMeta:
    """The saga's head. Raises SagaNotFound."""
    meta = await storage.saga_meta(saga_id)
    if meta is None:
        raise _not_found(saga_id)
    return meta


async def record_of(storage: SagaStore, saga_id: str, after: SagaMark | None = None) -> SagaRecord:
    """The whole saga, or what `SagaStore.load_saga` gives of it after a position. Raises SagaNotFound."""
    record = await storage.load_saga(saga_id, after)
    if record is None:
        raise _not_found(saga_id)
    return record


def _not_found(saga_id: str) -> SagaNotFound:
    return SagaNotFound(f"there is no saga {saga_id!r}, or its retention is over")
