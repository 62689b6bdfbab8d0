"""FedAvg, FedAvgM and FedAdam on the released update: post-processing, so no privacy cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feddp.common.privacy.mechanism.gaussian import ReleasedUpdate

_BLOCK = 1 << 16  # numbers at a time: a large adapter takes gigabytes in float64
Moments = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class ServerOptimizer:
    """adapter <- adapter + step(released update); the update is a descent direction.

    Attributes:
      kind: "fedavg", "fedavgm" or "fedadam".
      momentum: of fedavgm; beta 1 of fedadam.
      second_momentum: beta 2 of fedadam.
      adaptivity: tau of fedadam, added to the root of the second moment.

    Reference: Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2 (arXiv 2003.00295).
    """

    kind: str
    learning_rate: float
    momentum: float
    second_momentum: float
    adaptivity: float

    def initial_moments(self, dimension: int) -> Moments:
        """float64 zeros of shape (P,), one per moment that this kind keeps."""
        names = {"fedavg": (), "fedavgm": ("first",), "fedadam": ("first", "second")}[self.kind]
        return {name: np.zeros(dimension) for name in names}

    def step(
        self, adapter: NDArray[np.float32], released: ReleasedUpdate, moments: Moments
    ) -> tuple[NDArray[np.float32], Moments]:
        """The next adapter (float32, (P,)) and moments (float64).

        Accepts only a `ReleasedUpdate`: a step on an un-noised sum does not type-check.

        Args:
          adapter: not changed.
          moments: overwritten in place by the next ones.
        """
        return self._step(adapter, released.block, moments)

    def descend(
        self, adapter: NDArray[np.float32], update: NDArray[np.float64], moments: Moments
    ) -> tuple[NDArray[np.float32], Moments]:
        """The arithmetic of `step`; called directly only for runs without privacy."""
        return self._step(adapter, update.__getitem__, moments)

    def _step(
        self,
        adapter: NDArray[np.float32],
        update: Callable[[slice], NDArray[np.float64]],
        moments: Moments,
    ) -> tuple[NDArray[np.float32], Moments]:
        moved = np.empty_like(adapter)
        for start in range(0, len(adapter), _BLOCK):
            part = slice(start, start + _BLOCK)
            held = {name: moment[part] for name, moment in moments.items()}
            direction = self._direction(update(part), held)
            moved[part] = adapter[part] + self.learning_rate * direction  # in float64
        return moved, moments

    def _direction(self, update: NDArray[np.float64], moments: Moments) -> NDArray[np.float64]:
        """The direction of the step; advances the moments."""
        if self.kind == "fedavg":
            return update
        first = moments["first"]
        first *= self.momentum
        if self.kind == "fedavgm":
            first += update
            return first
        first += (1 - self.momentum) * update
        second = moments["second"]
        second *= self.second_momentum
        second += (1 - self.second_momentum) * update**2
        direction: NDArray[np.float64] = first / (np.sqrt(second) + self.adaptivity)
        return direction
