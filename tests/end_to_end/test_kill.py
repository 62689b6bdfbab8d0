"""The real command, killed at random moments and resumed, ends like a run without the kills.

A round whose charge a kill left without an answer is burned: the run that it must equal, to the
byte, is one whose operator burned the same rounds.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feddp.common.privacy.ledger.history import History
from feddp.common.privacy.ledger.ledger import Ledger

SMALL = {
    "run.seed": 7,
    "run.name": "k",
    "sampling.expected-cohort-size": 20,
    "model.max-tokens": 32,
    "data.max-examples-per-user": 1,
    "evaluation.every": 100,
    "evaluation.max-users": 20,
}
# Runs to before each round that is to be burned, burns it, and goes on to the end.
BURNING = """
import json, sys
import feddp
from pathlib import Path
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import start_of

settings, folder, burned = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
config = feddp.load_config(None, {**settings, "run.output-dir": str(folder)})
run = None
for round in [*burned, None]:
    over = lambda: round is not None and next_round(folder / "k" / "ledger.sqlite") >= round
    next_round = lambda path: Ledger.read(path).runs["k"].next_round
    go = feddp.simulate if run is None else feddp.resume
    run = go(config if run is None else run.path, is_stopped=over)
    if round is not None:
        with Ledger.open(folder / "k" / "ledger.sqlite") as ledger:
            ledger.open_run(start_of("k", run.plan.privacy_plan))
            ledger.burn(ledger.charge(round), "operator")
"""
POLL_SECONDS = 0.01
STARTUP_SECONDS = 12.0


def start(folder: Path, num_rounds: int) -> subprocess.Popen[str]:
    """The command that begins the run in `folder`, or continues it once its folder exists."""
    run_path = folder / "k"
    if run_path.exists():
        options = ["--resume", str(run_path)]
    else:
        settings = {**SMALL, "run.rounds": num_rounds}
        overrides = [word for key in settings for word in ("--set", f"{key}={settings[key]}")]
        options = [*overrides, "--output-dir", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "feddp.simulations.cli", "simulate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(folder: Path, num_rounds: int) -> bytes:
    """Runs to the end and returns the exported adapter."""
    output, _ = (process := start(folder, num_rounds)).communicate()
    assert process.returncode == 0, output
    return (folder / "k" / "adapter" / "adapter_model.safetensors").read_bytes()


def kill_at_random(folder: Path, num_rounds: int, rng: random.Random) -> bool:
    """One life that ends in SIGKILL, unless it ends by itself first: whether it was killed.

    One life in three dies at any moment of its start; the others at, or shortly after, a change of
    the ledger or of the checkpoints, where most of the protocol happens.
    """
    watched = [folder / "k" / "ledger.sqlite", folder / "k" / "checkpoints"]
    process = start(folder, num_rounds)
    num_changes = rng.choice([0, 2, 4])
    end = time.monotonic() + (rng.uniform(0, STARTUP_SECONDS) if num_changes == 0 else 600)
    last = modified(watched)
    while process.poll() is None and time.monotonic() < end:
        if num_changes and (now := modified(watched)) != last:
            last, num_changes = now, num_changes - 1
            if num_changes == 0:
                end = time.monotonic() + rng.choice([0.0, 0.0, rng.uniform(0, 2)])
        try:
            process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), output
    return process.returncode != 0


def modified(paths: list[Path]) -> list[int]:
    return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]


def check(folder: Path, num_rounds: int) -> History | None:
    """Whatever the moment of death: the ledger verifies, and counts enough."""
    path = folder / "k" / "ledger.sqlite"
    if not path.exists():
        return None
    history = Ledger.read(path)
    assert len(history.releases) <= len(history.charges) <= num_rounds
    return history


def burning(folder: Path, num_rounds: int, burned: list[int]) -> bytes:
    """The exported adapter of a run that nobody kills, whose operator burns rounds."""
    settings = json.dumps({**SMALL, "run.rounds": num_rounds})
    words = [sys.executable, "-c", BURNING, settings, str(folder), json.dumps(burned)]
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return (folder / "k" / "adapter" / "adapter_model.safetensors").read_bytes()


def kill_and_resume(folder: Path, *, num_rounds: int, num_kills: int, seed: int) -> None:
    killed, rng, num_killed = folder / "killed", random.Random(seed), 0
    for _ in range(num_kills):
        num_killed += kill_at_random(killed, num_rounds, rng)
        check(killed, num_rounds)
    ended = finish(killed, num_rounds)
    history = check(killed, num_rounds)
    assert history is not None
    assert len(history.charges) == num_rounds
    burned = set(range(1, num_rounds + 1)) - {release.round for release in history.releases}
    assert len(burned) <= num_killed
    assert ended == burning(folder / "burning", num_rounds, sorted(burned))


def test_a_command_killed_three_times_ends_like_a_run_without_its_burned_rounds(
    tmp_path: Path,
) -> None:
    kill_and_resume(tmp_path, num_rounds=6, num_kills=3, seed=3)


@pytest.mark.slow
def test_a_command_killed_twenty_times_ends_like_a_run_without_its_burned_rounds(
    tmp_path: Path,
) -> None:
    kill_and_resume(tmp_path, num_rounds=30, num_kills=20, seed=20)
