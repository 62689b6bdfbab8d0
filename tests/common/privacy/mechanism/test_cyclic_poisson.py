"""cyclic-poisson: a charge per turn and per spare attempt."""

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.cyclic_poisson import CYCLIC_POISSON
from feddp.common.privacy.mechanism.events import PoissonGaussianEvent

USERS = Population("user", "user", 100, None, None, 1)


def test_every_turn_and_spare_attempt_is_charged() -> None:
    charges = CYCLIC_POISSON.charges(Cohorts(USERS, 10.0, 11, 13, 5), 2.0)
    assert charges == ((PoissonGaussianEvent(0.5, 2.0), 3 + 2),)


def test_examples_have_no_turns_of_their_own() -> None:
    examples = Population("example", "example", 100, 200, None, 1)
    asked = {"drawn_by": "node", "is_noised_by_nodes": False, "is_adaptive": False}
    assert "its place among its user's" in CYCLIC_POISSON.problems(examples, **asked)[0]
    assert CYCLIC_POISSON.problems(USERS, **asked) == []
