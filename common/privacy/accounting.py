"""Rounds as DpEvents; epsilon, calibration, and the curve of epsilon over the charges.

The certificate is the privacy loss distribution (PLD) of dp-accounting, composed over a fixed
schedule. A round's PLD is built once and composed with itself, which costs the same for ten rounds
as for ten thousand. Everything is rounded toward privacy.
"""

import functools
import math
from collections.abc import Callable

import dp_accounting
import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from numpy.typing import NDArray

from common.errors import ConfigError
from common.privacy.noise import MAX_SCALE

FINE, COARSE = 1e-4, 1e-3  # discretisation of the privacy loss; coarser is larger, never smaller
# Below the smallest, one privacy loss distribution takes gigabytes and protects nobody; above the
# largest, the noise of 2^20 grid steps passes the sampler's largest scale.
MIN_NOISE_MULTIPLIER, MAX_NOISE_MULTIPLIER = 0.1, 60
_STEPS_PER_UNIT = 10_000
_MIN_STEPS, _MAX_STEPS = 1_000, 600_000  # the same two on the grid of 1e-4
_ROUND_UP = 1 + 1e-6  # far above the round-off of the Fourier transforms for any delta >= 1e-12
_MAX_EXPONENT = 700.0  # exp of it is a float64
MIN_GRID_STEPS, MAX_GRID_STEPS = 1 << 20, 1 << 24
BRIDGE_SHARE = 0.01
EPSILON_SHARE = 1e-5
_MIN_RATIO_SCALE = 16
_RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
_MAX_CURVE_POINTS = 256


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
    removed) are covered. Rounded up by a relative 1e-6.

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

    >>> bound = epsilon(
    ...     sampling_probability=0.01, noise_multiplier=1.0, num_charges=1000, delta=1e-6
    ... )
    >>> round(bound, 4)
    2.1245
    """
    if num_charges == 0:
        return 0.0
    one = _round_pld(sampling_probability, noise_multiplier, interval)
    return _read(one.self_compose(num_charges), delta)


def epsilon_curve(
    *, sampling_probability: float, noise_multiplier: float, num_charges: int, delta: float
) -> NDArray[np.float64]:
    """Epsilon after 1, 2, ..., num_charges charges, in one pass.

    **Guarantee:** every value is an upper bound at its number of charges, none is below the one
    before it, and the last one is `epsilon`. A meter: the promise of a fixed schedule is its last
    value, also after an early stop.

    **Edge cases:** the inner values use a coarser grid, so they are slightly larger; beyond 256
    charges they rise in at most 256 equal strides, each at the bound of its end.

    Returns:
      float64, shape (num_charges,), non-decreasing.
    """
    if num_charges == 0:
        return np.zeros(0)
    stride = math.ceil(num_charges / _MAX_CURVE_POINTS)
    one = _round_pld(sampling_probability, noise_multiplier, COARSE).self_compose(stride)
    composed, values = one, [_read(one, delta)]
    while len(values) * stride < num_charges:
        composed = composed.compose(one)
        values.append(_read(composed, delta))
    last = epsilon(
        sampling_probability=sampling_probability,
        noise_multiplier=noise_multiplier,
        num_charges=num_charges,
        delta=delta,
    )
    inner = np.repeat(np.maximum.accumulate(values), stride)[:num_charges]
    # Fewer charges never cost more, so the last value bounds them all.
    curve: NDArray[np.float64] = np.minimum(inner, last)
    curve[-1] = last
    return curve


def epsilon_rdp(
    *, sampling_probability: float, noise_multiplier: float, num_charges: int, delta: float
) -> float:
    """The same bound by Renyi differential privacy: a looser cross-check."""
    accountant = RdpAccountant(neighboring_relation=_RELATION)
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

    **Guarantee:** epsilon(result) <= target_epsilon, and the next smaller grid value exceeds it
    unless the result is the smallest allowed.

    Raises:
      ValueError: the largest noise multiplier exceeds the target.

    >>> calibrate_noise_multiplier(
    ...     sampling_probability=0.05, num_charges=500, target_epsilon=1.0, delta=1e-5
    ... )
    4.3
    """

    def keeps(steps: int, interval: float) -> bool:
        spent = epsilon(
            sampling_probability=sampling_probability,
            noise_multiplier=steps / _STEPS_PER_UNIT,
            num_charges=num_charges,
            delta=delta,
            interval=interval,
        )
        return spent <= target_epsilon

    if not keeps(_MAX_STEPS, FINE):
        raise ValueError(
            f"epsilon {target_epsilon:g} is out of reach with noise {MAX_NOISE_MULTIPLIER}"
        )
    # The coarse answer is cheap and too large by a little, or by much where its floor is reached:
    # from there down in growing strides on the fine grid.
    high = _smallest(lambda steps: keeps(steps, COARSE), _MIN_STEPS, _MAX_STEPS)
    low, stride = _MIN_STEPS, 1
    while high > low:
        lower = max(high - stride, _MIN_STEPS)
        if not keeps(lower, FINE):
            low = lower + 1
            break
        high, stride = lower, 2 * stride
    return _smallest(lambda steps: keeps(steps, FINE), low, high) / _STEPS_PER_UNIT


def next_noise_multiplier(noise_multiplier: float) -> float:
    """The next larger value on the grid of `calibrate_noise_multiplier`."""
    return (round(noise_multiplier * _STEPS_PER_UNIT) + 1) / _STEPS_PER_UNIT


