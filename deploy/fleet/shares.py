"""What each node of a fleet on loopback has: a part of the users, and a ledger if it adds noise."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feddp.common.assembly import Part, load_model, load_users, plan_from_config
from feddp.common.config.run_config import RunConfig
from feddp.common.errors import ConfigError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row


@dataclass(frozen=True)
class Share:
    """What one node of a fleet has.

    Attributes:
      part: its users, out of the run's.
      users: how many of them are registered, public.
      ledger: its own, where it adds the noise itself.
    """

    part: Part
    users: int
    ledger: Path | None = None


def shares_of(config: RunConfig, num_nodes: int) -> list[Share]:
    """The users of a run, spread over nodes and counted, as each node's operator would.

    Raises:
      ConfigError: there are no nodes, or not one for each user where the server draws them.
    """
    if num_nodes < 1:
        raise ConfigError([f"--nodes {num_nodes}: must be >= 1."])
    if config.sampling.by == "server":
        return _devices(load_users(config)[0].keys, num_nodes)
    parts = [Part(i, num_nodes) for i in range(num_nodes)]
    return [Share(part, max(1, load_users(config, part)[0].num_users)) for part in parts]


def _devices(keys: NDArray[np.uint64], num_nodes: int) -> list[Share]:
    """One user each: by the remainder of the key, modulo a number that tells all users apart."""
    if len(keys) != num_nodes:
        raise ConfigError(
            [
                f'--nodes {num_nodes}: sampling.by = "server" draws nodes of one user each. Give '
                "as many nodes as there are training users."
            ]
        )
    num_parts = num_nodes
    while len(np.unique(remainders := keys % np.uint64(num_parts))) < num_nodes:
        num_parts += 1
    return [Share(Part(int(index), num_parts), users=1) for index in remainders]


def ledgers_path(run_path: Path) -> Path:
    """Where the nodes' own ledgers lie: beside the run, which they outlast."""
    return run_path.resolve().with_name(run_path.name + ".nodes")


def with_ledgers(shares: Sequence[Share], folder: Path) -> list[Share]:
    """The same nodes, each with a ledger of its own."""
    return [
        dataclasses.replace(share, ledger=folder / f"node-{i}.sqlite")
        for i, share in enumerate(shares)
    ]


def make_ledgers(config: RunConfig, shares: Sequence[Share]) -> None:
    """What the owner of each node's users does once, with `feddp ledger create`.

    Raises:
      DiskError: one exists already.
    """
    base, layout = load_model(config)
    plan = plan_from_config(config, trust="node", base=base, layout=layout)
    assert config.run.name is not None
    for share in shares:
        assert share.ledger is not None
        share.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Ledger.create(share.ledger, plan_row(plan, config.run.name))


def check_ledgers(shares: Sequence[Share]) -> None:
    """Refuses to continue with nodes that lost the record of what they spent, or have other users.

    Raises:
      ConfigError: not as many ledgers as nodes.
    """
    paths = [share.ledger for share in shares if share.ledger is not None]
    folder = paths[0].parent
    if sorted(paths) != sorted(folder.glob("*.sqlite")):
        raise ConfigError(
            [
                f"{folder}: must hold the ledger of each of {len(paths)} nodes, and no other. "
                "Continue with as many --nodes as before, and restore what is missing."
            ]
        )
