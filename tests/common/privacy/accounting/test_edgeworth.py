"""Edgeworth estimates: golden values, both forms, and that nothing takes them for a guarantee."""

import dataclasses

import pytest

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting import epsilon as accounting
from feddp.common.privacy.accounting.edgeworth import cross_check_lines, edgeworth_epsilon
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    GaussianEvent,
    PoissonGaussianEvent,
)
from feddp.common.privacy.plan import schedule
from feddp.common.privacy.plan.plan import PrivacyPlan

# (q, rounds, z): integral form at orders 1, 2, 3; two-term form; delta 1e-5.
GOLDEN = [
    (0.01, 100, 0.7, (1.1252, 1.2787, 1.4209), (1.3053, 1.4492, 1.6080)),
    (0.01, 1000, 0.8, (2.7175, 2.8736, 2.9891), (3.0222, 3.1641, 3.3562)),
    (0.01, 1000, 1.0, (1.7252, 1.7826, 1.8117), (1.8948, 1.9315, 1.9210)),
    (0.02, 2000, 1.0, (5.4721, 5.5727, 5.6073), (5.8441, 5.8669, 5.7990)),
    (0.1, 100, 1.0, (6.2950, 6.6425, 6.8811), (7.0551, 7.1035, 8.0072)),
    (0.1, 500, 2.0, (5.5075, 5.5487, 5.5551), (5.7542, 5.6747, 5.5876)),
    (0.1, 2000, 4.0, (5.1140, 5.1169, 5.1169), (5.1445, 5.1196, 5.1171)),
]


@pytest.mark.parametrize(("q", "rounds", "z", "integral", "two_term"), GOLDEN)
def test_both_forms_have_their_golden_values(q, rounds, z, integral, two_term):
    event = PoissonGaussianEvent(q, z)
    for order in (1, 2, 3):
        value = edgeworth_epsilon(event, rounds, 1e-5, order=order)
        assert value == pytest.approx(integral[order - 1], abs=6e-5)
        other = edgeworth_epsilon(event, rounds, 1e-5, order=order, is_integral=False)
        assert other == pytest.approx(two_term[order - 1], abs=6e-5)


def test_it_can_be_far_below_the_truth():
    """The two-term form says 7.98 where the bound is 8.93."""
    event = PoissonGaussianEvent(2000 / 363849, 0.5918)
    value = edgeworth_epsilon(event, 3638, 1e-6, order=2, is_integral=False)
    assert value == pytest.approx(7.983, abs=1e-3)


def test_lines_carry_the_residual_and_say_that_they_are_no_guarantee():
    charges = [(PoissonGaussianEvent(0.01, 1.0), 1000)]
    lines = cross_check_lines(charges, delta=1e-5, relation=ADD_OR_REMOVE_ONE)
    assert len(lines) == 3
    assert all("(estimate, not a guarantee)" in line for line in lines)
    assert "1.812, -0.9 % from the PLD bound 1.828" in lines[-1]


def test_other_mechanisms_have_no_estimate():
    (line,) = cross_check_lines([(GaussianEvent(1.0), 1)], delta=1e-5, relation="zero-out")
    assert "no estimate" in line
    with pytest.raises(ConfigError, match="No Edgeworth estimate"):
        edgeworth_epsilon(PoissonGaussianEvent(0.1, 1.0, 2), 10, 1e-5)


def test_no_plan_and_no_accountant_knows_of_it():
    assert {accounting.PLD, accounting.RDP} == {"pld", "rdp"}
    for module in (accounting, schedule):
        assert "edgeworth" not in vars(module)
    assert "edgeworth" not in {field.name for field in dataclasses.fields(PrivacyPlan)}
