"""The choice of unit, group size and clipping norm from statistics of public users."""

import doctest
import math

import numpy as np
import pytest

from feddp.simulations.group_size import proxy as proxy_module
from feddp.simulations.group_size.grouping import (
    choose,
    crossings,
    grouping_lines,
    nu_of_examples,
    nu_of_users,
)
from feddp.simulations.group_size.planner import Prediction, Setting, best_group_size, nu, predict
from feddp.simulations.group_size.proxy import Proxy


def proxy(correlation: float, count: int = 64, norm: float = 2.0) -> Proxy:
    square = np.full(9, norm**2)
    return Proxy(np.full(9, count), square, correlation * square)


def points(*noises: tuple[int, float | None, float | None]) -> list[Prediction]:
    return [Prediction(size, 1.0, uls, 1.0, els) for size, uls, els in noises]


def test_docstring_numbers_of_the_statistics_hold() -> None:
    assert doctest.testmod(proxy_module).failed == 0


def test_the_median_norm_follows_the_formula_of_the_correlation() -> None:
    measured = proxy(0.5)
    assert measured.correlation == pytest.approx(0.5)
    assert measured.norm(4) == pytest.approx(2 * math.sqrt(0.5 + 0.5 / 4))


def test_users_with_fewer_examples_than_g_give_what_they_have() -> None:
    measured = proxy(0.0, count=2)
    assert measured.norm(16) == measured.norm(2) == pytest.approx(2 / math.sqrt(2))
    assert measured.mean_examples(16) == 2
    (found,) = predict(Setting(500, 20, 50, 2.0, 1e-5), (16,), mean_examples=measured.mean_examples)
    (plain,) = predict(Setting(500, 20, 50, 2.0, 1e-5), (2,))
    assert found.uls_noise == plain.uls_noise


@pytest.fixture(scope="module")
def golden() -> list[Prediction]:
    setting = Setting(10_000, 1000, 1024, 1.0, 1e-6)
    return predict(setting, (1, 2, 4, 8, 16, 32), is_with_examples=False)


@pytest.mark.parametrize(
    ("correlation", "size", "gain"), [(0.0, 16, 3.0), (0.1, 8, 2.0), (0.5, 4, 1.2), (1.0, 1, 1.0)]
)
def test_golden_gains_of_the_planner_are_what_measured_users_of_that_correlation_choose(
    golden: list[Prediction], correlation: float, size: int, gain: float
) -> None:
    measured = proxy(correlation, norm=1.0)
    chosen = choose(golden, measured)
    assert chosen is not None
    assert chosen.unit == "user"
    one = nu_of_users(golden[0], measured)
    assert one / chosen.noise == pytest.approx(gain, abs=0.05)
    best, exact = best_group_size(golden, correlation)
    assert (best, chosen.group_size) == (size, size)
    assert exact == pytest.approx(one / nu(golden[best.bit_length() - 1], correlation))


def test_the_quieter_unit_is_chosen_and_a_tie_goes_to_users() -> None:
    measured = proxy(1.0, count=4)  # averaging brings nothing
    loud_users = choose(points((1, 0.02, 0.02), (4, 0.04, 0.01)), measured)
    assert loud_users is not None
    assert (loud_users.unit, loud_users.group_size) == ("example", 4)
    equal = choose(points((1, 0.02, 0.02), (4, 0.04, 0.02)), measured)
    assert equal is not None
    assert (equal.unit, equal.group_size, equal.other_size) == ("user", 1, 4)


def test_the_crossover_lies_between_the_sizes_whose_quieter_unit_differs() -> None:
    measured = proxy(1.0, norm=1.0)
    found = points((1, 0.01, 0.01), (2, 0.01, 0.02), (8, 0.02, 0.01))
    (size,) = crossings(found, measured)
    assert size == pytest.approx(4.0)  # equal and opposite on a log scale
    assert crossings(found[:2], measured) == []


def test_more_examples_than_there_are_leave_no_choice() -> None:
    setting = Setting(100, 10, 1000, 2.0, 1e-4)
    found = points((1, None, None), (4, None, None))
    measured = proxy(0.5)
    assert choose(found, measured) is None
    assert nu_of_users(found[0], measured) == nu_of_examples(found[0], measured) == math.inf
    text = "\n".join(
        grouping_lines(setting, found, measured, source="s", choice=None, clipping_norm=0.0)
    )
    assert "No choice" in text
    assert "inf" not in text


def test_the_choice_is_printed_as_settings_with_reasons() -> None:
    setting = Setting(1000, 10, 100, 2.0, 1e-4)
    measured = proxy(1.0, count=4)
    found = points((1, 0.02, 0.02), (4, 0.04, 0.01))
    text = "\n".join(
        grouping_lines(
            setting,
            found,
            measured,
            source="users of a test",
            choice=choose(found, measured),
            clipping_norm=0.1234,
        )
    )
    assert 'sampling.unit = "example"' in text
    assert "data.max-examples-per-user = 4" in text
    assert "privacy.clipping-norm = 0.12 " in text
    assert "sampling.expected-cohort-size = 100 " in text
    assert "about 4000 by the proxy" in text
    assert "1/2.00 of the noise of ULS at G = 1" in text
