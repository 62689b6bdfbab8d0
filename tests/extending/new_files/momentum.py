"""Stochastic gradient descent with momentum on the user's minibatches."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from feddp.client.engine.local_state import LocalState
from feddp.client.engine.protocol import ONE_EPOCH, Epochs, Minibatches
from feddp.common.config.sections import LocalSection
from feddp.common.data.tokens import TokenRow

DECAY = 0.9


@dataclass(frozen=True)
class Momentum:
    """Steps of `learning_rate` along the decayed sum of the gradients so far.

    The sum starts at zero in every round, so that a node keeps nothing of a user between rounds.

    Reference: Polyak 1964, "Some methods of speeding up the convergence of iteration methods".
    """

    learning_rate: float
    epochs: Epochs = ONE_EPOCH
    num_kept: ClassVar[int] = 1

    def minibatches(self, rows: list[TokenRow], rng: np.random.Generator) -> Minibatches:
        """See `LocalMethod`."""
        return self.epochs.minibatches(rows, rng)

    def step(self, user: LocalState, number: int) -> None:
        """See `LocalMethod`."""
        (velocity,) = user.kept
        velocity.mul_(DECAY).add_(user.gradient)
        user.delta.sub_(velocity, alpha=self.learning_rate)

    def update(self, user: LocalState) -> Tensor:
        """See `LocalMethod`."""
        return user.delta


def from_section(local: LocalSection) -> Momentum:
    """The method of a configuration."""
    return Momentum(local.learning_rate, Epochs(local.epochs, local.batch_size, local.steps))
