from pathlib import Path

import numpy as np
from adapter_files import load_adapter
from extending.proofs.small_run import run, small_config

from feddp.common.assembly import load_model
from feddp.server.optimizer import ServerOptimizer

RATE = 0.25  # exact in binary, so that every step is


def test_a_run_moves_every_number_by_the_learning_rate_in_its_first_round(tmp_path: Path) -> None:
    config = small_config(tmp_path, server__optimizer="lion", server__learning_rate=RATE)
    folder = run(config)
    _, layout = load_model(config)
    moved = load_adapter(folder / "adapter", layout) - layout.start
    assert set(np.unique(moved)) == {np.float32(-RATE), np.float32(RATE)}


def test_the_second_step_is_the_sign_of_a_mean_with_the_first() -> None:
    optimizer = ServerOptimizer("lion", RATE, 0.9, 0.99, 1e-5)
    adapter, moments = np.zeros(3, dtype=np.float32), optimizer.initial_moments(3)
    for update in ([1.0, 1.0, -1.0], [-0.01, -1.0, -1.0]):
        adapter, moments = optimizer.descend(adapter, np.array(update), moments)
    # The moment is 0.01 of the first update: 0.9 * 0.01 outweighs 0.1 * 0.01 alone.
    np.testing.assert_array_equal(adapter, [2 * RATE, 0.0, -2 * RATE])
    np.testing.assert_allclose(moments["first"], [0.0098, -0.0001, -0.0199])
