"""GaussianMechanism: UpdateSum -> ReleasedUpdate; the only door from sensitive to public."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from feddp.common.privacy.mechanism.events import Event
from feddp.common.privacy.mechanism.noise import MAX_SCALE, BitStream, discrete_gaussian
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.mechanism.sampling import Sampler
from feddp.common.privacy.mechanism.summation import UpdateSum

_DOOR = object()


class NoisedSum:
    """Update sum plus noise, as integers; public, so it may be sent, logged and kept.

    A mechanism makes one; `from_node` takes one that arrives from a node which added its own noise
    and answers for it (`privacy.trust = "node"`).
    """

    __slots__ = ("_total",)

    def __init__(self, door: object, total: NDArray[np.int64]):
        if door is not _DOOR:
            raise TypeError("only a mechanism makes a NoisedSum")
        total.flags.writeable = False
        self._total = total

    @classmethod
    def from_node(cls, total: NDArray[np.int64]) -> "NoisedSum":
        """Takes over a vector that a node has noised: int64, shape (P,)."""
        return cls(_DOOR, total)

    @classmethod
    def sum(cls, parts: Sequence["NoisedSum"], dimension: int) -> "NoisedSum":
        """The sum of several; of none it is zero."""
        total = np.zeros(dimension, dtype=np.int64)
        for part in parts:
            total += part.total
        return cls(_DOOR, total)

    @property
    def total(self) -> NDArray[np.int64]:
        """int64, shape (P,), read-only."""
        return self._total


class ReleasedUpdate:
    """Update sum plus noise, divided by a public constant; public. Only a mechanism makes one.

    Keeps the noised integers and multiplies what is asked for: a copy of a large adapter in float64
    is gigabytes.
    """

    __slots__ = ("_next_clipping_norm", "_noised", "_step")

    def __init__(
        self,
        door: object,
        noised: NDArray[np.int64] | NDArray[np.float64],
        step: float,
        next_clipping_norm: float,
    ):
        if door is not _DOOR:
            raise TypeError("only a mechanism's release makes a ReleasedUpdate")
        self._noised, self._step = noised.view(), np.float64(step)
        self._noised.flags.writeable = False
        self._next_clipping_norm = next_clipping_norm

    @property
    def values(self) -> NDArray[np.float64]:
        """float64, shape (P,), read-only; an estimate of the mean clipped update."""
        return self.block(slice(None))

    def block(self, part: slice) -> NDArray[np.float64]:
        """Some of the values; read-only."""
        values: NDArray[np.float64] = self._noised[part] * self._step
        values.flags.writeable = False
        return values

    def mapped(
        self, function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> "ReleasedUpdate":
        """Post-processing: a public function of the values; the next norm stays."""
        return ReleasedUpdate(_DOOR, function(self.values), 1.0, self._next_clipping_norm)

    @property
    def next_clipping_norm(self) -> float:
        """The norm that clips the next round: a function of this release and public constants."""
        return self._next_clipping_norm


def open_door(values: NDArray[np.float64], clipping_norm: float) -> ReleasedUpdate:
    """For `correlated` alone, which makes the values of rows that hold their noise already."""
    return ReleasedUpdate(_DOOR, values, 1.0, clipping_norm)


@dataclass(frozen=True)
class GaussianMechanism:
    """Sampled units, clipped updates, independent discrete Gaussian noise, a constant divisor.

    **Guarantee:** one release costs at most `event()` for a pair of data sets that are neighbours
    by `sampler.relation`, up to the bridge term of the discrete noise, when every drawn unit added
    an integer vector of L2 norm at most K (`clip_to_grid`, or `clip_with_bit` where the norm
    adapts) and was drawn by the sampler.

    **Edge cases:** an empty cohort releases pure noise; neither noise nor divisor depends on who
    was drawn or who replied.

    Attributes:
      sampler: who takes part; owns relation and event.
      num_units: declared and public: users, or examples where examples are drawn.
      expected_cohort_size: units of a round on average, the divisor.
      clipping_norm: C > 0 of the first round, and of all rounds unless `quantile` is there.
      noise_multiplier: z > 0.
      grid_steps: K, a power of two.
      dimension: P.
      quantile: how C follows a quantile of the updates' norms; None keeps it.

    Reference: McMahan et al. 2018 (arXiv 1710.06963); Canonne, Kamath & Steinke 2020.
    """

    sampler: Sampler
    num_units: int
    expected_cohort_size: float
    clipping_norm: float
    noise_multiplier: float
    grid_steps: int
    dimension: int
    quantile: QuantileClipping | None = None

    def __post_init__(self) -> None:
        reals = (self.expected_cohort_size, self.clipping_norm, self.noise_multiplier)
        if not all(math.isfinite(value) and value > 0 for value in reals):
            raise ValueError("cohort size, clipping norm and noise multiplier must be > 0")
        if not math.isclose(
            self.expected_cohort_size, self.sampler.mean_cohort(self.num_units), rel_tol=1e-9
        ):
            raise ValueError("expected cohort size must be the sampler's mean")
        if self.grid_steps < 1 or self.grid_steps & (self.grid_steps - 1):
            raise ValueError("grid steps must be a power of two")
        if not 2 <= self.noise_scale <= MAX_SCALE:
            raise ValueError("noise scale must be in [2, 2^26]; choose other grid steps")
        if self.num_units * self.grid_steps >= 1 << 62 or self.dimension < 1:
            raise ValueError("num_units * grid_steps must stay below 2^62, dimension above 0")
        if self.quantile is not None and not 0 < self.bit_steps < self.grid_steps:
            raise ValueError("the bit's noise must be above z/2 and below K z/2")

    @property
    def noise_scale(self) -> int:
        """Standard deviation of the noise in grid steps: z K, rounded up exactly."""
        return math.ceil(Fraction(self.noise_multiplier) * self.grid_steps)

    @property
    def bit_steps(self) -> int:
        """Grid steps of the clip bit, which shares the unit's norm K; 0 where the norm is fixed."""
        if self.quantile is None:
            return 0
        return self.quantile.bit_steps(self.noise_multiplier, self.grid_steps)

    @property
    def update_steps(self) -> int:
        """Grid steps per C of the update: what the clip bit leaves of K."""
        return math.isqrt(self.grid_steps**2 - self.bit_steps**2)

    @property
    def sum_dimension(self) -> int:
        """Numbers of an update sum: P, and one for the clip bits where the norm adapts."""
        return self.dimension + (self.quantile is not None)

    @property
    def noise_norm(self) -> float:
        """Expected L2 norm of the noise in a released update: about z C sqrt(P) / (q N)."""
        steps = self.noise_multiplier * self.grid_steps / self.update_steps
        scale = steps * self.clipping_norm / self.expected_cohort_size
        return scale * math.sqrt(self.dimension)

    def event(self) -> Event:
        """What one release costs; a function of public numbers alone."""
        return self.sampler.event(self.noise_multiplier)

    def release(
        self, total: UpdateSum, *, bits: BitStream, clipping_norm: float | None = None
    ) -> ReleasedUpdate:
        """(sum + noise) * (C / K) / (q N); exact integers until the last step.

        Args:
          total: the cohort's update sum; its charge is durable already.
          bits: a stream under a key that is used for this release alone.
          clipping_norm: the norm that clipped this sum; None is the first one.

        Raises:
          ValueError: the sum has another dimension, or a fixed norm another value.
        """
        return self.to_update(self.add_noise(total, bits=bits), clipping_norm=clipping_norm)

    def add_noise(self, total: UpdateSum, *, bits: BitStream) -> NoisedSum:
        """The step from sensitive to public: exact integer noise on an exact integer sum."""
        if total.dimension != self.sum_dimension:
            raise ValueError(
                f"expected a sum of dimension {self.sum_dimension}, not {total.dimension}"
            )
        return add_noise(total, noise_scale=self.noise_scale, bits=bits)

    def to_update(
        self, released: NoisedSum, *, clipping_norm: float | None = None
    ) -> ReleasedUpdate:
        """Post-processing: the noised sum as an estimate of the mean update.

        Args:
          released: of P numbers, and the clip bits where the norm adapts.
          clipping_norm: see `release`.
        """
        norm = self.clipping_norm if clipping_norm is None else clipping_norm
        if self.quantile is None and norm != self.clipping_norm:
            raise ValueError("the clipping norm is fixed by the plan")
        noised = released.total
        step = norm / self.update_steps / self.expected_cohort_size
        update = noised[: self.dimension]
        if self.quantile is None:
            return ReleasedUpdate(_DOOR, update, step, norm)
        bit = int(noised[-1]) / (2 * self.bit_steps * self.expected_cohort_size)
        next_norm = self.quantile.next_norm(norm, share=bit + 0.5)
        return ReleasedUpdate(_DOOR, update, step, next_norm)


def add_noise(total: UpdateSum, *, noise_scale: int, bits: BitStream) -> NoisedSum:
    """An update sum with discrete Gaussian noise; int64, exact.

    Args:
      total: sensitive; its charge is durable already.
      noise_scale: standard deviation of the noise in grid steps, 2 <= s <= 2^50.
      bits: a stream under a key that is used for this sum alone.
    """
    noised = discrete_gaussian(bits, noise_scale, total.dimension)
    noised += total.total  # in place: of a large adapter, every copy is gigabytes
    return NoisedSum(_DOOR, noised)
