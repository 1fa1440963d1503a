"""Idempotent operations, as the manager offers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypedDict, TypeVar, Unpack

from ..bounds import check_texts
from ..bridge.bridged import bridged
from ..errors import InvalidInput
from ..idempotency import scope_key
from ..listings import IdempotencyKeyList
from ..models import IdempotencyKey
from ..runtime.handlers import HandlerFunction
from .handlers import HandlerMethods
from .life import Lifecycle

F = TypeVar("F", bound=HandlerFunction)


class IdempotentOptions(TypedDict, total=False):
    """What `OperationMethods.idempotent` takes for `OperationMethods.run_idempotent`, for type checkers."""

    tenant_id: str
    user_id: str | None
    key: str | None
    ttl: float | None
    wait: float | None
    store_errors: bool


class OperationMethods(HandlerMethods, Lifecycle):
    """One claim, one run, one result."""

    @bridged
    async def create_idempotency_key(
        self,
        tenant_id: str,
        user_id: str | None,
        operation_type: str,
        key: str | None = None,
        parameters: dict[str, Any] | None = None,
        ttl: float | None = None,
    ) -> IdempotencyKey:
        """Create a pending key, or give the one that exists, untouched: look at its ``status``.

        Args:
            tenant_id: Keys of different tenants never meet.
            user_id: Part of what makes two requests the same.
            operation_type: The same.
            key: Chosen by the caller, unique within the tenant; None: derived from all other arguments.
            parameters: JSON.
            ttl: Seconds until it is forgotten, counted from now, and again from its completion.

        Raises:
            InvalidInput: An argument cannot be stored; the error names it.
            IdempotencyMismatch: The chosen key was used for another user, operation or parameters.
        """
        operations = self._hosted().operations
        request = operations.request((tenant_id, user_id, operation_type), parameters, key, ttl)
        return await operations.create(request)

    @bridged
    async def check_idempotency(self, key: str, *, tenant_id: str | None = None) -> IdempotencyKey | None:
        """The key as it stands, or None if it is unknown or has expired.

        Args:
            key: As `IdempotencyKey.key` gives it; or, with `tenant_id`, as the caller chose it.
            tenant_id: The tenant that chose the key.

        Raises:
            InvalidInput: The key or the tenant can be none.
        """
        check_texts(tenant_id=tenant_id)
        return await self._hosted().operations.check(key if tenant_id is None else scope_key(tenant_id, key))

    @bridged
    async def list_idempotency_keys(
        self, tenant_id: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> IdempotencyKeyList:
        """A page of the keys that are known, in no particular order: whose, of what, since when, and how they stand.

        Made for people who look: on Redis, the server goes through its keys for it.

        Args:
            tenant_id: Only this tenant's; None: all.
            limit: At most this many, from 1 to 1000; there may be fewer, even none, though more pages follow.
            cursor: `IdempotencyKeyList.cursor` of the page before.

        Raises:
            InvalidInput: The tenant, the limit or the cursor makes no sense.
        """
        check_texts(tenant_id=tenant_id, cursor=cursor)
        return await self._hosted().operations.listed(tenant_id, limit, cursor)

    @bridged
    async def complete_idempotent_operation(self, key: str, result: Any, error: str | None = None) -> IdempotencyKey:
        """Store how an operation ended whose key was created by `create_idempotency_key`.

        The first ending counts. Storing the same one again does nothing.

        Args:
            key: As `IdempotencyKey.key` gives it.
            result: JSON.
            error: Why it failed; None: it completed.

        Raises:
            InvalidInput: The result is not JSON.
            IdempotencyKeyNotFound: There is no such key.
            ClaimLost: Somebody runs the operation under a claim of his own, or it has another ending already.
        """
        return await self._hosted().operations.complete(key, result, error)

    @bridged
    async def run_idempotent(  # noqa: PLR0913 - independent options, all by keyword
        self,
        *,
        tenant_id: str,
        operation_type: str,
        user_id: str | None = None,
        parameters: dict[str, Any] | None = None,
        key: str | None = None,
        ttl: float | None = None,
        wait: float | None = None,
        store_errors: bool = False,
    ) -> Any:
        """Run an operation by its registered handler, once: everybody who asks gets the one result.

        The key is claimed first, kept while the handler runs, however long, and taken over when its process dies.
        If the handler raises, the key is free again, and the error is raised here (and only here).

        Args:
            tenant_id: See `create_idempotency_key`, also for the next ones.
            operation_type: Names the handler.
            user_id: See there.
            parameters: Passed to the handler.
            key: See there.
            ttl: See there.
            wait: Seconds to wait for a run that somebody else began; None: as long as it takes.
            store_errors: Store an error of the handler as the final answer for everybody.

        Raises:
            UnknownOperation: No handler is registered.
            InvalidInput: An argument, or the handler's result, cannot be stored.
            IdempotencyMismatch: The chosen key was used for something else.
            IdempotencyInProgress: Somebody else's run did not end within `wait`.
            OperationFailed: The operation ended with an error that was stored.
            ClaimLost: The storage was gone for so long that somebody else may run it now.
        """
        operations = self._hosted().operations
        request = operations.request((tenant_id, user_id, operation_type), parameters, key, ttl)
        return await operations.run(request, wait=wait, store_errors=store_errors)

    def idempotent(
        self, operation_type: str, **options: Unpack[IdempotentOptions]
    ) -> Callable[[F], Callable[..., Awaitable[Any]]]:
        """Decorate a handler: it is registered, and calling it runs it through `run_idempotent`.

        The decorated function is called as ``await function(parameters, tenant_id=…, user_id=…, …)``.

        Args:
            operation_type: The name to register it under.
            **options: Defaults for `run_idempotent`, such as ``ttl=3600``.

        Raises:
            InvalidInput: An option does not exist; nothing was registered.
        """
        known = IdempotentOptions.__annotations__
        for name in options:
            if name not in known:
                raise InvalidInput(name, f"there is no such option; there are: {', '.join(sorted(known))}")

        def decorate(function: F) -> Callable[..., Awaitable[Any]]:
            self.register_operation_handler(operation_type, function)

            async def run(parameters: dict[str, Any] | None = None, **call: Any) -> Any:
                return await self.run_idempotent(
                    operation_type=operation_type, parameters=parameters, **{**options, **call}
                )

            run.__name__, run.__doc__ = getattr(function, "__name__", operation_type), function.__doc__
            return run

        return decorate
