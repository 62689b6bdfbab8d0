"""Missing replies cost utility alone: every count of them leaves noise, divisor and cost alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crash_rules import quick_folder
from numpy.typing import NDArray
from small_ledger import DIMENSION, small_plan
from small_run import IntegerNodes, create, training_of

from feddp.common.disk import Disk
from feddp.common.privacy.ledger.history import Body
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.noise import BitStream, discrete_gaussian, seeded_key
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.ledger_entries import start_of
from feddp.common.wire.messages import TrainReply, TrainRequest
from feddp.server.checkpoint import RoundState
from feddp.server.rounds import run_rounds

NUM_NODES = 64
PLAN = small_plan(seed=7)
POINTS = np.random.default_rng(0).integers(-1000, 1000, (NUM_NODES, DIMENSION))


class SomeNodes(IntegerNodes):
    """64 nodes of one user; the first `num_kept` answer this round, the others late or never."""

    def __init__(self, num_kept: int, *, is_late: bool):
        super().__init__()
        self._num_kept, self._is_late = num_kept, is_late

    def train(self, request: TrainRequest) -> Sequence[TrainReply]:
        replies = [
            TrainReply(request.round, request.layout_sha256, UpdateSum(point.copy()))
            for point in POINTS
        ]
        late = [replace(reply, round=request.round - 1) for reply in replies[self._num_kept :]]
        return [*replies[: self._num_kept], *(late if self._is_late else [])]


def one_round(folder: Path, nodes: SomeNodes) -> tuple[NDArray[np.float32], list[Body]]:
    """What one round adds to the adapter under fedavg with learning rate 1, and its charges."""
    path = create(folder, PLAN) / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        ledger.open_run(start_of("r", PLAN))
        training = training_of(folder, PLAN, ledger, nodes, Disk())
        plain = replace(training.optimizer, kind="fedavg", learning_rate=1.0)
        training = replace(training, optimizer=plain)
        start = RoundState(0, np.zeros(DIMENSION, np.float32), {}, PLAN.clipping_norm)
        stops = iter([False, False, True])
        state = run_rounds(training, start, on_round=lambda _: None, is_stopped=lambda: next(stops))
    return state.adapter, list(Ledger.read(path).charges)


@pytest.mark.parametrize("is_late", [False, True], ids=["missing", "late"])
def test_any_number_of_missing_replies_leaves_noise_divisor_and_cost(is_late: bool) -> None:
    noise = discrete_gaussian(
        BitStream(seeded_key(7, 1)), PLAN.mechanism.noise_scale, PLAN.dimension
    )
    constant = PLAN.clipping_norm / PLAN.noise.grid_steps / PLAN.expected_cohort_size
    costs = []
    for num_kept in range(NUM_NODES + 1):
        with quick_folder() as folder:
            step, charges = one_round(folder / "run", SomeNodes(num_kept, is_late=is_late))
        expected = (POINTS[:num_kept].sum(axis=0) + noise) * constant
        assert step.tobytes() == expected.astype(np.float32).tobytes()
        costs.append(charges)
    assert len(costs[0]) == 1
    assert all(charges == costs[0] for charges in costs)