def bridge_delta(*, num_charges: int, dimension: int, noise_scale: int, epsilon: float) -> float:
    """What discrete noise adds to delta when the continuous Gaussian's PLD is used for it.

    Rounding a continuous Gaussian to integers is post-processing, and its KL divergence to the
    discrete Gaussian of scale s is below 1 / (576 s^4) per coordinate and round; Pinsker's
    inequality bounds the total variation, which enters delta (1 + e^epsilon) times.

    Args:
      num_charges: rounds.
      dimension: P.
      noise_scale: s, in grid steps.
      epsilon: of the promise; infinity is the answer where e^epsilon is beyond float64.
    """
    if epsilon > _MAX_EXPONENT:
        return math.inf
    variation = math.sqrt(num_charges * dimension / 1152) / noise_scale**2
    return (1 + math.exp(epsilon)) * variation * _ROUND_UP


def ratio_bridge(
    *, num_charges: int, dimension: int, noise_scale: int, epsilon: float, delta: float
) -> tuple[float, float]:
    """What discrete noise adds to (epsilon, delta), by the ratio of the two distributions.

    For large epsilon, where e^epsilon times the total variation is too much. With phi the Gaussian
    density, the rounded Gaussian r and the discrete one p satisfy, at every integer k and s >= 16,
    -1/(8 s^2) <= log(r / phi) <= k^2 / (8 s^4) (write r as an integral of phi(k) cosh(k u / s^2)
    exp(-u^2 / (2 s^2))) and |log(p / phi)| < 1e-1000 (Poisson summation). Over n = T P independent
    numbers the ratio is therefore at most e^eta, eta = (n + sqrt(n t) + t) / (2 s^2), unless their
    squared norm exceeds s^2 (n + 2 sqrt(n t) + 2 t) (twice that, rounded), which has probability
    below e^-t: the discrete Gaussian is s-subgaussian. The ratio concerns the noise alone, so
    adaptive rounds and hidden cohorts do not matter. Passing from the discrete run to the rounded
    one and back costs 2 eta in epsilon and (e^eta - 1) delta + (1 + e^(epsilon + eta)) e^-t in
    delta; t is chosen so that the latter is small.

    Args:
      num_charges: T, rounds.
      dimension: P.
      noise_scale: s >= 16, in grid steps.
      epsilon: of the continuous Gaussian.
      delta: at which it was read.

    Returns:
      (added to epsilon, added to delta).

    Reference: Canonne, Kamath & Steinke 2020 (subgaussianity); Hsu, Kakade & Zhang 2012,
    theorem 2.1 (norms of subgaussian vectors); Laurent & Massart 2000, lemma 1 (Gaussian norms).
    """
    if noise_scale < _MIN_RATIO_SCALE:
        raise ValueError(f"noise scale {noise_scale}: must be at least {_MIN_RATIO_SCALE}")
    numbers = num_charges * dimension
    tail = epsilon - math.log(delta) + 10
    eta = (numbers + math.sqrt(numbers * tail) + tail) / (2 * noise_scale**2)
    if eta > 1:
        return math.inf, math.inf
    added = math.expm1(eta) * delta + math.exp(-tail) + math.exp(epsilon + eta - tail)
    return 2 * eta * _ROUND_UP, added * _ROUND_UP


def bridge_cost(
    *, num_charges: int, dimension: int, noise_scale: int, epsilon: float, delta: float
) -> tuple[float, float]:
    """What discrete noise adds to (epsilon, delta): by distance where that fits, else by ratio.

    Args: see `ratio_bridge`.
    """
    by_distance = bridge_delta(
        num_charges=num_charges, dimension=dimension, noise_scale=noise_scale, epsilon=epsilon
    )
    if by_distance <= BRIDGE_SHARE * delta:
        return 0.0, by_distance
    return ratio_bridge(
        num_charges=num_charges,
        dimension=dimension,
        noise_scale=noise_scale,
        epsilon=epsilon,
        delta=delta,
    )


def choose_grid_steps(
    *, noise_multiplier: float, num_charges: int, dimension: int, epsilon: float, delta: float
) -> int:
    """The smallest K in 2^20 .. 2^24 whose discrete noise costs next to nothing.

    That is at most delta / 100 and nothing of epsilon, or, where no K does that, at most
    delta / 100 and 1e-5 epsilon.

    Raises:
      ConfigError: no grid fits; the message says what would help.
    """
    costs = {}
    steps = MIN_GRID_STEPS
    while steps <= MAX_GRID_STEPS:
        scale = math.ceil(noise_multiplier * steps)  # exact: a product by a power of two
        if scale > MAX_SCALE:
            break
        costs[steps] = bridge_cost(
            num_charges=num_charges,
            dimension=dimension,
            noise_scale=scale,
            epsilon=epsilon,
            delta=delta,
        )
        steps *= 2
    for share in (0.0, EPSILON_SHARE):
        for steps, (added_epsilon, added_delta) in costs.items():
            if added_epsilon <= share * epsilon and added_delta <= BRIDGE_SHARE * delta:
                return steps
    raise ConfigError(
        [
            f"privacy.noise-multiplier = {noise_multiplier:g}: the discrete noise of {num_charges} "
            f"charges of {dimension} numbers costs more than a hundredth of delta = {delta:g} at "
            f"epsilon {epsilon:g}. Train fewer numbers (adapter.rank) or fewer rounds."
        ]
    )


def _smallest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number in low .. high for which a monotone claim holds; it holds for high."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _read(composed: pld.PrivacyLossDistribution, delta: float) -> float:
    """The larger epsilon of both directions, rounded up."""
    return float(composed.get_epsilon_for_delta(delta)) * _ROUND_UP


@functools.lru_cache(maxsize=64)
def _round_pld(
    sampling_probability: float, noise_multiplier: float, interval: float
) -> pld.PrivacyLossDistribution:
    return pld.from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sampling_probability,
        value_discretization_interval=interval,
        neighboring_relation=_RELATION,
    )
