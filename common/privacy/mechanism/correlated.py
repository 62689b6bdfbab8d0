"""CorrelatedGaussian: update sums -> released updates whose noise cancels in their prefix sums.

Row t publishes y_t = a_0 x_t + a_1 x_(t-1) + ... + Z_t, exact in integers: x are the update sums on
the grid, a / 2^shift the quantised coefficients of a Toeplitz matrix C, Z discrete Gaussian noise
scaled to the sensitivity of that same quantised matrix. Nothing is rounded before the noise is in.
All that follows, C^-1 y in float64, is post-processing of public rows.

The quantised matrix is the matrix: its sensitivity is exact, and its inverse is taken, so nothing
is biased by the quantisation; the prefix errors move by less than 0.2 % at a shift of 8. Truncation
to the grid biases a coordinate by less than C / K toward zero. With K >= 2^20 the scale of the
noise is at least 2^28 z, and discrete noise costs next to nothing: for 1e9 numbers in all rows the
total variation is below 2e-14 at z = 1 (`bridge.bridge_delta` with `num_charges` and
`noise_scale`). A larger shift would only make the tail of a BLT, and with it the state, longer.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from feddp.common.errors import FeddpError
from feddp.common.privacy.mechanism.events import Event
from feddp.common.privacy.mechanism.gaussian import ReleasedUpdate, add_noise, open_door
from feddp.common.privacy.mechanism.master_key import MasterKey
from feddp.common.privacy.mechanism.noise import MAX_SAMPLER_SCALE, discrete_gaussian
from feddp.common.privacy.mechanism.participation import Participation
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.mechanism.toeplitz import inverse

SHIFT = 8
_MAX_SHIFT = 16
_MAX_DEVIATIONS = 40  # further out, the sampler draws nothing
_ROUND_DOWN = 1 - 1e-12


@dataclass(frozen=True)
class NoisedRow:
    """y_t, one answered row; public. With the master key all rows give the update sums back.

    Attributes:
      row: t, from 1.
      attempt: the one that was released, from 1.
      nonce: 32 bytes.
      values: int64, shape (P,), read-only.
    """

    row: int
    attempt: int
    nonce: bytes
    values: NDArray[np.int64]


@dataclass(frozen=True)
class CorrelatedGaussian:
    """Clipped updates, noise that is correlated over the rounds, a constant divisor.

    **Guarantee:** all rows together cost `event()`, up to the bridge term of the discrete noise
    over `num_charges` rows, when every user's point has norm <= K and users take part as
    `participation` says. Rounds may be chosen by what was released before them, and any of them may
    be burned, also by that: a burned attempt is its row, which later rows hold as zero. All entries
    of C are not negative, so a zero in place of one moves no row further, on any path of burns.

    **Edge cases:**

    | what happens | what follows |
    |---|---|
    | nobody answers a round | x_t = 0; the row is noise and earlier sums |
    | a charged attempt is burned | its row is spent: no later row holds its sum, it counts 0 |
    | the master key is lost | `start` at the next row: the sensitivity does not grow |
    | the ledger is rolled back, the machine cloned | no noise is used with two sums (`MasterKey`) |

    Attributes:
      num_units: N, declared and public: users, or examples where examples are drawn.
      expected_cohort_size: the divisor; N q' / groups for cyclic Poisson sampling.
      clipping_norm: C > 0.
      noise_multiplier: z > 0, noise standard deviation over the sensitivity of the whole run.
      grid_steps: K, a power of two.
      dimension: P.
      coefficients: a, integers; not negative, not increasing, a_0 = 2^shift, the last not zero.
      shift: bits of the quantisation, 1 to 16.
      num_rounds: rows.
      num_spare: attempts that may be answered again, over all rounds; 0 but in plans of before.
      participation: fixed separation, or cyclic Poisson.

    Reference: Denisov et al. 2022 (arXiv 2202.08312) for adaptive rounds; Choquette-Choo et al.
    2023 (2306.08153); Dvijotham et al. 2024 (2404.16706); Canonne, Kamath & Steinke 2020.
    """

    num_units: int
    expected_cohort_size: float
    clipping_norm: float
    noise_multiplier: float
    grid_steps: int
    dimension: int
    coefficients: tuple[int, ...]
    num_rounds: int
    num_spare: int
    participation: Participation
    shift: int = SHIFT

    def __post_init__(self) -> None:
        reals = (self.expected_cohort_size, self.clipping_norm, self.noise_multiplier)
        if not all(math.isfinite(value) and value > 0 for value in reals):
            raise ValueError("cohort size, clipping norm and noise multiplier must be > 0")
        if min(self.num_units, self.dimension, self.num_rounds) < 1 or self.num_spare < 0:
            raise ValueError("users, dimension and rounds must be >= 1, spare attempts >= 0")
        if self.grid_steps < 1 or self.grid_steps & (self.grid_steps - 1):
            raise ValueError("grid steps must be a power of two")
        self._check_coefficients()
        self.participation.check(num_rows=self.num_rounds, num_coefficients=len(self.coefficients))
        mean = self.participation.mean_cohort(self.num_units)
        if mean is not None and not math.isclose(self.expected_cohort_size, mean, rel_tol=1e-9):
            raise ValueError("expected cohort size must be q' N / groups")
        if not 2 <= self.noise_scale <= MAX_SAMPLER_SCALE:
            raise ValueError("noise scale must be in [2, 2^50]; choose other grid steps")
        if self.num_units * self.grid_steps > self.max_sum:
            raise ValueError("num_units * grid_steps * sum of coefficients must stay below 2^62")

    def _check_coefficients(self) -> None:
        steps = self.coefficients
        if not 1 <= self.shift <= _MAX_SHIFT or not 1 <= len(steps) <= self.num_rounds:
            raise ValueError("a shift of 1 to 16 and 1 to num_rounds coefficients are allowed")
        if not all(type(value) is int for value in steps) or steps[0] != 1 << self.shift:
            raise ValueError("coefficients must be integers, the first of them 2^shift")
        if steps[-1] < 1 or any(a < b for a, b in itertools.pairwise(steps)):
            raise ValueError("coefficients must not increase, and must be above 0")

    @property
    def relation(self) -> str:
        """The neighbouring relation under which `event` is the cost."""
        return self.participation.relation

    @property
    def num_charges(self) -> int:
        """Most answers that the promise covers: a row each."""
        return self.num_rounds + self.num_spare

    @property
    def max_sum(self) -> int:
        """The largest entry of an update sum with which no row overflows.

        Honest sums are within num_units * grid_steps, but a run must go on where those of hostile
        nodes are not, so a history is held to this larger bound.
        """
        room = (1 << 62) - 1 - _MAX_DEVIATIONS * self.noise_scale
        return room // sum(self.coefficients)

    @property
    def noise_scale(self) -> int:
        """Standard deviation of Z: z K 2^shift sensitivity, rounded up exactly to an integer."""
        multiplier = Fraction(self.noise_multiplier) * self.grid_steps
        squared = math.ceil(multiplier**2 * self._squared_sensitivity(self.num_rounds))
        return math.isqrt(squared - 1) + 1

    @property
    def noise_norm(self) -> float:
        """Expected L2 norm of the noise in a released update, at most: that of the last row."""
        padded = np.zeros(self.num_rounds)
        padded[: len(self.coefficients)] = self.coefficients
        deviation = self.noise_scale * float(np.linalg.norm(inverse(padded)))
        return deviation * self._unit * math.sqrt(self.dimension)

    def event(self, num_rows: int | None = None) -> tuple[Event, int]:
        """What the first `num_rows` rows cost, and how often: functions of public numbers alone.

        Without `num_rows` it is the whole run: the promise. A beginning is a meter: fewer rows
        have a smaller sensitivity under the same noise. All spare attempts are counted.

        Raises:
          ValueError: not 1 .. num_rounds rows.
        """
        rows = self.num_rounds if num_rows is None else num_rows
        if not 1 <= rows <= self.num_rounds:
            raise ValueError(f"{rows} rows: must be in 1 .. {self.num_rounds}")
        whole = self._squared_sensitivity(self.num_rounds)
        ratio = math.sqrt(whole / self._squared_sensitivity(rows)) * _ROUND_DOWN
        return self.participation.event(
            noise_multiplier=self.noise_multiplier * max(1.0, ratio),
            num_rows=rows,
            num_spare=self.num_spare,
        )

    def start(self, first_row: int = 1) -> "History":
        """An empty history: at the first row, or at any later one after the master key was lost.

        **Guarantee:** rows from `first_row` on under a new key use no sum from before. That zeroes
        entries of C, which are not negative, so the sensitivity does not grow; it costs utility.
        The row must not be chosen by looking at private data; a loss of the key does not look.
        """
        return History(self, first_row)

    def replay(
        self, rows: Iterable[NoisedRow], *, master_key: MasterKey, first_row: int = 1
    ) -> "History":
        """The history after these rows, bit for bit as it was when they were released.

        Rows that are missing between them were burned.

        Raises:
          FeddpError: rows out of order, or of another key, run or mechanism.
        """
        history = self.start(first_row)
        for row in rows:
            history.burn_until(row.row)
            history.append(row, master_key=master_key)
        return history

    def release(
        self,
        total: UpdateSum,
        *,
        history: "History",
        master_key: MasterKey,
        row: int,
        attempt: int,
        entropy: bytes,
    ) -> tuple[ReleasedUpdate, NoisedRow]:
        """Noise for one row; the history stays as it is until `History.append`.

        Append the row to the history when its RELEASE is durable. The row must be in the
        checkpoint as it is; a burned row is forgotten.

        Args:
          total: the cohort's update sum; its charge is durable already.
          history: of all rows before this one since the last start.
          master_key: of this run.
          row: t, the next of the history.
          attempt: from 1; a row that is answered again has a new one.
          entropy: `os.urandom(32)`; a constant in seeded runs, which are not private.

        Raises:
          ValueError: a sum of another dimension, a row that is not next or beyond the last, more
            attempts than spare ones.
        """
        if total.dimension != self.dimension:
            raise ValueError(f"expected a sum of dimension {self.dimension}, not {total.dimension}")
        if row != history.next_row or row > self.num_rounds:
            raise ValueError(f"row {row}: the next is {history.next_row} of {self.num_rounds}")
        if not 1 <= attempt <= 1 + self.num_spare:
            raise ValueError(f"attempt {attempt}: must be in 1 .. {1 + self.num_spare}")
        nonce = master_key.nonce(total, row=row, attempt=attempt, entropy=entropy)
        bits = master_key.noise_bits(row=row, attempt=attempt, nonce=nonce)
        held = UpdateSum(self.coefficients[0] * total.total + history.earlier_sums())
        values = add_noise(held, noise_scale=self.noise_scale, bits=bits).total
        update = open_door(history.estimate(values) * self._unit, self.clipping_norm)
        return update, NoisedRow(row, attempt, nonce, values)

    @property
    def _unit(self) -> float:
        return self.clipping_norm / self.grid_steps / self.expected_cohort_size

    def _squared_sensitivity(self, num_rows: int) -> int:
        return self.participation.squared_sensitivity(
            self.coefficients, num_rows=num_rows, num_spare=self.num_spare
        )


class History:
    """The last update sums, which later rows hold again. Sensitive: never on a disk.

    **Guarantee:** it is a function of the released rows and the master key alone: both the running
    program and a restarted one come by it through `append`. The values are in no repr, and the
    object refuses to be pickled or copied.

    Its size is two arrays of P numbers of 8 bytes for each coefficient but the first; a restart
    draws the noise of every row again (about 0.3 s per million numbers).
    """

    __slots__ = ("_estimates", "_mechanism", "_next_row", "_sums")

    def __init__(self, mechanism: CorrelatedGaussian, first_row: int):
        """Empty; `CorrelatedGaussian.start` makes one."""
        if not 1 <= first_row <= mechanism.num_rounds:
            raise ValueError(f"first row {first_row}: must be in 1 .. {mechanism.num_rounds}")
        self._mechanism = mechanism
        self._next_row = first_row
        window = len(mechanism.coefficients) - 1
        # Newest first.
        self._sums: deque[NDArray[np.int64]] = deque(maxlen=window)
        self._estimates: deque[NDArray[np.float64]] = deque(maxlen=window)

    @property
    def next_row(self) -> int:
        """The row that comes next."""
        return self._next_row

    def append(self, noised: NoisedRow, *, master_key: MasterKey) -> None:
        """Takes a released row in: draws its noise again and solves for its update sum.

        Raises:
          FeddpError: not the next row, or not one of this key, run and mechanism.
        """
        mechanism, values = self._mechanism, noised.values
        is_next = noised.row == self._next_row <= mechanism.num_rounds
        if not is_next or values.dtype != np.int64 or values.shape != (mechanism.dimension,):
            raise FeddpError(f"Row {noised.row} does not follow row {self._next_row - 1}.")
        bits = master_key.noise_bits(row=noised.row, attempt=noised.attempt, nonce=noised.nonce)
        noise = discrete_gaussian(bits, mechanism.noise_scale, mechanism.dimension)
        total, rest = np.divmod(values - noise - self.earlier_sums(), mechanism.coefficients[0])
        if np.any(rest) or np.any(np.abs(total) > mechanism.max_sum):
            raise FeddpError(
                f"Row {noised.row} was not noised with this master key for this plan. Restore the "
                "key, or start a new segment."
            )
        estimate = self.estimate(values)
        self._sums.appendleft(total)
        self._estimates.appendleft(estimate)
        self._next_row += 1

    def burn_until(self, row: int) -> None:
        """Takes the rows before `row` in as burned: no later row holds their sums.

        Raises:
          FeddpError: the row lies before the next one, or beyond the last.
        """
        if not self._next_row <= row <= self._mechanism.num_rounds:
            raise FeddpError(f"Row {row} does not follow row {self._next_row - 1}.")
        for _ in range(row - self._next_row):
            self._sums.appendleft(np.zeros(self._mechanism.dimension, dtype=np.int64))
            self._estimates.appendleft(np.zeros(self._mechanism.dimension))
        self._next_row = row

    def earlier_sums(self) -> NDArray[np.int64]:
        """a_1 x_(t-1) + a_2 x_(t-2) + ..., exact; int64, shape (P,). Sensitive."""
        later = self._mechanism.coefficients[1:]
        held = np.zeros(self._mechanism.dimension, dtype=np.int64)
        for coefficient, total in zip(later, self._sums, strict=False):
            held += coefficient * total
        return held

    def estimate(self, values: NDArray[np.int64]) -> NDArray[np.float64]:
        """Row t of C^-1 y, in grid steps; float64, shape (P,). A function of public rows alone.

        Args:
          values: y_t, int64, shape (P,).
        """
        first, *later = self._mechanism.coefficients
        remaining = values.astype(np.float64)
        for coefficient, estimate in zip(later, self._estimates, strict=False):
            remaining -= coefficient * estimate
        return remaining / first

    def __repr__(self) -> str:
        return f"History(next_row={self._next_row}, sensitive)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a history is sensitive and is neither serialised nor copied")
