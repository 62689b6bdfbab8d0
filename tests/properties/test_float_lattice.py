"""The lattice of floating point: it betrays naive float32 noise, and says nothing of a release.

A float32 normal near zero has bits far below those of a sum in which a contribution took part. The
attacker looks at the entries near zero and asks how many are multiples of a coarse power of two.

Reference: Mironov 2012 (CCS, doi 10.1145/2382196.2382264); Holohan & Braghin 2021 (2107.10138).
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from feddp.common.privacy.mechanism.clipping import clip_to_grid
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise import BitStream, seeded_key
from feddp.common.privacy.mechanism.sampling import PoissonSampler
from feddp.common.privacy.mechanism.summation import UpdateSum

P = 1 << 15
NEAR_ZERO = 2.0**-9  # of a standard deviation
TRIALS = 40
LATTICES = 2.0 ** -np.arange(18.0, 44.0)
MECHANISM = GaussianMechanism(
    sampler=PoissonSampler(1.0),
    num_units=1,
    expected_cohort_size=1.0,
    clipping_norm=1.0,
    noise_multiplier=1.0,
    grid_steps=1 << 20,
    dimension=P,
)
Release = Callable[[bool, int], NDArray[np.floating]]


def contribution(trial: int) -> NDArray[np.float32]:
    """One user's update, of norm C = the noise's standard deviation."""
    update = np.random.default_rng([1, trial]).normal(size=P)
    return (update / np.linalg.norm(update)).astype(np.float32)


def naive(is_present: bool, trial: int) -> NDArray[np.floating]:
    """float32 noise on a float32 sum."""
    noise = np.random.default_rng([2, trial, is_present]).standard_normal(P, dtype=np.float32)
    return (contribution(trial) if is_present else np.zeros(P, np.float32)) + noise


@functools.cache
def released(is_present: bool, trial: int) -> NDArray[np.floating]:
    """feddp's path: clip, sum, noise, divide."""
    total = UpdateSum.zeros(P)
    if is_present:
        total.add(clip_to_grid(contribution(trial), clipping_norm=1.0, grid_steps=1 << 20))
    bits = BitStream(seeded_key(trial, int(is_present)))
    return MECHANISM.release(total, bits=bits).values


def published(is_present: bool, trial: int) -> NDArray[np.floating]:
    """A release as the float32 step that the adapter takes."""
    return released(is_present, trial).astype(np.float32)


def features(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """For every lattice, the share of entries near zero that do not lie on it."""
    near = values[np.abs(values) < NEAR_ZERO].astype(np.float64)
    return np.array([np.mean(np.fmod(near, lattice) != 0) for lattice in LATTICES])


def accuracy(release: Release) -> float:
    """The best lattice and threshold of one half of the trials, tried on the other half."""
    table = np.stack(
        [
            [features(release(present, trial)) for trial in range(TRIALS)]
            for present in (False, True)
        ]
    )  # (absent or present, trials, lattices)
    fit, test = table[:, : TRIALS // 2], table[:, TRIALS // 2 :]
    absent, present = fit.mean(axis=1)
    best = int(np.argmax(np.abs(absent - present)))
    threshold, sign = (absent[best] + present[best]) / 2, np.sign(absent[best] - present[best])
    is_absent = sign * (test[:, :, best] - threshold) > 0
    return float((is_absent[0].mean() + (~is_absent[1]).mean()) / 2)


def test_naive_float32_noise_tells_who_took_part() -> None:
    assert accuracy(naive) >= 0.99


# 40 guesses by chance: 0.75 is three standard errors above a half.
def test_a_release_tells_the_lattice_attacker_nothing() -> None:
    assert accuracy(released) <= 0.75
    assert accuracy(published) <= 0.75


def test_every_number_before_the_division_is_a_whole_number_of_grid_steps() -> None:
    for is_present in (False, True):
        steps = released(is_present, 0) * (1 << 20)
        assert np.array_equal(steps, np.rint(steps))
