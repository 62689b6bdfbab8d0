"""The race pairs what belongs together, and a process apart has a memory of its own."""

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
    held = b"1" * (200 << 20)
    own = peak_megabytes()
    assert own > len(held) >> 20
    assert run_apart("feddp.simulations.bench.race:peak_megabytes") < own / 2


def test_a_function_that_fails_apart_says_why() -> None:
    with pytest.raises(FeddpError, match="no attribute 'absent'"):
        run_apart("feddp.simulations.bench.race:absent")


def test_a_spread_is_median_and_range() -> None:
    assert str(Spread.of([3.0, 1.0, 2.0, 8.0])) == "2.50 [1.00, 8.00]"
