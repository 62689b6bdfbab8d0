"""blt and banded: everybody in turn, and one charge for the whole run."""

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.events import GaussianEvent
from feddp.common.privacy.mechanism.fixed_turns import BANDED, BLT

COHORTS = Cohorts(Population("user", "user", 100, None, None, 1), 20.0, 10, 12, 5)


def test_a_run_is_one_charge_of_a_gaussian() -> None:
    assert BLT.charges(COHORTS, 3.0) == BANDED.charges(COHORTS, 3.0) == ((GaussianEvent(3.0), 1),)


def test_everybody_whose_turn_it_is_takes_part() -> None:
    assert BLT.arrange(100, 30.0, None) == (100 / 3, 3)
    assert BLT.arrange(100, None, 7) == (100 / 7, 7)
    draw = BANDED.draw(COHORTS, "ab" * 32)
    assert (draw.probability, draw.separation) == (1.0, 5)
