"""poisson: a charge for every round and spare attempt."""

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.events import PoissonGaussianEvent
from feddp.common.privacy.mechanism.poisson import POISSON


def test_every_round_and_spare_attempt_is_charged_with_all_coins_of_a_user() -> None:
    cohorts = Cohorts(Population("user", "example", 1000, 2500, 3, 1), 50.0, 20, 24, 1)
    assert POISSON.charges(cohorts, 4.0) == ((PoissonGaussianEvent(0.02, 4.0, 3), 24),)
    assert POISSON.draw(cohorts, "").probability == 0.02
