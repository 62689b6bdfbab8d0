"""The feddp command."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Annotated

import typer

from feddp.common.errors import DiskError
from feddp.deploy.commands import run_app

INTERRUPTED = 130
EXIT_CODES = {
    0: "done",
    1: "it failed, or something measured is above its ceiling",
    2: "the command line, the configuration, the data or the model has a mistake",
    3: "the ledger does not verify",
    4: "the ledger is older than a head that somebody remembers",
    5: "another process holds the ledger",
    6: "the privacy budget is spent",
    7: "the plan is not the one that the ledger was opened with",
    8: "a file cannot be read or written",
    INTERRUPTED: "interrupted",
}
# The files of the folder `commands`, and the commands that each adds.
FILES = {
    "plan": ("plan", "check"),
    "simulate": ("simulate", "chat"),
    "measure": ("evaluate", "audit", "compare", "report", "bench"),
    "ledger": ("ledger",),
    "node": ("node",),
    "deploy": ("deploy",),
}


def app_of(files: Iterable[str] = tuple(FILES)) -> typer.Typer:
    """The app with the commands of these files."""
    codes = (f"{code}: {about}" for code, about in EXIT_CODES.items())
    app = typer.Typer(
        help="Private federated fine-tuning of language models with LoRA.",
        epilog="\n\n".join(["Exit codes:", *codes]),
        no_args_is_help=True,
        suggest_commands=False,  # click already does
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_feddp)
    for file in files:
        import_module(f"feddp.simulations.commands.{file}").add_to(app)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a user's mistake gives one clear message and a non-zero exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    line = shlex.join(["feddp", *words])
    try:
        code = run_app(app_of(_files(words)), "feddp", _whole(words), obj=line)
    except OSError as error:
        print(f"feddp: {error}. Free or repair the disk, then resume.", file=sys.stderr)
        return DiskError.exit_code
    if code == INTERRUPTED:
        print("feddp: interrupted; nothing uncharged was released.", file=sys.stderr)
    return code


def _files(words: Sequence[str]) -> list[str]:
    """Only the file of the named command: loading the others would double the start-up time."""
    named = [file for file, commands in FILES.items() if words and words[0] in commands]
    return named or list(FILES)


def _whole(words: list[str]) -> list[str]:
    """`feddp node CONFIG` without its action means `feddp node serve CONFIG`."""
    if words[:1] != ["node"]:
        return words
    from feddp.simulations.commands.node import with_action

    return with_action(words)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"feddp {version('feddp')}")
        except PackageNotFoundError:
            print("feddp, from a folder that is not installed")
        raise typer.Exit


def _feddp(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Takes the options before a command."""


if __name__ == "__main__":
    sys.exit(main())
