"""Inclusion: marginal and of every pair, on fresh coins and on seeded ones, with controls."""

import numpy as np
import pytest
from scipy import stats

from feddp.common.privacy.mechanism.sampling import draw_cohort, fresh_coins, seeded_coins

P_THRESHOLD = 1e-3
USERS, ROUNDS, Q = 40, 4000, 0.3
KEYS = np.arange(1, USERS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def included(coins_of_round, keys: np.ndarray = KEYS) -> np.ndarray:
    """bool, shape (rounds, users)."""
    drawn = np.zeros((ROUNDS, len(keys)), dtype=bool)
    for round in range(ROUNDS):
        drawn[round, draw_cohort(keys, Q, coins_of_round(round))] = True
    return drawn


def pair_scores(drawn: np.ndarray) -> np.ndarray:
    """A standard normal score per pair of users: how much more often both are drawn."""
    deviations = drawn - Q
    scores = deviations.T @ deviations / (Q * (1 - Q) * np.sqrt(len(drawn)))
    return scores[np.triu_indices(drawn.shape[1], 1)]


def all_pairs_p_value(drawn: np.ndarray) -> float:
    scores = pair_scores(drawn)
    statistic = float(np.sum(scores**2))
    return 2 * min(stats.chi2.sf(statistic, len(scores)), stats.chi2.cdf(statistic, len(scores)))


def worst_pair_p_value(drawn: np.ndarray) -> float:
    scores = pair_scores(drawn)
    return min(1.0, 2 * float(stats.norm.sf(np.abs(scores).max())) * len(scores))


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return included(lambda round: seeded_coins(5, round))


# 780 pairs over 4000 rounds: a correlation of 0.02 between all pairs adds 4000 * 0.02^2 * 780 =
# 1248 to a statistic of mean 780 and standard deviation 39; one pair is seen from 0.09 on.
def test_every_pair_of_users_is_drawn_independently(drawn):
    assert all_pairs_p_value(drawn) > P_THRESHOLD
    assert worst_pair_p_value(drawn) > P_THRESHOLD


def test_every_user_is_drawn_with_the_same_probability(drawn):
    counts = drawn.sum(axis=0)
    statistic = float(np.sum((counts - ROUNDS * Q) ** 2) / (ROUNDS * Q * (1 - Q)))
    assert stats.chi2.sf(statistic, USERS) > P_THRESHOLD
    assert stats.chi2.cdf(statistic, USERS) > P_THRESHOLD


def test_a_cohort_of_fixed_size_is_rejected():
    """Its pairs have correlation -1 / (N - 1), its size no variance."""
    rng = np.random.default_rng(1)
    fixed = np.stack([rng.permutation(USERS) < USERS * Q for _ in range(ROUNDS)])
    assert all_pairs_p_value(fixed) < P_THRESHOLD


def test_a_pair_that_shares_its_coin_is_rejected(drawn):
    shared = drawn.copy()
    shared[::6, 3] = drawn[::6, 2]  # in every sixth round
    assert worst_pair_p_value(shared) < P_THRESHOLD


# Fresh coins cannot be repeated, so the bounds are wide: a million coins at q = 1/2 have a relative
# standard error of 0.1 %; 5 of them alarm falsely once in 2e6 runs and miss 1 % once in 3e6.
def share_of_fresh_coins(probability: float) -> float:
    keys = np.zeros(1_000_000, dtype=np.uint64)
    return len(draw_cohort(keys, probability, fresh_coins)) / len(keys)


def test_fresh_coins_fall_with_the_right_probability_within_half_a_percent():
    assert abs(share_of_fresh_coins(0.5) - 0.5) < 5 * 0.0005


@pytest.mark.parametrize("factor", [2 / 3, 0.99, 1.01, 3 / 2])
def test_fresh_coins_of_another_probability_are_rejected(factor):
    assert abs(share_of_fresh_coins(0.5 * factor) - 0.5) > 5 * 0.0005


# 780 standard normal scores: 6.5 is passed once in 1.6e7 runs, and by a correlation of 0.13.
def test_fresh_coins_are_independent_between_users_and_between_rounds():
    many = np.arange(ROUNDS, dtype=np.uint64)
    by_user = np.stack([fresh_coins(KEYS) for _ in range(ROUNDS)])
    by_round = np.stack([fresh_coins(many) for _ in range(USERS)]).T
    for coins in (by_user, by_round):
        assert np.abs(scores_at_half(coins < np.uint64(1 << 63))).max() < 6.5


def test_a_fresh_coin_used_twice_is_rejected():
    coins = np.stack([fresh_coins(KEYS) for _ in range(ROUNDS)]) < np.uint64(1 << 63)
    coins[::4, 1] = coins[::4, 0]
    assert np.abs(scores_at_half(coins)).max() > 6.5


def scores_at_half(drawn: np.ndarray) -> np.ndarray:
    deviations = drawn - 0.5
    scores = deviations.T @ deviations / (0.25 * np.sqrt(len(drawn)))
    return scores[np.triu_indices(drawn.shape[1], 1)]
