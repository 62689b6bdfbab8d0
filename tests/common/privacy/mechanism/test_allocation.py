"""Parts of one release: golden values, directions of rounding, and what may not be averaged."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.privacy.accounting.epsilon import epsilon
from feddp.common.privacy.accounting.renyi import epsilon_rdp
from feddp.common.privacy.mechanism.allocation import (
    combined_noise_multiplier,
    flat_clip_noise_multiplier,
    update_noise_multiplier,
)
from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, PoissonGaussianEvent


def test_parts_add_up_to_their_golden_multipliers():
    assert combined_noise_multiplier([1.0, 20.0]) == pytest.approx(0.998752, abs=1e-6)
    assert combined_noise_multiplier([2.0, 2.0, 3.0]) == pytest.approx(1.279204, abs=1e-6)


def test_one_release_of_two_parts_costs_its_golden_epsilon():
    charges = [(PoissonGaussianEvent(0.1, combined_noise_multiplier([1.0, 20.0])), 100)]
    bound = epsilon(charges, delta=1e-5, relation=ADD_OR_REMOVE_ONE, interval=1e-3)
    assert bound == pytest.approx(7.0632, rel=1e-4)
    assert epsilon_rdp(charges, 1e-5, ADD_OR_REMOVE_ONE) == pytest.approx(7.922633, rel=1e-6)


def test_parts_on_the_same_coins_cost_more_than_parts_on_their_own():
    parts = [2.0, 2.0, 3.0]
    one = [(PoissonGaussianEvent(0.02, combined_noise_multiplier(parts)), 500)]
    separate = [(PoissonGaussianEvent(0.02, z), 500) for z in parts]
    assert epsilon_rdp(one, 1e-5, ADD_OR_REMOVE_ONE) == pytest.approx(1.9502, rel=1e-3)
    assert epsilon_rdp(separate, 1e-5, ADD_OR_REMOVE_ONE) == pytest.approx(1.6051, rel=1e-3)


@given(st.lists(st.floats(0.1, 60), min_size=1, max_size=8))
def test_a_combined_multiplier_is_rounded_down(parts):
    combined = combined_noise_multiplier(parts)
    assert Fraction(combined) ** -2 >= sum(Fraction(z) ** -2 for z in parts)
    assert combined <= min(parts)


@pytest.mark.parametrize(("bit_noise", "golden"), [(2.5, 1.020621), (5.0, 1.005038)])
def test_the_update_keeps_its_golden_share_beside_a_bit(bit_noise, golden):
    left = update_noise_multiplier(1.0, bit_noise)
    assert left == pytest.approx(golden, abs=1e-6)
    assert combined_noise_multiplier([left, 2 * bit_noise]) == pytest.approx(1.0, rel=1e-9)


def test_a_bit_without_enough_noise_is_refused():
    with pytest.raises(ValueError, match="below twice"):
        update_noise_multiplier(1.0, 0.5)
    assert update_noise_multiplier(1.0, math.nextafter(0.5, 1)) > 1e5


def bound(z: float) -> float:
    charges = [(PoissonGaussianEvent(0.02, z), 500)]
    return epsilon(charges, delta=1e-5, relation=ADD_OR_REMOVE_ONE, interval=1e-3)


@pytest.mark.parametrize(
    ("multipliers", "golden"),
    [([1.0, 1.0], 2.7735), ([0.8, 1.2], 4.6680), ([2 / 3, 4 / 3], 7.6172)],
)
def test_one_clip_under_unequal_noise_costs_what_the_least_noise_says(multipliers, golden):
    assert bound(flat_clip_noise_multiplier(multipliers)) == pytest.approx(golden, rel=1e-3)


@pytest.mark.parametrize("wrong", [[], [1.0, 0.0], [-1.0]])
def test_no_noise_is_refused(wrong):
    for rule in (combined_noise_multiplier, flat_clip_noise_multiplier):
        with pytest.raises(ValueError, match=r"must be > 0|zero-size"):
            rule(wrong)
