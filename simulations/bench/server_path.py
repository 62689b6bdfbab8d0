"""The server's cost of one release: sum, durable charge, exact noise, step."""

import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.cohorts import Population
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise import BitStream, seeded_key
from feddp.common.privacy.mechanism.poisson import POISSON
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.common.privacy.plan.plan import PrivacyPlan, make_plan
from feddp.common.privacy.plan.request import Request, Trust
from feddp.server.optimizer import ServerOptimizer
from feddp.simulations.bench.race import Spread, race
from feddp.simulations.bench.scoreboard import Scoreboard

NUMBERS = 1 << 22
ADAPTER_BYTES = 4  # of one number


def measure_server(board: Scoreboard, repeats: int) -> None:
    """Measures time and memory from a reply to the next adapter."""
    for kind in ("fedavg", "fedadam"):
        seconds, copies = server_path(repeats, kind)
        each = Spread.of([1e6 * s / NUMBERS for s in seconds])
        board.figure(
            f"server, {kind}: sum, charge, exact noise, step: microseconds per parameter and core",
            asdict(each),
        )
        board.figure(f"server, {kind}: memory beyond the sum and the last state, adapters", copies)


def server_path(
    repeats: int, kind: str = "fedadam", numbers: int = NUMBERS
) -> tuple[list[float], float]:
    """CPU seconds of each release, and peak memory of one, in float32 adapters.

    The ledger is a real one in a temporary folder; checkpoint and publication are not included.
    """
    plan = _plan(numbers, num_rounds=repeats + 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        Ledger.create(path, plan_row(plan))
        with Ledger.open(path) as ledger:
            ledger.open_run(start_of("bench", plan))
            release = _release(plan, ledger, kind, numbers)
            seconds = race({"server": release}, repeats=repeats)["server"]
            tracemalloc.start()
            release()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    return seconds, peak / (ADAPTER_BYTES * numbers)


def _release(plan: PrivacyPlan, ledger: Ledger, kind: str, numbers: int) -> Callable[[], None]:
    optimizer = ServerOptimizer(kind, 0.1, 0.9, 0.99, 1e-5)
    adapter, moments = np.zeros(numbers, dtype=np.float32), optimizer.initial_moments(numbers)
    total, reply = UpdateSum.zeros(numbers), UpdateSum.zeros(numbers)
    mechanism = plan.mechanism
    assert isinstance(mechanism, GaussianMechanism)  # the plan draws independent noise

    def run() -> None:
        """One release."""
        nonlocal adapter, moments
        total.merge(reply)
        charge = ledger.charge(ledger.next_round)  # charged, then drawn
        bits = BitStream(seeded_key(0, charge.round))
        released = mechanism.to_update(mechanism.add_noise(total, bits=bits))
        adapter, moments = optimizer.step(adapter, released, moments)
        ledger.release(charge, "0" * 64)

    return run


def _plan(numbers: int, num_rounds: int) -> PrivacyPlan:
    request = Request(
        target_epsilon=20.0,
        target_delta=1e-5,
        noise_multiplier=1.0,
        clipping_norm=0.1,
        num_rounds=num_rounds,
        expected_cohort_size=10.0,
    )
    return make_plan(
        request,
        population=Population("user", "user", 1000, None, None, 1),
        mechanism=POISSON,
        trust=Trust("simulation"),
        dimension=numbers,
        seed=0,
        details={"layout_sha256": "0" * 64},
    )
