"""What an audit can say about epsilon: certified lower bounds, and an estimate.

Canaries are units whose presence only the auditor knows. Every function takes their scores or
counts and is valid however these arose. A bound above the promised epsilon refutes the promise; a
bound below it proves nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from feddp.simulations.leakage.attacks import Scores

GUESS_SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
THRESHOLD_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_LARGEST = 200.0  # upper end of the search for epsilon


@dataclass(frozen=True)
class AuditResult:
    """Lower bounds of epsilon at delta, each at confidence 1 - alpha; `one_shot` is an estimate.

    Attributes:
      one_shot: normal fits of both score distributions; not a bound.
      normal: bound if both score distributions are normal with one variance, as they are when
        every canary takes part in every round; None otherwise.
      one_run: Steinke et al. 2023, whatever the mechanism.
      f_dp: Mahloujifar et al. 2024 against the Gaussian trade-off curve; None unless every canary
        takes part in every round.
      clopper_pearson: best threshold, Bonferroni over those tried.
    """

    one_shot: float
    normal: float | None
    one_run: float
    f_dp: float | None
    clopper_pearson: float

    @property
    def lower_bound(self) -> float:
        """The largest of the bounds."""
        bounds = (self.normal, self.one_run, self.f_dp, self.clopper_pearson)
        return max(bound for bound in bounds if bound is not None)


def audit_scores(
    present: Scores, absent: Scores, *, delta: float, alpha: float, is_gaussian: bool
) -> AuditResult:
    """All audits of one run.

    Args:
      present: float64, shape (k,), scores of the canaries that took part.
      absent: float64, shape (m - k,), of those that did not.
      delta: at which epsilon is bounded.
      alpha: 1 - confidence of each bound.
      is_gaussian: the claim is a Gaussian trade-off curve, since every canary is in every round.
    """
    return AuditResult(
        one_shot=one_shot_epsilon(present, absent, delta=delta),
        normal=normal_bound(present, absent, delta=delta, alpha=alpha) if is_gaussian else None,
        one_run=_best_guesses(present, absent, delta=delta, alpha=alpha, bound=one_run_bound),
        f_dp=_best_guesses(present, absent, delta=delta, alpha=alpha, bound=f_dp_bound)
        if is_gaussian
        else None,
        clopper_pearson=threshold_bound(present, absent, delta=delta, alpha=alpha),
    )


def one_run_bound(
    num_canaries: int, num_guesses: int, num_correct: int, *, delta: float, alpha: float
) -> float:
    """The largest epsilon refuted by the number of correct guesses in one run; 0 if none.

    Args:
      num_canaries: m, each in with probability 1/2.
      num_guesses: r, fixed before looking.
      num_correct: v of them.
      delta: of the claim.
      alpha: 1 - confidence.

    Reference: Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846), theorem 5.2.

    >>> round(one_run_bound(1000, 200, 160, delta=1e-5, alpha=0.05), 3)
    1.085
    """
    counts = (num_canaries, num_guesses, num_correct)
    return _largest_refuted(lambda epsilon: one_run_p_value(*counts, epsilon, delta) <= alpha)


def one_run_p_value(
    num_canaries: int, num_guesses: int, num_correct: int, epsilon: float, delta: float
) -> float:
    """Bound on the probability of at least `num_correct` correct guesses under (epsilon, delta)-DP.

    >>> round(one_run_p_value(100, 100, 75, 0.5, 1e-5), 9)
    0.004902564
    """
    share = 1 / (1 + math.exp(-epsilon))
    tails = stats.binom.sf(num_correct - 1 - np.arange(num_correct + 1), num_guesses, share)
    steps = np.arange(1, num_correct + 1)
    slope = float(np.max((tails[1:] - tails[0]) / steps, initial=0.0))
    return min(1.0, float(tails[0]) + 2 * num_canaries * delta * slope)


def f_dp_bound(
    num_canaries: int, num_guesses: int, num_correct: int, *, delta: float, alpha: float
) -> float:
    """The largest epsilon whose Gaussian trade-off curve the correct guesses refute.

    Valid for a claim of Gaussian form: a Gaussian release without subsampling.

    Reference: Mahloujifar, Melis & Chaudhuri 2024 (arXiv 2410.22235), algorithm 3.

    >>> round(f_dp_bound(1000, 200, 160, delta=1e-5, alpha=0.05), 3)
    1.729
    """

    def is_refuted(epsilon: float) -> bool:
        """Whether so many correct guesses are too many for epsilon."""
        if epsilon == 0:
            return True
        separation = separation_of(epsilon, delta)
        return _is_refuted(num_canaries, num_guesses, num_correct, separation, alpha)

    return _largest_refuted(is_refuted)


def _is_refuted(
    num_canaries: int, num_guesses: int, num_correct: int, separation: float, alpha: float
) -> bool:
    """The paper's recursion over the number of correct guesses, with its r and h."""

    def least_excess(x: float) -> float:
        """Least false positive rate at a power of x, by the trade-off curve."""
        return float(special.ndtr(special.ndtri(x) - separation))

    r = alpha * num_correct / num_canaries
    h = alpha * (num_guesses - num_correct) / num_canaries
    for i in range(num_correct - 1, -1, -1):
        higher = max(h, least_excess(r))
        if i < num_guesses:
            r = min(1.0, r + i / (num_guesses - i) * (higher - h))
        h = higher
    return r + h > num_guesses / num_canaries


