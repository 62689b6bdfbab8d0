"""The smallest noise multiplier that keeps a target, for any family of schedules."""

from collections.abc import Callable

from scipy.optimize import brentq

from feddp.common.privacy.accounting.epsilon import COARSE, FINE

# Below the smallest, one privacy loss distribution takes gigabytes for no real protection; above
# the largest, the noise of 2^20 grid steps passes the sampler's largest scale.
MIN_NOISE_MULTIPLIER, MAX_NOISE_MULTIPLIER = 0.1, 60
_STEPS_PER_UNIT = 10_000
_COARSEST = 1e-2  # interval of estimates
_MIN_STEPS, _MAX_STEPS = 1_000, 600_000  # the same two on the grid of 1e-4

Spent = Callable[[float, float], float]


def calibrate(spent: Spent, target_epsilon: float) -> float:
    """The smallest noise multiplier on a grid of 1e-4 with spent <= target_epsilon.

    **Guarantee:** spent(result, FINE) <= target_epsilon, and the next smaller grid value exceeds it
    unless the result is the smallest allowed.

    Args:
      spent: (noise multiplier, interval of the privacy loss) -> epsilon; falls with the noise.
      target_epsilon: of the promise.

    Raises:
      ValueError: the largest noise multiplier exceeds the target.

    >>> from feddp.common.privacy.accounting.epsilon import epsilon
    >>> from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, PoissonGaussianEvent
    >>> def spent(multiplier: float, interval: float) -> float:
    ...     rounds = [(PoissonGaussianEvent(0.05, multiplier), 500)]
    ...     return epsilon(rounds, delta=1e-5, relation=ADD_OR_REMOVE_ONE, interval=interval)
    >>> calibrate(spent, 1.0)
    4.3
    """

    def keeps(steps: int, interval: float) -> bool:
        """Whether a multiplier of this many steps spends no more than the target."""
        return spent(steps / _STEPS_PER_UNIT, interval) <= target_epsilon

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


def estimate_noise_multiplier(spent: Spent, target_epsilon: float) -> float | None:
    """About the noise multiplier that keeps a target, to three digits: to compare, not to promise.

    Args:
      spent: as in `calibrate`; asked at a coarse interval, which is cheap.
      target_epsilon: to be kept.

    Returns:
      None where the largest noise multiplier exceeds the target.
    """

    def excess(multiplier: float) -> float:
        """Epsilon above the target."""
        return spent(multiplier, _COARSEST) - target_epsilon

    if excess(MAX_NOISE_MULTIPLIER) > 0:
        return None
    least = 3 * MIN_NOISE_MULTIPLIER  # below, a distribution is huge
    if excess(least) <= 0:
        return least
    return float(brentq(excess, least, MAX_NOISE_MULTIPLIER, xtol=1e-4, rtol=1e-3))


def next_noise_multiplier(noise_multiplier: float) -> float:
    """The next larger value on the grid of `calibrate`."""
    return (round(noise_multiplier * _STEPS_PER_UNIT) + 1) / _STEPS_PER_UNIT


def _smallest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number in low .. high for which a monotone claim holds; it holds for high."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
