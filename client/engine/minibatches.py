"""Minibatches: the rows of each local step of one user."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feddp.common.data.tokens import TokenRow

Minibatches = Sequence[Sequence[TokenRow]]


@dataclass(frozen=True)
class Epochs:
    """Passes over a user's rows, each in its own random order.

    Attributes:
      number: of passes.
      batch_size: rows of one local step.
      most_steps: largest number of steps; None is no limit.
    """

    number: int = 1
    batch_size: int = 1
    most_steps: int | None = None

    def minibatches(self, rows: Sequence[TokenRow], rng: np.random.Generator) -> Minibatches:
        """The rows of each step; the last one of a pass may be smaller."""
        steps: list[list[TokenRow]] = []
        for _ in range(self.number):
            order = rng.permutation(len(rows))
            steps += [
                [rows[i] for i in order[start : start + self.batch_size]]
                for start in range(0, len(order), self.batch_size)
            ]
        return steps[: self.most_steps]


ONE_EPOCH = Epochs()
