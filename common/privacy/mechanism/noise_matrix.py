"""The matrix of a run with correlated noise: chosen for its cohorts, fixed in the plan."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feddp.common.privacy.mechanism.cohorts import Cohorts, most_turns
from feddp.common.privacy.mechanism.correlated import SHIFT
from feddp.common.privacy.mechanism.toeplitz import best_banded, best_blt, quantise

NUM_BUFFERS = 2  # more would gain next to nothing
MAX_BANDS = 64  # more cost memory of the round state, and gain next to nothing


@dataclass(frozen=True)
class NoiseMatrix:
    """What makes the noise of a run correlated; public.

    Attributes:
      coefficients: of the Toeplitz matrix, integers; the first is 2^shift.
      shift: bits of the quantisation.
      num_spare: attempts answered again that its sensitivity covers; 0 but in plans of before.
    """

    coefficients: tuple[int, ...]
    shift: int
    num_spare: int

    def to_body(self) -> dict[str, Any]:
        """As it stands in plan.json."""
        return asdict(self) | {"coefficients": list(self.coefficients)}


def matrix_from_body(body: Mapping[str, Any]) -> NoiseMatrix:
    """Reads `to_body` back.

    Raises:
      TypeError, KeyError: other fields.
    """
    return NoiseMatrix(**dict(body) | {"coefficients": tuple(body["coefficients"])})


def choose_blt(cohorts: Cohorts) -> NoiseMatrix:
    """A BLT of two buffers with the least mean error of the prefix sums, cut to the rounds."""
    rounds, separation = cohorts.num_rounds, cohorts.separation
    found = best_blt(
        num_rows=rounds,
        separation=separation,
        max_participations=most_turns(rounds, separation),
        num_buffers=NUM_BUFFERS,
    )
    return _quantised(found.coefficients(rounds), cohorts)


def choose_banded(cohorts: Cohorts) -> NoiseMatrix:
    """The best banded matrix whose bands never reach from one turn of a unit to its next."""
    return _banded(cohorts, most_turns(cohorts.num_rounds, cohorts.separation))


def choose_single_turn_banded(cohorts: Cohorts) -> NoiseMatrix:
    """As `choose_banded`, where each participation is an event of its own."""
    return _banded(cohorts, 1)


def _banded(cohorts: Cohorts, max_participations: int) -> NoiseMatrix:
    found = best_banded(
        num_rows=cohorts.num_rounds,
        separation=cohorts.separation,
        max_participations=max_participations,
        num_bands=min(cohorts.separation, cohorts.num_rounds, MAX_BANDS),
    )
    return _quantised(found, cohorts)


def _quantised(found: NDArray[np.float64], cohorts: Cohorts) -> NoiseMatrix:
    return NoiseMatrix(quantise(found, shift=SHIFT), SHIFT, cohorts.num_spare)
