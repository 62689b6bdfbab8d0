"""Mechanisms and runs of correlated noise, for tests."""

import dataclasses

import numpy as np
from scipy import linalg

from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.master_key import MasterKey
from feddp.common.privacy.mechanism.noise import discrete_gaussian
from feddp.common.privacy.mechanism.participation import CyclicPoisson, FixedSeparation
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.mechanism.toeplitz import (
    quantise,
    square_root,
)

P_THRESHOLD = 1e-3
NUM_ROUNDS = 12
ROOT = quantise(square_root(NUM_ROUNDS), shift=8)
MECHANISM = CorrelatedGaussian(
    num_units=1000,
    expected_cohort_size=250.0,
    clipping_norm=0.5,
    noise_multiplier=1.3,
    grid_steps=1 << 20,
    dimension=40,
    coefficients=ROOT,
    num_rounds=NUM_ROUNDS,
    num_spare=2,
    participation=FixedSeparation(separation=4, max_participations=3),
)
BANDED = dataclasses.replace(MECHANISM, coefficients=ROOT[:4])
CYCLIC = dataclasses.replace(
    BANDED, participation=CyclicPoisson(num_groups=4, sampling_probability=1.0)
)
MECHANISMS = [MECHANISM, BANDED, CYCLIC, dataclasses.replace(MECHANISM, coefficients=ROOT[:1])]
KEY = MasterKey(bytes(range(32)), run=b"run")
ENTROPY = bytes(32)


def random_sums(seed, mechanism, *, users=20):
    """One update sum per row, of plausible size; int64, shape (rows, P)."""
    largest = users * mechanism.grid_steps
    shape = (mechanism.num_rounds, mechanism.dimension)
    return np.random.default_rng(seed).integers(-largest, largest, shape)


def run(mechanism, sums, *, key=KEY, history=None, attempts=None):
    """Releases a row per sum; (released values, noised rows, history)."""
    history = history or mechanism.start()
    released, rows = [], []
    for total in sums:
        row = history.next_row
        update, noised = mechanism.release(
            UpdateSum(total.copy()),
            history=history,
            master_key=key,
            row=row,
            attempt=(attempts or {}).get(row, 1),
            entropy=ENTROPY,
        )
        history.append(noised, master_key=key)
        released.append(update.values)
        rows.append(noised)
    return np.array(released), rows, history


def noise_of(mechanism, noised, *, key=KEY):
    bits = key.noise_bits(row=noised.row, attempt=noised.attempt, nonce=noised.nonce)
    return discrete_gaussian(bits, mechanism.noise_scale, mechanism.dimension)


def matrix_of(mechanism):
    padded = np.zeros(mechanism.num_rounds, dtype=np.int64)
    padded[: len(mechanism.coefficients)] = mechanism.coefficients
    return np.tril(linalg.toeplitz(padded))
