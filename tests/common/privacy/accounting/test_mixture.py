"""The fast mixture of Gaussians against dp-accounting's own, and the tail of the coins."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.optimize import brentq

from feddp.common.privacy.accounting.mixture import fixed_size_pld, mixture_pld
from feddp.common.privacy.mechanism.events import PoissonGaussianEvent

INTERVAL = 1e-2


def both(z, sensitivities, weights, rounds, delta):
    fast = mixture_pld(z, sensitivities, weights, INTERVAL).self_compose(rounds)
    slow = pld.from_mixture_gaussian_mechanism(
        z, sensitivities, weights, value_discretization_interval=INTERVAL
    ).self_compose(rounds)
    return fast.get_epsilon_for_delta(delta), slow.get_epsilon_for_delta(delta)


@pytest.mark.parametrize(
    ("q", "z", "coins", "rounds"), [(0.01, 2.0, 4, 200), (0.5, 4.0, 3, 10), (1.0, 10.0, 4, 5)]
)
def test_it_is_what_dp_accounting_finds(q, z, coins, rounds):
    event = PoissonGaussianEvent(q, z, coins).to_dp_event()
    fast, slow = both(z, event.sensitivities, event.sampling_probs, rounds, 1e-6)
    assert fast == pytest.approx(slow, rel=1e-7)


def test_one_coin_is_the_sampled_gaussian():
    fast = mixture_pld(1.0, [0, 1], [0.9, 0.1], INTERVAL)
    known = pld.from_gaussian_mechanism(
        1.0, sampling_prob=0.1, value_discretization_interval=INTERVAL
    )
    for value in (0.0, 0.1, 0.5, 1.0, 2.0):
        assert fast.get_delta_for_epsilon(value) == pytest.approx(
            known.get_delta_for_epsilon(value), rel=1e-7, abs=1e-14
        )


def test_both_directions_are_there():
    mixture = mixture_pld(1.0, [0, 1, 2], [0.81, 0.18, 0.01], INTERVAL)
    removed, added = mixture._pmf_remove, mixture._pmf_add
    assert removed.get_epsilon_for_delta(1e-6) > 1.5 * added.get_epsilon_for_delta(1e-6) > 0


def test_weight_moved_to_the_largest_sensitivity_costs_more():
    less, _ = both(2.0, [0, 1, 4], [0.9, 0.0999, 0.0001], 10, 1e-6)
    more, _ = both(2.0, [0, 1, 4], [0.9, 0.099, 0.001], 10, 1e-6)
    assert more > less


def test_the_tail_of_many_coins_is_moved_to_all_of_them_and_never_dropped():
    event = PoissonGaussianEvent(0.01, 1.0, 200).to_dp_event()
    assert len(event.sensitivities) < 60
    assert event.sensitivities[-1] == 200
    assert 0 < event.sampling_probs[-1] < 1e-30
    assert math.fsum(event.sampling_probs) == pytest.approx(1.0, abs=1e-15)


def test_few_coins_are_all_there():
    event = PoissonGaussianEvent(0.1, 1.0, 3).to_dp_event()
    assert list(event.sensitivities) == [0, 1, 2, 3]
    assert event.sampling_probs == pytest.approx([0.729, 0.243, 0.027, 0.001], rel=1e-12)


def replaced(q, z, alpha):
    """Divergences at alpha of ((1-q)P + qQ, P) and of (P, (1-q)P + qQ), by integration."""
    x = np.linspace(-14 * z, 14 * z + 2, 400_001)
    first, second = (np.exp(-(((x - shift) / z) ** 2) / 2) for shift in (0.0, 2.0))
    mixed = (1 - q) * first + q * second
    step = (x[1] - x[0]) / (z * math.sqrt(2 * math.pi))
    return [
        float(np.maximum(a - alpha * b, 0).sum() * step)
        for a, b in ((mixed, first), (first, mixed))
    ]


@pytest.mark.parametrize(("q", "z"), [(0.1, 1.7), (0.5, 0.8), (0.9, 3.0), (1.0, 2.0)])
def test_a_cohort_of_fixed_size_has_the_curve_of_both_pairs(q, z):
    made = fixed_size_pld(z, q, INTERVAL)
    for loss in (-3.0, -1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0, 3.0):
        above, below = replaced(q, z, math.exp(loss))
        delta = made.get_delta_for_epsilon(loss)
        assert delta == pytest.approx(above if loss >= 0 else below, rel=1e-5, abs=1e-9)
        assert delta >= max(above, below) * (1 - 1e-5) - 1e-9


# (target epsilon at delta .99e-5): noise of q = .1 over 55 rounds, and by one pair alone.
CALIBRATED = {8.0: (1.699, 1.638), 2.0: (3.791, 3.615)}


@pytest.mark.parametrize("target", CALIBRATED)
def test_one_pair_alone_would_take_too_little_noise(target):
    def excess(z, made=fixed_size_pld):
        composed = made(z, 0.1, 1e-3).self_compose(55)
        return composed.get_epsilon_for_delta(0.99e-5) - target

    def one_pair(z, q, interval):
        return pld.PrivacyLossDistribution(mixture_pld(z, [0, 2], [1 - q, q], interval)._pmf_remove)

    golden, too_little = CALIBRATED[target]
    assert brentq(excess, 1, 6, xtol=1e-4) == pytest.approx(golden, abs=1e-3)
    assert brentq(lambda z: excess(z, one_pair), 1, 6, xtol=1e-4) == pytest.approx(
        too_little, abs=1e-3
    )
    assert excess(too_little) > 0.03 * target
