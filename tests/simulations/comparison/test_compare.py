"""The grid, its overrides and its rows; a whole cell runs in the slow suite."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feddp.common.assembly import load_users
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.errors import ConfigError
from feddp.simulations.comparison.cells import Cell, Grid, cell_config, mean_examples, run_cell
from feddp.simulations.comparison.compare import read_comparison
from feddp.simulations.comparison.table import (
    difference_lines,
    example_epsilon,
    paired_differences,
    read_rows,
    summarise,
    table_lines,
    write_comparison,
)

GRID = Grid(
    methods=("none", "example", "els", "uls", "federated"),
    epsilons=(1.0, 8.0),
    group_sizes=(1, 4),
    seeds=(1, 2),
    examples_per_round=400,
)


def test_cells_without_a_choice_are_there_once() -> None:
    names = [cell.name for cell in GRID.cells()]
    assert len(names) == len(set(names))
    count = {m: sum(name.startswith(m) for name in names) for m in GRID.methods}
    assert count == {"none": 2, "example": 4, "els": 4, "uls": 8, "federated": 4}


def test_every_method_processes_the_same_examples_per_round(tmp_path: Path) -> None:
    users, _ = load_users(from_flat({}))
    for cell in GRID.cells():
        config = cell_config(from_flat({}), GRID, cell, tmp_path)
        given = np.minimum(users.counts, cell.group_size).mean()
        each = 1 if config.sampling.unit == "example" else given
        cohort = config.sampling.expected_cohort_size or 0
        assert cohort * each * config.local.epochs == pytest.approx(400)


def test_of_real_users_the_declared_examples_say_how_many_are_drawn(tmp_path: Path) -> None:
    flat = {"data.path": "x.jsonl", "privacy.num-users": 1000}
    grid = replace(GRID, num_examples={4: 2500})
    config = cell_config(from_flat(flat), grid, Cell("uls", 2.0, 4, 1), tmp_path)
    assert config.sampling.expected_cohort_size == pytest.approx(400 / 2.5)
    assert mean_examples(from_flat(flat), GRID, 4) == 4.0


def test_one_example_of_a_user_is_one_unit_and_not_two() -> None:
    assert {c.group_size for c in GRID.cells() if c.method == "els"} == {4}
    alone = replace(GRID, methods=("els",))
    assert {c.group_size for c in alone.cells()} == {1, 4}


def test_units_are_what_the_method_says(tmp_path: Path) -> None:
    units = {
        method: (config.privacy.unit, config.sampling.unit)
        for method in GRID.methods
        for config in [cell_config(from_flat({}), GRID, Cell(method, 2.0, 4, 1), tmp_path)]
    }
    assert units["example"] == ("example", "example")
    assert units["els"] == ("user", "example")
    assert units["uls"] == units["federated"] == units["none"] == ("user", "user")


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


def test_a_finished_cell_is_not_run_again(tmp_path: Path) -> None:
    cell = Cell("uls", 2.0, 4, 1)
    kept = fake("uls", 1, 3.0, 0.5)
    (tmp_path / f"{cell.name}.json").write_text(json.dumps(kept))
    assert run_cell(from_flat({}), GRID, cell, tmp_path) == kept


def test_wrong_keys_of_the_grid_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[compare]\nmethod = "uls"\n')
    with pytest.raises(ConfigError, match=r"compare\.method"):
        read_comparison(path, {})
    path.write_text('[compare]\nepsilons = "1,two"\n')
    with pytest.raises(ConfigError, match="two"):
        read_comparison(path, {})
    path.write_text('[compare]\nmethods = "uls,dp"\n')
    with pytest.raises(ConfigError, match='"dp"'):
        read_comparison(path, {})


def test_each_kind_of_adapter_has_its_learning_rate_and_each_group_size_its_examples(
    tmp_path: Path,
) -> None:
    grid = replace(GRID, learning_rates={"ia3": 0.5}, num_examples={1: 100, 4: 300})

    def config(cell: Cell) -> RunConfig:
        return cell_config(from_flat({"privacy.num-examples": 700}), grid, cell, tmp_path)

    assert config(Cell("uls", 2.0, 4, 1, "ia3")).server.learning_rate == 0.5
    assert config(Cell("uls", 2.0, 4, 1, "lora")).server.learning_rate == 0.02
    assert config(Cell("els", 2.0, 1, 1)).privacy.num_examples == 100
    assert config(Cell("els", 2.0, 4, 1)).privacy.num_examples == 300
    assert config(Cell("example", 2.0, 4, 1)).privacy.num_examples == 700


def test_rows_of_examples_leave_out_a_selection_that_they_have_no_use_for(tmp_path: Path) -> None:
    config = from_flat({"data.selection": "longest"})
    found = cell_config(config, GRID, Cell("example", 2.0, 4, 1), tmp_path)
    assert found.data.selection == "random"
    assert cell_config(config, GRID, Cell("els", 2.0, 4, 1), tmp_path).data.selection == "longest"


def test_drawn_examples_of_real_users_are_declared_for_every_group_size(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    text = '[data]\npath = "x.jsonl"\n[privacy]\nnum-users = 9\n[compare]\nmethods = "els"\n'
    path.write_text(text + 'num-examples-by-group-size = "1:9"\n')
    with pytest.raises(ConfigError, match="at most 4 of each user"):
        read_comparison(path, {})
    _, grid = read_comparison(path, {"compare.num-examples-by-group-size": "1:9, 4:20"})
    assert grid.num_examples == {1: 9, 4: 20}


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("learning-rates", "ia3:0.5", "none of compare.adapters"),
        ("learning-rates", "ia3=0.5", "no pair"),
        ("num-examples-by-group-size", "1:many", "many"),
    ],
)
def test_pairs_of_the_grid_that_do_not_read_are_named(
    tmp_path: Path, key: str, value: str, part: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'[compare]\n{key} = "{value}"\n')
    with pytest.raises(ConfigError, match=part):
        read_comparison(path, {})


def test_an_example_where_users_are_drawn_has_at_most_its_users_epsilon() -> None:
    uls, els = summarise([fake("uls", 1, 3.0, 0.5), fake("els", 1, 3.0, 0.5)])
    assert (example_epsilon(uls), example_epsilon(els)) == ("<= 0.5", "0.5")
    assert uls.tokens == 12_800
    assert "1.28e+04" in table_lines([uls])[1]


def test_presets_read(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.resources import files

    for name in ("compare.toml", "airline-compare.toml", "adapters.toml"):
        config, grid = read_comparison(Path(str(files("simulations"))) / "presets" / name, {})
        assert config.run.rounds in (15, 20)
        assert {1.0, 8.0} <= set(grid.epsilons)
