"""How often, and how far apart, a user may take part in a run with correlated noise."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    ZERO_OUT,
    Event,
    GaussianEvent,
    PoissonGaussianEvent,
)
from feddp.common.privacy.mechanism.toeplitz import worst_column

SALT_BYTES = 32


class Participation(Protocol):
    """How often, and how far apart, a user takes part; it decides what that costs."""

    @property
    def relation(self) -> str:
        """The neighbouring relation of `event`."""
        ...

    def check(self, *, num_rows: int, num_coefficients: int) -> None:
        """Raises a ValueError where a matrix of this size does not fit."""
        ...

    def mean_cohort(self, num_units: int) -> float | None:
        """Units of a round, on average over the coins; None without coins."""
        ...

    def squared_sensitivity(
        self, coefficients: tuple[int, ...], *, num_rows: int, num_spare: int
    ) -> int:
        """Most that one event moves all rows, squared: an exact integer."""
        ...

    def event(self, *, noise_multiplier: float, num_rows: int, num_spare: int) -> tuple[Event, int]:
        """What `num_rows` rows cost, and how often."""
        ...


@dataclass(frozen=True)
class FixedSeparation:
    """A user's rounds are `separation` or more apart; no coins, no amplification.

    **Guarantee:** the whole run is one Gaussian release; its relation is zero-out: a user's
    contributions are replaced by zeros, and the schedule stays.

    Attributes:
      separation: b >= 1, fewest rounds between two participations of a user.
      max_participations: k >= 1, over the whole run.
    """

    separation: int
    max_participations: int

    def __post_init__(self) -> None:
        if self.separation < 1 or self.max_participations < 1:
            raise ValueError("separation and participations must be at least 1")

    @property
    def relation(self) -> str:
        """The neighbouring relation of `event`."""
        return ZERO_OUT

    def check(self, *, num_rows: int, num_coefficients: int) -> None:
        """Any number of coefficients is allowed, but no participation that cannot happen.

        Raises:
          ValueError: more participations than the rounds hold.
        """
        if self.max_participations > math.ceil(num_rows / self.separation):
            raise ValueError(
                f"{self.max_participations} participations, {self.separation} rounds apart, do not "
                f"fit into {num_rows} rounds"
            )

    def mean_cohort(self, num_units: int) -> float | None:
        """None: turns decide, without coins."""
        return None

    def squared_sensitivity(
        self, coefficients: tuple[int, ...], *, num_rows: int, num_spare: int
    ) -> int:
        """Most that one user moves all rows, squared: an exact integer.

        **Guarantee:** holds also when up to `num_spare` attempts of any rows are burned, that is
        charged, possibly seen, and answered again. Each is one more row of the matrix: the same
        earlier sums, and whatever the user sent in that attempt, so it adds at most the square of
        the largest row, which is the sum of c at 0, b, 2b, ...

        Args:
          coefficients: not negative and not increasing.
          num_rows: of the run, or of its beginning.
          num_spare: burned attempts that the promise covers.

        Reference: Kalinin & Lampert 2024 (arXiv 2405.13763) for the rows; the rest is direct.
        """
        column: list[int] = worst_column(
            _pad(coefficients, num_rows),
            separation=self.separation,
            max_participations=self.max_participations,
        ).tolist()
        return sum(value * value for value in column) + num_spare * max(column) ** 2

    def event(self, *, noise_multiplier: float, num_rows: int, num_spare: int) -> tuple[Event, int]:
        """What `num_rows` rows cost: one Gaussian, once."""
        return GaussianEvent(noise_multiplier), 1


@dataclass(frozen=True)
class CyclicPoisson:
    """Users are split into groups that take turns; a coin decides who of the group takes part.

    **Guarantee:** with at most as many bands as groups, a user's participations touch different
    rows, so each is its own Poisson-sampled Gaussian release. Add-or-remove-one, where a user's
    group depends on that user alone (see `slots`).

    Attributes:
      num_groups: >= 1; a user's turn comes every that many rounds.
      sampling_probability: q' of a coin when the turn has come, in (0, 1].

    Reference: Choquette-Choo et al. 2023 (arXiv 2306.08153), theorem 4.
    """

    num_groups: int
    sampling_probability: float

    def __post_init__(self) -> None:
        if self.num_groups < 1 or not 0 < self.sampling_probability <= 1:
            raise ValueError("cyclic sampling needs at least 1 group and a probability in (0, 1]")

    @property
    def relation(self) -> str:
        """The neighbouring relation of `event`."""
        return ADD_OR_REMOVE_ONE

    def check(self, *, num_rows: int, num_coefficients: int) -> None:
        """Participations must not overlap.

        Raises:
          ValueError: more bands than groups.
        """
        if num_coefficients > self.num_groups:
            raise ValueError(f"{num_coefficients} bands need as many groups, not {self.num_groups}")

    def mean_cohort(self, num_units: int) -> float | None:
        """q' N / groups."""
        return self.sampling_probability / self.num_groups * num_units

    def squared_sensitivity(
        self, coefficients: tuple[int, ...], *, num_rows: int, num_spare: int
    ) -> int:
        """Most that one participation moves all rows, squared: an exact integer.

        **Guarantee:** holds also when up to `num_spare` attempts of any rows are burned. A burned
        attempt of the round of the participation itself has its own coin and counts as one more
        participation (see `event`); one of a later round repeats a row that holds the participation
        with at most c_1.
        """
        kept = coefficients[:num_rows]
        repeated = kept[1] if len(kept) > 1 else 0
        return sum(value * value for value in kept) + num_spare * repeated**2

    def event(self, *, noise_multiplier: float, num_rows: int, num_spare: int) -> tuple[Event, int]:
        """What `num_rows` rows cost: a Poisson-sampled Gaussian per turn, and per spare attempt."""
        times = math.ceil(num_rows / self.num_groups) + num_spare
        return PoissonGaussianEvent(self.sampling_probability, noise_multiplier), times


