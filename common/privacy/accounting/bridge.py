"""The bridge: what discrete noise adds to a promise that was computed for the continuous Gaussian.

Rounding continuous Gaussian noise to integers is post-processing, so its privacy loss distribution
holds for rounded noise; the exactly sampled discrete Gaussian is so close to it that the difference
fits into a hundredth of delta. That is a statement about the noise alone: it holds whatever the
event, the relation and the coins, also for correlated noise, which is a linear map of independent
integers. A zero-concentrated or Renyi bound without sampling needs no bridge (Canonne, Kamath &
Steinke 2020): there the discrete Gaussian is at least as private as the continuous one.
"""

import math

from feddp.common.errors import ConfigError
from feddp.common.privacy.mechanism.noise import MAX_SCALE

MIN_GRID_STEPS, MAX_GRID_STEPS = 1 << 20, 1 << 24
BRIDGE_SHARE = 0.01
EPSILON_SHARE = 1e-5
_ROUND_UP = 1 + 1e-6
_MAX_EXPONENT = 700.0  # exp of it is a float64
_MIN_RATIO_SCALE = 16


def bridge_delta(*, num_charges: int, dimension: int, noise_scale: int, epsilon: float) -> float:
    """What discrete noise adds to delta when the continuous Gaussian's PLD is used for it.

    Rounding a continuous Gaussian to integers is post-processing, and its KL divergence to the
    discrete Gaussian of scale s is below 1 / (576 s^4) per coordinate and round; Pinsker's
    inequality bounds the total variation, which enters delta (1 + e^epsilon) times.

    Args:
      num_charges: noised vectors.
      dimension: numbers of each.
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
      num_charges: T, noised vectors.
      dimension: P, numbers of each.
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

    Args:
      noise_multiplier: z; the noise scale is z K, rounded up.
      num_charges: T, noised vectors.
      dimension: P, numbers of each.
      epsilon: of the promise.
      delta: of the promise.

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
