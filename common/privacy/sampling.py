"""Poisson sampling where the users are: one independent coin per user and round."""

import hashlib
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Coins = Callable[[NDArray[np.uint64]], NDArray[np.uint64]]

_COIN_RANGE = 1 << 64


def draw_cohort(keys: NDArray[np.uint64], probability: float, coins: Coins) -> NDArray[np.int64]:
    """Indices of the users whose coin falls below the probability.

    **Guarantee:** every user is in with probability floor(q * 2^64) / 2^64 <= q, independently of
    all others, when the coins are independent and uniform on 64 bits.

    **Edge cases:**

    | q | cohort |
    |---|---|
    | 1 | everyone |
    | below 2^-64 | nobody |
    | any, without users | empty |

    Args:
      keys: uint64, shape (users,), one per user.
      probability: q, in (0, 1].
      coins: `fresh_coins`, or `seeded_coins(seed, round)`.

    Returns:
      int64, ascending.
    """
    if not 0 < probability <= 1:
        raise ValueError(f"sampling probability {probability}: must be in (0, 1]")
    threshold = int(probability * _COIN_RANGE)  # exact: a product by a power of two, then a floor
    if threshold >= _COIN_RANGE:
        return np.arange(len(keys), dtype=np.int64)
    return np.flatnonzero(coins(keys) < np.uint64(threshold))


def fresh_coins(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One uint64 per user from the operating system's entropy; used once, never kept."""
    return np.frombuffer(os.urandom(8 * len(keys)), dtype=np.uint64)


def seeded_coins(seed: int, round: int) -> Coins:
    """Coins that depend on (seed, round, user) alone, for repeatable runs. Not private.

    Nothing else enters, so how the users are spread over nodes does not change who is drawn.
    """

    def coins(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return np.fromiter(
            (_mix(b"coin", seed, round, int(key)) for key in keys), dtype=np.uint64, count=len(keys)
        )

    return coins


def training_rng(seed: int | None, round: int, key: int) -> np.random.Generator:
    """The generator of one user's minibatches; never of coins or noise.

    Args:
      seed: None is fresh entropy; a number makes it a function of (seed, round, key) alone.
      round: from 1.
      key: the user's.
    """
    if seed is None:
        return np.random.default_rng()
    return np.random.default_rng(_mix(b"local", seed, round, key))


def _mix(purpose: bytes, seed: int, round: int, key: int) -> int:
    content = f"{seed}/{round}/{key}".encode()
    digest = hashlib.blake2b(content, digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "big")
