"""One update -> a point of the integer grid with norm <= C exactly, or zero."""

import math

import numpy as np
from numpy.typing import NDArray

# Products of integers below 2^24 fill 48 bits: 2^14 of them add up below 2^63.
_CHUNK = 1 << 14
_SHRINK = 1 - 2.0**-40


def clip_to_grid(
    update: NDArray[np.floating], *, clipping_norm: float, grid_steps: int
) -> NDArray[np.int64]:
    """Clips an update to L2 norm C and truncates it toward zero onto K integer steps per C.

    **Guarantee:** the sum of the squared integers is at most K^2, checked in exact arithmetic; an
    update that cannot be brought there contributes zero. Truncation only shrinks, so no correction
    for the dimension is needed.

    **Edge cases:**

    | update | result |
    |---|---|
    | any NaN or infinity | zero |
    | all zero | zero |
    | norm <= C | truncated, not scaled: off by less than one step per entry |
    | squares beyond float64 (entries above about 1e154) | zero |

    Args:
      update: float32 or float64, shape (P,); the norm is taken in float64.
      clipping_norm: C > 0.
      grid_steps: K, up to 2^24.

    Returns:
      int64, shape (P,); times C / K it is the clipped update.

    Reference: Canonne, Kamath & Steinke 2020 (integer noise); Mironov 2012 (why not floats).

    >>> clip_to_grid(np.array([3.0, 4.0]), clipping_norm=1.0, grid_steps=1024)
    array([614, 819])
    >>> clip_to_grid(np.array([np.nan, 4.0]), clipping_norm=1.0, grid_steps=1024)
    array([0, 0])
    """
    # A floating-point warning would tell the log that some user's update is odd.
    with np.errstate(all="ignore"):
        return _clip(update.astype(np.float64), clipping_norm, grid_steps)


def clip_with_bit(
    update: NDArray[np.floating], *, clipping_norm: float, grid_steps: int, bit_steps: int
) -> NDArray[np.int64]:
    """The clipped update and one more coordinate: whether it had to be clipped.

    **Guarantee:** the sum of the squared integers, the bit's included, is at most K^2: the update
    gets floor((K^2 - B^2)^(1/2)) steps per C.

    **Edge cases:**

    | update | bit |
    |---|---|
    | norm <= C | +B |
    | norm > C | -B |
    | any NaN or infinity | 0, and the update is zero |

    Args:
      update: float32 or float64, shape (P,).
      clipping_norm: C > 0, of this round.
      grid_steps: K.
      bit_steps: B, 0 < B < K.

    Returns:
      int64, shape (P + 1,).

    >>> clip_with_bit(np.array([3.0, 4.0]), clipping_norm=1.0, grid_steps=1024, bit_steps=256)
    array([ 594,  792, -256])
    """
    steps = math.isqrt(grid_steps**2 - bit_steps**2)
    with np.errstate(all="ignore"):
        values = update.astype(np.float64)
        norm = _norm(values)
        point = _clip(values, clipping_norm, steps)
    bit = 0 if not math.isfinite(norm) else bit_steps if norm <= clipping_norm else -bit_steps
    return np.append(point, bit)


def _norm(values: NDArray[np.float64]) -> float:
    # Not np.linalg.norm: the order in which BLAS adds depends on its number of threads.
    return float(np.sqrt(np.sum(np.square(values))))


def _clip(values: NDArray[np.float64], clipping_norm: float, grid_steps: int) -> NDArray[np.int64]:
    zero = np.zeros(values.shape, dtype=np.int64)
    norm = _norm(values)
    if not math.isfinite(norm):  # as with any NaN or infinity; decided before min() sees it
        return zero
    scale = min(1.0, clipping_norm / norm) if norm > 0 else 1.0
    for shrink in (1.0, _SHRINK):
        point = values * (scale * shrink)
        point /= clipping_norm
        point *= grid_steps
        np.trunc(point, out=point)
        if max(point.max(initial=0.0), -point.min(initial=0.0)) <= grid_steps:
            integers = point.astype(np.int64)
            if is_within(integers, grid_steps):
                return integers
    return zero


def is_within(point: NDArray[np.int64], limit: int) -> bool:
    """Whether the L2 norm of an integer vector is at most `limit`, in exact arithmetic.

    Args:
      point: int64, shape (P,).
      limit: any non-negative integer; K for one user, the number of users times K for a sum.
    """
    if point.size == 0:
        return True
    if max(int(point.max()), -int(point.min())) > limit:  # first, so that squares cannot overflow
        return False
    return sum_of_squares(point) <= limit * limit


def sum_of_squares(point: NDArray[np.int64]) -> int:
    """The exact sum of squares of an int64 vector, as a Python integer; shape (P,)."""
    # Squares of integers add up without any rounding while the sum stays below 2^53, in whatever
    # order; one that has gone beyond does not come back. Not np.dot: waking the threads of BLAS
    # costs a hundred times as much as the squares of an adapter do.
    wide = point.astype(np.float64)
    if (squares := float(np.square(wide, out=wide).sum())) < 1 << 52:
        return int(squares)
    magnitude = np.abs(point).view(np.uint64)  # |-2^63| wraps in int64 and is right in uint64
    low, middle, top = (
        ((magnitude >> np.uint64(shift)) & np.uint64(0xFFFFFF)).astype(np.int64)
        for shift in (0, 24, 48)
    )
    if not (middle.any() or top.any()):
        return _dot(low, low)
    return (
        _dot(low, low)
        + (_dot(low, middle) << 25)
        + (_dot(low, top) << 49)
        + (_dot(middle, middle) << 48)
        + (_dot(middle, top) << 73)
        + (_dot(top, top) << 96)
    )


def _dot(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """Exact dot product of entries in [0, 2^24): chunks in int64, added as Python integers."""
    return sum(
        int(np.dot(left[start : start + _CHUNK], right[start : start + _CHUNK]))
        for start in range(0, len(left), _CHUNK)
    )
