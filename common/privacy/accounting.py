"""Rounds as DpEvents; epsilon, calibration, and the curve of epsilon over the charges.

The certificate is the privacy loss distribution (PLD) of dp-accounting, composed over a fixed
schedule. A round's PLD is built once and composed with itself, which costs the same for ten rounds
as for ten thousand. Everything is rounded toward privacy.
"""

import functools
import math

import dp_accounting
import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from numpy.typing import NDArray

from common.errors import ConfigError
from common.privacy.noise import MAX_SCALE

FINE, COARSE = 1e-4, 1e-3  # discretisation of the privacy loss; coarser is larger, never smaller
_STEPS_PER_UNIT = 10_000
MAX_NOISE_MULTIPLIER = 60
_ROUND_UP = 1 + 1e-9
MIN_GRID_STEPS, MAX_GRID_STEPS = 1 << 20, 1 << 24
BRIDGE_SHARE = 0.01


def schedule_event(
    *, sampling_probability: float, noise_multiplier: float, num_charges: int
) -> dp_accounting.DpEvent:
    """The DpEvent of `num_charges` equal rounds of a Poisson-sampled Gaussian."""
    one = dp_accounting.PoissonSampledDpEvent(
        sampling_probability, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    return dp_accounting.SelfComposedDpEvent(one, num_charges)


def epsilon(
    *,
    sampling_probability: float,
    noise_multiplier: float,
    num_charges: int,
    delta: float,
    interval: float = FINE,
) -> float:
    """Upper bound of epsilon for a fixed schedule of equal rounds, add-or-remove-one.

    **Guarantee:** the schedule is (epsilon, delta)-private; both directions (a user added, a user
    removed) are covered. Rounded up by a relative 1e-9.

    **Edge cases:**

    | arguments | result |
    |---|---|
    | num_charges = 0 | 0 |
    | delta below about 1e-15 | infinity |

    Args:
      sampling_probability: q, in (0, 1].
      noise_multiplier: z > 0, noise standard deviation over clipping norm.
      num_charges: rounds.
      delta: in (0, 1).
      interval: discretisation of the privacy loss.

    Reference: Koskela et al. 2020; Doroshenko et al. 2022 (connect-the-dots, arXiv 2207.04380).

    >>> round(epsilon(sampling_probability=0.01, noise_multiplier=1.0, num_charges=1000, delta=1e-6), 3)
    2.125
    """
    if num_charges == 0:
        return 0.0
    composed = _round_pld(sampling_probability, noise_multiplier, interval).self_compose(
        num_charges
    )
    return float(composed.get_epsilon_for_delta(delta)) * _ROUND_UP


def epsilon_curve(
    *, sampling_probability: float, noise_multiplier: float, num_charges: int, delta: float
) -> NDArray[np.float64]:
    """Epsilon after 1, 2, ..., num_charges charges, in one pass.

    The inner values use a coarser grid, so they are slightly larger upper bounds; the last one is
    `epsilon` itself, and none exceeds it. A meter: the promise of a fixed schedule is its last
    value, also after an early stop.

    Returns:
      float64, shape (num_charges,), non-decreasing.
    """
    one = _round_pld(sampling_probability, noise_multiplier, COARSE)
    composed, values = one, []
    for _ in range(num_charges):
        values.append(float(composed.get_epsilon_for_delta(delta)))
        composed = composed.compose(one)
    last = epsilon(
        sampling_probability=sampling_probability,
        noise_multiplier=noise_multiplier,
        num_charges=num_charges,
        delta=delta,
    )
    curve = np.minimum(np.maximum.accumulate(values), last)
    curve[-1] = last
    return curve


def epsilon_rdp(
    *, sampling_probability: float, noise_multiplier: float, num_charges: int, delta: float
) -> float:
    """The same bound by Renyi differential privacy: a looser cross-check."""
    accountant = RdpAccountant()
    accountant.compose(
        schedule_event(
            sampling_probability=sampling_probability,
            noise_multiplier=noise_multiplier,
            num_charges=num_charges,
        )
    )
    return float(accountant.get_epsilon(delta))


def calibrate_noise_multiplier(
    *, sampling_probability: float, num_charges: int, target_epsilon: float, delta: float
) -> float:
    """The smallest noise multiplier on a grid of 1e-4 that keeps the target.

    **Guarantee:** epsilon(result) <= target_epsilon, and the next smaller grid value exceeds it.
    """

    def spent(steps: int, interval: float) -> float:
        return epsilon(
            sampling_probability=sampling_probability,
            noise_multiplier=steps / _STEPS_PER_UNIT,
            num_charges=num_charges,
            delta=delta,
            interval=interval,
        )

    high, low = 1000, 0
    while high < MAX_NOISE_MULTIPLIER * _STEPS_PER_UNIT and spent(high, COARSE) > target_epsilon:
        high, low = 2 * high, high
    while high - low > 1:  # the coarse answer is a little too large
        middle = (low + high) // 2
        low, high = (low, middle) if spent(middle, COARSE) <= target_epsilon else (middle, high)
    width = 1
    while high > 1 and spent(high - width, FINE) <= target_epsilon:
        high -= width
        width = min(2 * width, high - 1)
    low = max(high - width, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if spent(middle, FINE) <= target_epsilon else (middle, high)
    return high / _STEPS_PER_UNIT


def bridge_delta(*, num_charges: int, dimension: int, noise_scale: int, epsilon: float) -> float:
    """What discrete noise adds to delta when the continuous Gaussian's PLD is used for it.

    Rounding a continuous Gaussian to integers is post-processing, and its KL divergence to the
    discrete Gaussian of scale s is below 1 / (576 s^4) per coordinate and round; Pinsker's
    inequality bounds the total variation, which enters delta (1 + e^epsilon) times.

    Args:
      num_charges: rounds.
      dimension: P.
      noise_scale: s, in grid steps.
      epsilon: of the promise.
    """
    variation = math.sqrt(num_charges * dimension / 1152) / noise_scale**2
    return (1 + math.exp(epsilon)) * variation * _ROUND_UP


def choose_grid_steps(
    *, noise_multiplier: float, num_charges: int, dimension: int, epsilon: float, delta: float
) -> int:
    """The smallest K in 2^20 .. 2^24 whose bridge term is at most delta / 100.

    Raises:
      ConfigError: no grid fits; the message says what would help.
    """
    steps = MIN_GRID_STEPS
    while steps <= MAX_GRID_STEPS:
        scale = math.ceil(noise_multiplier * steps)
        if scale > MAX_SCALE:
            break
        bridge = bridge_delta(
            num_charges=num_charges, dimension=dimension, noise_scale=scale, epsilon=epsilon
        )
        if bridge <= BRIDGE_SHARE * delta:
            return steps
        steps *= 2
    raise ConfigError(
        [
            f"privacy.target-epsilon = {epsilon:g}: the discrete noise of {num_charges} charges of "
            f"{dimension} numbers does not fit into delta = {delta:g}. Use a smaller epsilon, a "
            "larger delta or fewer trained numbers (adapter.rank)."
        ]
    )


@functools.lru_cache(maxsize=64)
def _round_pld(
    sampling_probability: float, noise_multiplier: float, interval: float
) -> pld.PrivacyLossDistribution:
    return pld.from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sampling_probability,
        value_discretization_interval=interval,
    )
