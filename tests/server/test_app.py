"""The ServerApp: what it refuses before it asks a node anything. Its rounds: see end_to_end."""

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flower_grid import InProcessGrid
from flwr.clientapp import ClientApp

from feddp.common.config.run_config import RunConfig, from_flat, to_flat
from feddp.common.errors import ConfigError
from feddp.common.wire.identity_keys import make_key
from feddp.common.wire.node_registry import Registry, write_registry
from feddp.server.app import main
from feddp.server.run import load_run

SMALL = {
    "run.rounds": 1,
    "run.seed": 7,
    "run.name": "r",
    "privacy.num-users": 40,
    "sampling.expected-cohort-size": 10.0,
}


def start(config: RunConfig, num_nodes: int = 0) -> None:
    grid = InProcessGrid(ClientApp(), [{} for _ in range(num_nodes)], to_flat(config))
    main(grid, grid.server_context)


def config_of(folder: Path, **settings: object) -> RunConfig:
    given = {name.replace("__", ".").replace("_", "-"): value for name, value in settings.items()}
    return from_flat({**SMALL, "run.output-dir": str(folder), **given})


def enrolled(folder: Path, *users: int) -> dict[str, object]:
    """Settings of a fleet whose nodes have so many users."""
    registry = Registry({})
    for i, number in enumerate(users):
        key = Ed25519PrivateKey.from_private_bytes(bytes([i + 1]) * 32)
        registry = registry.enroll(f"node-{i}", key.public_key(), users=number)
    write_registry(folder / "nodes.toml", registry)
    make_key(folder / "server.pem")
    return {
        "nodes__registry": str(folder / "nodes.toml"),
        "nodes__server_key": str(folder / "server.pem"),
    }


def test_a_cohort_of_fixed_size_needs_one_node(tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", privacy__mechanism="fixed-size", nodes__minimum=2)
    with pytest.raises(ConfigError, match="drawn by one node"):
        start(config)
    assert not (tmp_path / "runs").exists()


def test_asking_everybody_needs_sealed_replies(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, sampling__by="server", nodes__users_per_node=1, sampling__ask="all"
    )
    with pytest.raises(ConfigError, match="where replies are sealed"):
        start(config)


def test_more_enrolled_users_than_declared_are_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, **enrolled(tmp_path, 30, 11))
    with pytest.raises(ConfigError, match="41 users are enrolled"):
        start(config)


def test_the_server_draws_nodes_of_one_user_each(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, sampling__by="server", nodes__users_per_node=1, **enrolled(tmp_path, 1, 2)
    )
    with pytest.raises(ConfigError, match="nodes of one user each"):
        start(config)


def test_a_resumed_run_keeps_all_but_the_place_of_its_nodes(tmp_path: Path) -> None:
    refused = config_of(tmp_path, **enrolled(tmp_path, 41))
    with pytest.raises(ConfigError, match="41 users"):
        start(refused)  # its folder is made, and nothing was charged
    made = load_run(tmp_path / "r")
    resumed = from_flat({"run.resume": str(made.path), "run.rounds": 9, "nodes.minimum": 1})
    registry = dataclasses.replace(resumed.nodes, registry=refused.nodes.registry)
    registry = dataclasses.replace(registry, server_key=refused.nodes.server_key)
    with pytest.raises(ConfigError, match="41 users"):
        start(dataclasses.replace(resumed, nodes=registry))
    assert load_run(made.path).plan == made.plan
