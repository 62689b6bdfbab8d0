"""Lower-triangular Toeplitz matrices for correlated noise: sensitivity, error, best coefficients.

A matrix C is its first column c, float64 of shape (rows,). Rows t of C x get independent noise; the
release C^-1 (C x + noise) = x + C^-1 noise has correlated noise whose prefix sums stay small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, signal, special

Coefficients = NDArray[np.float64]
_Number = TypeVar("_Number", np.float64, np.int64)

_MAX_ITERATIONS = 200
_STARTING_DECAYS = (0.5, 0.2, 0.9)  # of the second and later buffers
_MARGIN = 1e-6  # keeps decays and their sums away from the borders of validity


def square_root(num_rows: int) -> Coefficients:
    """The matrix whose square is the prefix sum: c_t = (2t choose t) / 4^t.

    Reference: Fichtenberger, Henzinger & Upadhyay 2023 (arXiv 2202.11205).

    >>> square_root(5).tolist()
    [1.0, 0.5, 0.375, 0.3125, 0.2734375]
    """
    steps = np.arange(1, num_rows)
    return np.cumprod(np.concatenate([[1.0], (2 * steps - 1) / (2 * steps)]))


@dataclass(frozen=True)
class Blt:
    """A buffered linear Toeplitz matrix: c_0 = 1, c_t = sum of scale * decay^(t-1).

    **Guarantee:** the coefficients are positive and do not increase; all of the inverse but the
    first are negative and shrink towards zero, so that the correlated noise stays bounded.

    Attributes:
      decays: in (0, 1), one per buffer.
      scales: above 0; their sum, and that of scale / decay, are below 1.

    Reference: Dvijotham et al. 2024 (arXiv 2404.16706); McMahan et al. 2024 (2408.08868).
    """

    decays: tuple[float, ...]
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        pairs = list(zip(self.decays, self.scales, strict=True))
        if not pairs or not all(0 < decay < 1 and scale > 0 for decay, scale in pairs):
            raise ValueError("a buffer needs a decay in (0, 1) and a scale > 0")
        if sum(self.scales) >= 1 or sum(scale / decay for decay, scale in pairs) >= 1:
            raise ValueError("the scales, and the scales over their decays, must sum below 1")

    def coefficients(self, num_rows: int) -> Coefficients:
        """The first column.

        >>> Blt(decays=(0.9, 0.5), scales=(0.3, 0.2)).coefficients(5).round(4).tolist()
        [1.0, 0.5, 0.37, 0.293, 0.2437]
        """
        powers = np.power.outer(np.array(self.decays), np.arange(num_rows - 1))
        return np.concatenate([[1.0], np.array(self.scales) @ powers])


def inverse(coefficients: Coefficients) -> Coefficients:
    """The first column of C^-1, by the recursion that divides power series.

    >>> inverse(square_root(4)).tolist()
    [1.0, -0.5, -0.125, -0.0625]
    """
    impulse = np.zeros(len(coefficients))
    impulse[0] = 1.0
    result: Coefficients = signal.lfilter([1.0], coefficients, impulse)
    return result


def quantise(coefficients: Coefficients, *, shift: int) -> tuple[int, ...]:
    """The nearest multiples of 2^-shift, as integers, without the zeros at the end.

    Rounding is monotone, so coefficients that do not increase still do not. With a shift of 8 the
    prefix errors of all matrices in this file change by less than 0.2 %.

    >>> quantise(square_root(5), shift=8)
    (256, 128, 96, 80, 70)
    """
    scaled = np.rint(coefficients * (1 << shift)).astype(np.int64)
    return tuple(np.trim_zeros(scaled, trim="b").tolist())


def worst_column(
    coefficients: NDArray[_Number], *, separation: int, max_participations: int
) -> NDArray[_Number]:
    """What one user adds to the rows in the worst case: sum over j < k of C's column j b.

    **Guarantee:** when the coefficients are not negative and do not increase, no other k rounds
    that are b or more apart give a larger norm, whatever vectors of norm at most 1 the user sends.
    Integers stay integers.

    **Edge cases:** participations beyond the last row add nothing; with one participation it is
    the first column, the one of largest norm.

    Args:
      coefficients: c_0, c_1, ..., of any number type, shape (rows,).
      separation: b, fewest rounds between two participations of a user.
      max_participations: k, of a user over all rows.

    Returns:
      Of the same type, shape (rows,).

    Raises:
      ValueError: coefficients that are negative or increase; separation or participations below 1.

    Reference: Kalinin & Lampert 2024 (arXiv 2405.13763).
    """
    if separation < 1 or max_participations < 1:
        raise ValueError("separation and participations must be at least 1")
    if coefficients[-1] < 0 or np.any(np.diff(coefficients) > 0):
        raise ValueError("coefficients must not be negative and must not increase")
    return _sum_of_columns(coefficients, separation, max_participations)


def sensitivity(coefficients: Coefficients, *, separation: int, max_participations: int) -> float:
    """The most that one user moves C x: an L2 norm, in units of the clipping norm.

    Args: see `worst_column`, whose norm it is.
    """
    column = worst_column(
        coefficients, separation=separation, max_participations=max_participations
    )
    return float(np.linalg.norm(column))


def squared_errors(coefficients: Coefficients) -> NDArray[np.float64]:
    """Variance of every prefix sum of C^-1 noise, for unit noise; float64, shape (rows,)."""
    return np.cumsum(np.square(np.cumsum(inverse(coefficients))))


@dataclass(frozen=True)
class PrefixError:
    """Root mean square error of the prefix sums, per coordinate and unit of z * clipping norm.

    Attributes:
      mean: over the rows.
      maximum: of the worst row.
    """

    mean: float
    maximum: float


def prefix_error(
    coefficients: Coefficients, *, separation: int, max_participations: int
) -> PrefixError:
    """Sensitivity times the error of unit noise.

    Args: see `worst_column`.

    >>> error = prefix_error(square_root(256), separation=16, max_participations=16)
    >>> round(error.mean, 3), round(error.maximum, 3)
    (21.632, 22.947)
    """
    errors = squared_errors(coefficients)
    factor = sensitivity(coefficients, separation=separation, max_participations=max_participations)
    return PrefixError(factor * float(np.sqrt(errors.mean())), factor * float(np.sqrt(errors[-1])))


def best_banded(
    *, num_rows: int, separation: int, max_participations: int, num_bands: int
) -> Coefficients:
    """The coefficients with `num_bands` bands and the least mean error of the prefix sums.

    **Guarantee:** deterministic; positive, not increasing, and never worse than the square root
    cut to the same bands. Participations do not overlap in any row.

    **Edge cases:** one band is independent noise.

    Args:
      num_rows: of the whole run.
      separation: fewest rounds between two participations of a user.
      max_participations: of a user; 1 gives the matrix for cyclic Poisson sampling.
      num_bands: coefficients that are not zero, at most the separation.

    Returns:
      float64, shape (num_rows,), c_0 = 1.

    Raises:
      ValueError: more bands than separation or rows.

    Reference: Choquette-Choo et al. 2023 (arXiv 2306.08153).
    """
    if not 1 <= num_bands <= min(separation, num_rows):
        raise ValueError(
            f"{num_bands} bands: must be in 1 .. {min(separation, num_rows)}, the separation or "
            "the rows"
        )

    def pad(free: NDArray[np.float64]) -> Coefficients:
        """All coefficients, shape (num_rows,), from the free ones."""
        return np.concatenate([[1.0], free, np.zeros(num_rows - num_bands)])

    def loss(free: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Log loss and its gradient over the free coefficients."""
        value, gradient = _log_loss(pad(free), separation, max_participations)
        return value, gradient[1:num_bands]

    start = square_root(num_bands)[1:]
    # A non-increasing answer is what the proof of the sensitivity needs.
    found = np.minimum.accumulate(_minimise(loss, start, bounds=[(0.0, 1.0)] * len(start)))
    options = [pad(found), pad(start)]
    return min(options, key=lambda made: _log_loss(made, separation, max_participations)[0])


