"""The commands of `dotmac-tasks`, as a typer application: one module a group of commands."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer
from rich.console import Console

from .._version import __version__
from ..demo.app import run_demo
from . import doctor, running

app = typer.Typer(name="dotmac-tasks", no_args_is_help=True, pretty_exceptions_enable=False)
running.add_to(app)
doctor.add_to(app)


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


@app.command()
def demo() -> None:
    """Three sagas, live: one succeeds, one is undone, one survives the loss of its runtime."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character must not end the demo
    raise typer.Exit(run_demo(Console()))
