"""An encoding with fewer numbers than an update, which stretches it: a public random projection."""

import numpy as np
from numpy.typing import NDArray

from feddp.common.privacy.mechanism.gaussian import ReleasedUpdate


class Sketch:
    """Q random signed sums of the P numbers, and back by the transpose, over Q."""

    def __init__(self, num_trained: int, dimension: int = 16):
        signs = np.random.default_rng(11).integers(0, 2, size=(dimension, num_trained))
        self.dimension, self.signs = dimension, (2 * signs - 1).astype(np.float32)

    def encode(self, update: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Encoding`."""
        return self.signs @ update

    def decode(self, released: ReleasedUpdate) -> ReleasedUpdate:
        """See `Encoding`."""
        return released.mapped(lambda mean: mean @ self.signs / self.dimension)
