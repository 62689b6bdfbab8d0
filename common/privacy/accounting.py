"""Rounds as DpEvents; epsilon, its curve over the charges, calibration, and the choice of grid.

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
MIN_NOISE_MULTIPLIER, MAX_NOISE_MULTIPLIER = 0.01, 60
MIN_GRID_STEPS, MAX_GRID_STEPS = 1 << 20, 1 << 24
BRIDGE_SHARE = 0.01

_RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
_STEPS_PER_UNIT = 10_000
_ROUND_UP = 1 + 1e-6  # far above the round-off of the Fourier transforms at any allowed delta
# That round-off is 1e-15 of mass per composition: nothing against 1e-12, too much much below it.
# A promise at 1e-12 is accounted at 0.99 of that.
_MIN_DELTA = 0.9e-12
_MAX_POINTS = 1 << 20  # of one round's PLD: with little noise the loss is wide, and memory finite
_MAX_CURVE_POINTS = 256


def round_event(
    *, sampling_probability: float, noise_multiplier: float
) -> dp_accounting.PoissonSampledDpEvent:
    """The DpEvent of one round of a Poisson-sampled Gaussian."""
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    return dp_accounting.PoissonSampledDpEvent(sampling_probability, gaussian)


def schedule_event(
    *, sampling_probability: float, noise_multiplier: float, num_charges: int
) -> dp_accounting.SelfComposedDpEvent:
    """The DpEvent of `num_charges` equal rounds of a Poisson-sampled Gaussian."""
    one = round_event(sampling_probability=sampling_probability, noise_multiplier=noise_multiplier)
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

    **Guarantee:** the schedule is (epsilon, delta)-private, for a user added and for a user
    removed. The discretisation is pessimistic, and the result is rounded up by a relative 1e-6.

    **Edge cases:**

    | arguments | result |
    |---|---|
    | num_charges = 0 | 0 |
    | sampling_probability = 1 | the Gaussian mechanism without amplification |
    | delta below 1e-12 | refused: the accountant's round-off would show |
    | noise_multiplier below 0.12 | a coarser interval: larger, still an upper bound |
    | noise_multiplier below 0.01 | refused |

    Args:
      sampling_probability: q, in (0, 1].
      noise_multiplier: z, noise standard deviation over clipping norm.
      num_charges: rounds.
      delta: in [1e-12, 1).
      interval: discretisation of the privacy loss.

    Raises:
      ConfigError: delta or noise multiplier are outside what can be accounted for.
      ValueError: any other argument is out of range.

    Reference: Koskela, Jalko & Honkela 2020 (PLD by Fourier transform, arXiv 1906.03049);
    Doroshenko et al. 2022 (connect-the-dots, arXiv 2207.04380).

    >>> ten_rounds = epsilon(
    ...     sampling_probability=0.01, noise_multiplier=1.0, num_charges=1000, delta=1e-6
    ... )
    >>> f"{ten_rounds:.4f}"
    '2.1245'
    """
    _check(sampling_probability, noise_multiplier, num_charges, delta)
    if num_charges == 0:
        return 0.0
    composed = _round_pld(sampling_probability, noise_multiplier, interval)
    return _read(composed.self_compose(num_charges), delta)


def epsilon_curve(
    *, sampling_probability: float, noise_multiplier: float, num_charges: int, delta: float
) -> NDArray[np.float64]:
    """Epsilon after 1, 2, ..., num_charges charges, in one pass.

    **Guarantee:** every value is an upper bound at its number of charges, no value is below its
    predecessor, and the last one is `epsilon`. A meter: the promise of a fixed schedule is its last
    value, also after an early stop.

    **Edge cases:** the inner values use a coarser interval, so they are slightly larger bounds;
    beyond 256 charges they rise in up to 256 equal strides, each at the bound of its end.

    Returns:
      float64, shape (num_charges,), non-decreasing.
    """
    _check(sampling_probability, noise_multiplier, num_charges, delta)
    if num_charges == 0:
        return np.zeros(0)
    stride = math.ceil(num_charges / _MAX_CURVE_POINTS)
    one = _round_pld(sampling_probability, noise_multiplier, COARSE).self_compose(stride)
    composed, values = one, [_read(one, delta)]
    while len(values) * stride < num_charges:
        composed = composed.compose(one)
        values.append(_read(composed, delta))
    curve = np.repeat(np.maximum.accumulate(values), stride)[:num_charges]
    last = epsilon(
        sampling_probability=sampling_probability,
        noise_multiplier=noise_multiplier,
        num_charges=num_charges,
        delta=delta,
    )
    curve = np.minimum(curve, last)  # fewer charges never cost more, so `last` bounds all of them
    curve[-1] = last
    return curve


