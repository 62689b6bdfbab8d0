"""feddp deploy: a fleet of Flower processes on loopback."""

from pathlib import Path
from typing import Annotated

import typer

from feddp.deploy.commands import group, option
from feddp.simulations.commands.config_options import (
    Config,
    OutputDir,
    RunFolder,
    Settings,
    config_of,
)

Nodes = Annotated[int | None, option("machines that share the users; 2, or as before", "N")]
Keep = Annotated[Path | None, option("keep keys, logs and databases there", "FOLDER")]
commands = group("Runs on a fleet of Flower processes.")


def add_to(app: typer.Typer) -> None:
    """Adds `feddp deploy ...`."""
    app.add_typer(commands, name="deploy", rich_help_panel="Deploy")


@commands.command()
def local(
    config: Config = None,
    settings: Settings = None,
    output_dir: OutputDir = None,
    unsealed: Annotated[
        bool, typer.Option("--unsealed", help="without the nodes' keys: replies travel open")
    ] = False,
    nodes: Nodes = None,
    keep: Keep = None,
) -> None:
    """Starts a whole fleet on loopback, with TLS and keys, for one run."""
    run_config = config_of(config, settings, output_dir=output_dir)
    from feddp.deploy.fleet.run import deploy_local

    num_nodes = 2 if nodes is None else nodes
    path = deploy_local(run_config, num_nodes=num_nodes, is_sealed=not unsealed, folder=keep)
    _show_end(path)


@commands.command()
def resume(run: RunFolder, nodes: Nodes = None, keep: Keep = None) -> None:
    """Continues a run, on a new fleet on loopback."""
    from feddp.deploy.fleet.run import deploy_resume

    deploy_resume(run, num_nodes=nodes, folder=keep)
    _show_end(run)


def _show_end(path: Path) -> None:
    from feddp.server.run import load_run
    from feddp.simulations.run.pictures import leave_curves

    leave_curves(path, load_run(path).plan)
    print(f"\n  {path}\n  try: feddp chat {path}")
