"""What an engine is asked to do, and what it answers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feddp.common.data.tokens import TokenRow

Minibatches = Sequence[Sequence[TokenRow]]
Sink = Callable[[int, NDArray[np.float32]], None]


@dataclass(frozen=True)
class LocalTraining:
    """The local optimizer: "sgd", or "adamw" without weight decay."""

    optimizer: str
    learning_rate: float


@dataclass(frozen=True)
class LocalWork:
    """One user's work: minibatches, fixed before any scheduling and loaded when a slot is free."""

    key: int
    steps: Callable[[], Minibatches]


@dataclass(frozen=True)
class Evaluation:
    """Sums over evaluated rows: loss in nats, predicted positions (or rows), correct ones."""

    loss_sum: float
    num_targets: int
    num_correct: int


class Engine(Protocol):
    """Trains and evaluates the numbers of one layout over one base model."""

    def train(
        self,
        start: NDArray[np.float32],
        work: Iterable[LocalWork],
        *,
        training: LocalTraining,
        sink: Sink,
    ) -> None:
        """Runs every user's local steps from `start`; calls sink(key, update) once per user.

        **Guarantee:** an update depends on `start`, `training` and the user's own minibatches
        alone. A user whose rows cannot be loaded or whose steps fail gets an update of zeros.
        """
        ...

    def evaluate(self, adapter: NDArray[np.float32], rows: Sequence[TokenRow]) -> Evaluation:
        """Loss and correct predictions over rows."""
        ...
