"""Privacy loss distributions of mixtures of Gaussians, fast: coins, and cohorts of fixed size.

dp-accounting finds where the loss takes each value of its grid by a search in Python, which takes
minutes at 1e-4. The loss is convex in the point, so Newton's method finds all of them at once; what
the grid is turned into, and how it composes, is dp-accounting's. The tests compare both.
"""

from collections.abc import Callable, Sequence

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld import privacy_loss_distribution as pld
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri

Vector = NDArray[np.float64]

_LOG_TAIL = -50.0  # of the noise, left out on each side and counted as infinite loss
_CHUNK = 1 << 15
_STARTS, _STEPS = 1 << 12, 4


def mixture_pld(
    noise_multiplier: float,
    sensitivities: Sequence[float],
    weights: Sequence[float],
    interval: float,
) -> pld.PrivacyLossDistribution:
    """The privacy loss distribution of sum_i w_i N(c_i, z^2) against N(0, z^2), both directions.

    **Guarantee:** an upper bound of the true distribution (connect-the-dots).

    Args:
      noise_multiplier: z > 0.
      sensitivities: c_i >= 0, at least one above 0.
      weights: w_i > 0, summing to 1.
      interval: discretisation of the privacy loss.

    Reference: Choquette-Choo et al. 2023 (arXiv 2310.15526), corollary 4.7; Doroshenko et al. 2022.
    """
    mixture = _Mixture(noise_multiplier, sensitivities, weights)
    low, high = mixture.reach()
    removed = _connected(mixture.removed, mixture.loss(low), mixture.loss(high), interval)
    added = _connected(mixture.added, -mixture.loss(-low), -mixture.loss(low), interval)
    return pld.PrivacyLossDistribution(removed, added)


def fixed_size_pld(
    noise_multiplier: float, probability: float, interval: float
) -> pld.PrivacyLossDistribution:
    """The privacy loss distribution of a cohort of fixed size, drawn without replacement.

    **Guarantee:** an upper bound under replace-one, also composed with itself and with others.
    With P = N(0, z^2), Q = N(2, z^2) (one user replaced moves the sum by up to 2 C) and q = m / N,
    the divergence at alpha of any two neighbours is at most that of (1 - q) P + q Q from P where
    alpha >= 1, and that of P from (1 - q) P + q Q where alpha < 1. Neither pair alone is enough
    for a composition: the curve of both, which is convex and meets at alpha = 1, is.

    Args:
      noise_multiplier: z > 0, noise standard deviation over the clipping norm C.
      probability: q of one unit to be in the cohort, in (0, 1].
      interval: discretisation of the privacy loss.

    Reference: Zhu, Dong & Wang 2022 (arXiv 2106.08567), theorem 11 and proposition 8; Lebeda et
    al. 2024 (2405.20769) on why one pair does not dominate.
    """
    mixture = _Mixture(noise_multiplier, [0.0, 2.0], [1 - probability, probability])
    low, high = mixture.reach()

    def deltas_of(losses: Vector) -> Vector:
        """The composite curve: alpha = 1 is a point of the grid, so no chord cuts its kink."""
        below = losses < 0
        return np.concatenate([mixture.added(losses[below]), mixture.removed(losses[~below])])

    return pld.PrivacyLossDistribution(
        _connected(deltas_of, -mixture.loss(-low), mixture.loss(high), interval)
    )


def _connected(
    deltas_of: Callable[[Vector], Vector], least: Vector, most: Vector, interval: float
) -> pld_pmf.PLDPmf:
    """Connects the dots of a divergence at e^loss over all losses from `least` to `most`."""
    first, last = int(np.floor(least[0] / interval)), int(np.ceil(most[0] / interval))
    losses: Vector = np.arange(first, last + 1) * np.float64(interval)
    parts = [deltas_of(losses[i : i + _CHUNK]) for i in range(0, len(losses), _CHUNK)]
    # Round-off must not make delta rise with the loss.
    deltas = np.maximum.accumulate(np.clip(np.concatenate(parts), 0, 1)[::-1])[::-1]
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(interval, first, last, deltas)


class _Mixture:
    """The loss log(sum_i w_i N(x; c_i, z^2) / N(x; 0, z^2)), increasing and convex in x."""

    def __init__(self, z: float, sensitivities: Sequence[float], weights: Sequence[float]):
        shifts, shares = np.asarray(sensitivities, float), np.asarray(weights, float)
        self._z, self._shifts, self._shares = z, shifts[shares > 0], shares[shares > 0]
        self._offsets = np.log(self._shares) - self._shifts**2 / (2 * z * z)
        is_zero = self._shifts == 0
        self._floor = float(np.log(self._shares[is_zero].sum())) if is_zero.any() else -np.inf

    def reach(self) -> tuple[Vector, Vector]:
        """Points below and above which either distribution has next to nothing."""
        low = np.array([self._z * ndtri(0.5 * np.exp(_LOG_TAIL))])
        below, above = -low[0], -low[0] + self._shifts.max()
        for _ in range(60):
            middle = (below + above) / 2
            tail = self._shares @ ndtr((self._shifts - middle) / self._z)
            below, above = (middle, above) if tail > 0.5 * np.exp(_LOG_TAIL) else (below, middle)
        return low, np.array([above])

    def loss(self, x: Vector) -> Vector:
        """float64, shape of x."""
        values: Vector = logsumexp(
            self._offsets + np.multiply.outer(x, self._shifts) / self._z**2, axis=1
        )
        return values

    def inverse(self, losses: Vector) -> Vector:
        """Where the loss takes these values, which are above its infimum and ascending."""
        low, high = -self._z, self._z
        while self.loss(np.array([low]))[0] > losses[0] and low > -1e8:
            low *= 2
        while self.loss(np.array([high]))[0] < losses[-1] and high < 1e8:
            high *= 2
        starts = np.linspace(low, high, _STARTS)
        x = np.interp(losses, self.loss(starts), starts)
        for _ in range(_STEPS):
            terms = self._offsets + np.multiply.outer(x, self._shifts) / self._z**2
            value = logsumexp(terms, axis=1)
            slope = np.exp(terms - value[:, None]) @ self._shifts / self._z**2
            x = np.clip(x + (losses - value) / np.maximum(slope, 1e-300), low, high)
        return x

    def removed(self, losses: Vector) -> Vector:
        """Hockey-stick divergence of the mixture from the Gaussian at e^loss."""
        deltas = -np.expm1(np.minimum(losses, 0))
        if not (inside := losses > self._floor).any():
            return deltas
        x = self.inverse(losses[inside])
        mass = ndtr((self._shifts - x[:, None]) / self._z) @ self._shares
        deltas[inside] = mass - np.exp(losses[inside] + log_ndtr(-x / self._z))
        return deltas

    def added(self, losses: Vector) -> Vector:
        """Hockey-stick divergence of the Gaussian from the mixture at e^loss."""
        deltas = np.zeros_like(losses)
        if not (inside := -losses > self._floor).any():
            return deltas
        x = self.inverse(-losses[inside][::-1])[::-1]
        logs = log_ndtr((x[:, None] - self._shifts) / self._z)
        deltas[inside] = ndtr(x / self._z) - np.exp(
            losses[inside] + logsumexp(logs, b=self._shares, axis=1)
        )
        return deltas
