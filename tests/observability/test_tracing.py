"""A saga is one trace, whoever runs its parts: checked with the real SDK, and without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, StatusCode
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage
from dotmac.tasks.metrics import listening
from dotmac.tasks.observability.opentelemetry import install_tracing
from runtime.nodes import Ledger, Node, step, until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Recorded:
    """The spans of a test."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def traces(self) -> set[int]:
        return {context_of(span).trace_id for span in self.all()}


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context: trace.SpanContext | None = span.context
    assert context is not None
    return context


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    made = Recorded()
    uninstall = install_tracing(made.provider)
    yield made
    uninstall()
    assert not listening()


@pytest.fixture
async def manager(autojump_clock: MockClock) -> AsyncIterator[BackgroundOperationsManager]:
    async with BackgroundOperationsManager(storage=MemoryStorage()) as manager:
        yield manager


async def test_every_attempt_and_compensation_is_a_span_below_the_callers(
    manager: BackgroundOperationsManager, recorded: Recorded
) -> None:
    ledger = Ledger()
    ledger.register(manager)
    ledger.failing["b"] = ValueError("no")
    steps = [step("a"), step("b", max_retries=1)]
    tracer = recorded.provider.get_tracer("caller")
    with tracer.start_as_current_span("POST /orders") as request:
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        assert trace.get_current_span() is request
    await handle.result()
    assert recorded.traces() == {request.get_span_context().trace_id}
    start = recorded.one("start saga w")
    assert parent_of(start) == request.get_span_context().span_id
    below = [span for span in recorded.all() if parent_of(span) == context_of(start).span_id]
    seen = [
        (s.name, a["dotmac.saga.step"], a["dotmac.attempt"], a["dotmac.saga.direction"], s.status.status_code)
        for s in below
        if (a := s.attributes or {}) and "dotmac.attempt" in a
    ]
    assert seen == [
        ("do", "a", 1, "forward", StatusCode.UNSET),
        ("do", "b", 1, "forward", StatusCode.ERROR),
        ("do", "b", 2, "forward", StatusCode.ERROR),
        ("undo", "a", 1, "compensation", StatusCode.UNSET),
    ]
    failed = recorded.named("do")[1]
    assert failed.status.description == "ValueError: no"
    assert [event.name for event in failed.events] == ["exception"]
    assert parent_of(recorded.one("saga w compensated")) == context_of(start).span_id
    assert {(s.attributes or {})["dotmac.saga.id"] for s in below} == {handle.saga_id}


async def test_a_traceparent_in_the_metadata_is_the_parent(
    manager: BackgroundOperationsManager, recorded: Recorded
) -> None:
    ledger = Ledger()
    ledger.register(manager)
    metadata = {"traceparent": PARENT, "tracestate": "vendor=1", "order": "7"}
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")], metadata=metadata)
    await handle.result()
    assert {f"{trace_id:032x}" for trace_id in recorded.traces()} == {TRACE}
    assert f"{parent_of(recorded.one('start saga w')):016x}" == SPAN
    assert context_of(recorded.one("do")).trace_state.get("vendor") == "1"
    assert metadata["traceparent"] == PARENT  # the caller's own dict is not touched


async def test_sagas_without_a_parent_are_traces_of_their_own(
    manager: BackgroundOperationsManager, recorded: Recorded
) -> None:
    ledger = Ledger()
    ledger.register(manager)
    for _ in range(2):
        await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])).result()
    assert len(recorded.traces()) == 2
    assert [parent_of(span) for span in recorded.named("start saga w")] == [None, None]


