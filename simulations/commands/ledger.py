"""feddp ledger: the words of its command line."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feddp.common.config.run_config import load_config

Subparsers = Any  # argparse names the type of add_subparsers() privately


def add_ledger_commands(commands: Subparsers) -> None:
    """Adds `feddp ledger ...` to the command line."""
    ledger = commands.add_parser("ledger", help="the privacy ledger of a run or a population")
    actions = ledger.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, about: str, command: Callable[[argparse.Namespace], int]) -> Any:
        made = actions.add_parser(name, help=about)
        made.add_argument("path", type=Path, metavar="LEDGER_OR_RUN")
        made.set_defaults(command=command)
        return made

    add("show", "rows, what is spent and what is left", _show)
    verify = add("verify", "rows, signatures, anchor; epsilon from the events", _verify)
    verify.add_argument("--anchor", type=Path, metavar="FILE", help="a head to be extended")
    add("export", "all rows as JSON lines; public", _export)
    anchor = add("anchor", "remember the head in a file, best elsewhere", _anchor)
    anchor.add_argument("--file", type=Path, metavar="FILE", required=True)
    add("rotate", "replace the key that signs", _rotate)
    backup = add("backup", "a verified copy, labelled with its head", _backup)
    backup.add_argument("--file", type=Path, metavar="FILE", required=True)
    create = add("create", "the ledger of a population that runs share", _create)
    create.add_argument(
        "--config",
        action="append",
        type=Path,
        metavar="FILE",
        help="TOML file of an expected run; repeatable; default: the demo",
    )
    create.add_argument("--population", required=True, help="name of the users")
    create.add_argument("--num-users", type=int, help="N; default: the config's")
    create.add_argument("--target-epsilon", type=float, help="of all runs; default: the config's")
    create.add_argument("--target-delta", type=float, help="of all runs; default: the plan's")
    create.add_argument("--runs", type=int, default=1, help="runs of each config; default: 1")
    create.add_argument(
        "--filter",
        choices=("fixed-schedule", "adaptive"),
        default="fixed-schedule",
        help="whether all charges are planned now, or unforeseen runs may come",
    )


def _show(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.ledger_work import show

    return show(options.path)


def _verify(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.ledger_work import verify

    return verify(options.path, anchor=options.anchor)


def _export(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.ledger_work import export

    return export(options.path)


def _anchor(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.ledger_work import anchor

    return anchor(options.path, file=options.file)


def _rotate(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.ledger_work import rotate

    return rotate(options.path)


def _backup(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.ledger_work import backup

    return backup(options.path, target=options.file)


def _create(options: argparse.Namespace) -> int:
    configs = [load_config(path) for path in options.config or [None]]
    from feddp.simulations.commands.ledger_work import create_ledger

    return create_ledger(
        options.path,
        configs,
        population=options.population,
        mode=options.filter,
        num_users=options.num_users,
        target_epsilon=options.target_epsilon,
        target_delta=options.target_delta,
        num_runs=options.runs,
    )
