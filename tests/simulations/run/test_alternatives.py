"""What more would buy: other cohorts, rounds and ranks at the same promise."""

from pathlib import Path
from typing import Any

import pytest
from flat_plan import flat_plan

from feddp.common.errors import ConfigError
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.simulations.run.alternatives import (
    Alternative,
    alternative_lines,
    alternatives,
    draw_alternatives,
)

ASKED: dict[str, Any] = {
    "num_users": 3000,
    "target_epsilon": 8.0,
    "target_delta": 1e-5,
    "noise_multiplier": 0.8033,
    "clipping_norm": 0.5,
    "num_rounds": 50,
    "expected_cohort_size": 300.0,
    "dimension": 10_000,
    "trust": "server",
}


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return flat_plan(**ASKED)


@pytest.fixture(scope="module")
def found(plan: PrivacyPlan) -> list[Alternative]:
    return alternatives(plan, {4: 5000, 8: 10_000, 16: 20_000}, rank=8)


def one(found: list[Alternative], change: str, value: float) -> Alternative:
    (item,) = [item for item in found if (item.change, item.value) == (change, value)]
    return item


def test_the_plan_itself_comes_first_with_its_own_noise(
    plan: PrivacyPlan, found: list[Alternative]
) -> None:
    assert (found[0].change, found[0].compute) == ("", 1.0)
    mean = plan.mechanism.noise_norm / plan.clipping_norm / plan.num_rounds**0.5
    assert found[0].noise == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "value", "changes"),
    [
        ("cohort", 600, {"expected_cohort_size": 600.0}),
        ("rounds", 25, {"num_rounds": 25}),
    ],
)
def test_an_alternative_is_what_a_plan_of_it_would_be(
    found: list[Alternative], change: str, value: float, changes: dict[str, Any]
) -> None:
    item = one(found, change, value)
    other = flat_plan(**ASKED | changes | {"noise_multiplier": None})
    assert item.noise_multiplier == pytest.approx(other.noise_multiplier, rel=2e-3)
    mean = other.mechanism.noise_norm / other.clipping_norm / other.num_rounds**0.5
    assert item.noise == pytest.approx(mean, rel=2e-3)
    units = other.expected_cohort_size * other.num_rounds
    assert item.compute == pytest.approx(units / (300 * 50))


def test_a_cohort_of_a_thousand_has_a_third_less_noise() -> None:
    """N = 3000, epsilon 8, 50 rounds: 38 % less than a cohort of 300."""
    plan = flat_plan(**ASKED | {"expected_cohort_size": 500.0, "noise_multiplier": None})
    thousand = one(alternatives(plan, {}, rank=8), "cohort", 1000)
    own = flat_plan(**ASKED).mechanism.noise_norm / 0.5 / 50**0.5
    assert thousand.noise / own == pytest.approx(0.62, abs=0.01)


def test_a_rank_changes_the_noise_by_its_numbers_and_nothing_else(
    found: list[Alternative],
) -> None:
    assert one(found, "rank", 16).noise == pytest.approx(2**0.5 * found[0].noise, rel=1e-6)
    assert one(found, "rank", 4).noise_multiplier == found[0].noise_multiplier


def test_no_cohort_is_larger_than_the_population() -> None:
    plan = flat_plan(**ASKED | {"expected_cohort_size": 2000.0, "noise_multiplier": None})
    sizes = [item.value for item in alternatives(plan, {}, rank=8) if item.change == "cohort"]
    assert sizes == [1000, 3000]


@pytest.mark.parametrize("mechanism", ["fixed-size", "blt", "cyclic-poisson"])
def test_every_mechanism_has_alternatives_that_it_allows(mechanism: str) -> None:
    numbers = ASKED | {"mechanism": mechanism, "num_rounds": 12, "noise_multiplier": 4.0}
    plan = flat_plan(**numbers)
    found = alternatives(plan, {}, rank=8)
    larger = one(found, "cohort", 600)
    assert larger.compute == pytest.approx(2.0)
    assert larger.noise < found[0].noise
    assert {item.value for item in found if item.change == "rounds"} >= {24, 48}


def test_what_is_out_of_reach_is_left_out() -> None:
    plan = flat_plan(**ASKED | {"noise_multiplier": 40.0, "target_epsilon": 0.2})
    hopeless = alternatives(plan, {}, rank=8)
    assert all(item.noise_multiplier <= 60 for item in hopeless)


def test_the_table_has_a_line_for_each(plan: PrivacyPlan, found: list[Alternative]) -> None:
    lines = alternative_lines(plan, found)
    assert len(lines) == 2 + len(found)
    assert "epsilon 8" in lines[0]
    assert lines[2].split()[-3:] == ["100", "%", "1x"]


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_the_picture_is_written(
    plan: PrivacyPlan, found: list[Alternative], tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"more{ending}"
    draw_alternatives(plan, found, path)
    assert path.stat().st_size > 5000


@pytest.mark.parametrize("name", ["more.pdf", "more", "absent/more.png"])
def test_a_picture_that_cannot_be_written_is_one_line(
    plan: PrivacyPlan, found: list[Alternative], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="--picture"):
        draw_alternatives(plan, found, tmp_path / name)
