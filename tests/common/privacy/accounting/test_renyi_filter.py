"""Golden values: the number of rounds that one order allows, computed with dp-accounting 0.6.0."""

from decimal import Decimal
from fractions import Fraction

import pytest

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.renyi import epsilon_rdp, renyi_divergence, to_epsilon
from feddp.common.privacy.accounting.renyi_filter import (
    budget,
    choose_order,
    cost,
)
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    REPLACE_ONE,
    ZERO_OUT,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)

DELTA = 1e-6


@pytest.mark.parametrize(
    ("probability", "multiplier", "epsilon", "order", "total", "rounds"),
    [
        (0.01, 1.0, 2.0, 8.3, 0.525743, 531),
        (0.01, 1.0, 8.0, 4.2, 4.403050, 11476),
        (0.05, 1.0, 8.0, 3.7, 3.682792, 368),
        (0.05, 1.0, 2.0, 7.1, None, 1),
    ],
)
def test_the_filter_allows_as_many_rounds_as_one_order_gives(
    probability: float,
    multiplier: float,
    epsilon: float,
    order: float,
    total: float | None,
    rounds: int,
) -> None:
    event = PoissonGaussianEvent(probability, multiplier)
    chosen = choose_order([(event, 100)], epsilon, DELTA, ADD_OR_REMOVE_ONE)
    assert chosen == order
    allowed = budget(epsilon, DELTA, chosen)
    if total is not None:
        assert allowed == pytest.approx(total, abs=1e-6)
    each = cost(event, chosen, ADD_OR_REMOVE_ONE)
    assert int(Fraction(repr(allowed)) / Fraction(repr(each))) == rounds


def test_without_sampling_the_filter_allows_what_renyi_accounting_does() -> None:
    event = GaussianEvent(10.0)
    for epsilon, rounds in ((8.0, 210), (2.0, 17)):
        order = choose_order([(event, 1)], epsilon, DELTA, ADD_OR_REMOVE_ONE)
        each = cost(event, order, ADD_OR_REMOVE_ONE)
        assert int(budget(epsilon, DELTA, order) / each) == rounds


def test_costs_are_rounded_up_and_budgets_down() -> None:
    for order in (1.1, 2.0, 4.2, 8.3, 63.0):
        event = PoissonGaussianEvent(0.01, 1.0)
        exact = float(renyi_divergence(event, ADD_OR_REMOVE_ONE, [order])[0])
        assert exact < cost(event, order, ADD_OR_REMOVE_ONE) < exact * (1 + 1e-6)
        total = budget(20.0, DELTA, order)
        if total > 0:
            assert to_epsilon(total, order, DELTA) < 20.0
            assert to_epsilon(total, order, DELTA) == pytest.approx(20.0, rel=1e-6)


def test_a_cost_is_exactly_the_decimal_that_repr_prints() -> None:
    each = cost(PoissonGaussianEvent(0.013, 1.1), 5.3, ADD_OR_REMOVE_ONE)
    assert len(Decimal(repr(each)).normalize().as_tuple().digits) <= 12


def test_a_spent_budget_is_worth_the_epsilon_of_the_promise() -> None:
    event = PoissonGaussianEvent(0.01, 1.0)
    assert epsilon_rdp([(event, 531)], DELTA, ADD_OR_REMOVE_ONE) <= 2.0
    assert epsilon_rdp([(event, 532)], DELTA, ADD_OR_REMOVE_ONE) > 2.0


def test_replacing_a_user_costs_four_times_as_much_without_sampling() -> None:
    event = GaussianEvent(2.0)
    assert cost(event, 4.0, REPLACE_ONE) == pytest.approx(4 * cost(event, 4.0, ZERO_OUT), rel=1e-6)


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (PoissonGaussianEvent(0.01, 1.0, 4), ADD_OR_REMOVE_ONE),
        (PoissonGaussianEvent(0.01, 1.0), REPLACE_ONE),
        (FixedSizeGaussianEvent(100, 10, 1.0), ADD_OR_REMOVE_ONE),
        (FixedSizeGaussianEvent(100, 10, 1.0), ZERO_OUT),
    ],
)
def test_an_event_without_a_renyi_bound_is_refused(
    event: PoissonGaussianEvent | FixedSizeGaussianEvent, relation: str
) -> None:
    with pytest.raises(ConfigError, match="No Renyi bound"):
        cost(event, 4.0, relation)


def test_a_target_that_no_order_serves_is_refused() -> None:
    with pytest.raises(ConfigError, match="fixed-schedule"):
        choose_order([(GaussianEvent(1.0), 1)], 0.001, 1e-12, ADD_OR_REMOVE_ONE)