def best_blt(*, num_rows: int, separation: int, max_participations: int, num_buffers: int) -> Blt:
    """The buffered matrix with the least mean error of the prefix sums.

    **Guarantee:** deterministic, and valid as `Blt` requires.

    Args:
      num_rows: of the whole run, at least 2.
      separation: fewest rounds between two participations of a user.
      max_participations: of a user.
      num_buffers: 1 to 4; more than 2 gain next to nothing.

    Reference: McMahan et al. 2024 (arXiv 2408.08868).
    """
    if not 1 <= num_buffers <= 1 + len(_STARTING_DECAYS) or num_rows < 2:
        raise ValueError("a BLT has 1 to 4 buffers and at least 2 rows")

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Log loss and its gradient over the parameters."""
        return _blt_loss(parameters, num_rows, separation, max_participations)

    first = max(1 - 1 / (0.7 * separation), 0.3)
    decays = np.array([first, *_STARTING_DECAYS[: num_buffers - 1]])
    start = np.concatenate([special.logit(decays), [0.0], np.zeros(num_buffers)])
    decays, scales = _unpack(_minimise(loss, start))
    excess = max(1.0, float(np.sum(scales / decays)) / (1 - _MARGIN))
    return Blt(tuple(decays.tolist()), tuple((scales / excess).tolist()))


def _minimise(
    loss: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    start: NDArray[np.float64],
    bounds: list[tuple[float, float]] | None = None,
) -> NDArray[np.float64]:
    if not len(start):
        return start
    options = {"maxiter": _MAX_ITERATIONS, "ftol": 1e-10, "gtol": 1e-7}
    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    result: NDArray[np.float64] = found.x
    return result


def _log_loss(
    coefficients: Coefficients, separation: int, max_participations: int
) -> tuple[float, NDArray[np.float64]]:
    """log(mean squared error * sensitivity^2) and its gradient by the coefficients."""
    num_rows = len(coefficients)
    inverted = inverse(coefficients)
    sums = np.cumsum(inverted)
    weights = 1 - np.arange(num_rows) / num_rows  # of squared sums in the mean over prefixes
    error = float(weights @ np.square(sums))
    by_inverse = np.cumsum((2 * weights * sums)[::-1])[::-1]
    # The inverse moves by -(inverse * change * inverse), products of power series.
    square = signal.fftconvolve(inverted, inverted)[:num_rows]
    by_error = -signal.fftconvolve(by_inverse, square[::-1])[num_rows - 1 :]
    column = _sum_of_columns(coefficients, separation, max_participations)
    norm = float(column @ column)
    by_norm = np.zeros(num_rows)
    for start in range(0, num_rows, separation)[:max_participations]:
        by_norm[: num_rows - start] += 2 * column[start:]
    return float(np.log(error * norm)), by_error / error + by_norm / norm


def _sum_of_columns(
    coefficients: NDArray[_Number], separation: int, max_participations: int
) -> NDArray[_Number]:
    column = np.zeros_like(coefficients)
    for start in range(0, len(coefficients), separation)[:max_participations]:
        column[start:] += coefficients[: len(coefficients) - start]
    return column


def _unpack(
    parameters: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Decays and scales; the scales sum below 1, so the coefficients never increase."""
    num_buffers = (len(parameters) - 1) // 2
    decays = _MARGIN + (1 - 2 * _MARGIN) * special.expit(parameters[:num_buffers])
    share = special.softmax(parameters[num_buffers + 1 :])
    return decays, (1 - _MARGIN) * special.expit(parameters[num_buffers]) * share


def _blt_loss(
    parameters: NDArray[np.float64], num_rows: int, separation: int, max_participations: int
) -> tuple[float, NDArray[np.float64]]:
    """The loss of a buffered matrix and its gradient by the free parameters."""
    num_buffers = (len(parameters) - 1) // 2
    decays, scales = _unpack(parameters)
    steps = np.arange(num_rows - 1)
    powers = np.power.outer(decays, steps)
    coefficients = np.concatenate([[1.0], scales @ powers])
    value, gradient = _log_loss(coefficients, separation, max_participations)
    by_scale = powers @ gradient[1:]
    by_decay = scales * ((powers * steps / decays[:, None]) @ gradient[1:])
    curve = special.expit(parameters[:num_buffers])
    sigmoid = special.expit(parameters[num_buffers])
    inner = float(scales @ by_scale)
    total = (1 - _MARGIN) * sigmoid
    by_share = scales * by_scale - scales / total * inner
    return value, np.concatenate(
        [
            by_decay * (1 - 2 * _MARGIN) * curve * (1 - curve),
            [inner * (1 - sigmoid)],
            by_share,
        ]
    )