def threshold_bound(present: Scores, absent: Scores, *, delta: float, alpha: float) -> float:
    """The best Clopper-Pearson bound over thresholds at fixed ranks, both directions.

    Bonferroni over the thresholds: order statistics of all scores at fixed shares, so they do not
    depend on which canaries took part.

    Reference: Jagielski, Ullman & Oprea 2020 (arXiv 2006.07709).
    """
    everyone = np.sort(np.concatenate([present, absent]))[::-1]
    best = 0.0
    share = alpha / (2 * len(THRESHOLD_SHARES))  # two directions each
    for quantile in THRESHOLD_SHARES:
        place = min(math.ceil(quantile * len(everyone)), len(everyone) - 1)
        top, bottom = everyone[place], everyone[-1 - place]
        for found, wrong in ((present > top, absent > top), (absent < bottom, present < bottom)):
            counts = (int(found.sum()), len(found), int(wrong.sum()), len(wrong))
            best = max(best, clopper_pearson_bound(*counts, delta=delta, alpha=share))
    return best


def clopper_pearson_bound(
    num_found: int, num_true: int, num_wrong: int, num_false: int, *, delta: float, alpha: float
) -> float:
    """ln((TPR_low - delta) / FPR_high), each end at alpha / 2; at least 0.

    >>> round(clopper_pearson_bound(90, 100, 10, 100, delta=1e-5, alpha=0.05), 5)
    1.54214
    """
    if num_found == 0 or num_wrong == num_false:
        return 0.0
    low = float(stats.beta.ppf(alpha / 2, num_found, num_true - num_found + 1))
    high = float(stats.beta.ppf(1 - alpha / 2, num_wrong + 1, num_false - num_wrong))
    return math.log((low - delta) / high) if low - delta > high else 0.0


def one_shot_epsilon(present: Scores, absent: Scores, *, delta: float) -> float:
    """Epsilon at delta between normal fits of both score distributions. An estimate, not a bound.

    Reference: Andrew et al. 2023 (arXiv 2302.03098); here the null is that of absent canaries.
    """
    spread = float(np.std(absent, ddof=1))
    mean = float(np.mean(present) - np.mean(absent)) / spread
    return gaussian_pair_epsilon(mean, float(np.std(present, ddof=1)) / spread, delta)


def normal_bound(present: Scores, absent: Scores, *, delta: float, alpha: float) -> float:
    """Lower bound of epsilon when both score distributions are normal with one variance.

    The standardised difference of means follows a noncentral t distribution, which gives an exact
    lower confidence limit for it.
    """
    degrees = len(present) + len(absent) - 2
    scale = math.sqrt(1 / len(present) + 1 / len(absent))
    pooled = math.sqrt(
        ((len(present) - 1) * np.var(present, ddof=1) + (len(absent) - 1) * np.var(absent, ddof=1))
        / degrees
    )
    if pooled == 0:
        return _LARGEST if np.mean(present) > np.mean(absent) else 0.0
    statistic = float(np.mean(present) - np.mean(absent)) / (pooled * scale)
    if stats.t.sf(statistic, degrees) > alpha:
        return 0.0

    def excess(shift: float) -> float:
        """The chance of such a statistic under a shift, above alpha."""
        return float(stats.nct.sf(statistic, degrees, shift)) - alpha

    limit = optimize.brentq(excess, 0.0, statistic) if excess(statistic) > 0 else statistic
    return gaussian_pair_epsilon(limit * scale, 1.0, delta)


