"""Golden values of epsilon, from the public interface alone: a few of every kind of event.

Computed with dp-accounting 0.6.0; those of a Gaussian solve Balle & Wang 2018, theorem 8.
"""

import math

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from feddp.common.privacy.accounting.bridge import bridge_delta
from feddp.common.privacy.accounting.epsilon import epsilon
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    REPLACE_ONE,
    Event,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)

# (event, charges, delta, relation): epsilon, and the value of a common mistake.
GOLDEN: dict[str, tuple[Event, int, float, str, float, float]] = {
    "Poisson, not RDP": (
        PoissonGaussianEvent(0.01, 1.0), 1000, 1e-6, ADD_OR_REMOVE_ONE, 2.1245, 2.4367,
    ),
    "Poisson, not the added user alone": (
        PoissonGaussianEvent(0.01, 0.7), 100, 1e-5, ADD_OR_REMOVE_ONE, 2.3673, 0.5073,
    ),
    "Poisson of a larger q": (
        PoissonGaussianEvent(0.1, 4.0), 2000, 1e-5, ADD_OR_REMOVE_ONE, 5.1170, 5.5303,
    ),
    "Gaussian": (GaussianEvent(2.5), 20, 1e-6, ADD_OR_REMOVE_ONE, 9.61740, 10.23194),
    "one Gaussian": (GaussianEvent(1.0), 1, 1e-5, ADD_OR_REMOVE_ONE, 4.37718, 4.72851),
    "two coins, not one": (
        PoissonGaussianEvent(0.01, 2.0, 2), 1000, 1e-6, ADD_OR_REMOVE_ONE, 1.5261, 0.7230,
    ),
    "fixed size, not unhalved": (
        FixedSizeGaussianEvent(1000, 100, 1.699), 55, 0.99e-5, REPLACE_ONE, 7.997, 2.351,
    ),
    "fixed size, not one pair": (
        FixedSizeGaussianEvent(1000, 100, 3.791), 55, 0.99e-5, REPLACE_ONE, 2.0, 1.868,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_each_kind_of_event_has_its_golden_epsilon(name: str) -> None:
    event, count, delta, relation, golden, mistaken = GOLDEN[name]
    found = epsilon([(event, count)], delta=delta, relation=relation)
    assert found == pytest.approx(golden, rel=3e-3)
    assert found != pytest.approx(mistaken, rel=3e-2)


def test_epsilon_is_rounded_up_and_never_down() -> None:
    exact = pld.from_gaussian_mechanism(
        1.0, sampling_prob=0.05, value_discretization_interval=1e-4
    ).self_compose(55)
    found = epsilon([(PoissonGaussianEvent(0.05, 1.0), 55)], delta=1e-5, relation=ADD_OR_REMOVE_ONE)
    assert exact.get_epsilon_for_delta(1e-5) < found
    assert found == pytest.approx(exact.get_epsilon_for_delta(1e-5), rel=2e-6)


def test_the_bridge_term_has_its_golden_values() -> None:
    """Extra delta of 1e9 noised numbers at s = 2^20, for epsilon 1, 2, 4, 8."""
    for target, golden in ((1.0, 3.2e-9), (2.0, 7.1e-9), (4.0, 4.7e-8), (8.0, 2.5e-6)):
        found = bridge_delta(
            num_charges=1000, dimension=1_000_000, noise_scale=1 << 20, epsilon=target
        )
        exact = (1 + math.exp(target)) * math.sqrt(1e9 / 1152) / 2**40
        assert found == pytest.approx(golden, rel=0.05)
        assert found >= exact
