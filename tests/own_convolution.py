"""Epsilon by other means: the loss as a histogram over the noise, composed by one own FFT.

Nothing here is an accountant's: two densities, a fine grid of points, the mass and the loss of each
cell. The mass of a cell is split between the two nearest losses of the grid, so that its mean is
kept: an estimate, good to about a thousandth, and no bound. Before the transform the masses are
tilted by e^(t loss), with t where Chernoff's bound is best, so that the far tail keeps its digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, ndtr

Vector = NDArray[np.float64]
_POINTS, _REACH, _DEVIATIONS = 1_000_000, 14, 25


@dataclass(frozen=True)
class Losses:
    """Masses at (first + i) * step."""

    first: int
    masses: Vector
    step: float

    @property
    def values(self) -> Vector:
        return (self.first + np.arange(len(self.masses))) * self.step


def mixture_losses(
    z: float, shifts: Sequence[float], weights: Sequence[float], step: float
) -> tuple[Losses, Losses]:
    """Of the mixture of N(shift, z^2) against N(0, z^2), and of the other direction."""
    edges = np.linspace(-_REACH * z, max(shifts) + _REACH * z, _POINTS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    logs = np.log(weights)[:, None] + [c * (middles - c / 2) / z**2 for c in shifts]
    loss = logsumexp(logs, axis=0)
    mixed = sum(w * _cells(edges - c, z) for c, w in zip(shifts, weights, strict=True))
    return _histogram(loss, np.asarray(mixed), step), _histogram(-loss, _cells(edges, z), step)


def fixed_size_losses(z: float, q: float, step: float) -> Losses:
    """Both pairs of a cohort of fixed size, each on its side of 0; the rest of the mass is at 0."""
    shifts, weights = ([0.0, 2.0], [1 - q, q]) if q < 1 else ([2.0], [1.0])
    removed, added = mixture_losses(z, shifts, weights, step)
    last = removed.first + len(removed.masses)
    masses = np.zeros(last - added.first)
    below, above = added.values < 0, removed.values > 0
    masses[: below.sum()] = added.masses[below]
    masses[len(masses) - above.sum() :] = removed.masses[above]
    masses[-added.first] += 1 - masses.sum()
    return Losses(added.first, masses, step)


def epsilon_of(parts: Sequence[tuple[Losses, int]], delta: float) -> float:
    """Epsilon at delta of all parts composed, each so many times."""
    step = parts[0][0].step

    def cumulant(tilt: float) -> float:
        return sum(
            times * float(logsumexp(tilt * losses.values, b=losses.masses))
            for losses, times in parts
        )

    def chernoff(log_tilt: float) -> float:
        return (cumulant(np.exp(log_tilt)) - np.log(delta)) / np.exp(log_tilt)

    tilt = float(np.exp(minimize_scalar(chernoff, bounds=(-7, 7), method="bounded").x))
    width, mean, variance = 0, 0.0, 0.0
    tilted = []
    for losses, times in parts:
        exponents = tilt * losses.values
        weights = losses.masses * np.exp(exponents - logsumexp(exponents, b=losses.masses))
        center = float(weights @ losses.values)
        mean += times * center
        variance += times * float(weights @ (losses.values - center) ** 2)
        width += len(weights)
        tilted.append((losses.first, weights, times))
    size = 1 << int(2 * _DEVIATIONS * variance**0.5 / step + width).bit_length()
    product = np.ones(size // 2 + 1, dtype=complex)
    start = 0
    for first, weights, times in tilted:
        product *= np.fft.rfft(weights, size) ** times
        start += first * times
    composed = np.maximum(np.fft.irfft(product, size), 0)
    # The transform wraps around: put each place where it is nearest to the mean.
    places = start + np.arange(size)
    places += size * np.rint((mean / step - places) / size).astype(np.int64)
    order = np.argsort(places)
    values, weights = places[order] * step, composed[order]
    logs = cumulant(tilt) - tilt * values

    def delta_at(epsilon: float) -> float:
        above = values > epsilon
        return float((weights[above] * np.exp(logs[above])) @ -np.expm1(epsilon - values[above]))

    low, high = 0.0, float(values[-1])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > delta else (low, middle)
    return high


def _cells(edges: Vector, z: float) -> Vector:
    """Mass of N(0, z^2) between neighbouring edges, with all digits in both tails."""
    left, right = ndtr(edges / z), ndtr(-edges / z)
    return np.where(edges[:-1] < 0, np.diff(left), -np.diff(right))


def _histogram(loss: Vector, mass: Vector, step: float) -> Losses:
    place = loss / step
    low = np.floor(place).astype(np.int64)
    share = place - low
    first = int(low.min())
    masses = np.bincount(low - first, mass * (1 - share), int(low.max()) - first + 2)
    masses += np.bincount(low - first + 1, mass * share, len(masses))
    return Losses(first, masses, step)
