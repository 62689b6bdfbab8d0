"""Sampling: the right marginal, pairwise independence, coins that differ; two-sided."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from feddp.common.errors import ConfigError
from feddp.common.privacy.mechanism.sampling import (
    Draw,
    FixedSizeSampler,
    PoissonSampler,
    draw_cohort,
    draw_fixed_size,
    fresh_coins,
    seeded_coins,
    training_rng,
)

P_THRESHOLD = 1e-3
KEYS = np.arange(2000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def constant_coins(value: int):
    return lambda keys: np.full(len(keys), value, dtype=np.uint64)


def inclusion(probability: float, *, seed: int, rounds: int) -> np.ndarray:
    """bool, shape (rounds, users)."""
    drawn = np.zeros((rounds, len(KEYS)), dtype=bool)
    for round in range(rounds):
        drawn[round, draw_cohort(KEYS, probability, seeded_coins(seed, round))] = True
    return drawn


DRAWN = inclusion(0.05, seed=3, rounds=40)


def p_value(drawn: np.ndarray, probability: float) -> float:
    return stats.binomtest(int(drawn.sum()), drawn.size, probability).pvalue


# 80,000 coins at q = 0.05 put the standard error of the rate at 0.00077; 2/3 q and 3/2 q are more
# than 20 of those away, so that the power of both rejections is 1 - 1e-80.
def test_marginal_probability_is_accepted():
    assert p_value(DRAWN, 0.05) > P_THRESHOLD


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_wrong_marginal_probability_is_rejected(factor):
    assert p_value(DRAWN, 0.05 * factor) < P_THRESHOLD
    wrong = inclusion(0.05 * factor, seed=3, rounds=40)
    assert p_value(wrong, 0.05) < P_THRESHOLD


def test_fresh_coins_have_the_marginal_probability():
    rng_free = np.zeros(200_000, dtype=np.uint64)
    count = len(draw_cohort(rng_free, 0.05, fresh_coins))
    # Fresh entropy cannot be seeded: 6 standard deviations fail once in 5e8 runs.
    assert abs(count - 10_000) < 6 * math.sqrt(200_000 * 0.05 * 0.95)


def pairwise_p_value(left: np.ndarray, right: np.ndarray) -> float:
    table = [[np.sum((left == a) & (right == b)) for b in (False, True)] for a in (False, True)]
    return float(stats.chi2_contingency(table, correction=False).pvalue)


# A correlation of 0.03 between neighbours shifts the statistic of 80,000 pairs by 72: power above
# 0.999.
@pytest.mark.parametrize("lag", [1, 2, 64])
def test_users_are_drawn_independently_of_each_other(lag):
    assert pairwise_p_value(DRAWN[:, :-lag].ravel(), DRAWN[:, lag:].ravel()) > P_THRESHOLD


def test_rounds_are_drawn_independently_of_each_other():
    assert pairwise_p_value(DRAWN[:-1].ravel(), DRAWN[1:].ravel()) > P_THRESHOLD


def test_cohort_size_varies_as_a_binomial_does():
    # A fixed-size draw would have variance 0 here; chi-square of 39 degrees, two-sided.
    statistic = np.sum((DRAWN.sum(axis=1) - 100.0) ** 2) / (2000 * 0.05 * 0.95)
    assert stats.chi2.sf(statistic, 40) > P_THRESHOLD
    assert stats.chi2.cdf(statistic, 40) > P_THRESHOLD


def test_dependence_would_be_seen():
    copied = np.repeat(DRAWN[:, ::2], 2, axis=1)
    assert pairwise_p_value(copied[:, :-1].ravel(), copied[:, 1:].ravel()) < P_THRESHOLD


@given(st.lists(st.integers(0, (1 << 64) - 1), unique=True, max_size=60), st.data())
def test_spread_over_nodes_does_not_change_who_is_drawn(keys, data):
    everyone = np.array(keys, dtype=np.uint64)
    node = np.array(
        data.draw(st.lists(st.integers(0, 2), min_size=len(keys), max_size=len(keys))), dtype=int
    )
    coins = seeded_coins(7, 3)
    together = set(everyone[draw_cohort(everyone, 0.3, coins)].tolist())
    apart: set[int] = set()
    for number in range(3):
        mine = everyone[node == number]
        apart |= set(mine[draw_cohort(mine, 0.3, coins)].tolist())
    assert apart == together


def test_seeded_coins_repeat_and_depend_on_seed_round_and_user():
    coins = seeded_coins(1, 1)(KEYS)
    assert np.array_equal(coins, seeded_coins(1, 1)(KEYS))
    assert len(set(coins.tolist())) == len(KEYS)
    for seed, round in ((2, 1), (1, 2), (11, 1), (1, 11)):
        assert not np.any(coins == seeded_coins(seed, round)(KEYS))


def test_fresh_coins_differ_between_calls_and_users():
    first, second = fresh_coins(KEYS), fresh_coins(KEYS)
    assert first.dtype == np.uint64
    assert len(set(first.tolist()) | set(second.tolist())) == 2 * len(KEYS)


def test_everyone_is_drawn_with_probability_one():
    top = constant_coins((1 << 64) - 1)
    assert draw_cohort(KEYS, 1.0, top).tolist() == list(range(len(KEYS)))
    assert draw_cohort(KEYS, 1.0 - 2**-53, top).tolist() == []


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_threshold_is_the_probability_rounded_down(probability):
    keys = np.zeros(1, dtype=np.uint64)
    numerator, denominator = probability.as_integer_ratio()
    threshold = numerator * (1 << 64) // denominator
    if threshold:
        assert len(draw_cohort(keys, probability, constant_coins(threshold - 1))) == 1
    assert len(draw_cohort(keys, probability, constant_coins(threshold))) == 0


def test_nobody_is_drawn_below_the_smallest_threshold():
    assert len(draw_cohort(KEYS, 2.0**-65, constant_coins(0))) == 0


def test_cohort_is_ascending_int64():
    cohort = draw_cohort(KEYS, 0.5, fresh_coins)
    assert cohort.dtype == np.int64
    assert np.all(np.diff(cohort) > 0)


def test_nobody_is_drawn_of_nobody():
    assert len(draw_cohort(KEYS[:0], 0.5, fresh_coins)) == 0


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.0000001, math.nan, math.inf])
def test_impossible_probability_is_refused(probability):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\]"):
        draw_cohort(KEYS, probability, fresh_coins)


def test_training_generator_repeats_when_seeded_and_is_fresh_otherwise():
    def first(seed: int | None, round: int, key: int) -> int:
        return int(training_rng(seed, round, key).integers(1 << 62))

    assert first(1, 1, 5) == first(1, 1, 5)
    assert len({first(1, 1, 5), first(2, 1, 5), first(1, 2, 5), first(1, 1, 6)}) == 4
    assert first(None, 1, 5) != first(None, 1, 5)


def test_training_generator_shares_no_seed_with_the_coins():
    # The coin of a user seeds nothing else: otherwise a minibatch order would tell the coin.
    coin = int(seeded_coins(1, 1)(np.array([5], dtype=np.uint64))[0])
    content = hashlib.blake2b(b"1/1/5", digest_size=8, person=b"coin").digest()
    assert coin == int.from_bytes(content, "big")
    same = np.random.default_rng(coin).integers(1 << 62)
    assert same != training_rng(1, 1, 5).integers(1 << 62)


# Cohorts of fixed size


def test_a_fixed_size_cohort_has_that_size_and_every_unit_the_same_chance():
    rounds = 400
    drawn = np.zeros((rounds, len(KEYS)), dtype=bool)
    for round in range(rounds):
        cohort = draw_fixed_size(KEYS, 100, seeded_coins(9, round))
        assert len(set(cohort.tolist())) == 100
        drawn[round, cohort] = True
    counts = drawn.sum(axis=0)
    # Hypergeometric counts: variance rounds q (1 - q), times (N - 1) / N for their sum to be fixed.
    statistic = float(np.sum((counts - rounds / 20) ** 2) / (rounds / 20 * 0.95)) * (
        len(KEYS) / (len(KEYS) - 1)
    )
    tails = stats.chi2.sf(statistic, len(KEYS) - 1), stats.chi2.cdf(statistic, len(KEYS) - 1)
    assert 2 * min(tails) > P_THRESHOLD


@pytest.mark.parametrize("num_held", [0, 6, 999, 1999, 2001])
def test_a_fixed_size_cohort_is_drawn_from_exactly_the_declared_units(num_held: int) -> None:
    # Of half the units, as one of two nodes would, each is drawn twice as often as accounted.
    draw = FixedSizeSampler(2000, 7).draw
    held = np.arange(num_held, dtype=np.uint64)
    with pytest.raises(ConfigError, match=r"^[^0-9]*exactly the declared 2000 units[^0-9]*$"):
        draw.units(held, 1, fresh_coins)


def test_a_request_draws_what_its_sampler_says():
    coins = seeded_coins(3, 1)
    poisson, fixed = PoissonSampler(0.05).draw, FixedSizeSampler(len(KEYS), 7).draw
    assert poisson.units(KEYS, 1, coins).tolist() == draw_cohort(KEYS, 0.05, coins).tolist()
    assert fixed.units(KEYS, 1, coins).tolist() == draw_fixed_size(KEYS, 7, coins).tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"probability": 0.0},
        {"probability": 1.1},
        {"cohort_size": -1},
        {"separation": 0},
        {"cohort_size": 3},
        {"cohort_size": 3, "num_units": 2},
        {"cohort_size": 3, "num_units": 9, "probability": 0.5},
        {"cohort_size": 3, "num_units": 9, "separation": 2},
    ],
)
def test_a_draw_that_contradicts_itself_cannot_be_made(wrong):
    with pytest.raises(ValueError, match=r"probability|cohort|separation"):
        Draw(**wrong)


def test_samplers_refuse_what_they_cannot_be():
    for make in (
        lambda: PoissonSampler(0.0),
        lambda: PoissonSampler(0.5, 0),
        lambda: FixedSizeSampler(10, 11),
        lambda: FixedSizeSampler(10, 0),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
