"""`serve` and `worker`: the commands that run for long."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import trio
import typer

from ..callables import is_async
from ..errors import InvalidInput
from ..manager import BackgroundOperationsManager
from ..service.application import load_attribute, load_manager
from ..service.logs import LogStyle, configure_logging
from ..service.redaction import DEFAULT_FIELDS, Redaction
from ..storage.memory import MemoryStorage
from .connecting import fail
from .listening import CannotListen, check_addresses, check_tls, try_addresses

if TYPE_CHECKING:
    from ..service.access import Access
    from ..service.process import Front

_log = logging.getLogger("dotmac.tasks.service")


class Level(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


App = Annotated[
    str, typer.Argument(metavar="MODULE:ATTR", help="The manager, or a callable that returns it.", show_default=False)
]
Redis = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="Sets REDIS_URL for the application.", show_default=False),
]
Style = Annotated[LogStyle, typer.Option("--log", help="How log lines look.")]
Tracing = Annotated[
    bool, typer.Option("--otel", help="Record OpenTelemetry spans, with the SDK that the process is set up with.")
]
LogLevel = Annotated[Level, typer.Option("--log-level", help="The lowest level that is logged.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(worker)


def serve(  # noqa: PLR0913, PLR0917 - options of a command line
    application: App,
    bind: Annotated[
        list[str], typer.Option("--bind", "-b", metavar="HOST:PORT", help="Where to listen; can be given often.")
    ] = ["127.0.0.1:8080"],  # noqa: B006 - typer copies it
    redis: Redis = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File of tokens; each line: ROLE NAME TOKEN.", show_default=False)
    ] = None,
    token_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable that holds the same.", show_default=False),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(metavar="MODULE:ATTR", help="Async callable that says who sent a request.", show_default=False),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Further host name that requests may name.", show_default=False),
    ] = None,
    certfile: Annotated[Path | None, typer.Option(help="Certificate chain, for TLS.", show_default=False)] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key.", show_default=False)] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Further field whose values the pages hide.", show_default=False),
    ] = None,
    work: Annotated[
        bool, typer.Option("--work/--no-work", help="Run sagas here, or leave all of them to workers.")
    ] = True,
    otel: Tracing = False,
    log: Style = LogStyle.CONSOLE,
    log_level: LogLevel = Level.INFO,
) -> None:
    """Serve the dashboard and the HTTP API, and run sagas unless --no-work is given.

    A saga runs in the process that starts it. With --no-work, workers share the sagas that are started by HTTP.

    Exit codes: 0 drained; 1 failed; 2 called wrongly; 3 storage; 128+n running attempts were cut off by signal n.
    """

    def front(manager: BackgroundOperationsManager) -> Front:
        from ..service.console import create_console  # noqa: PLC0415 - see the package
        from ..service.process import Front  # noqa: PLC0415 - likewise

        check_addresses(bind)
        access = _access(bind, token_file, token_env, auth, host or [])
        check_tls(certfile, keyfile)
        try_addresses(bind)
        if not work and isinstance(manager.storage, MemoryStorage):
            raise InvalidInput("--no-work", "no worker can share a storage in memory; set REDIS_URL, or give --redis")
        if not work:
            manager.leave_work_to_others()
        if isinstance(manager.storage, MemoryStorage):
            _log.warning("everything is in memory and ends with this process; set REDIS_URL, or give --redis")
        texts = [None if path is None else str(path) for path in (certfile, keyfile)]
        return Front(create_console(manager, access, Redaction([*DEFAULT_FIELDS, *(redact or [])])), bind, *texts)

    if otel:
        _trace()
    _run(application, redis, log, log_level, front)


def worker(
    application: App,
    redis: Redis = None,
    otel: Tracing = False,
    log: Style = LogStyle.CONSOLE,
    log_level: LogLevel = Level.INFO,
) -> None:
    """Run sagas, without HTTP. Exit codes as those of serve."""

    def no_front(manager: BackgroundOperationsManager) -> None:
        # With nothing to serve either, it would be there for nothing, and look as if it worked.
        if not manager.works:
            raise InvalidInput(application, "was made with works=False, so it would run no saga")
        if isinstance(manager.storage, MemoryStorage):
            raise InvalidInput(
                application, "keeps everything in memory, where nobody can give it work; set REDIS_URL, or give --redis"
            )

    if otel:
        _trace()
    _run(application, redis, log, log_level, no_front)


def _trace() -> None:
    try:
        from ..observability.opentelemetry import install_tracing  # noqa: PLC0415 - needs the otel extra
    except ModuleNotFoundError:
        fail(InvalidInput("--otel", "needs: pip install 'dotmac-tasks[otel]'"))
    install_tracing()


def _run(
    application: str,
    redis: str | None,
    style: LogStyle,
    level: Level,
    front: Callable[[BackgroundOperationsManager], Front | None],
) -> NoReturn:
    configure_logging(style, level)
    if redis == "":  # of an unset shell variable; without the option, the storage would be memory
        fail(InvalidInput("--redis", "is empty; give redis://HOST:PORT/0, or leave the option out"))
    if redis is not None:
        os.environ["REDIS_URL"] = redis
    try:
        manager = load_manager(application)
        if redis is not None and isinstance(manager.storage, MemoryStorage):
            raise InvalidInput("--redis", f"{application} keeps everything in memory; make it without a storage")
        made = front(manager)
    except (InvalidInput, CannotListen) as error:
        fail(error)
    from ..service.process import run_process  # noqa: PLC0415 - see the package

    raise typer.Exit(trio.run(run_process, manager, made))


def _access(
    bind: list[str], token_file: Path | None, token_env: str | None, auth: str | None, hosts: list[str]
) -> Access:
    from ..service.access import access_for  # noqa: PLC0415 - see the package
    from ..service.tokens import Tokens  # noqa: PLC0415 - likewise

    authenticator = None if auth is None else load_attribute(auth, "app.access:authenticate")
    if auth is not None and not callable(authenticator):
        raise InvalidInput(auth, f"is a {type(authenticator).__name__}; it must be an async callable")
    if auth is not None and not is_async(authenticator):
        raise InvalidInput(auth, "is not async; it must be an async callable, which returns a Caller or None")
    tokens = Tokens.load(token_file, token_env, os.environ)
    return access_for(bind, tokens=tokens, authenticator=authenticator, hosts=hosts)
