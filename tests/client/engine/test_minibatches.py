"""Epochs: every row once in each pass, in an order of its own."""

import numpy as np

from feddp.client.engine.minibatches import Epochs
from feddp.common.data.tokens import TokenRow

ROWS = [TokenRow(np.full(2, i), np.full(2, i)) for i in range(7)]


def names(epochs: Epochs, seed: int = 0) -> list[list[int]]:
    """The rows of each step, by their first token."""
    steps = epochs.minibatches(ROWS, np.random.default_rng(seed))
    return [[int(row.input_ids[0]) for row in step] for step in steps]


def test_every_pass_takes_every_row_once_in_another_order() -> None:
    steps = names(Epochs(number=3, batch_size=3))
    assert [len(step) for step in steps] == [3, 3, 1] * 3
    passes = [[row for step in steps[i : i + 3] for row in step] for i in (0, 3, 6)]
    assert all(sorted(found) == list(range(7)) for found in passes)
    assert passes[0] != passes[1] != passes[2]


def test_the_order_is_the_users_own() -> None:
    epochs = Epochs(number=1, batch_size=7)
    assert names(epochs, seed=1) == names(epochs, seed=1)
    assert names(epochs, seed=1) != names(epochs, seed=2)


def test_a_limit_of_steps_leaves_out_the_rest() -> None:
    every = names(Epochs(number=2, batch_size=2))
    assert names(Epochs(number=2, batch_size=2, most_steps=5)) == every[:5]
    assert names(Epochs(number=1, batch_size=2, most_steps=99)) == every[:4]


def test_a_user_without_rows_takes_no_step() -> None:
    assert Epochs(number=2, batch_size=2).minibatches([], np.random.default_rng(0)) == []
