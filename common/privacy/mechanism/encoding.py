"""Encoding: a public map from a unit's update to the vector that is clipped and released, and back.

What the mechanism protects is whatever `encode` gives: the clip comes after it, so the sensitivity
is C whatever it does to lengths, and grid, noise and accounting speak of Q numbers.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feddp.common.privacy.mechanism.gaussian import ReleasedUpdate


class Encoding(Protocol):
    """How an update is written down to be clipped and released.

    **Guarantee:** that every implementation must give, since the promise rests on it:

    - It is public: a function of constants of the plan and of earlier releases alone, fixed before
      the cohort of the round is drawn, and the same for every unit and every node.
    - `encode` sees one unit's update and nothing else, and never fails: a non-finite update gives a
      vector that is not finite, which contributes zero.
    - `decode` sees what is released and nothing else, so it is post-processing and costs nothing.

    How close `decode` comes to the inverse of `encode` is a matter of utility alone.
    """

    @property
    def dimension(self) -> int:
        """Q, the numbers of an encoded update."""
        ...

    def encode(self, update: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (P,) -> float32 (Q,); the argument is left as it is."""
        ...

    def decode(self, released: ReleasedUpdate) -> ReleasedUpdate:
        """A released mean of Q numbers as one of P; see `ReleasedUpdate.mapped`."""
        ...


@dataclass(frozen=True)
class Identity:
    """An update is clipped and released as it is. Nothing is copied.

    Attributes:
      dimension: P.
    """

    dimension: int

    def encode(self, update: NDArray[np.float32]) -> NDArray[np.float32]:
        """The update itself."""
        return update

    def decode(self, released: ReleasedUpdate) -> ReleasedUpdate:
        """The released mean itself."""
        return released
