"""The norm that follows a quantile: its bounds, its direction, and the steps of its bit."""

import math

import pytest

from feddp.common.privacy.mechanism.quantile import Clipping, QuantileClipping

ADAPTIVE = QuantileClipping(0.5, 0.2, 10.0, 0.01, 10.0)


def test_the_norm_falls_when_too_many_were_short_and_stays_at_the_quantile() -> None:
    assert ADAPTIVE.next_norm(1.0, share=0.9) < 1.0 < ADAPTIVE.next_norm(1.0, share=0.1)
    assert ADAPTIVE.next_norm(1.0, share=0.5) == 1.0


@pytest.mark.parametrize(("noised", "taken"), [(-3.0, 0.0), (7.0, 1.0)])
def test_a_noised_share_outside_0_and_1_is_taken_as_the_nearer(noised: float, taken: float) -> None:
    assert ADAPTIVE.next_norm(1.0, share=noised) == ADAPTIVE.next_norm(1.0, share=taken)


def test_the_norm_stays_within_its_bounds() -> None:
    assert ADAPTIVE.next_norm(0.01, share=1.0) == 0.01
    assert ADAPTIVE.next_norm(10.0, share=0.0) == 10.0


def test_the_steps_of_the_bit_are_rounded_down_and_so_to_more_noise() -> None:
    steps = ADAPTIVE.bit_steps(1.0, 1 << 20)
    assert steps == math.floor((1 << 20) / 20)
    # The noise of z K steps is at least 2 sigma_b in bits of B steps.
    assert 1.0 * (1 << 20) / steps >= 20


@pytest.mark.parametrize("wrong", [(0.0, 0.2, 1.0, 0.1, 1.0), (0.5, 0.2, 1.0, 1.0, 0.1)])
def test_numbers_out_of_range_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        QuantileClipping(*wrong)


def test_a_norm_that_adapts_has_one_bit() -> None:
    assert (Clipping(0.5).num_bits, Clipping(0.5, ADAPTIVE).num_bits) == (0, 1)
