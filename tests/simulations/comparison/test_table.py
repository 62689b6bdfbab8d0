"""The rows of a comparison: over their seeds, on disk and as text."""

from pathlib import Path

import pytest

from feddp.common.errors import ConfigError
from feddp.simulations.comparison.table import (
    difference_lines,
    example_epsilon,
    is_comparison,
    paired_differences,
    read_rows,
    shown,
    summarise,
    table_lines,
    write_comparison,
)
from feddp.simulations.leakage.attacks import Interval


def fake(method: str, seed: int, loss: float, auc: float) -> dict[str, object]:
    attack = {"auc": {"value": auc, "low": 0.4, "high": 0.7}}
    return {
        "cell": {"method": method, "epsilon": 2.0, "group_size": 4, "seed": seed},
        "status": "done",
        "tokens": 12_800,
        "promise": {"user_epsilon": 1.99, "example_epsilon": 0.5, "noise_to_signal": 3.0},
        "metrics": {"loss": loss},
        "leakage": {
            "user_inference": attack,
            "membership": {"loss": attack},
            "exposure": None,
            "poison_gap": {"value": 0.1, "low": 0.0, "high": 0.2},
            "sensitive_tokens": None,
        },
        "seconds": 10.0,
    }


def test_rows_average_over_seeds_and_survive_the_disk(tmp_path: Path) -> None:
    absent = {"cell": fake("els", 1, 0, 0)["cell"], "status": "not available", "reason": "no"}
    rows = summarise([fake("uls", 1, 3.0, 0.5), fake("uls", 2, 4.0, 0.6), absent])
    assert [row.num_seeds for row in rows] == [2, 0]
    assert rows[0].metrics["loss"].value == 3.5
    assert rows[0].metrics["loss"].low < 3.0
    results = [fake("uls", 1, 3.0, 0.5), fake("uls", 2, 4.0, 0.6), fake("els", 2, 3.5, 0.5), absent]
    differences = paired_differences(results)
    write_comparison(tmp_path, rows, differences, "feddp compare x.toml")
    command, found, found_differences = read_rows(tmp_path)
    assert command == "feddp compare x.toml"
    assert found == rows
    assert found_differences == differences
    text = "\n".join(table_lines(found))
    assert "not available: no" in text
    assert "1.99" in text
    written = (tmp_path / "comparison.csv").read_text()
    assert "user_inference,0.55" in written
    assert "uls,,2.0,4,user_epsilon,1.99,," in written


def test_differences_pair_the_seeds_that_both_rows_have() -> None:
    losses = {"uls": {1: 3.0, 2: 4.0, 3: 9.0}, "els": {1: 2.5, 2: 3.7}}
    found = paired_differences(
        [fake(m, seed, loss, 0.5) for m, seeds in losses.items() for seed, loss in seeds.items()]
    )
    (loss,) = [one for one in found if one.figure == "loss"]
    assert (loss.method, loss.other) == ("uls", "els")
    assert loss.interval.value == pytest.approx(0.4)  # of seeds 1 and 2, which both have
    assert "+0.400" in "\n".join(difference_lines(found))
    assert difference_lines([]) == []


def test_an_example_where_users_are_drawn_has_at_most_its_users_epsilon() -> None:
    uls, els = summarise([fake("uls", 1, 3.0, 0.5), fake("els", 1, 3.0, 0.5)])
    assert (example_epsilon(uls), example_epsilon(els)) == ("<= 0.5", "0.5")
    assert uls.tokens == 12_800
    assert "1.28e+04" in table_lines([uls])[1]


@pytest.mark.parametrize(
    ("interval", "is_signed", "text"),
    [
        (None, False, "-"),
        (Interval(0.5, 0.45, 0.55), False, "0.500 [0.450, 0.550]"),
        (Interval(0.5, -0.1, 1.1), True, "+0.500 [-0.100, +1.100]"),
        (Interval(0.5, float("-inf"), float("inf")), False, "0.500"),  # one seed
    ],
)
def test_a_mean_is_shown_with_its_interval_where_it_has_one(
    interval: Interval | None, is_signed: bool, text: str
) -> None:
    assert shown(interval, is_signed=is_signed) == text


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path) -> None:
    assert not is_comparison(tmp_path)
    with pytest.raises(ConfigError, match="no comparison here"):
        read_rows(tmp_path)
