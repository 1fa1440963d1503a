"""What is stored stays readable: journals outlive the version that wrote them.

Fields that have their default value are left out of a journal. So a default is part of the format: changing one
would change sagas that are stored already. A new field with a default is the way to add something.
"""

from __future__ import annotations

from dotmac.tasks.retry import COMPENSATION_RETRY, RetryPolicy
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.events import SagaCreated, decode_events, encode_events

_PLAIN = b'[{"e":"saga_created","definition":{"saga_id":"s","tenant_id":"t","workflow_type":"w","steps":[{"name":"a","operation":"o"}]}}]'  # noqa: E501 - a stored line


def test_a_plain_saga_is_stored_without_its_defaults_and_read_with_them() -> None:
    definition = SagaDefinition("s", "t", "w", (StepDefinition("a", "o"),))
    assert encode_events([SagaCreated(definition)]) == _PLAIN
    assert decode_events(_PLAIN) == [SagaCreated(definition)]


def test_the_defaults_that_stored_sagas_rely_on_have_not_changed() -> None:
    assert RetryPolicy() == RetryPolicy(
        max_retries=3, initial_delay=0.1, multiplier=2.0, max_delay=60.0, jitter=True, non_retryable=()
    )
    assert RetryPolicy(max_retries=10, initial_delay=0.2, max_delay=300.0) == COMPENSATION_RETRY
    step = StepDefinition("a", "o")
    assert (step.kind, step.timeout_seconds, step.compensation_timeout_seconds) == ("compensatable", None, None)


def test_fields_that_a_newer_version_added_do_not_make_a_journal_unreadable() -> None:
    newer = _PLAIN.replace(
        b'"operation":"o"', b'"operation":"o","colour":"red","retry":{"max_retries":1,"mood":"grim"}'
    )
    (created,) = decode_events(newer)
    assert isinstance(created, SagaCreated)
    assert created.definition.steps[0].retry == RetryPolicy(max_retries=1)
