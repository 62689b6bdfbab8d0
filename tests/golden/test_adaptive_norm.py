"""Golden paths of the adapting norm without noise on its bits, and the noise that a bit leaves."""

import math

import numpy as np
import pytest

from feddp.common.privacy.mechanism.allocation import update_noise_multiplier
from feddp.common.privacy.mechanism.quantile import QuantileClipping

CLIPPING = QuantileClipping(quantile=0.5, rate=0.2, bit_noise=25.0, smallest=1e-4, largest=1e4)


def path(norms: np.ndarray, start: float, num_rounds: int, *, noise: float = 0.0) -> list[float]:
    """C of each round when everybody takes part; `noise`: standard deviation on the sum of bits."""
    rng, found = np.random.default_rng(0), [start]
    for _ in range(num_rounds):
        bits = np.where(norms <= found[-1], 0.5, -0.5).sum() + noise * rng.normal()
        found.append(CLIPPING.next_norm(found[-1], share=bits / len(norms) + 0.5))
    return found


@pytest.mark.parametrize(("norm", "rise", "num_rounds"), [(1.0, 0.1, 23), (0.01, -0.1, 23)])
def test_the_norm_of_equal_updates_moves_by_a_tenth_of_its_logarithm(
    norm: float, rise: float, num_rounds: int
) -> None:
    """0.1 e^(0.1 t) while all are clipped, 0.1 e^(-0.1 t) while nobody is."""
    found = path(np.full(40, norm), 0.1, num_rounds)
    golden = [0.1 * math.exp(rise * t) for t in range(num_rounds + 1)]
    assert found == pytest.approx(golden, rel=1e-12)
    assert (found[-1] < norm) == (rise > 0)


def test_the_norm_of_log_normal_updates_ends_near_their_median() -> None:
    """500 norms of median .951, bits with noise of 25: .995 after 100 rounds in one such run."""
    norms = 0.951 * np.exp(np.random.default_rng(1).normal(size=500))
    norms *= 0.951 / float(np.median(norms))
    found = path(norms, 0.1, 100, noise=25.0)
    assert found[-1] == pytest.approx(0.951, rel=0.15)


@pytest.mark.parametrize(("cohort", "golden"), [(50, 1.020621), (100, 1.005038)])
def test_a_bit_with_a_twentieth_of_the_cohort_as_noise_leaves_its_golden_share(
    cohort: int, golden: float
) -> None:
    assert update_noise_multiplier(1.0, cohort / 20) == pytest.approx(golden, abs=1e-6)


def test_ten_units_are_too_few_for_a_bit() -> None:
    with pytest.raises(ValueError, match="below twice"):
        update_noise_multiplier(1.0, 10 / 20)