def epsilon_rdp(
    *, sampling_probability: float, noise_multiplier: float, num_charges: int, delta: float
) -> float:
    """The same bound by Renyi differential privacy: a looser cross-check.

    Reference: Mironov, Talwar & Zhang 2019 (arXiv 1908.10530).
    """
    _check(sampling_probability, noise_multiplier, num_charges, delta)
    if num_charges == 0:
        return 0.0
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
    unless the result is the smallest that feddp allows, 0.01.

    Raises:
      ConfigError: the largest noise multiplier that feddp adds does not keep the target.

    >>> calibrate_noise_multiplier(
    ...     sampling_probability=0.05, num_charges=500, target_epsilon=1.0, delta=1e-5
    ... )
    4.3
    """
    if not target_epsilon > 0:
        raise ValueError(f"target epsilon {target_epsilon}: must be > 0")

    def spent(steps: int, interval: float) -> float:
        return epsilon(
            sampling_probability=sampling_probability,
            noise_multiplier=steps / _STEPS_PER_UNIT,
            num_charges=num_charges,
            delta=delta,
            interval=interval,
        )

    rough = _smallest_steps(lambda steps: spent(steps, COARSE), target_epsilon, _STEPS_PER_UNIT)
    steps = _smallest_steps(lambda steps: spent(steps, FINE), target_epsilon, rough)
    if (least := spent(steps, FINE)) > target_epsilon:
        raise ConfigError(
            [
                f"privacy.target-epsilon = {target_epsilon:g}: out of reach; the most noise that "
                f"feddp adds ({MAX_NOISE_MULTIPLIER:g} C) gives {least:.3g}. Use fewer rounds, a "
                "smaller cohort, more users or a larger target."
            ]
        )
    return steps / _STEPS_PER_UNIT


def bridge_delta(*, num_charges: int, dimension: int, noise_scale: int, epsilon: float) -> float:
    """What discrete noise adds to delta when the continuous Gaussian's PLD is used for it.

    **Guarantee:** if the continuous mechanism is (epsilon, delta)-private, the one with discrete
    noise is (epsilon, delta + bridge_delta)-private. Rounding a continuous Gaussian to integers is
    post-processing; its KL divergence from the discrete Gaussian of scale s is below 1 / (576 s^4)
    per coordinate and round, whatever the input; the chain rule adds these up, Pinsker's inequality
    turns the sum into a total variation, and that enters delta once and e^epsilon times.

    Args:
      num_charges: rounds.
      dimension: P.
      noise_scale: s >= 2, in grid steps.
      epsilon: of the promise.

    >>> bound = bridge_delta(num_charges=1000, dimension=10**6, noise_scale=2**20, epsilon=8.0)
    >>> f"{bound:.2g}"
    '2.5e-06'
    """
    variation = math.sqrt(num_charges * dimension / 1152) / noise_scale**2
    return (1 + math.exp(min(epsilon, 700.0))) * variation * _ROUND_UP  # e^710 overflows


def choose_grid_steps(
    *, noise_multiplier: float, num_charges: int, dimension: int, epsilon: float, delta: float
) -> int:
    """The smallest K in 2^20 .. 2^24 whose bridge term is at most delta / 100.

    **Guarantee:** the noise scale ceil(z K) fits the sampler, and the bridge term its share.

    Raises:
      ConfigError: no grid does both; the message says what would help.
    """
    if math.ceil(noise_multiplier * MIN_GRID_STEPS) > MAX_SCALE:
        raise ConfigError(
            [
                f"privacy.noise-multiplier = {noise_multiplier:g}: must be at most "
                f"{MAX_SCALE // MIN_GRID_STEPS}. Use a smaller one, or fewer rounds."
            ]
        )
    steps = MIN_GRID_STEPS
    while steps <= MAX_GRID_STEPS:
        scale = math.ceil(noise_multiplier * steps)  # exact: K is a power of two
        bridge = bridge_delta(
            num_charges=num_charges, dimension=dimension, noise_scale=scale, epsilon=epsilon
        )
        if bridge <= BRIDGE_SHARE * delta and scale <= MAX_SCALE:
            return steps
        steps *= 2
    raise ConfigError(
        [
            f"privacy.target-epsilon = {epsilon:g}: the discrete noise of {num_charges} charges of "
            f"{dimension} numbers does not fit into delta = {delta:g}. Use a smaller epsilon, a "
            "larger delta, fewer rounds or fewer trained numbers (adapter.rank)."
        ]
    )


def _smallest_steps(spent: Callable[[int], float], target: float, start: int) -> int:
    """The smallest multiplier, in grid steps, whose epsilon is at most the target.

    Epsilon falls with the multiplier at least as fast as its inverse, and in logarithms almost on
    a line: a bracket takes one or two evaluations, regula falsi a few more. Returns the largest
    multiplier allowed where none keeps the target.
    """
    spent = functools.cache(spent)
    least, most = (
        round(limit * _STEPS_PER_UNIT) for limit in (MIN_NOISE_MULTIPLIER, MAX_NOISE_MULTIPLIER)
    )
    low = high = start
    while spent(high) > target and high < most:
        low, high = high, min(most, max(high + 1, math.ceil(high * min(spent(high) / target, 8))))
    while spent(low) <= target and low > least:
        low, high = max(least, min(low - 1, int(low * max(spent(low) / target, 0.5)))), low
    if spent(low) <= target:
        return low
    is_slow = False
    while high - low > 1:
        width = high - low
        middle = (low + high) // 2 if is_slow else _line_crossing(spent, target, low, high)
        low, high = (low, middle) if spent(middle) <= target else (middle, high)
        is_slow = 2 * (high - low) > width
    return high


def _line_crossing(spent: Callable[[int], float], target: float, low: int, high: int) -> int:
    """Where the line through both ends crosses the target, in logarithms; strictly between them."""
    above = math.log(spent(low) / target)
    below = math.log(target / max(spent(high), 1e-300))
    guess = math.ceil(low * (high / low) ** (above / (above + below)))
    return min(max(guess, low + 1), high - 1)


def _check(
    sampling_probability: float, noise_multiplier: float, num_charges: int, delta: float
) -> None:
    if not 0 < sampling_probability <= 1:
        raise ValueError(f"sampling probability {sampling_probability}: must be in (0, 1]")
    if num_charges < 0:
        raise ValueError(f"number of charges {num_charges}: must be >= 0")
    if not MIN_NOISE_MULTIPLIER <= noise_multiplier < math.inf:
        raise ConfigError(
            [
                f"privacy.noise-multiplier = {noise_multiplier:g}: must be at least "
                f"{MIN_NOISE_MULTIPLIER:g}; so little noise hides nobody. Leave it "
                '"auto" to reach privacy.target-epsilon.'
            ]
        )
    if not _MIN_DELTA <= delta < 1:
        raise ConfigError(
            [
                f"privacy.target-delta (here {delta:.3g}): must be in [1e-12, 1); the accountant's "
                "round-off is not bounded below. The default suits the number of users."
            ]
        )


def _read(composed: pld.PrivacyLossDistribution, delta: float) -> float:
    """The larger epsilon of both directions, rounded up."""
    return float(composed.get_epsilon_for_delta(delta)) * _ROUND_UP


@functools.lru_cache(maxsize=16)
def _round_pld(
    sampling_probability: float, noise_multiplier: float, interval: float
) -> pld.PrivacyLossDistribution:
    # The loss of one round stays below this but for a mass of e^-50, which PLDs count as infinite.
    widest_loss = 0.5 / noise_multiplier**2 + 10 / noise_multiplier
    return pld.from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sampling_probability,
        value_discretization_interval=max(interval, widest_loss / _MAX_POINTS),
        neighboring_relation=_RELATION,
    )
