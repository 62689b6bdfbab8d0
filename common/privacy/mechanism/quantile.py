"""Clipping norms; adaptive ones follow a quantile of the updates' norms, by one noised bit."""

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class QuantileClipping:
    """C moves until a share `quantile` of the updates is not longer than it.

    Each unit adds a bit, 1/2 where its update's norm is at most C and -1/2 where it is not. On the
    grid the bit is one more coordinate of the unit's vector, of +-B steps, and the update has the
    rest of the norm: (K^2 - B^2)^(1/2) steps. So both are one Gaussian release of multiplier z,
    and B = floor(z K / (2 sigma_b)) gives the bit noise of sigma_b and the update the multiplier
    (z^-2 - (2 sigma_b)^-2)^(-1/2).

    **Guarantee:** the next norm is a function of the noised bit and public constants, and the noise
    of a round was drawn with the norm that clipped it.

    **Edge cases:**

    | case | what happens |
    |---|---|
    | noised share outside [0, 1] | taken as 0 or 1 |
    | next norm outside [smallest, largest] | the nearer bound |
    | nobody was drawn | the share is 1/2 plus noise |

    Attributes:
      quantile: gamma, the wanted share, in (0, 1).
      rate: eta, the size of a step in the logarithm of C.
      bit_noise: sigma_b, noise standard deviation on the sum of bits; above z / 2.
      smallest: least C.
      largest: greatest C.

    Reference: Andrew et al. 2021 (arXiv 1905.03871).
    """

    quantile: float
    rate: float
    bit_noise: float
    smallest: float
    largest: float

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError("the quantile must be in (0, 1)")
        if not (self.rate > 0 and self.bit_noise > 0 and 0 < self.smallest <= self.largest):
            raise ValueError("rate, bit noise and bounds must be > 0, the bounds in their order")

    def bit_steps(self, noise_multiplier: float, grid_steps: int) -> int:
        """B, grid steps of a bit of 1/2; fewer are noisier, so the fraction is rounded down."""
        return math.floor(Fraction(noise_multiplier) * grid_steps / (2 * Fraction(self.bit_noise)))

    def next_norm(self, norm: float, *, share: float) -> float:
        """C of the next round; falls when more than the wanted share was not clipped.

        >>> clipping = QuantileClipping(0.5, 0.2, 10.0, 0.01, 10.0)
        >>> round(clipping.next_norm(1.0, share=1.0), 6), round(clipping.next_norm(1.0, share=0), 6)
        (0.904837, 1.105171)
        """
        share = min(1.0, max(0.0, share))
        moved = norm * math.exp(-self.rate * (share - self.quantile))
        return min(self.largest, max(self.smallest, moved))


@dataclass(frozen=True)
class Clipping:
    """The norm that clips updates.

    Attributes:
      norm: C of the first round, and of all unless `quantile` is there.
      quantile: how C follows a quantile of the updates' norms; None keeps it.
    """

    norm: float
    quantile: QuantileClipping | None = None

    @property
    def num_bits(self) -> int:
        """Clip bits of a unit, one more number of its vector: 1 where the norm adapts, else 0."""
        return int(self.quantile is not None)
