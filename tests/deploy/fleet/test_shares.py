import json
from pathlib import Path

import numpy as np
import pytest

from feddp.common.assembly import load_users
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.errors import ConfigError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.deploy.fleet.shares import (
    check_ledgers,
    ledgers_path,
    make_ledgers,
    shares_of,
    with_ledgers,
)


def of_users(folder: Path, num_users: int, **settings: object) -> RunConfig:
    rows = [{"user_id": f"u{i}", "text": "x"} for i in range(num_users) for _ in range(2)]
    (folder / "users.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return from_flat(
        {
            "data.path": str(folder / "users.jsonl"),
            "data.evaluation-users": 0,
            "privacy.num-users": 1000,
            "run.name": "r",
            **settings,
        }
    )


def test_every_user_is_registered_at_one_node(tmp_path: Path) -> None:
    config = of_users(tmp_path, 40)
    shares = shares_of(config, 3)
    assert sum(share.users for share in shares) == 40
    assert [share.users for share in shares] == [
        load_users(config, share.part)[0].num_users for share in shares
    ]


def test_where_the_server_draws_each_node_has_one_user(tmp_path: Path) -> None:
    config = of_users(tmp_path, 12, **{"sampling.by": "server", "nodes.users-per-node": 1})
    shares = shares_of(config, 12)
    found = [load_users(config, share.part)[0].keys for share in shares]
    assert [len(keys) for keys in found] == [share.users for share in shares] == [1] * 12
    assert len(np.unique(np.concatenate(found))) == 12
    with pytest.raises(ConfigError, match="as many nodes as there are training users"):
        shares_of(config, 4)


def test_a_fleet_has_nodes() -> None:
    with pytest.raises(ConfigError, match="--nodes 0: must be >= 1"):
        shares_of(RunConfig(), 0)


def test_ledgers_of_nodes_are_made_once_and_all_of_them_are_needed_to_go_on(
    tmp_path: Path,
) -> None:
    # Given noise, so that no multiplier is searched for.
    cheap = {"run.rounds": 1, "privacy.noise-multiplier": 4.0}
    config = of_users(tmp_path, 4, **{"privacy.trust": "node", **cheap})
    shares = with_ledgers(shares_of(config, 2), ledgers_path(tmp_path / "r"))
    make_ledgers(config, shares)
    paths = sorted((tmp_path / "r.nodes").glob("*.sqlite"))
    assert [path.name for path in paths] == ["node-0.sqlite", "node-1.sqlite"]
    assert len({Ledger.read(path).public_key for path in paths}) == 2
    check_ledgers(shares)
    with pytest.raises(ConfigError, match="as many --nodes as before"):
        check_ledgers(with_ledgers(shares_of(config, 3), ledgers_path(tmp_path / "r")))
    paths[1].unlink()
    with pytest.raises(ConfigError, match="restore what is missing"):
        check_ledgers(shares)
