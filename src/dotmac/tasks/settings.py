"""Everything that can be set, validated once: explicit arguments win over the environment, that over defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict, Unpack

from .bounds import MAX_SECONDS, check_record_ttl
from .errors import InvalidInput

PREFIX = "DOTMAC_TASKS_"
_WHOLE = {
    "max_payload": "bytes",
    "max_running": "handlers",
    "max_worker_losses": "losses",
    "sync_handler_threads": "threads",
}


class SettingOptions(TypedDict, total=False):
    """The settings as keyword arguments, for type checkers; None leaves one to the environment. See `Settings`."""

    redis_url: str | None
    default_ttl: float | None
    cleanup_interval: float | None
    saga_retention: float | None
    worker_lease: float | None
    claim_lease: float | None
    poll_interval: float | None
    passivate_after: float | None
    drain_timeout: float | None
    cancel_grace: float | None
    max_worker_losses: int | None
    max_payload: int | None
    max_running: int | None
    sync_handler_threads: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a manager. All times are in seconds.

    Attributes:
        redis_url: ``REDIS_URL``; where RedisStorage connects when it is given no URL. It can hold a password, so
            `repr` leaves it out.
        default_ttl: How long an idempotency record is kept.
        cleanup_interval: Pause between two rounds of the janitor.
        saga_retention: How long a completed or compensated saga is kept. Parked ones are kept until resolved.
        worker_lease: After this time without a sign of life a worker's sagas are taken over by others; at once where
            it is certain that its process is dead.
        claim_lease: The same for the claim on an idempotency key.
        poll_interval: Pause between two looks for work that nobody announced.
        passivate_after: A saga that waits longer than this for its next attempt gives up its place in memory.
        drain_timeout: How long running steps and idempotent operations may take to finish when the manager stops.
        cancel_grace: How long a handler may take to end after its cancellation. Then its task in an event loop of
            asyncio is left behind, with an unknown outcome; under trio, which has to wait, the log names the handler.
        max_worker_losses: A step that loses its worker so many times in a row is given up: its handler may be what ends
            the process.
        max_payload: Bytes of JSON that one saga definition, one result or one stored parameter set may have.
        max_running: Handlers of saga steps and idempotent operations that run at once in this process; None: no bound.
        sync_handler_threads: Threads for plain handlers, of which each takes one while it runs.
    """

    redis_url: str | None = field(default=None, repr=False)
    default_ttl: float = 86_400.0
    cleanup_interval: float = 300.0
    saga_retention: float = 7 * 86_400.0
    worker_lease: float = 15.0
    claim_lease: float = 30.0
    poll_interval: float = 1.0
    passivate_after: float = 60.0
    drain_timeout: float = 30.0
    cancel_grace: float = 5.0
    max_worker_losses: int = 5
    max_payload: int = 1_048_576
    max_running: int | None = None
    sync_handler_threads: int = 40

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name != "redis_url" and not (value is None and setting.default is None):
                _check_number(setting.name, value)
        check_record_ttl("default_ttl", self.default_ttl)
        for name, unit in _WHOLE.items():
            value = getattr(self, name)
            if value is None:
                continue
            _check_whole(name, value, unit)
            object.__setattr__(self, name, int(value))  # from the environment come floats

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **explicit: Unpack[SettingOptions]) -> Settings:
        """Settings from explicit arguments (None: not given), the environment, and the defaults, in this order.

        Raises:
            InvalidInput: Naming the setting or the environment variable, and what it must be.
        """
        environ = os.environ if environ is None else environ
        known = {setting.name for setting in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in explicit.items():
            if name not in known:
                raise InvalidInput(name, f"there is no such setting; there are: {', '.join(sorted(known))}")
            if value is not None:
                values[name] = value
        for name in known - values.keys():
            variable = "REDIS_URL" if name == "redis_url" else PREFIX + name.upper()
            text = environ.get(variable)
            if text:
                values[name] = text if name == "redis_url" else _number(name, variable, text)
        return cls(**values)


def _number(name: str, variable: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InvalidInput(variable, f"must be a number, not {text!r}") from None
    _check_number(variable, value)
    if name in _WHOLE:
        _check_whole(variable, value, _WHOLE[name])
    if name == "default_ttl":
        check_record_ttl(variable, value)
    return value


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SECONDS:
        raise InvalidInput(name, f"must be a number greater than 0, {MAX_SECONDS:.0e} at most, not {value!r}")


def _check_whole(name: str, value: float, unit: str) -> None:
    if value != int(value):
        raise InvalidInput(name, f"must be a whole number of {unit}, not {value!r}")
