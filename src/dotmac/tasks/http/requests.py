"""What a handler can ask of the middleware about its request. Takes a Starlette or FastAPI request, or a bare scope."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

from ..errors import EnvironmentFault, InvalidInput, UsageError
from ..handle import SagaHandle
from ..jsonvalue import result_json
from .asgi import ASGIApp, Scope
from .sagas import answer_of, as_starlette
from .state import RequestState, state_of


class HasScope(Protocol):
    """A request of Starlette, FastAPI or any framework that keeps the ASGI scope at hand."""

    @property
    def scope(self) -> Scope:
        """Of the request."""


def get_idempotency_key(request: HasScope | Scope) -> str | None:
    """The idempotency key that the request carries, checked and without its quotes; None: none, or it is exempt.

    Raises:
        MiddlewareNotInstalled: The request did not come through the middleware.
    """
    return _state(request).key


def set_operation_result(request: HasScope | Scope, result: Any) -> None:
    """Keep a result with the request's record, beside its response.

    A repeated request gets the response as it was. The result takes its place where the response was not kept (it
    was longer than the limit, or a stream), and it is what ``check_idempotency`` and the operators' pages show.
    Without a key there is nothing to keep, and this does nothing.

    Args:
        request: Of the handler.
        result: JSON.

    Raises:
        InvalidInput: It is not JSON.
        MiddlewareNotInstalled: The request did not come through the middleware.
    """
    state = _state(request)
    state.result = result_json(result)


def declare_no_effect(request: HasScope | Scope) -> None:
    """Say that the request did nothing that must not be done twice: its key is free again once it is answered.

    For a handler that answers with an error of which it knows that trying again is safe (a 503 because the payment
    provider refused the connection, say). The response is not stored.

    Raises:
        UsageError: A saga was started under the key, which is an effect.
        MiddlewareNotInstalled: The request did not come through the middleware.
    """
    state = _state(request)
    if state.saga_id is not None:
        raise UsageError(f"saga {state.saga_id} was started under this request's key; cancel the saga instead")
    state.no_effect = True


class StartedSaga:
    """A saga that carries out what a request asked for.

    Attributes:
        saga_id: Of the saga.
        handle: To wait for it, look at it or cancel it.
    """

    def __init__(self, handle: SagaHandle, state: RequestState) -> None:
        self.saga_id = handle.saga_id
        self.handle = handle
        self._state = state

    async def response(self) -> Any:
        """The response that everybody gets who sends this request: now, or again later, in whichever process.

        It waits for the saga's end for ``saga_wait`` seconds, and is a 202 with ``Location`` and ``Retry-After``
        after that. A Starlette ``Response`` where Starlette is in use, else an ASGI app.
        """
        answer: ASGIApp = await answer_of(self.handle, self._state.options)
        return as_starlette(answer)


async def start_saga_for_request(  # noqa: PLR0913 - independent options, all by keyword
    request: HasScope | Scope,
    workflow_type: str,
    steps: list[dict[str, Any]],
    *,
    tenant_id: str | None = None,
    timeout_seconds: float | None = None,
    priority: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> StartedSaga:
    """Start the saga that carries out what this request asks for: exactly one, however often the request is sent.

    The saga takes the request's key over in the same atomic step in which it is created. From then on a repeated
    request, at any process and whatever became of this one, waits for this saga and gets its answer.
    Without a key, or where the storage could not be asked for it, each request starts a saga of its own.

    Args:
        request: Of the handler.
        workflow_type: As `BackgroundOperationsManager.start_saga` takes it; so are the others.
        steps: The same.
        tenant_id: None: the request's tenant.
        timeout_seconds: The saga's deadline.
        priority: Higher ones are adopted first.
        metadata: Text by name, kept with the saga.

    Raises:
        InvalidInput: A field is not as it must be, or the request has no tenant; nothing was stored.
        UsageError: A saga was started for this request already.
        ClaimLost: The key is another's by now; nothing was started here.
        StorageUnavailable: The saga may have been started. If it was, it runs, and a repeated request finds it; if it
            was not, a repeated request starts it, unless the handler answers something all the same.
        MiddlewareNotInstalled: The request did not come through the middleware.
    """
    scope = _scope(request)
    state = state_of(scope)
    if state.saga_id is not None:
        raise UsageError(f"saga {state.saga_id} was started for this request already; one saga can be its answer")
    tenant = tenant_id
    if tenant is None:
        tenant = (state.identity or await state.identify(scope)).tenant_id
    if not tenant:
        raise InvalidInput("tenant_id", "the request names no tenant (X-Tenant-ID, or `identity`), so it must be given")
    fields: dict[str, Any] = {
        "tenant_id": tenant,
        "workflow_type": workflow_type,
        "timeout_seconds": timeout_seconds,
        "priority": priority,
        "metadata": dict(metadata or {}),
    }
    if state.claim is None:
        handle = await state.manager.start_saga(steps=steps, **fields)
    else:
        try:
            handle = await state.manager.start_saga_under_claim(state.claim, fields, steps)
        except EnvironmentFault:
            state.saga_missed = True
            raise
        state.claim = None
        state.work.unbind()
    state.saga_id = handle.saga_id
    return StartedSaga(handle, state)


def _state(request: HasScope | Scope) -> RequestState:
    return state_of(_scope(request))


def _scope(request: HasScope | Scope) -> Scope:
    # A Starlette request is a mapping too, of its scope: what has a `scope` is asked for it first.
    scope = getattr(request, "scope", request)
    if not isinstance(scope, MutableMapping):
        raise InvalidInput("request", f"must be a request or its ASGI scope, not {type(request).__name__}")
    return scope
