import doctest

import pytest

from feddp.common.errors import ConfigError
from feddp.simulations.commands.plan import plan
from feddp.simulations.group_size import planner
from feddp.simulations.group_size.planner import (
    Prediction,
    Setting,
    best_group_size,
    calibrate,
    nu,
    planner_lines,
    predict,
    quieter_unit,
    typical_norm,
)


def setting(examples: float, epsilon: float) -> Setting:
    return Setting(10_000, 1000, examples, epsilon, 1e-6)


def test_docstring_numbers_hold() -> None:
    assert doctest.testmod(planner).failed == 0


def test_golden_best_group_sizes_and_gains() -> None:
    found = predict(setting(1024, 1.0), (1, 2, 4, 8, 16, 32), is_with_examples=False)
    expected = {0.0: (16, 3.04), 0.1: (8, 1.97), 0.5: (4, 1.23), 1.0: (1, 1.0)}
    for correlation, (size, gain) in expected.items():
        best, measured = best_group_size(found, correlation)
        assert best == size
        assert measured == pytest.approx(
            gain, rel=0.02
        )  # the coarse grid costs a little at epsilon 1


def test_golden_noise_of_examples_does_not_move_with_the_group_size() -> None:
    found = predict(setting(512, 2.0), (1, 4))
    assert all(0.00729 <= (p.els_noise or 0) <= 0.00735 for p in found)
    assert found[1].crossover == pytest.approx(0.79, abs=0.01)


def test_one_example_per_user_makes_both_units_the_same() -> None:
    (found,) = predict(Setting(500, 20, 50, 2.0, 1e-5), (1,))
    assert found.crossover == pytest.approx(1.0)


def test_golden_multiplier_of_users() -> None:
    z = calibrate(probability=0.01, num_coins=1, num_rounds=1000, target_epsilon=2.0, delta=1e-6)
    assert z == pytest.approx(1.0291, rel=2e-3)


def test_similar_examples_gain_nothing_from_averaging() -> None:
    assert typical_norm(8, 1.0) == 1.0
    assert typical_norm(9, 0.0) == pytest.approx(1 / 3)


def test_a_cohort_beyond_all_users_is_left_out() -> None:
    found = predict(Setting(100, 10, 200, 2.0, 1e-4), (1, 4))
    assert found[0].uls_noise is None
    assert nu(found[0], 0.5) == float("inf")
    assert found[1].uls_noise is not None
    text = "\n".join(planner_lines(Setting(100, 10, 200, 2.0, 1e-4), found))
    assert "    1        -           -        -           -   -\n" in text
    assert "nan" not in text
    assert "inf" not in text


def test_more_examples_a_round_than_there_are_leave_no_best_group_size() -> None:
    setting = Setting(100, 10, 1000, 2.0, 1e-4)
    found = predict(setting, (1, 4))
    assert all(p.uls_noise is None and p.els_noise is None for p in found)
    text = "\n".join(planner_lines(setting, found))
    assert "nan" not in text
    assert "    0.0             -                 -                     -    -" in text


def test_the_quieter_unit_changes_at_the_crossover() -> None:
    found = Prediction(4, 1.0, 0.02, 1.0, 0.01)  # crossover at C(4)/C = 0.5, which is r = 0
    assert quieter_unit(found, 0.0) == "="
    assert quieter_unit(found, 0.2) == "ELS"
    assert quieter_unit(Prediction(4, 1.0, 0.02, 1.0, 0.015), 0.2) == "ULS"
    assert quieter_unit(Prediction(4, None, None, 1.0, 0.01), 0.2) == "-"


@pytest.mark.parametrize(
    ("flat", "part"),
    [
        ({"privacy.unit": "example", "sampling.unit": "example"}, "promises nothing to users"),
        ({"privacy.mechanism": "fixed-size"}, "a coin per unit"),
    ],
)
def test_group_sizes_without_a_users_promise_or_coins_are_refused(
    flat: dict[str, object], part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        plan(settings=[f"{key}={value}" for key, value in flat.items()], group_size=True)
