"""The feddp command."""

import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from feddp.common.errors import DiskError
from feddp.deploy.commands import run_app
from feddp.simulations.commands import deploy, ledger, node
from feddp.simulations.commands.measure import audit, bench, compare, evaluate, report
from feddp.simulations.commands.plan import check, plan
from feddp.simulations.commands.simulate import chat, simulate

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
_COMMANDS = {
    "Train": (simulate, plan, check, chat),
    "Measure": (evaluate, audit, compare, report, bench),
}
_GROUPS = (
    ("Ledger", "ledger", ledger.app),
    ("Deploy", "node", node.app),
    ("Deploy", "deploy", deploy.app),
)

app = typer.Typer(
    help="Private federated fine-tuning of language models with LoRA.",
    epilog="\n\n".join(
        ["Exit codes:", *(f"{code}: {about}" for code, about in EXIT_CODES.items())]
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _panel, _functions in _COMMANDS.items():
    for _function in _functions:
        app.command(rich_help_panel=_panel)(_function)
for _panel, _name, _group in _GROUPS:
    app.add_typer(_group, name=_name, rich_help_panel=_panel)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"feddp {version('feddp')}")
        raise typer.Exit


@app.callback()
def _feddp(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a person's mistake is one clear message and a non-zero exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # PEFT still calls what transformers renamed; nothing that a person here could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    line = shlex.join(["feddp", *words])
    try:
        code = run_app(app, "feddp", node.with_action(words), obj=line)
    except OSError as error:
        print(f"feddp: {error}. Free or repair the disk, then resume.", file=sys.stderr)
        return DiskError.exit_code
    if code == INTERRUPTED:
        print("feddp: interrupted; nothing uncharged was released.", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
