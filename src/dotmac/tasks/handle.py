"""A saga that was started, in the hands of who started it."""

from __future__ import annotations

from .bridge.bridged import bridged
from .bridge.runtime_loop import RuntimeLoop
from .models import OperationStatus, SagaOutcome, SagaWorkflow
from .runtime.hosting import RuntimeHandle


class SagaHandle:
    """Waits for, looks at and cancels one saga, in whichever process it runs.

    Attributes:
        saga_id: Keep it to find the saga again after this process is gone.
    """

    def __init__(self, saga_id: str, hosting: RuntimeHandle) -> None:
        self.saga_id = saga_id
        self._home: RuntimeLoop = hosting.home
        self._service = hosting.sagas
        self._steering = hosting.steering

    def __repr__(self) -> str:
        return f"<SagaHandle {self.saga_id}>"

    @bridged
    async def result(self) -> SagaOutcome:
        """Wait for the saga's end and say how it ended. A failed saga is an outcome here, not an exception.

        Cancelling the wait does not touch the saga. Limit it with ``trio.fail_after(seconds)``,
        or ``asyncio.timeout(seconds)``.

        Raises:
            SagaNotFound: Its retention is over.
            NotStarted: The manager was stopped. The saga goes on elsewhere, or after the next start, where
                `saga_handle` gives a handle again.
        """
        return await self._service.outcome(self.saga_id)

    @bridged
    async def status(self) -> OperationStatus:
        """Its status at this moment."""
        return await self._service.status(self.saga_id)

    @bridged
    async def get(self) -> SagaWorkflow:
        """The whole saga as it stands."""
        return await self._service.get(self.saga_id)

    @bridged
    async def cancel(self, reason: str = "") -> None:
        """Turn the saga back; `BackgroundOperationsManager.cancel_saga` says what is guaranteed.

        Raises:
            SagaStateError: The saga has ended, or its pivot is running or has completed.
        """
        await self._steering.cancel(self.saga_id, reason)
