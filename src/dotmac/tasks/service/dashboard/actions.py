"""What an operator can do: each action has a page that asks for confirmation, and is audited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...errors import InvalidInput
from ...models import OperationStatus, SagaWorkflow
from .. import audit
from .site import Site

_LONGEST_REASON = 500
_LARGEST_FORM = 16_384
_RUNS = frozenset({OperationStatus.PENDING, OperationStatus.IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that can be done to a saga.

    Attributes:
        name: In the address.
        title: Of its page and its button.
        explains: What will happen.
        fits: Whether it means something for this saga as it stands.
        do: Does it; called with the manager, the saga, who does it, why, and what was chosen on the page.
        from_step: Whether a step can be chosen on its page.
    """

    name: str
    title: str
    explains: str
    fits: Callable[[SagaWorkflow], bool]
    do: Callable[..., Awaitable[None]]
    from_step: bool = False


def _may_turn_back(saga: SagaWorkflow) -> bool:
    """Whether the saga is parked on its way forward, at a step that may have happened, and before its pivot."""
    return (
        saga.status is OperationStatus.FAILED
        and any(step.status is OperationStatus.UNKNOWN for step in saga.steps)
        and all(step.compensation_status is None for step in saga.steps)
        and not any(step.kind == "pivot" and step.status is OperationStatus.COMPLETED for step in saga.steps)
    )


ACTIONS = (
    Action(
        "cancel",
        "Cancel",
        "The saga turns back: a running step is cut off, and everything that happened, or may have, is undone. "
        "A saga that is past its point of no return refuses.",
        lambda saga: saga.status in _RUNS,
        audit.cancel,
    ),
    Action(
        "retry",
        "Retry",
        "The saga goes on from where it failed, with fresh attempts, under the same tokens. "
        "Mend the cause first. From a step that you choose, it goes forward again, even if it had turned back; it "
        "refuses if an effect that stands would be done twice by that.",
        lambda saga: saga.status is OperationStatus.FAILED,
        audit.retry,
        from_step=True,
    ),
    Action(
        "turn-back",
        "Turn back",
        "The step that the saga is parked at has an unknown outcome. What has a compensation is undone, this step "
        "included. If the step is the pivot, by turning back you vouch that it did not happen.",
        _may_turn_back,
        audit.cancel,
    ),
)  # fmt: skip
BY_NAME = {action.name: action for action in ACTIONS}


def fitting(saga: SagaWorkflow) -> list[Action]:
    """What can be done to the saga now."""
    return [action for action in ACTIONS if action.fits(saga)]


class Operations:
    """Handlers of the pages that change something."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._manager = site.manager

    async def confirm(self, request: Request) -> Response:
        """Ask whether it is meant."""
        visitor = self._site.visitor_of(request)
        if visitor is None or not visitor.may_operate:
            return self._refused(request)
        saga = await self._manager.get_saga(request.path_params["saga_id"])
        action = BY_NAME[request.path_params["action"]]
        if not action.fits(saga):
            message = f"The saga is {saga.status.replace('_', ' ')}: there is nothing to {action.title.lower()} now."
            return self._site.error(request, HTTPStatus.CONFLICT, message)
        return self._site.page(
            request, "confirm.html", saga=saga, action=action, longest=_LONGEST_REASON,
            numbers={step.name: number for number, step in enumerate(saga.steps, 1)},
        )  # fmt: skip

    async def act(self, request: Request) -> Response:
        """Do it, and show the saga."""
        visitor = self._site.visitor_of(request)
        if visitor is None or not visitor.may_operate:
            return self._refused(request)
        action, saga_id = BY_NAME[request.path_params["action"]], request.path_params["saga_id"]
        form = await _form(request)
        chosen = {"from_step": form["from_step"]} if action.from_step and form.get("from_step") else {}
        await action.do(self._manager, saga_id, visitor.name, _reason(form), **chosen)
        root = request.scope.get("root_path", "").rstrip("/")
        return RedirectResponse(f"{root}/sagas/{saga_id}?done={action.name}", status_code=303)

    def _refused(self, request: Request) -> Response:
        message = "Your role is to view. Sign in with a token whose role is operate."
        return self._site.error(request, HTTPStatus.FORBIDDEN, message)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a plain form: parsed here, so that no form parser has to be installed."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > _LARGEST_FORM:
        raise _too_large()
    body = b""
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > _LARGEST_FORM:
                raise _too_large()
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _reason(form: dict[str, str]) -> str:
    reason = " ".join(form.get("reason", "").split())
    if not reason:
        raise InvalidInput("reason", "is required: it stands in the saga's history beside your name")
    if len(reason) > _LONGEST_REASON:
        raise InvalidInput("reason", f"must have at most {_LONGEST_REASON} characters")
    return reason


def _too_large() -> InvalidInput:
    return InvalidInput("reason", f"the form has more than {_LARGEST_FORM} bytes")
