"""The commands of `dotmac-tasks`, as a typer application: one module a group of commands.

Modules that need a server or a database are imported by the command that needs them, so that the others start fast.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer
from rich.console import Console

from .._version import __version__
from . import looking, running, sagas

app = typer.Typer(name="dotmac-tasks", no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dotmac-tasks {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Background operations that are not lost and not done twice."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names and results may have any character; one that cannot be shown here must not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")


running.add_to(app)
app.add_typer(sagas.app, name="sagas")
looking.add_to(app)


@app.command()
def demo() -> None:
    """Three sagas, live: one succeeds, one is undone, one survives the loss of its runtime."""
    from ..demo.app import run_demo  # noqa: PLC0415 - see above

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character must not end the demo
    raise typer.Exit(run_demo(Console()))
