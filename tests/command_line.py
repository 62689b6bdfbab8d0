"""The words of feddp's command line, read from its app without running anything."""

import functools
from collections.abc import Iterator, Sequence
from enum import StrEnum

import click
import typer

from feddp.simulations.cli import app_of
from feddp.simulations.commands.node import with_action


class UnknownWordError(Exception):
    """A command line names a command or an option that does not exist."""


@functools.cache
def command_of(app: typer.Typer | None = None) -> click.Command:
    return typer.main.get_command(app or app_of())


def leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that runs something, by its full name."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    for word, each in command.commands.items():
        yield from leaves(each, f"{name} {word}")


def words_of(command: click.Command) -> str:
    """Arguments and options with their types: `!` required, `*` repeatable, `(default)`."""
    return " ".join(_word(each) for each in command.params)


def _word(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        name = f"{parameter.metavar or ''}={parameter.type.name}"
        return name if parameter.required else f"[{name}]"
    assert isinstance(parameter, click.Option)
    name = "/".join(parameter.opts)
    if parameter.is_flag:
        return name
    kind = parameter.type
    if isinstance(kind, click.Choice):
        text = "{" + ",".join(str(choice) for choice in kind.choices) + "}"
    elif isinstance(kind, click.IntRange):
        text = f"{kind.min}..{kind.max}"
    else:
        text = kind.name
    ending = "*" if parameter.multiple else "!" if parameter.required else ""
    default = parameter.default
    if default is not None and not parameter.multiple and not parameter.required:
        ending += f"({default.value if isinstance(default, StrEnum) else default})"
    return f"{name}={text}{ending}"


def leaf_of(words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """The command of a line (without "feddp"), and the words that are left for it.

    Raises:
      UnknownWordError: no command of that name.
    """
    command, left = command_of(), with_action(list(words))
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        found = command.commands.get(left[0])
        if found is None:
            raise UnknownWordError(f"no command {left[0]!r} in {' '.join(words)!r}")
        command, left = found, left[1:]
    return command, left


def check_words(words: Sequence[str]) -> list[str]:
    """Reads a line that a text shows, which may leave out what it does not speak of.

    Returns:
      The values of `--set`.

    Raises:
      UnknownWordError: it names a command or an option that does not exist.
    """
    command, left = leaf_of(words)
    parser = command.make_parser(click.Context(command, info_name="feddp"))
    try:
        values, _, _ = parser.parse_args(list(left))
    except click.NoSuchOption as error:
        raise UnknownWordError(f"{error.message} in {' '.join(words)!r}") from error
    except click.BadOptionUsage:  # an option is named without its value
        return []
    found = values.get("settings")
    return [str(each) for each in found] if isinstance(found, list) else []


def read_words(words: Sequence[str]) -> None:
    """Reads a whole line: every argument and option, and each value's type.

    Raises:
      UnknownWordError, click.UsageError: it cannot be run.
    """
    command, left = leaf_of(words)
    command.make_context(command.name, list(left))
