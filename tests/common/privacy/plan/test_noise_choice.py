"""The noise of a schedule: what is given is kept, and holds what a plan promises."""

import pytest

from feddp.common.errors import ConfigError
from feddp.common.privacy.mechanism.cohorts import Population
from feddp.common.privacy.mechanism.poisson import POISSON
from feddp.common.privacy.mechanism.quantile import Clipping, QuantileClipping
from feddp.common.privacy.plan.noise_choice import choose_noise
from feddp.common.privacy.plan.request import Request, Trust
from feddp.common.privacy.plan.schedule import make_schedule

SCHEDULE, _ = make_schedule(
    Request(target_epsilon=8.0, clipping_norm=0.5, num_rounds=20, expected_cohort_size=50.0),
    population=Population("user", "user", 1000, None, None, 1),
    mechanism=POISSON,
    trust=Trust("server"),
    dimension=100,
)


def test_given_noise_is_kept_with_its_cost() -> None:
    noise, reasons = choose_noise(SCHEDULE, 4.0, Clipping(0.5))
    assert (noise.multiplier, noise.matrix, reasons["noise_multiplier"]) == (4.0, None, "given")
    assert noise.epsilon == SCHEDULE.spent(4.0) + noise.bridge_epsilon <= 8.0
    assert noise.bridge_delta <= SCHEDULE.delta / 100


def test_given_noise_that_misses_the_target_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"above privacy\.target-epsilon = 8"):
        choose_noise(SCHEDULE, 0.4, Clipping(0.5))


def test_a_bit_with_too_little_noise_is_refused() -> None:
    clipping = Clipping(0.5, QuantileClipping(0.5, 0.2, 2.0, 0.01, 10.0))
    with pytest.raises(ConfigError, match="must be above half the noise multiplier"):
        choose_noise(SCHEDULE, 4.0, clipping)
