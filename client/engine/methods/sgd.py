"""Stochastic gradient descent on the user's minibatches."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from feddp.client.engine.local_state import LocalState
from feddp.client.engine.protocol import ONE_EPOCH, Epochs, Minibatches
from feddp.common.config.sections import LocalSection
from feddp.common.data.tokens import TokenRow


@dataclass(frozen=True)
class SGD:
    """Steps of `learning_rate` times the gradient; the update is their sum."""

    learning_rate: float
    epochs: Epochs = ONE_EPOCH
    num_kept: ClassVar[int] = 0

    def minibatches(self, rows: list[TokenRow], rng: np.random.Generator) -> Minibatches:
        """See `LocalMethod`."""
        return self.epochs.minibatches(rows, rng)

    def step(self, user: LocalState, number: int) -> None:
        """See `LocalMethod`."""
        user.delta.sub_(user.gradient, alpha=self.learning_rate)

    def update(self, user: LocalState) -> Tensor:
        """See `LocalMethod`."""
        return user.delta


def from_section(local: LocalSection) -> SGD:
    """The method of a configuration."""
    return SGD(local.learning_rate, Epochs(local.epochs, local.batch_size, local.steps))
