"""OpenTelemetry: a saga is one trace, across processes and takeovers.

When a saga is created, a short span is recorded as the child of whatever span its caller is in, or of the
``traceparent`` that the caller put into the saga's metadata. That span's own context is stored with the saga as
``traceparent`` (W3C Trace Context), so that every process that ever runs a part of it adds to the same trace: each
attempt, forward or compensating, is a span; a takeover and the saga's end are short spans of their own.

An attempt's span is the current one while its handler runs, so what the handler does through instrumented clients
is below it. A process that is killed loses the span it was in, and nothing else: no span is open for longer than
one attempt. Without an SDK, or with one that does not sample, contexts are passed on and nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._version import __version__
from ..extras import needs
from ..metrics import register_attempt_hook, register_metadata_hook, register_metrics_hooks
from ..models import OperationStatus

with needs("OpenTelemetry", "otel"):
    from opentelemetry import context as otel_context
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Details = dict[str, Any]
_ENDED = frozenset({OperationStatus.COMPLETED, OperationStatus.COMPENSATED, OperationStatus.FAILED})
_W3C = TraceContextTextMapPropagator()


def install_tracing(tracer_provider: TracerProvider | None = None) -> Callable[[], None]:
    """Record spans of what this process does from now on.

    Args:
        tracer_provider: Makes the spans; None: the global one.

    Returns:
        A function that stops it.
    """
    tracing = _Tracing(trace.get_tracer("dotmac.tasks", __version__, tracer_provider))
    removals = [
        register_metadata_hook(tracing.saga_created),
        register_attempt_hook(tracing.attempt),
        register_metrics_hooks(
            saga_status_changed_hook=tracing.status_changed, saga_taken_over_hook=tracing.taken_over
        ),
    ]

    def uninstall() -> None:
        for remove in removals:
            remove()

    return uninstall


class _Tracing:
    """The hooks."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def saga_created(self, workflow_type: str, tenant_id: str, details: Details) -> dict[str, str]:
        """Record the creation, and give its context for the saga to take along."""
        current = trace.get_current_span().get_span_context()
        parent = otel_context.get_current() if current.is_valid else _stored(details["metadata"])
        span = self._tracer.start_span(
            f"start saga {workflow_type}",
            parent,
            SpanKind.PRODUCER,
            _of_saga(details["saga_id"], workflow_type, tenant_id),
        )
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span, parent))
        span.end()
        return carrier

    def attempt(self, context: Any) -> Callable[[BaseException | None], None]:
        """Open the span of one call of a handler, and make it the current one."""
        parent = otel_context.get_current() if context.saga_id is None else _stored(context.metadata)
        span = self._tracer.start_span(context.operation_type, parent, SpanKind.CONSUMER, _of_attempt(context))
        token = otel_context.attach(trace.set_span_in_context(span, parent))

        def ended(failure: BaseException | None) -> None:
            otel_context.detach(token)
            if isinstance(failure, Exception):
                span.record_exception(failure)
                span.set_status(Status(StatusCode.ERROR, f"{type(failure).__name__}: {failure}"))
            elif failure is not None:
                span.set_status(Status(StatusCode.ERROR, "cut off: its outcome is unknown"))
            span.end()

        return ended

    def taken_over(self, workflow_type: str, tenant_id: str, details: Details) -> None:
        """Record that this process goes on with a saga of a lost worker."""
        attributes = _of_saga(details["saga_id"], workflow_type, tenant_id)
        span = self._tracer.start_span(
            f"take over saga {workflow_type}", _stored(details["metadata"]), SpanKind.INTERNAL, attributes
        )
        moved = {key: details[key] for key in ("previous", "worker", "epoch")}
        span.add_event("takeover", {f"dotmac.saga.{key}": value for key, value in moved.items()})
        span.end()

    def status_changed(self, workflow_type: str, tenant_id: str, details: Details) -> None:
        """Record how the saga ended, if it did."""
        status = details["status"]
        if status not in _ENDED:
            return
        attributes = {**_of_saga(details["saga_id"], workflow_type, tenant_id), "dotmac.saga.status": status}
        span = self._tracer.start_span(
            f"saga {workflow_type} {status}", _stored(details["metadata"]), SpanKind.INTERNAL, attributes
        )
        if status == OperationStatus.FAILED:
            span.set_status(Status(StatusCode.ERROR, "parked: an operator decides"))
        span.end()


def _stored(metadata: Any) -> Context:
    """The context that came with the saga; an empty one, which begins a new trace, where there is none."""
    return _W3C.extract(metadata, Context())


def _of_saga(saga_id: str, workflow_type: str, tenant_id: str) -> dict[str, str]:
    return {"dotmac.saga.id": saga_id, "dotmac.saga.type": workflow_type, "dotmac.tenant": tenant_id}


def _of_attempt(context: Any) -> dict[str, Any]:
    attributes = {
        "dotmac.operation": context.operation_type,
        "dotmac.tenant": context.tenant_id,
        "dotmac.attempt": context.attempt,
        "dotmac.attempt.fence": context.fence,
    }
    if context.saga_id is not None:
        attributes |= _of_saga(context.saga_id, context.workflow_type, context.tenant_id)
        attributes |= {
            "dotmac.saga.step": context.step,
            "dotmac.saga.epoch": context._epoch,  # noqa: SLF001 - of the package
            "dotmac.saga.direction": "compensation" if context.compensating else "forward",
        }
    return attributes
