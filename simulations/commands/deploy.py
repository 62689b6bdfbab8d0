"""feddp deploy: the words of its command line."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feddp.common.config.run_config import RunConfig

Subparsers = Any  # argparse names the type of add_subparsers() privately


def add_deploy_commands(
    commands: Subparsers,
    *,
    add_config: Callable[[argparse.ArgumentParser], None],
    config_of: Callable[[argparse.Namespace], RunConfig],
) -> None:
    """Adds `feddp deploy ...` to the command line."""
    deploy = commands.add_parser("deploy", help="run on a fleet of Flower processes")
    actions = deploy.add_subparsers(required=True, metavar="ACTION")
    local = actions.add_parser(
        "local", help="a whole fleet on loopback, with TLS and keys, for one run"
    )
    add_config(local)
    local.add_argument(
        "--unsealed", action="store_true", help="without the nodes' keys: replies travel open"
    )
    local.set_defaults(command=lambda options: _local(options, config_of(options)))
    resume = actions.add_parser("resume", help="continue a run, on a new fleet on loopback")
    resume.add_argument("run", type=Path, metavar="RUN")
    resume.set_defaults(command=_resume)
    for parser in (local, resume):
        parser.add_argument(
            "--nodes", type=int, metavar="N", help="machines that share the users; 2, or as before"
        )
        parser.add_argument(
            "--keep", type=Path, metavar="FOLDER", help="keep keys, logs and databases there"
        )


def _local(options: argparse.Namespace, config: RunConfig) -> int:
    from feddp.deploy.fleet.run import deploy_local

    num_nodes = 2 if options.nodes is None else options.nodes
    path = deploy_local(
        config, num_nodes=num_nodes, is_sealed=not options.unsealed, folder=options.keep
    )
    print(f"\n  {path}\n  try: feddp chat {path}")
    return 0


def _resume(options: argparse.Namespace) -> int:
    from feddp.deploy.fleet.run import deploy_resume

    deploy_resume(options.run, num_nodes=options.nodes, folder=options.keep)
    print(f"\n  {options.run}\n  try: feddp chat {options.run}")
    return 0
