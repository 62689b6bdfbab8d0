"""AdamW without weight decay on the user's minibatches."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from feddp.client.engine.local_state import LocalState
from feddp.client.engine.protocol import ONE_EPOCH, Epochs, Minibatches
from feddp.common.config.sections import LocalSection
from feddp.common.data.tokens import TokenRow

BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class AdamW:
    """Steps of `learning_rate` along the first moment over the root of the second.

    The moments start at zero in every round, so a node keeps no user state between rounds.

    Reference: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
    """

    learning_rate: float
    epochs: Epochs = ONE_EPOCH
    num_kept: ClassVar[int] = 2

    def minibatches(self, rows: list[TokenRow], rng: np.random.Generator) -> Minibatches:
        """See `LocalMethod`."""
        return self.epochs.minibatches(rows, rng)

    def step(self, user: LocalState, number: int) -> None:
        """See `LocalMethod`."""
        first, second = user.kept
        first.lerp_(user.gradient, 1 - BETAS[0])
        second.lerp_(user.gradient**2, 1 - BETAS[1])
        corrected = (second / (1 - BETAS[1] ** number)).sqrt() + EPSILON
        user.delta.sub_(first / corrected, alpha=self.learning_rate / (1 - BETAS[0] ** number))

    def update(self, user: LocalState) -> Tensor:
        """See `LocalMethod`."""
        return user.delta


def from_section(local: LocalSection) -> AdamW:
    """The method of a configuration."""
    return AdamW(local.learning_rate, Epochs(local.epochs, local.batch_size, local.steps))