def slots(keys: NDArray[np.uint64], *, salt: bytes, separation: int) -> NDArray[np.int64]:
    """The place of each user in the cycle of rounds: a keyed hash of the user's key.

    **Guarantee:** depends on the user's key, the salt and the separation alone: not on other users,
    on who is online, or on what happened before. Nothing has to be remembered, so reconnecting,
    moving to another node or restarting changes no place. Uniform to within separation / 2^64.

    Args:
      keys: uint64, shape (users,); a user with several nodes has the same key on all of them.
      salt: 32 bytes, public, fixed in the plan before round 1.
      separation: rounds in one cycle.

    Returns:
      int64, shape (users,), in [0, separation).

    Raises:
      ValueError: a salt of another length, or a separation below 1.
    """
    if len(salt) != SALT_BYTES or separation < 1:
        raise ValueError(f"slots need a salt of {SALT_BYTES} bytes and a separation of at least 1")
    places = (_hash(int(key), salt) % separation for key in keys)
    return np.fromiter(places, dtype=np.int64, count=len(keys))


def is_turn(slots: NDArray[np.int64], *, row: int, separation: int) -> NDArray[np.bool_]:
    """Who may take part in a round: those with slot (row - 1) mod separation.

    **Guarantee:** a user's rounds are exactly `separation` apart, so that of n rounds at most
    ceil(n / separation) are that user's, however often a round is repeated.

    Args:
      slots: see `slots`.
      row: the round, from 1.
      separation: as for the slots.

    >>> is_turn(np.array([0, 1, 2]), row=4, separation=3).tolist()
    [True, False, False]
    """
    if row < 1:
        raise ValueError(f"row {row}: rounds start at 1")
    turns: NDArray[np.bool_] = slots == (row - 1) % separation
    return turns


class SeparationRegistry:
    """When each node was last asked, where the server draws nodes that hold one user each.

    **Guarantee:** no order of draws, failures, reconnects and late answers lets a node be asked in
    two different rounds that are less than `separation` apart. Being asked is the participation:
    whether the answer comes, comes late and is dropped, or never comes, does not matter.

    **Edge cases:**

    | what happens | what follows |
    |---|---|
    | the same round is asked for again after a crash | allowed: the same participation |
    | a node comes back under the same key | its last round still counts |
    | a user registers under a new key | not seen here: who registers nodes must refuse it |
    | a round before one that was recorded | refused |

    Write the registry to the disk before the round is charged: a round that was asked for and
    forgotten in a crash would otherwise not count.

    The registry says who took part and when. This regime claims no amplification, so that need not
    be secret, but it is still personal: it belongs in the state, not in logs.
    """

    def __init__(self, separation: int):
        if separation < 1:
            raise ValueError(f"separation {separation}: must be at least 1")
        self._separation = separation
        self._last: dict[str, int] = {}
        self._latest = 1

    @property
    def separation(self) -> int:
        """Fewest rounds from one participation to the next."""
        return self._separation

    def eligible(self, nodes: Iterable[str], *, row: int) -> list[str]:
        """Those that may be asked in this round, in the order given."""
        self._check_row(row)
        return [node for node in nodes if self._may(node, row)]

    def record(self, nodes: Iterable[str], *, row: int) -> None:
        """Notes all of them as asked in this round, or none.

        Raises:
          ValueError: one of them may not be asked yet, or the round is in the past.
        """
        self._check_row(row)
        asked = list(nodes)
        if not all(self._may(node, row) for node in asked):
            raise ValueError(f"round {row}: a node that took part less than b rounds ago")
        self._last.update(dict.fromkeys(asked, row))
        self._latest = row

    def to_json(self) -> str:
        """Everything, for the state that a restart reads."""
        state = {"separation": self._separation, "latest": self._latest, "last": self._last}
        return json.dumps(state, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "SeparationRegistry":
        """Reads `to_json` back.

        Raises:
          ValueError: not a registry.
        """
        try:
            state = json.loads(text)
            separation, latest, last = state["separation"], state["latest"], state["last"]
            numbers = [separation, latest, *last.values()]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a registry of participations") from error
        if not all(type(number) is int and number >= 1 for number in numbers):
            raise ValueError("a registry holds rounds and a separation of at least 1")
        if len(state) != 3 or any(row > latest for row in last.values()):
            raise ValueError("a registry holds no round after its latest")
        registry = cls(separation)
        registry._last, registry._latest = last, latest
        return registry

    def __repr__(self) -> str:
        return f"SeparationRegistry(separation={self._separation})"

    def _may(self, node: str, row: int) -> bool:
        last = self._last.get(node)
        return last is None or row == last or row - last >= self._separation

    def _check_row(self, row: int) -> None:
        if row < self._latest:
            raise ValueError(f"round {row} lies before round {self._latest}, which was recorded")


def _pad(coefficients: tuple[int, ...], num_rows: int) -> NDArray[np.int64]:
    kept = np.array(coefficients[:num_rows], dtype=np.int64)
    return np.pad(kept, (0, num_rows - len(kept)))


def _hash(key: int, salt: bytes) -> int:
    digest = hashlib.blake2b(key.to_bytes(8, "big"), digest_size=8, key=salt, person=b"feddp-slot")
    return int.from_bytes(digest.digest(), "big")
