"""Attacks on a trained adapter as statistics over losses, with the ceilings that DP puts on them.

Everything here is a pure function of measured numbers. A failed attack is evidence, never a
guarantee; an attack above its ceiling refutes the promise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Attack:
    """How well a score distinguishes members from non-members.

    Attributes:
      auc: area under the ROC curve; bootstrap interval over the scored units.
      true_positive_rate: members found at the false positive rate; Clopper-Pearson interval.
      false_positive_rate: at most this share of non-members is taken for members.
      num_members, num_non_members: how many were scored.
    """

    auc: Interval
    true_positive_rate: Interval
    false_positive_rate: float
    num_members: int
    num_non_members: int


def run_attack(
    members: Scores,
    non_members: Scores,
    *,
    rng: np.random.Generator,
    false_positive_rate: float = 0.01,
    num_resamples: int = 1000,
) -> Attack:
    """AUC and true positive rate of a score that is higher for members.

    Args:
      members: float64, shape (m,), one score per unit; units are independent.
      non_members: float64, shape (n,).
      rng: of the bootstrap.
      false_positive_rate: with fewer than 1 / rate non-members, the threshold is their largest.
      num_resamples: of the bootstrap.
    """
    area = area_under_curve(members, non_members)
    resampled = [
        area_under_curve(
            rng.choice(members, len(members)), rng.choice(non_members, len(non_members))
        )
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    allowed = math.floor(false_positive_rate * len(non_members))
    threshold = np.sort(non_members)[::-1][allowed]
    num_found = int((members > threshold).sum())
    return Attack(
        auc=Interval(area, float(low), float(high)),
        true_positive_rate=proportion(num_found, len(members)),
        false_positive_rate=false_positive_rate,
        num_members=len(members),
        num_non_members=len(non_members),
    )


def area_under_curve(members: Scores, non_members: Scores) -> float:
    """P(member scores higher) + P(tie) / 2.

    >>> area_under_curve(np.array([2.0, 1.0]), np.array([1.0, 0.0]))
    0.875
    """
    ranks = stats.rankdata(np.concatenate([members, non_members]))
    excess = ranks[: len(members)].sum() - len(members) * (len(members) + 1) / 2
    return float(excess / (len(members) * len(non_members)))


def proportion(num_successes: int, num_trials: int, confidence: float = CONFIDENCE) -> Interval:
    """A share with its Clopper-Pearson interval.

    >>> share = proportion(90, 100)
    >>> round(share.low, 7), round(share.high, 4)
    (0.8237774, 0.951)
    """
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, num_successes, num_trials - num_successes + 1)
    high = stats.beta.ppf(1 - tail, num_successes + 1, num_trials - num_successes)
    return Interval(
        num_successes / num_trials,
        0.0 if num_successes == 0 else float(low),
        1.0 if num_successes == num_trials else float(high),
    )


def mean_interval(values: Scores, confidence: float = CONFIDENCE) -> Interval:
    """A mean with its Student's t interval; one value has an infinite one."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = _t_quantile(len(values) - 1, confidence) * float(stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def difference_interval(left: Scores, right: Scores, confidence: float = CONFIDENCE) -> Interval:
    """mean(left) - mean(right) with Welch's interval; at least two values on each side."""
    parts = [np.var(side, ddof=1) / len(side) for side in (left, right)]
    variance = float(sum(parts))
    difference = float(np.mean(left) - np.mean(right))
    if variance == 0:
        return Interval(difference, difference, difference)
    degrees = variance**2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (left, right), strict=True)
    )
    half = _t_quantile(float(degrees), confidence) * math.sqrt(variance)
    return Interval(difference, difference - half, difference + half)


def user_inference_scores(
    losses: Sequence[Scores], base_losses: Sequence[Scores]
) -> NDArray[np.float64]:
    """T(u) = mean over a user's samples of log(p_theta / p_theta0): the user-level attack.

    Args:
      losses: of each user, the losses of the samples under the adapter, in nats.
      base_losses: the same samples under the base model.

    Reference: Kandpal et al. 2023 (arXiv 2310.09266).
    """
    return np.array(
        [float(np.mean(base - tuned)) for tuned, base in zip(losses, base_losses, strict=True)]
    )


def min_k_score(log_probabilities: Scores, share: float = 0.2) -> float:
    """Mean of the lowest `share` of a text's token log-probabilities; higher for members.

    >>> min_k_score(np.array([-1.0, -5.0, -2.0, -3.0, -4.0]), share=0.4)
    -4.5

    Reference: Shi et al. 2023 (arXiv 2310.16789).
    """
    count = max(1, math.ceil(share * len(log_probabilities)))
    return float(np.mean(np.sort(log_probabilities)[:count]))


def exposure(rank: int, num_candidates: int) -> float:
    """log2 |R| - log2 rank: bits of a secret that the model leaks.

    Without memorisation its mean is 1 / ln 2 = 1.443.

    >>> exposure(1, 1 << 10), exposure(512, 1 << 10)
    (10.0, 1.0)

    Reference: Carlini et al. 2019 (arXiv 1802.08232).
    """
    return math.log2(num_candidates) - math.log2(rank)


def auc_ceiling(epsilon: float, delta: float) -> float:
    """Largest AUC of any membership test of the protected unit under (epsilon, delta)-DP.

    >>> [round(auc_ceiling(e, 1e-5), 3) for e in (0.5, 1, 2, 4)]
    [0.622, 0.731, 0.881, 0.982]
    """
    return 1 - (1 - delta) ** 2 / (1 + math.exp(epsilon))


def true_positive_rate_ceiling(
    epsilon: float, delta: float, false_positive_rate: float = 0.01
) -> float:
    """Largest true positive rate at a false positive rate.

    >>> [round(true_positive_rate_ceiling(e, 1e-5), 3) for e in (0.5, 1, 2, 4)]
    [0.016, 0.027, 0.074, 0.546]
    """
    return min(
        1.0,
        math.exp(epsilon) * false_positive_rate + delta,
        1 - math.exp(-epsilon) * (1 - delta - false_positive_rate),
    )


def advantage_ceiling(epsilon: float, delta: float) -> float:
    """Largest TPR - FPR, and largest expected poisoning gap of a score in [0, 1].

    >>> [round(advantage_ceiling(e, 1e-5), 3) for e in (0.5, 1, 2, 4, 8)]
    [0.245, 0.462, 0.762, 0.964, 0.999]
    """
    return 1 - 2 * (1 - delta) / (math.exp(epsilon) + 1)


def exposure_ceiling(bits: float, epsilon: float, delta: float) -> float:
    """Largest P[exposure >= bits] of a random secret of one protected unit.

    >>> [round(exposure_ceiling(10, e, 1e-5), 4) for e in (0.5, 1, 2, 4, 8)]
    [0.0016, 0.0027, 0.0072, 0.0533, 1.0]
    """
    ceiling: float = math.exp(epsilon) * 2.0**-bits + delta
    return min(1.0, ceiling)


def _t_quantile(degrees: float, confidence: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, degrees))
