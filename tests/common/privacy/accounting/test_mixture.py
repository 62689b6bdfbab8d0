"""The fast mixture of Gaussians against dp-accounting's own, and the tail of the coins."""

import math

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from feddp.common.privacy.accounting.mixture import mixture_pld
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