def separation_of(epsilon: float, delta: float) -> float:
    """The distance of two unit normals that is exactly (epsilon, delta)-private.

    >>> round(separation_of(4.37718, 1e-5), 4)
    1.0
    """
    return float(
        optimize.brentq(lambda s: gaussian_pair_delta(s, 1.0, epsilon) - delta, 1e-9, 100.0)
    )


def gaussian_pair_epsilon(mean: float, spread: float, delta: float) -> float:
    """Epsilon at delta between N(0, 1) and N(mean, spread^2), the larger of both directions.

    >>> round(gaussian_pair_epsilon(1.0, 0.9, 1e-5), 4)
    7.3578
    """

    def excess(epsilon: float) -> float:
        """Delta at an epsilon, above what is allowed."""
        return gaussian_pair_delta(mean, spread, epsilon) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        if high > 1e6:
            return math.inf
        high *= 2
    return float(optimize.brentq(excess, 0.0, high))


def gaussian_pair_delta(mean: float, spread: float, epsilon: float) -> float:
    """Delta at epsilon between N(0, 1) and N(mean, spread^2), the larger of both directions."""
    first, second = _Normal(0.0, 1.0), _Normal(mean, spread)
    return max(_hockey_stick(first, second, epsilon), _hockey_stick(second, first, epsilon))


@dataclass(frozen=True)
class _Normal:
    mean: float
    spread: float

    def mass(self, low: float, high: float) -> float:
        """Probability of an interval, computed in its own tail for precision."""
        a, b = (low - self.mean) / self.spread, (high - self.mean) / self.spread
        if a > 0:
            return float(special.ndtr(-a) - special.ndtr(-b))
        return float(special.ndtr(b) - special.ndtr(a))


def _hockey_stick(upper: _Normal, lower: _Normal, epsilon: float) -> float:
    """P[A] - e^epsilon Q[A] for the set A where log p - log q > epsilon: a quadratic inequality."""
    m, s, n, t = upper.mean, upper.spread, lower.mean, lower.spread
    # log p - log q = a x^2 + b x + c
    a = (1 / t**2 - 1 / s**2) / 2
    b = m / s**2 - n / t**2
    c = (n**2 / t**2 - m**2 / s**2) / 2 + math.log(t / s) - epsilon
    return sum(
        upper.mass(low, high) - math.exp(min(epsilon, 700.0)) * lower.mass(low, high)
        for low, high in _where_positive(a, b, c)
    )


def _where_positive(a: float, b: float, c: float) -> list[tuple[float, float]]:
    """The intervals on which a x^2 + b x + c > 0."""
    if abs(a) < 1e-12:
        if abs(b) < 1e-15:
            return [(-math.inf, math.inf)] if c > 0 else []
        return [(-c / b, math.inf)] if b > 0 else [(-math.inf, -c / b)]
    square = b * b - 4 * a * c
    if square <= 0:
        return [(-math.inf, math.inf)] if a > 0 else []
    # The stable form of the roots.
    q = -(b + math.copysign(math.sqrt(square), b)) / 2
    low, high = sorted((q / a, c / q if q else -b / a))
    return [(-math.inf, low), (high, math.inf)] if a > 0 else [(low, high)]


def _best_guesses(
    present: Scores, absent: Scores, *, delta: float, alpha: float, bound: Callable[..., float]
) -> float:
    """The best bound over fixed numbers of guesses, half at each end; Bonferroni."""
    scores = np.concatenate([present, absent])
    is_present: NDArray[np.bool_] = np.arange(len(scores)) < len(present)
    order = np.argsort(-scores, kind="stable")
    best = 0.0
    for share in GUESS_SHARES:
        half = max(1, int(share * len(scores) / 2))
        correct = int(is_present[order[:half]].sum() + (~is_present[order[-half:]]).sum())
        value = bound(len(scores), 2 * half, correct, delta=delta, alpha=alpha / len(GUESS_SHARES))
        best = max(best, value)
    return best


def _largest_refuted(is_refuted: Callable[[float], bool]) -> float:
    """The largest refuted epsilon, by bisection to 1e-6 from below; 0 when none is."""
    if not is_refuted(1e-6):
        return 0.0
    low, high = 1e-6, 1.0
    while is_refuted(high):
        low, high = high, 2 * high
        if high > _LARGEST:
            return _LARGEST
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if is_refuted(middle) else (low, middle)
    return low
