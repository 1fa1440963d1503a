"""The eight methods by which a storage was described first; the contract in `protocol` includes them."""

from __future__ import annotations

from typing import Any, Protocol


class SeedStore(Protocol):
    """The eight plain methods: whole documents in, whole documents out."""

    async def set_idempotency(self, key: str, data: dict[str, Any], ttl: float) -> None:
        """Store a record unless the key exists: a record is never reset. `ttl` in seconds."""
        ...

    async def get_idempotency(self, key: str) -> dict[str, Any] | None:
        """The record as a document, or None."""
        ...

    async def delete_idempotency(self, key: str) -> None:
        """Forget the record; no error if there is none."""
        ...

    async def set_saga(self, saga_id: str, data: dict[str, Any]) -> None:
        """Create a pending saga from a document (tenant_id, workflow_type, steps …); never overwrites one."""
        ...

    async def get_saga(self, saga_id: str) -> dict[str, Any] | None:
        """The saga as a document, or None."""
        ...

    async def append_saga_history(self, saga_id: str, entry: dict[str, Any]) -> None:
        """Write a note beside the saga's journal. Raises SagaNotFound."""
        ...

    async def acquire_lock(self, key: str, timeout_seconds: float) -> bool:
        """Take the lock for `timeout_seconds` if it is free; False if somebody holds it. Does not wait."""
        ...

    async def release_lock(self, key: str) -> None:
        """Free a lock that this storage object acquired. Raises LockLost if it does not hold it any more."""
        ...
