"""One Gaussian release of several parts: how their noise adds up to one noise multiplier.

Parts on the same coins (an update and its clip bit, groups of tensors) are one vector. Charged as
separate Poisson events they would cost less on paper than in truth.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

_ROUND_DOWN, _ROUND_UP = 1 - 1e-12, 1 + 1e-12


def combined_noise_multiplier(multipliers: Sequence[float]) -> float:
    """z of one release whose parts have these multipliers: (sum z_k^-2)^(-1/2), rounded down.

    Part k has sensitivity C_k and noise z_k C_k; scaled to equal noise it is one vector of norm
    (sum (C_k / sigma_k)^2)^(1/2). Also the rule for groups of tensors with norms of their own.

    Reference: McMahan et al. 2018 (arXiv 1812.06210).

    >>> round(combined_noise_multiplier([2.0, 2.0, 3.0]), 6)
    1.279204
    """
    if not multipliers or min(multipliers) <= 0:
        raise ValueError("noise multipliers must be > 0")
    return _ROUND_DOWN / math.sqrt(math.fsum(1 / z**2 for z in multipliers))


def update_noise_multiplier(noise_multiplier: float, bit_noise: float) -> float:
    """z_Delta left for the update when a clip bit of 1/2 gets noise sigma_b; rounded up.

    (z^-2 - (2 sigma_b)^-2)^(-1/2): with it, update and bit together cost z.

    Raises:
      ValueError: z is not below 2 sigma_b, so no noise of the update is enough.

    Reference: Andrew et al. 2021 (arXiv 1905.03871).

    >>> round(update_noise_multiplier(1.0, 2.5), 6)
    1.020621
    """
    if not 0 < noise_multiplier < 2 * bit_noise:
        raise ValueError("the noise multiplier must be below twice the bit's noise")
    return _ROUND_UP / math.sqrt(1 / noise_multiplier**2 - 1 / (2 * bit_noise) ** 2)


def flat_clip_noise_multiplier(multipliers: ArrayLike) -> float:
    """z of one vector with one clip and unequal noise per coordinate: the smallest.

    A unit may put its whole norm into the coordinate with the least noise, so neither mean nor
    root mean square is enough.
    """
    least = float(np.min(np.asarray(multipliers, dtype=np.float64)))
    if not least > 0:
        raise ValueError("noise multipliers must be > 0")
    return least
