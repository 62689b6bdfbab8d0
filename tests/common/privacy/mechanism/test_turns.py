"""Turns: what correlated noise cannot be combined with."""

import pytest

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.turns import correlation_problems, separation_problems

USERS = Population("user", "user", 100, None, None, 1)


def test_correlated_noise_has_one_norm_one_place_and_one_unit_of_a_user() -> None:
    several = Population("user", "user", 100, None, None, 2)
    found = correlation_problems("blt", several, is_noised_by_nodes=True, is_adaptive=True)
    words = ("under one norm", "one unit on one node", "made in one place")
    assert all(word in text for word, text in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("separation", "is_refused"), [(1, True), (2, False), (10, False), (11, True)]
)
def test_a_separation_is_from_2_to_the_rounds(separation: int, is_refused: bool) -> None:
    assert bool(separation_problems(Cohorts(USERS, 5.0, 10, 12, separation))) == is_refused
