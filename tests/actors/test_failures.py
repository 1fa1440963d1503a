import logging

import pytest
import trio

from dotmac.tasks.actors import log_failure, split_failure


async def cancelled() -> trio.Cancelled:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            kept = error
            raise
    return kept


def test_a_plain_failure_is_all_failure() -> None:
    error = ValueError()
    assert split_failure(error) == (error, None)
    group = ExceptionGroup("", [error])
    assert split_failure(group) == (group, None)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes(kind: type[BaseException]) -> None:
    error = kind()
    assert split_failure(error) == (None, error)


async def test_a_group_of_nothing_but_passing_ones_passes() -> None:
    group = BaseExceptionGroup("", [await cancelled(), KeyboardInterrupt()])
    failure, passing = split_failure(group)
    assert failure is None
    assert passing is group


async def test_a_mixed_group_is_split_at_every_depth() -> None:
    stop, first, second = await cancelled(), ValueError("first"), KeyError("second")
    mixed = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [stop, first]), second])
    failure, passing = split_failure(mixed)
    assert isinstance(failure, ExceptionGroup)
    assert isinstance(passing, BaseExceptionGroup)
    assert failure.exceptions[1] is second
    assert failure.exceptions[0].exceptions == (first,)
    assert passing.exceptions[0].exceptions == (stop,)


def test_the_default_report_logs_the_error(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("broken")
    log_failure("parent/child", error)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("dotmac.tasks.actors", logging.ERROR)
    assert record.getMessage() == "parent/child failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
