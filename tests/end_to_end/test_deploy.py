"""A fleet of real processes on loopback, TLS and keys on, against the run in one process."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from common.config import RunConfig, from_flat
from common.privacy.ledger import Ledger
from server.checkpoint import read_released
from server.opening import LEDGER_NAME
from simulations.deploy import StoppedError, deploy_local, deploy_resume
from simulations.simulate import simulate

pytestmark = pytest.mark.slow
SMALL = {
    "run.rounds": 3,
    "run.seed": 7,
    "sampling.expected-cohort-size": 30.0,
    "evaluation.max-users": 10,
    "evaluation.every": 100,
    "nodes.deadline-seconds": 120.0,
    "privacy.spare-attempts": 20,
}


def config(folder: Path, name: str) -> RunConfig:
    return from_flat({**SMALL, "run.name": name, "run.output-dir": str(folder)})


def released(path: Path) -> np.ndarray:
    last = Ledger.read(path / LEDGER_NAME).releases[-1]
    return read_released(path / "checkpoints", last).adapter


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = tmp_path_factory.mktemp("runs")
    assert simulate(config(folder, "local"), is_comparing=False, non_private_path=None) == 0
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
    command = [sys.executable, "-m", "simulations.cli", "deploy", "local", "--keep", str(place)]
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
