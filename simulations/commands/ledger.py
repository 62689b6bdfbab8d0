"""feddp ledger: create, show, verify, export, anchor, back up, and rotate the key."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feddp.common.errors import ConfigError, DiskError
from feddp.deploy.commands import argument, group, option
from feddp.simulations.commands.config_options import config_of

if TYPE_CHECKING:
    from feddp.common.config.run_config import RunConfig
    from feddp.common.privacy.ledger.charge_terms import Planned
    from feddp.common.privacy.plan.plan import PrivacyPlan
    from feddp.server.run import Run

Mode = StrEnum("Mode", {"FIXED_SCHEDULE": "fixed-schedule", "ADAPTIVE": "adaptive"})
LedgerOrRun = Annotated[Path, argument("LEDGER_OR_RUN", "a ledger, or the folder of a run")]
commands = group("Shows, checks and makes privacy ledgers.")


def add_to(app: typer.Typer) -> None:
    """Adds `feddp ledger ...`."""
    app.add_typer(commands, name="ledger", rich_help_panel="Ledger")


@commands.command()
def show(path: LedgerOrRun) -> None:
    """Prints the rows, what is spent and what is left."""
    from feddp.common.privacy.ledger.ledger import Ledger
    from feddp.simulations.commands.ledger_text import promise_lines, spent_lines, table_lines

    path, _ = _locate(path)
    content = Ledger.read_content(path)
    lines = [f"{path}", *table_lines(content)]
    print("\n".join([*lines, *promise_lines(content.history), *spent_lines(content.history)]))


@commands.command()
def verify(
    path: LedgerOrRun,
    anchor: Annotated[Path | None, option("a head to be extended", "FILE")] = None,
) -> None:
    """Checks rows, signatures, anchor, plan and promise; recomputes epsilon from the events."""
    from feddp.common.privacy.ledger.ledger import Ledger
    from feddp.common.privacy.ledger.remembered_head import check_anchor_file
    from feddp.common.privacy.plan.statement import epsilon_text
    from feddp.server.run_ledger import anchor_path
    from feddp.simulations.commands.ledger_checks import check_epsilon, check_plan, check_record
    from feddp.simulations.commands.ledger_text import promise_lines, spent_lines

    path, run = _locate(path)
    history = Ledger.read(path)
    if anchor is not None and not anchor.is_file():
        raise ConfigError([f"--anchor {anchor}: no such file."])
    anchor = anchor or (anchor_path(run.config) if run else None)
    check_anchor_file(path, history, anchor)
    print(f"{path}: {history.num_rows} rows, each in its place and signed")
    print(f"  key       {history.public_key.hex()} (public)")
    print("\n".join([*promise_lines(history), *spent_lines(history)]))
    if anchor is not None:
        print(f"  verified  extends the head that {anchor} remembers")
    if run is not None:
        check_plan(run, history)
    whole = epsilon_text(check_epsilon(path, history))
    print(f"  verified  the events cost epsilon <= {whole}, within the target")
    if run is not None and check_record(run):
        print("  verified  privacy.json promises what the plan does")


@commands.command()
def export(path: LedgerOrRun) -> None:
    """Prints all rows as JSON lines; all of it is public."""
    import json

    from feddp.common.privacy.ledger.ledger import Ledger

    path, _ = _locate(path)
    for seq, kind, text, previous, head, signature in Ledger.read_content(path).rows:
        line = {
            "seq": seq,
            "kind": kind,
            "body": json.loads(text),
            "prev": previous.hex(),
            "hash": head.hex(),
            "sig": signature.hex(),
        }
        sys.stdout.write(json.dumps(line, sort_keys=True) + "\n")


@commands.command()
def anchor(
    path: LedgerOrRun, file: Annotated[Path, option("where the head is remembered", "FILE")]
) -> None:
    """Remembers the head in a file, best elsewhere; refuses to forget a newer one."""
    from feddp.common.disk import Disk
    from feddp.common.privacy.ledger.ledger import Ledger
    from feddp.common.privacy.ledger.remembered_head import (
        anchor_of,
        check_anchor_file,
        write_anchor,
    )

    path, _ = _locate(path)
    content = Ledger.read_content(path)
    if file.is_file():
        check_anchor_file(path, content.history, file)
    made = anchor_of(content.history, content.signature)
    write_anchor(file, made, Disk())
    print(f"{file}: remembers row {made.seq} of {made.population or path}, head {made.head}")


@commands.command()
def rotate(path: LedgerOrRun) -> None:
    """Replaces the key that signs; the old one signs the new one."""
    from feddp.common.privacy.ledger.ledger import Ledger
    from feddp.server.run_ledger import key_path

    path, run = _locate(path)
    key = key_path(run.path, run.config) if run else None
    with Ledger.open(path, key_path=key) as ledger:
        ledger.rotate()
        print(f"{path}: row {ledger.history.num_rows} names the new key")
        print(f"  key       {ledger.history.public_key.hex()} (public)")


@commands.command()
def backup(path: LedgerOrRun, file: Annotated[Path, option("where the copy goes", "FILE")]) -> None:
    """Copies the ledger, verifies the copy, and says which head it holds."""
    from feddp.common.disk import Disk
    from feddp.common.privacy.ledger.store import copy_file

    path, _ = _locate(path)
    history = copy_file(path, file, Disk()).history
    print(f"{file}: verified, {history.num_rows} rows, head {history.head.hex()}")
    print("  An older copy is no ledger to go on with: whatever came after it would be forgotten.")


@commands.command()
def create(
    path: Annotated[Path, argument("LEDGER", "a new file")],
    population: Annotated[str, option("name of the users", "NAME")],
    config: Annotated[
        list[Path] | None,
        option("TOML file of an expected run; repeatable; default: the demo", "FILE"),
    ] = None,
    num_users: Annotated[int | None, option("N; default: the config's")] = None,
    target_epsilon: Annotated[float | None, option("of all runs; default: the config's")] = None,
    target_delta: Annotated[float | None, option("of all runs; default: the plan's")] = None,
    runs: Annotated[int, typer.Option(help="runs of each config")] = 1,
    mode: Annotated[
        Mode,
        typer.Option(
            "--filter", help="whether all charges are planned now, or unforeseen runs may come"
        ),
    ] = Mode.FIXED_SCHEDULE,
) -> None:
    """Makes the ledger of a population from the plans of the runs that will share it."""
    configs = [config_of(each, ()) for each in config] if config else [config_of(None, ())]
    from feddp.common.privacy.ledger.ledger import Ledger
    from feddp.common.privacy.plan.ledger_entries import terms_of
    from feddp.common.privacy.plan.shared_population import population_row
    from feddp.simulations.commands.ledger_text import promise_lines

    if path.exists():
        raise DiskError(f"{path}: exists already; a ledger is never overwritten.")
    plans = [_plan(config, num_users) for config in configs]
    terms = terms_of(plans[0])
    if any(terms_of(plan) != terms for plan in plans):
        raise ConfigError(
            ["The runs differ in num-users, trust or seed: they are not of one population."]
        )
    row = population_row(
        population=population,
        mode=mode.value,
        terms=terms,
        target_epsilon=target_epsilon or plans[0].target_epsilon,
        target_delta=target_delta or plans[0].delta,
        schedule=_schedule(plans, runs),
    )
    named = configs[0].privacy.ledger_key
    key = Path(named) if named else None
    path.parent.mkdir(parents=True, exist_ok=True)
    Ledger.create(path, row, key_path=key)
    history = Ledger.read(path)
    print(f"{path}: the ledger of {population}\n" + "\n".join(promise_lines(history)))
    print(f"  key       {history.public_key.hex()} (public)")
    print("  Keep its private key secret, and the ledger where no backup can replace it unseen.")


def _locate(path: Path) -> tuple[Path, "Run | None"]:
    """(path of the ledger, the run if `path` is one); ConfigError if it is neither."""
    from feddp.server.run import CONFIG_NAME, load_run
    from feddp.server.run_ledger import LEDGER_NAME

    if (path / CONFIG_NAME).is_file():
        run = load_run(path)
        return run.ledger_path, run
    if path.is_dir() or not path.exists():
        raise ConfigError([f"{path}: no run here and no ledger."])
    if path.name == LEDGER_NAME and (path.parent / CONFIG_NAME).is_file():
        return path, load_run(path.parent)
    return path, None


def _plan(config: "RunConfig", num_users: int | None) -> "PrivacyPlan":
    from feddp.common.assembly import load_model, plan_from_config

    base, layout = load_model(config)
    declared = config.privacy.num_users
    if num_users and declared and num_users != declared:
        raise ConfigError([f"--num-users = {num_users}: privacy.num-users of a run is {declared}."])
    trust = config.privacy.trust
    if num_users:
        config = replace(config, privacy=replace(config.privacy, num_users=num_users))
    return plan_from_config(config, trust=trust, base=base, layout=layout)


def _schedule(plans: Sequence["PrivacyPlan"], num_runs: int) -> list["Planned"]:
    """The charges of all runs, one entry per kind of slot."""
    from feddp.common.privacy.ledger.charge_terms import Planned, Slot
    from feddp.common.privacy.plan.ledger_entries import planned_of

    merged: dict[Slot, Planned] = {}
    for planned in map(planned_of, plans):
        known = merged.get(planned.slot, Planned(planned.slot, 0, 0))
        merged[planned.slot] = Planned(
            planned.slot,
            known.count + num_runs * planned.count,
            known.num_events + num_runs * planned.num_events,
        )
    return list(merged.values())