async def test_what_a_handler_records_is_below_its_attempt(
    manager: BackgroundOperationsManager, recorded: Recorded
) -> None:
    tracer = recorded.provider.get_tracer("client")

    async def call(_parameters: Any) -> None:
        await trio.lowlevel.checkpoint()
        tracer.start_span("GET /downstream").end()

    def in_a_thread(_parameters: Any) -> None:
        tracer.start_span("SELECT").end()

    manager.register_operation_handler("call", call)
    manager.register_operation_handler("query", in_a_thread)
    steps = [{"name": "a", "operation": "call"}, {"name": "b", "operation": "query"}]
    await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    for inner, attempt in (("GET /downstream", "call"), ("SELECT", "query")):
        assert parent_of(recorded.one(inner)) == context_of(recorded.one(attempt)).span_id
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_takeover_goes_on_in_the_same_trace(autojump_clock: MockClock, recorded: Recorded) -> None:
    shared, ledger = MemoryStorage(), Ledger()
    ledger.hold["b"] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        handle = await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b")])
        await until(lambda: "b" in ledger.entered)
        lost = first.worker.worker_id
        await first.kill()
        ledger.hold.clear()
        await second.manager.saga_handle(handle.saga_id).result()
    assert len(recorded.traces()) == 1
    takeover = recorded.one("take over saga w")
    (event,) = takeover.events
    assert event.name == "takeover"
    assert event.attributes is not None
    assert event.attributes["dotmac.saga.previous"] == lost
    assert event.attributes["dotmac.saga.epoch"] == 2
    epochs = [(s.attributes or {})["dotmac.saga.epoch"] for s in recorded.named("do")]
    assert sorted(map(str, epochs)) == ["1", "1", "2"]
    fences = {(s.attributes or {})["dotmac.attempt.fence"] for s in recorded.named("do")}
    assert len(fences) == len(epochs)
    assert context_of(recorded.one("saga w completed")).trace_id in recorded.traces()


async def test_an_attempt_that_is_cut_off_says_so(manager: BackgroundOperationsManager, recorded: Recorded) -> None:
    ledger = Ledger()
    ledger.register(manager)
    ledger.hold["a"] = trio.Event()
    steps = [step("a", timeout_seconds=1, max_retries=0)]
    await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    (cut, _undo) = [s for s in recorded.all() if "dotmac.attempt" in (s.attributes or {})]
    assert cut.status.description == "cut off: its outcome is unknown"


async def test_a_parked_saga_is_an_error_until_it_is_resumed(
    manager: BackgroundOperationsManager, recorded: Recorded
) -> None:
    ledger = Ledger()
    ledger.register(manager)
    ledger.failing["p"] = TimeoutError("who knows")
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("p", kind="pivot", max_retries=0)])
    await handle.result()
    assert recorded.one("saga w failed").status.status_code is StatusCode.ERROR
    ledger.failing.clear()
    await (await manager.retry_saga(handle.saga_id)).result()
    assert recorded.one("saga w completed").status.status_code is StatusCode.UNSET
    assert len(recorded.traces()) == 1


async def test_an_idempotent_operation_is_a_span_below_its_caller(
    manager: BackgroundOperationsManager, recorded: Recorded
) -> None:
    async def op(_parameters: Any) -> int:
        return 1

    manager.register_operation_handler("op", op)
    with recorded.provider.get_tracer("caller").start_as_current_span("caller") as caller:
        for _ in range(2):
            assert await manager.run_idempotent(tenant_id="t", operation_type="op") == 1
    assert parent_of(recorded.one("op")) == caller.get_span_context().span_id


@pytest.mark.parametrize("provider", [NoOpTracerProvider(), TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)])
async def test_where_tracing_is_off_sagas_run_and_the_callers_context_is_kept(
    manager: BackgroundOperationsManager, provider: trace.TracerProvider
) -> None:
    kept: list[dict[str, str]] = []

    async def op(_parameters: Any, context: Any) -> None:
        kept.append(dict(context.metadata))

    manager.register_operation_handler("op", op)
    uninstall = install_tracing(provider)
    try:
        for metadata in ({}, {"traceparent": PARENT}):
            handle = await manager.start_saga(
                tenant_id="t", workflow_type="w", steps=[{"name": "a", "operation": "op"}], metadata=metadata
            )
            assert (await handle.result()).completed
    finally:
        uninstall()
    assert TRACE in kept[1]["traceparent"]
