"""Populations and cohorts: how many units there are, and what a turn's coin must be."""

from feddp.common.privacy.mechanism.cohorts import (
    Cohorts,
    Population,
    declare_population,
    default_cohort_size,
    most_turns,
    one_coin_problems,
)

USERS = Population("user", "user", 1000, None, None, 1)
EXAMPLES_OF_USERS = Population("user", "example", 1000, 2500, 3, 2)
EXAMPLES = Population("example", "example", 1000, 2500, None, 1)


def test_units_coins_and_the_protected_are_counted_by_what_is_drawn() -> None:
    found = [(p.num_units, p.num_protected, p.num_coins) for p in (USERS, EXAMPLES_OF_USERS)]
    assert found == [(1000, 1000, 1), (2500, 1000, 6)]
    assert (EXAMPLES.num_units, EXAMPLES.num_protected, EXAMPLES.num_coins) == (2500, 2500, 1)


def test_numbers_that_do_not_enter_the_promise_are_left_out() -> None:
    numbers = {"num_examples": 2500, "max_examples_per_user": 3, "max_nodes_per_user": 1}
    users = declare_population(unit="user", sampling_unit="user", num_users=1000, **numbers)
    assert users == USERS
    made = declare_population(unit="example", sampling_unit="example", num_users=1000, **numbers)
    assert made == EXAMPLES


def test_a_whole_turn_never_has_more_than_everybody() -> None:
    third = Cohorts(USERS, 333.3333333334, 20, 24, 3)
    assert third.turn_probability == 1.0
    assert third.num_spare == 4
    assert Cohorts(USERS, 50.0, 20, 24, 5).turn_probability == 0.25


def test_the_default_cohort_is_never_larger_than_the_population() -> None:
    assert [default_cohort_size(n) for n in (2, 50, 5000, 10**6)] == [2, 20, 500, 1000]


def test_several_coins_are_refused_by_those_that_account_for_one() -> None:
    assert one_coin_problems("blt", USERS) == []
    assert "one unit on one node" in one_coin_problems("blt", EXAMPLES_OF_USERS)[0]


def test_a_part_of_a_cycle_holds_a_turn() -> None:
    assert [most_turns(rounds, 5) for rounds in (1, 5, 6, 20)] == [1, 1, 2, 4]
