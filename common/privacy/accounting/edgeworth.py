"""Edgeworth estimates of epsilon: a diagnostic beside the accountant, never a guarantee.

The privacy loss of many rounds is nearly Gaussian; an Edgeworth series corrects its distribution
function by skewness and kurtosis. It is informative for q sqrt(T) above about 1 and epsilon up to
4, and can be far below the truth elsewhere, so no plan and no ledger takes it for an accountant.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import roots_laguerre
from scipy.stats import norm

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.epsilon import epsilon
from feddp.common.privacy.mechanism.events import Charges, PoissonGaussianEvent

ORDERS = (1, 2, 3)
_TERMS = (0, 1, 3, 6)  # of the series, by order; order 0 is the central limit theorem
_REACH = 14.0  # standard deviations of the quadrature
_NODES, _WEIGHTS = roots_laguerre(60)


@dataclass(frozen=True)
class Cumulants:
    """Cumulants of a privacy loss: mean, variance, and the standardised third to fifth."""

    mean: float
    variance: float
    skewness: float
    kurtosis: float
    fifth: float


def edgeworth_epsilon(
    event: PoissonGaussianEvent,
    num_charges: int,
    delta: float,
    *,
    order: int = 3,
    is_integral: bool = True,
) -> float:
    """An estimate of epsilon, above or below the truth; the larger of both directions.

    Args:
      event: with one coin.
      num_charges: rounds.
      delta: in (0, 1).
      order: 1 to 3; 0 is the central limit theorem.
      is_integral: delta as one integral over the loss, whose error is not multiplied by e^epsilon;
        otherwise as the difference of two distribution functions.

    Raises:
      ConfigError: the event has several coins.

    Reference: Wang et al. 2022 (arXiv 2206.04236).

    >>> round(edgeworth_epsilon(PoissonGaussianEvent(0.01, 1.0), 1000, 1e-5), 3)
    1.812
    """
    if event.num_coins != 1:
        raise ConfigError([f"No Edgeworth estimate is known for {event}."])
    without, with_unit = (_cumulants(event, num_charges, has_unit=has) for has in (False, True))
    delta_at = _integral_delta if is_integral else _two_term_delta

    def excess(value: float) -> float:
        """Delta at an epsilon, above what is allowed."""
        return delta_at(value, without, with_unit, order) - delta

    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-10)) if excess(0.0) > 0 else 0.0


def cross_check_lines(charges: Charges, *, delta: float, relation: str) -> list[str]:
    """What `feddp plan` prints for privacy.cross-check = "edgeworth"; the residual against PLD.

    Args:
      charges: of a plan; one kind of event with one coin has an estimate, others a line that none
        is known.
      delta: at which epsilon is read.
      relation: one of `events.RELATIONS`.
    """
    event, count = charges[0]
    if len(charges) > 1 or not isinstance(event, PoissonGaussianEvent) or event.num_coins > 1:
        return ["Edgeworth: no estimate for this mechanism"]
    bound = epsilon(charges, delta=delta, relation=relation)
    lines = []
    for order in ORDERS:
        value = edgeworth_epsilon(event, count, delta, order=order)
        residual = 100 * (value / bound - 1)
        lines.append(
            f"Edgeworth order {order}: epsilon about {value:.3f}, {residual:+.1f} % from the PLD "
            f"bound {bound:.3f} (estimate, not a guarantee)"
        )
    return lines


def _cumulants(event: PoissonGaussianEvent, num_charges: int, *, has_unit: bool) -> Cumulants:
    """Cumulants of the summed loss log(with / without) under either distribution.

    By the trapezoid rule, which converges geometrically for densities like these.
    """
    q, shift = event.sampling_probability, 1 / event.noise_multiplier
    x = np.linspace(-_REACH, shift + _REACH, 1 << 15)
    loss = np.logaddexp(np.log1p(-q) if q < 1 else -np.inf, np.log(q) + shift * x - shift**2 / 2)
    density = norm.pdf(x)
    if has_unit:
        density = (1 - q) * density + q * norm.pdf(x - shift)
    weights = density / density.sum()
    mean = float(weights @ loss)
    second, third, fourth, fifth = (float(weights @ (loss - mean) ** k) for k in (2, 3, 4, 5))
    variance = num_charges * second
    return Cumulants(
        mean=num_charges * mean,
        variance=variance,
        skewness=num_charges * third / variance**1.5,
        kurtosis=num_charges * (fourth - 3 * second**2) / variance**2,
        fifth=num_charges * (fifth - 10 * second * third) / variance**2.5,
    )


def _correction(x: NDArray[np.float64], c: Cumulants, order: int) -> NDArray[np.float64]:
    """What the series subtracts from the normal distribution function."""
    s, k = c.skewness, c.kurtosis
    terms = (
        s / 6 * (x**2 - 1),
        k / 24 * (x**3 - 3 * x),
        s**2 / 72 * (x**5 - 10 * x**3 + 15 * x),
        c.fifth / 120 * (x**4 - 6 * x**2 + 3),
        s * k / 144 * (x**6 - 15 * x**4 + 45 * x**2 - 15),
        s**3 / 1296 * (x**8 - 28 * x**6 + 210 * x**4 - 420 * x**2 + 105),
    )
    total = np.zeros_like(x)
    for term in terms[: _TERMS[order]]:
        total = total + term
    corrected: NDArray[np.float64] = norm.pdf(x) * total
    return corrected


def _above(y: NDArray[np.float64], c: Cumulants, order: int) -> NDArray[np.float64]:
    """1 - F(y)."""
    x = (y - c.mean) / math.sqrt(c.variance)
    tail: NDArray[np.float64] = norm.sf(x) + _correction(x, c, order)
    return tail


def _below(y: NDArray[np.float64], c: Cumulants, order: int) -> NDArray[np.float64]:
    """F(y)."""
    x = (y - c.mean) / math.sqrt(c.variance)
    tail: NDArray[np.float64] = norm.cdf(x) - _correction(x, c, order)
    return tail


def _integral_delta(value: float, without: Cumulants, with_unit: Cumulants, order: int) -> float:
    removed = _WEIGHTS @ _above(value + _NODES, with_unit, order)
    added = _WEIGHTS @ _below(-value - _NODES, without, order)
    return float(max(removed, added))


def _two_term_delta(value: float, without: Cumulants, with_unit: Cumulants, order: int) -> float:
    up, down = np.array([value]), np.array([-value])
    factor = math.exp(value)
    removed = _above(up, with_unit, order) - factor * _above(up, without, order)
    added = _below(down, without, order) - factor * _below(down, with_unit, order)
    return float(max(removed[0], added[0]))
