"""Who takes part in a round: a rule that owns its relation, and the coins that decide it."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feddp.common.errors import ConfigError
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    REPLACE_ONE,
    Event,
    FixedSizeGaussianEvent,
    PoissonGaussianEvent,
)
from feddp.common.privacy.mechanism.participation import is_turn, slots

Coins = Callable[[NDArray[np.uint64]], NDArray[np.uint64]]

_COIN_RANGE = 1 << 64
# Without the number that was found: only the node's operator may know it.
_NOT_ALL = (
    'privacy.mechanism = "fixed-size": one node must hold exactly the declared {} units. Declare '
    'their exact number, or take privacy.mechanism = "poisson".'
)
_SALT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Draw:
    """How a node draws its units in a round: what a request tells it of the sampler.

    Attributes:
      probability: of a unit's coin, in (0, 1].
      cohort_size: 0, or the exact number of units to draw instead, from one node that has them all.
      num_units: 0, or how many there are in all where the cohort has a fixed size.
      separation: units take part in every so many rounds only; 1 is all rounds.
      salt: public; spreads the units over the rounds of a separation.
    """

    probability: float = 1.0
    cohort_size: int = 0
    num_units: int = 0
    separation: int = 1
    salt: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError("sampling probability must be in (0, 1]")
        if not 0 <= self.cohort_size <= self.num_units or self.separation < 1:
            raise ValueError("cohort size must be >= 0 and at most all units, separation >= 1")
        if self.cohort_size and (self.separation > 1 or self.probability < 1):
            raise ValueError("a cohort of fixed size is drawn from all units, without coins")
        if self.separation > 1 and not _SALT.fullmatch(self.salt):
            raise ValueError("a separation needs a salt of 64 hexadecimal digits")

    def units(self, keys: NDArray[np.uint64], round: int, coins: Coins) -> NDArray[np.int64]:
        """Indices of the units that take part, int64, ascending.

        Raises:
          ConfigError: a cohort of fixed size, and not exactly `num_units` units to draw from. Of
            fewer each would be drawn more often than is accounted for.
        """
        if self.cohort_size:
            if len(keys) != self.num_units:
                raise ConfigError([_NOT_ALL.format(self.num_units)])
            return draw_fixed_size(keys, self.cohort_size, coins)
        if self.separation == 1:
            return draw_cohort(keys, self.probability, coins)
        places = slots(keys, salt=bytes.fromhex(self.salt), separation=self.separation)
        turn = np.flatnonzero(is_turn(places, row=round, separation=self.separation))
        return turn[draw_cohort(keys[turn], self.probability, coins)]


class Sampler(Protocol):
    """Who takes part in a round."""

    @property
    def draw(self) -> Draw:
        """What a request tells the nodes."""
        ...

    @property
    def relation(self) -> str:
        """The neighbouring relation under which `event` is the cost."""
        ...

    def mean_cohort(self, num_units: int) -> float:
        """Units of a round, on average over the coins."""
        ...

    def event(self, noise_multiplier: float) -> Event:
        """The cost of one round with noise of so many clipping norms."""
        ...


@dataclass(frozen=True)
class PoissonSampler:
    """One independent coin per unit and round.

    Attributes:
      probability: q, in (0, 1].
      num_coins: most coins of one user: one per node that holds the user's data, or one per
        example where examples are drawn.
      num_releases: releases of a round that have coins and noise of their own: see the event.
    """

    probability: float
    num_coins: int = 1
    num_releases: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1 or min(self.num_coins, self.num_releases) < 1:
            raise ValueError("sampling probability must be in (0, 1], coins at least 1")

    @property
    def draw(self) -> Draw:
        """A coin per unit."""
        return Draw(probability=self.probability)

    @property
    def relation(self) -> str:
        """Add or remove one user, whose coins are independent of all others."""
        return ADD_OR_REMOVE_ONE

    def mean_cohort(self, num_units: int) -> float:
        """q N."""
        return self.probability * num_units

    def event(self, noise_multiplier: float) -> Event:
        """A Poisson-sampled Gaussian; a mixture of Gaussians for several coins."""
        return PoissonGaussianEvent(
            self.probability, noise_multiplier, self.num_coins, self.num_releases
        )


@dataclass(frozen=True)
class FixedSizeSampler:
    """Exactly `cohort_size` of all units, drawn uniformly in one place.

    The number of units is not hidden, so a neighbour replaces a user: twice the sensitivity.
    """

    num_units: int
    cohort_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.cohort_size <= self.num_units:
            raise ValueError("the cohort must have from 1 unit to all of them")

    @property
    def draw(self) -> Draw:
        """The same number of units in every round."""
        return Draw(cohort_size=self.cohort_size, num_units=self.num_units)

    @property
    def relation(self) -> str:
        """Replace one user by another."""
        return REPLACE_ONE

    def mean_cohort(self, num_units: int) -> float:
        """The same in every round."""
        if num_units != self.num_units:
            raise ValueError("the number of units must be the one that the sampler is made for")
        return float(self.cohort_size)

    def event(self, noise_multiplier: float) -> Event:
        """Sampled without replacement; the event halves the noise multiplier."""
        return FixedSizeGaussianEvent(self.num_units, self.cohort_size, noise_multiplier)


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


def draw_fixed_size(keys: NDArray[np.uint64], cohort_size: int, coins: Coins) -> NDArray[np.int64]:
    """Indices of the `cohort_size` users with the smallest coins.

    **Guarantee:** a uniform choice without replacement when the coins are independent and uniform;
    two equal coins (chance below N^2 / 2^65) are told apart by position.

    Args:
      keys: uint64, shape (users,).
      cohort_size: m >= 1.
      coins: `fresh_coins`, or `seeded_coins(seed, round)`.

    Returns:
      int64, ascending.
    """
    order = np.argsort(coins(keys), kind="stable")[:cohort_size]
    return np.sort(order).astype(np.int64)


def fresh_coins(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One uint64 per user from the operating system's entropy; used once, never kept."""
    return np.frombuffer(os.urandom(8 * len(keys)), dtype=np.uint64)


def seeded_coins(seed: int, round: int) -> Coins:
    """Coins that depend on (seed, round, user) alone, for repeatable runs. Not private.

    Nothing else enters, so how the users are spread over nodes does not change who is drawn.
    """

    def coins(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """A coin per key, uint64, shape of `keys`."""
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
