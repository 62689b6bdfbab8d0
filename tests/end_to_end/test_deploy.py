"""A fleet of real processes on loopback, TLS and keys on, against the run in one process."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from feddp.common.config.run_config import RunConfig, from_flat, to_toml
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import read_released
from feddp.deploy.fleet.run import (
    StoppedError,
    deploy_local,
    deploy_resume,
    fleet_of,
    follow,
    located,
    resuming,
)
from feddp.deploy.fleet.shares import shares_of
from feddp.server.publisher import METRICS_NAME
from feddp.server.run import load_run
from feddp.server.run_ledger import LEDGER_NAME
from feddp.server.run_secrets import POPULATION, secrets_folder
from feddp.simulations.cli import main
from feddp.simulations.run.simulate import simulate

pytestmark = pytest.mark.slow
SMALL = {
    "run.rounds": 3,
    "run.seed": 7,
    "sampling.expected-cohort-size": 30.0,
    "evaluation.max-users": 10,
    "evaluation.every": 100,
    "nodes.deadline-seconds": 120.0,
}


def config(folder: Path, name: str) -> RunConfig:
    return from_flat({**SMALL, "run.name": name, "run.output-dir": str(folder)})


def released(path: Path) -> np.ndarray:
    last = Ledger.read(path / LEDGER_NAME).releases[-1]
    return read_released(load_run(path).checkpoints, last).state.adapter


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = tmp_path_factory.mktemp("runs")
    assert simulate(config(folder, "local")).is_complete
    return released(folder / "local")


@pytest.mark.parametrize(("num_nodes", "is_sealed"), [(4, True), (2, False)])
def test_seeded_rounds_on_a_fleet_release_the_bytes_of_the_run_in_one_process(
    tmp_path: Path, straight: np.ndarray, num_nodes: int, is_sealed: bool
) -> None:
    path = deploy_local(
        config(tmp_path, "fleet"), num_nodes=num_nodes, is_sealed=is_sealed, folder=None
    )
    np.testing.assert_array_equal(released(path), straight)


def test_a_deployment_that_is_ended_leaves_no_process_and_is_resumed(
    tmp_path: Path, straight: np.ndarray
) -> None:
    path, place = tmp_path / "stopped", tmp_path / "f"
    words = [f"--set={key}={value}" for key, value in SMALL.items()]
    options = [*words, "--set=run.name=stopped", "--output-dir", str(tmp_path)]
    command = [
        sys.executable,
        "-m",
        "feddp.simulations.cli",
        "deploy",
        "local",
        "--keep",
        str(place),
    ]
    process = subprocess.Popen([*command, *options])
    end = time.monotonic() + 300
    while not any((path / "checkpoints").glob("*.safetensors")) and time.monotonic() < end:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    assert not processes_of(place)
    assert len(Ledger.read(path / LEDGER_NAME).releases) < 3
    deploy_resume(path, num_nodes=2, folder=None)
    np.testing.assert_array_equal(released(path), straight)


def test_a_fleet_charges_the_ledger_of_its_population(tmp_path: Path, straight: np.ndarray) -> None:
    own = config(tmp_path, "shared")
    privacy = dataclasses.replace(
        own.privacy, ledger=str(tmp_path / "clinic.sqlite"), population="clinic"
    )
    own = dataclasses.replace(own, privacy=privacy)
    (tmp_path / "run.toml").write_text(to_toml(own))
    options = ["--config", str(tmp_path / "run.toml"), "--population", "clinic"]
    assert main(["ledger", "create", str(tmp_path / "clinic.sqlite"), *options]) == 0
    path = deploy_local(own, num_nodes=2, is_sealed=True, folder=None)
    history = Ledger.read(tmp_path / "clinic.sqlite")
    assert (len(history.charges), len(history.releases)) == (3, 3)
    last = read_released(load_run(path).checkpoints, history.releases[-1])
    np.testing.assert_array_equal(last.state.adapter, straight)


def test_nodes_that_add_the_noise_charge_their_own_ledgers_once_a_round(tmp_path: Path) -> None:
    own = config(tmp_path, "own")
    own = dataclasses.replace(own, privacy=dataclasses.replace(own.privacy, trust="node"))
    path = deploy_local(own, num_nodes=2, is_sealed=True, folder=None)
    assert len(Ledger.read(path / LEDGER_NAME).releases) == 3
    ledgers = sorted((tmp_path / "own.nodes").glob("*.sqlite"))
    assert [ledger.name for ledger in ledgers] == ["node-0.sqlite", "node-1.sqlite"]
    for ledger in ledgers:
        assert len(Ledger.read(ledger).releases) == 3
    assert np.isfinite(released(path)).all()


def test_the_server_draws_among_devices_of_one_user_each(tmp_path: Path) -> None:
    rows = [{"user_id": f"device {i}", "text": f"message {i} from here"} for i in range(4)]
    (tmp_path / "users.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        **SMALL,
        "run.name": "devices",
        "run.output-dir": str(tmp_path),
        "data.path": str(tmp_path / "users.jsonl"),
        "data.evaluation-users": 0,
        "privacy.num-users": 4,
        "privacy.noise-multiplier": 1.0,
        "privacy.target-epsilon": 50.0,
        "sampling.by": "server",
        "sampling.expected-cohort-size": 3.0,
        "nodes.users-per-node": 1,
    }
    path = deploy_local(from_flat(settings), num_nodes=4, is_sealed=True, folder=None)
    # Whom the server drew is no part of the run, and gone when it is over.
    assert not list(tmp_path.rglob(POPULATION))
    assert len(Ledger.read(path / LEDGER_NAME).releases) == 3


def test_nodes_refuse_a_server_app_whose_ledger_was_restored_from_an_old_copy(
    tmp_path: Path,
) -> None:
    own = config(tmp_path, "restored")
    path, backup = tmp_path / "restored", tmp_path / "backup"
    with fleet_of(own, shares=shares_of(own, 2), folder=tmp_path / "f") as fleet:
        begun = located(own, fleet)
        process = fleet.submit(begun)
        wait_for_release(path, process)
        shutil.copytree(path, backup)
        shutil.copytree(secrets_folder(path), secrets_folder(backup))
        assert process.wait() == 0
        assert len(Ledger.read(path / LEDGER_NAME).releases) == 3
        path.rename(tmp_path / "newest")
        backup.rename(path)
        secrets_folder(backup).rename(secrets_folder(path))
        assert 0 < len(Ledger.read(path / LEDGER_NAME).releases) < 3
        follow(fleet, resuming(begun, path, fleet))
        logs = [(fleet.logs_path / f"node-{i}.log").read_text() for i in range(2)]
    assert all("refused: rolled-back" in log for log in logs)


def wait_for_release(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        if (path / METRICS_NAME).exists() and Ledger.read(path / LEDGER_NAME).releases:
            return
        time.sleep(0.1)
    pytest.fail("nothing was released")


def test_a_run_that_cannot_start_ends_and_says_where_to_look(tmp_path: Path) -> None:
    wrong = config(tmp_path, "wrong")
    privacy = dataclasses.replace(wrong.privacy, num_users=3)
    sampling = dataclasses.replace(wrong.sampling, expected_cohort_size=1.0)
    wrong = dataclasses.replace(wrong, privacy=privacy, sampling=sampling)
    with pytest.raises(StoppedError):
        deploy_local(wrong, num_nodes=2, is_sealed=True, folder=tmp_path / "f")
    assert not processes_of(tmp_path / "f")


def processes_of(folder: Path) -> list[int]:
    """Processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
