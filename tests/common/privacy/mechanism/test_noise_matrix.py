"""The matrix of correlated noise: bands end before the next turn, and it reads back."""

import json

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.noise_matrix import (
    choose_banded,
    choose_blt,
    choose_single_turn_banded,
    matrix_from_body,
)

COHORTS = Cohorts(Population("user", "user", 100, None, None, 1), 20.0, 12, 14, 5)


def test_bands_never_reach_the_next_turn_and_a_blt_spans_the_run() -> None:
    assert len(choose_banded(COHORTS).coefficients) <= 5
    assert len(choose_single_turn_banded(COHORTS).coefficients) <= 5
    assert len(choose_blt(COHORTS).coefficients) <= 12
    assert choose_blt(COHORTS).num_spare == 2


def test_a_matrix_survives_json() -> None:
    matrix = choose_blt(COHORTS)
    assert matrix_from_body(json.loads(json.dumps(matrix.to_body()))) == matrix
