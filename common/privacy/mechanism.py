"""PoissonGaussian: UpdateSum -> ReleasedUpdate; the only door from sensitive to public."""

import math
from dataclasses import dataclass
from fractions import Fraction

import dp_accounting
import numpy as np
from numpy.typing import NDArray

from common.privacy.noise import MAX_SCALE, BitStream, discrete_gaussian
from common.privacy.summation import UpdateSum

_DOOR = object()


class ReleasedUpdate:
    """Update sum plus noise, divided by a public constant; public. Only a mechanism makes one."""

    __slots__ = ("_values",)

    def __init__(self, door: object, values: NDArray[np.float64]):
        if door is not _DOOR:
            raise TypeError("only a mechanism's release makes a ReleasedUpdate")
        values.flags.writeable = False
        self._values = values

    @property
    def values(self) -> NDArray[np.float64]:
        """float64, shape (P,), read-only; an estimate of the mean clipped update."""
        return self._values


@dataclass(frozen=True)
class PoissonGaussian:
    """Poisson sampling of users, clipped updates, discrete Gaussian noise, a constant divisor.

    **Guarantee:** one release is (epsilon, delta)-private for the addition or removal of one user
    with the (epsilon, delta) of `event()`, up to the bridge term of the discrete noise
    (`accounting.bridge_delta`), when every user's point has norm <= K and was drawn with
    probability <= q.

    **Edge cases:** an empty cohort releases pure noise; neither noise nor divisor depends on who
    was drawn or who replied.

    Attributes:
      num_users: N, declared and public.
      expected_cohort_size: q N, the divisor.
      sampling_probability: q, in (0, 1].
      clipping_norm: C > 0.
      noise_multiplier: z > 0.
      grid_steps: K, a power of two.
      dimension: P.

    Reference: McMahan et al. 2018 (arXiv 1710.06963); Canonne, Kamath & Steinke 2020.
    """

    num_users: int
    expected_cohort_size: float
    sampling_probability: float
    clipping_norm: float
    noise_multiplier: float
    grid_steps: int
    dimension: int

    def __post_init__(self) -> None:
        reals = (self.expected_cohort_size, self.clipping_norm, self.noise_multiplier)
        if not all(math.isfinite(value) and value > 0 for value in reals):
            raise ValueError("cohort size, clipping norm and noise multiplier must be > 0")
        if not 0 < self.sampling_probability <= 1:
            raise ValueError("sampling probability must be in (0, 1]")
        if not math.isclose(
            self.expected_cohort_size, self.sampling_probability * self.num_users, rel_tol=1e-9
        ):
            raise ValueError("expected cohort size must be q N")
        if self.grid_steps < 1 or self.grid_steps & (self.grid_steps - 1):
            raise ValueError("grid steps must be a power of two")
        if not 2 <= self.noise_scale <= MAX_SCALE:
            raise ValueError("noise scale must be in [2, 2^26]; choose other grid steps")
        if self.num_users * self.grid_steps >= 1 << 62 or self.dimension < 1:
            raise ValueError("num_users * grid_steps must stay below 2^62, dimension above 0")

    @property
    def noise_scale(self) -> int:
        """Standard deviation of the noise in grid steps: z K, rounded up exactly."""
        return math.ceil(Fraction(self.noise_multiplier) * self.grid_steps)

    @property
    def noise_norm(self) -> float:
        """Expected L2 norm of the noise in a released update: z C sqrt(P) / (q N)."""
        scale = self.noise_multiplier * self.clipping_norm / self.expected_cohort_size
        return scale * math.sqrt(self.dimension)

    def event(self) -> dp_accounting.DpEvent:
        """What one release costs; a function of public numbers alone."""
        return dp_accounting.PoissonSampledDpEvent(
            self.sampling_probability, dp_accounting.GaussianDpEvent(self.noise_multiplier)
        )

    def release(self, total: UpdateSum, *, bits: BitStream) -> ReleasedUpdate:
        """(sum + noise) * (C / K) / (q N); exact integers until the last step.

        Args:
          total: the cohort's update sum; its charge is durable already.
          bits: a stream under a key that is used for this release alone.

        Raises:
          ValueError: the sum has another dimension.
        """
        if total.dimension != self.dimension:
            raise ValueError(f"expected a sum of dimension {self.dimension}, not {total.dimension}")
        noised = total.total + discrete_gaussian(bits, self.noise_scale, self.dimension)
        step = self.clipping_norm / self.grid_steps / self.expected_cohort_size
        return ReleasedUpdate(_DOOR, noised.astype(np.float64) * step)
