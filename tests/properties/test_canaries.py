"""A small audit of the real release path by canary users: one-shot estimates of epsilon.

Each canary sends a random direction of norm C. Its cosine with what was released is N(0, 1/P) if it
did not take part, and shifted if it did; the shift in standard deviations is 1 / z of one release.
Canaries are public here, and the estimate is a diagnostic: the promise is the accountant's.

Reference: Andrew et al. 2023, "One-shot empirical privacy estimation" (arXiv 2302.03098).
"""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from feddp.common.privacy.accounting.epsilon import epsilon
from feddp.common.privacy.mechanism.clipping import clip_to_grid
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise import BitStream, seeded_key
from feddp.common.privacy.mechanism.sampling import PoissonSampler, seeded_coins
from feddp.common.privacy.mechanism.summation import UpdateSum

P, CANARIES, DELTA = 1 << 15, 128, 1e-5
SURE = float(stats.norm.isf(1e-4))  # each bound of the shift is wrong once in 1e4
KEYS = np.arange(CANARIES, dtype=np.uint64)
EVERYBODY = GaussianMechanism(
    sampler=PoissonSampler(1.0),
    num_units=CANARIES,
    expected_cohort_size=float(CANARIES),
    clipping_norm=0.5,
    noise_multiplier=1.0,
    grid_steps=1 << 20,
    dimension=P,
)


@pytest.fixture(scope="module")
def directions() -> np.ndarray:
    """float64, (canaries, P), of norm 1."""
    drawn = np.random.default_rng(0).normal(size=(CANARIES, P))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def points(directions: np.ndarray) -> np.ndarray:
    """What the canaries' nodes add to the sum: int64, (canaries, P)."""
    return np.stack(
        [clip_to_grid(9.0 * d, clipping_norm=0.5, grid_steps=1 << 20) for d in directions]
    )


def run(mechanism: GaussianMechanism, points: np.ndarray, *, rounds: int, seed: int) -> np.ndarray:
    """The sum of the released updates of some rounds; canaries are drawn as users are."""
    moved = np.zeros(P)
    for round in range(rounds):
        drawn = mechanism.sampler.draw.units(KEYS, round, seeded_coins(seed, round))
        total = UpdateSum(points[drawn].sum(axis=0))
        bits = BitStream(seeded_key(seed, round))
        moved += mechanism.release(total, bits=bits).values
    return moved


def shift(moved: np.ndarray, directions: np.ndarray) -> tuple[float, float, float]:
    """Mean cosine of the canaries, in standard deviations of a stranger's; with its bounds."""
    cosines = directions @ moved / np.linalg.norm(moved) * math.sqrt(P)
    margin = SURE * float(np.std(cosines, ddof=1)) / math.sqrt(CANARIES)
    mean = float(np.mean(cosines))
    return mean - margin, mean, mean + margin


def epsilon_of(shift: float) -> float:
    """Epsilon of telling N(0, 1) from N(shift, 1); Balle & Wang 2018, theorem 8."""
    if shift <= 0:
        return 0.0

    def excess(value: float) -> float:
        second = math.exp(value + stats.norm.logcdf(-shift / 2 - value / shift))
        return float(stats.norm.cdf(shift / 2 - value / shift)) - second - DELTA

    return float(brentq(excess, 0, 5 * shift**2 + 50 * shift)) if excess(0) > 0 else 0.0


def claim(mechanism: GaussianMechanism, rounds: int) -> float:
    return epsilon([(mechanism.event(), rounds)], delta=DELTA, relation=mechanism.sampler.relation)


# One release at z = 1 shifts by 1 with a standard error of 0.09: epsilon 4.38, from 3.0 to 6.0.
def test_the_estimate_of_one_release_is_consistent_with_the_claim(directions, points) -> None:
    low, mean, high = shift(run(EVERYBODY, points, rounds=1, seed=1), directions)
    assert epsilon_of(low) <= claim(EVERYBODY, 1) <= epsilon_of(high)
    assert epsilon_of(mean) == pytest.approx(claim(EVERYBODY, 1), rel=0.25)


def test_the_estimate_of_sampled_rounds_stays_below_the_claim(directions, points) -> None:
    sampled = dataclasses.replace(
        EVERYBODY, sampler=PoissonSampler(0.25), expected_cohort_size=CANARIES / 4
    )
    low, _, high = shift(run(sampled, points, rounds=8, seed=2), directions)
    assert epsilon_of(low) <= claim(sampled, 8)
    assert high > 0.3  # canaries do leave a mark: the audit is not blind


def test_half_the_noise_is_flagged(directions, points) -> None:
    half = dataclasses.replace(EVERYBODY, noise_multiplier=0.5)
    low, _, _ = shift(run(half, points, rounds=1, seed=1), directions)
    assert epsilon_of(low) > claim(EVERYBODY, 1)


def test_noise_that_is_off_is_caught(directions, points) -> None:
    off = dataclasses.replace(EVERYBODY, noise_multiplier=2 / (1 << 20))
    low, _, _ = shift(run(off, points, rounds=1, seed=1), directions)
    assert epsilon_of(low) > 20 * claim(EVERYBODY, 1)


def test_a_clip_that_is_missing_is_flagged(directions) -> None:
    unclipped = np.trunc(directions * 3.0 * (1 << 20)).astype(np.int64)
    low, _, _ = shift(run(EVERYBODY, unclipped, rounds=1, seed=1), directions)
    assert epsilon_of(low) > claim(EVERYBODY, 1)


def test_strangers_are_no_canaries(points) -> None:
    """The control without a signal: directions of users who took no part."""
    strangers = np.random.default_rng(9).normal(size=(CANARIES, P))
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    low, _, high = shift(run(EVERYBODY, points, rounds=1, seed=1), strangers)
    assert low < 0 < high
    assert epsilon_of(low) == 0
