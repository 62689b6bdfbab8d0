"""What an engine does: the interfaces of engines and local methods, and a user's minibatches."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from feddp.client.engine.local_state import LocalState
from feddp.common.data.tokens import TokenRow
from feddp.common.evaluation import Evaluation

Sink = Callable[[int, NDArray[np.float32]], None]
Minibatches = Sequence[Sequence[TokenRow]]  # of each local step of one user
# What stops a node, and is no fault of a user's rows. All else zeroes that user alone, also what is
# no Exception: a panic of a tokenizer in Rust is none.
STOPS = (KeyboardInterrupt, GeneratorExit)


class LocalMethod(Protocol):
    """What one user computes in a round, from the user's rows chosen for that round.

    The engine runs it for many users at once. Per user it calls `minibatches` once; then, for each
    minibatch, takes the gradient of its mean loss at the sent adapter plus `delta` and calls
    `step`; and finally `update`.

    **Guarantee:** everything is a function of the user's own rows and randomness, of public
    constants and of releases. No state outlives the round.
    """

    num_kept: ClassVar[int]  # vectors of P numbers that a user carries from step to step

    def minibatches(self, rows: list[TokenRow], rng: np.random.Generator) -> Minibatches:
        """How many local steps there are, and the rows of each.

        `rows`: the user's rows for this round, in random order.
        """
        ...

    def step(self, user: LocalState, number: int) -> None:
        """Turns the gradient into a local step: changes `delta` and `kept` in place.

        `user`: `delta` and `kept` are zero before the first step; the engine clears `gradient`.
        """
        ...

    def update(self, user: LocalState) -> Tensor:
        """The update, float32 (P,), after the last step."""
        ...


@dataclass(frozen=True)
class LocalWork:
    """One user's minibatches: fixed before any scheduling, loaded when a slot is free."""

    key: int
    steps: Callable[[], Minibatches]


class Engine(Protocol):
    """Trains and evaluates the numbers of one layout over one base model."""

    def train(
        self,
        start: NDArray[np.float32],
        work: Iterable[LocalWork],
        *,
        method: LocalMethod,
        sink: Sink,
    ) -> None:
        """Runs every user's local steps from `start`; calls sink(key, update) once per user.

        **Guarantee:** an update depends on `start`, `method` and the user's own minibatches
        alone. A user whose rows cannot be loaded or whose steps fail gets an update of zeros.

        Args:
          start: float32, shape (P,).
          sink: takes float32 (P,), the local adapter minus `start`; may be non-finite.
        """
        ...

    def evaluate(self, adapter: NDArray[np.float32], rows: Sequence[TokenRow]) -> Evaluation:
        """Loss and correct predictions over rows."""
        ...


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
