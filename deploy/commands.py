"""Typer apps: their options, and running them: a mistake is one message and an exit code."""

import sys
from collections.abc import Sequence
from typing import Any

import typer

from feddp.common.errors import FeddpError


def group(about: str | None) -> typer.Typer:
    """Commands that belong together."""
    return typer.Typer(
        help=about, add_completion=False, no_args_is_help=True, suggest_commands=False
    )


def argument(metavar: str, about: str | None = None) -> Any:
    """An argument; the help shows no default of it."""
    return typer.Argument(metavar=metavar, help=about, show_default=False)


def option(about: str, metavar: str | None = None) -> Any:
    """An option named after its parameter; the help shows no default of it."""
    return typer.Option(metavar=metavar, help=about, show_default=False)


def run_app(app: typer.Typer, name: str, words: Sequence[str] | None, **context: Any) -> int:
    """Runs one command of an app and returns its exit code; a wrong command line is 2.

    Args:
      app: the commands. They return nothing; another code than 0 is `typer.Exit`.
      name: how the program is called, for its help and its errors.
      words: the command line without the name; None: the process's own.
      context: of the root command, as `obj`.
    """
    try:
        typer.main.get_command(app).main(words, prog_name=name, **context)
    except SystemExit as stop:
        return int(stop.code or 0)
    except FeddpError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run_tool(app: typer.Typer, name: str, words: Sequence[str] | None = None) -> int:
    """Runs a tool of this folder by itself, as `python -m feddp.deploy.NAME`."""
    try:
        return run_app(app, name, words)
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
