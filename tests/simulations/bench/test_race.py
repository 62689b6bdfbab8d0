"""Contestants take turns, and what belongs together is paired."""

import pytest

from feddp.common.errors import FeddpError
from feddp.simulations.bench.race import Spread, paired, peak_megabytes, race, run_apart


def test_a_race_runs_all_in_turn_and_pairs_by_repeat() -> None:
    order: list[str] = []
    found = race({n: lambda n=n: order.append(n) for n in "ab"}, repeats=2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(times) for times in found.values()] == [2, 2]
    assert paired({"x": [2.0, 6.0], "y": [1.0, 2.0]}, "x", "y").least == 2.0


def test_a_function_apart_has_a_peak_of_its_own() -> None:
    assert run_apart("feddp.simulations.bench.race:peak_megabytes") < peak_megabytes() / 2


def test_a_function_that_fails_apart_says_why() -> None:
    with pytest.raises(FeddpError, match="no attribute 'absent'"):
        run_apart("feddp.simulations.bench.race:absent")


def test_a_spread_is_the_median_between_the_least_and_the_most() -> None:
    assert Spread.of([9.0, 1.0, 2.0]) == Spread(2.0, 1.0, 9.0)
