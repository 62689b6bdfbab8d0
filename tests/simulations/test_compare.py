"""The grid, its overrides and its rows; a whole cell runs in the slow suite."""

import json
from pathlib import Path

import pytest

from common.config import from_flat
from common.errors import ConfigError
from simulations.cells import Cell, Grid, cell_config, run_cell
from simulations.compare import (
    read_comparison,
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
    assert count == {"none": 2, "example": 4, "els": 8, "uls": 8, "federated": 8}


def test_every_method_processes_the_same_examples_per_round(tmp_path: Path) -> None:
    for cell in GRID.cells():
        config = cell_config(from_flat({}), GRID, cell, tmp_path)
        each = 1 if config.sampling.unit == "example" else cell.group_size
        cohort = config.sampling.expected_cohort_size or 0
        assert cohort * each * config.local.epochs == pytest.approx(400)


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
    write_comparison(tmp_path, rows, Path("x.toml"))
    command, found = read_rows(tmp_path)
    assert command == "feddp compare x.toml"
    assert found == rows
    text = "\n".join(table_lines(found))
    assert "not available: no" in text
    assert "1.99" in text
    assert "user_inference,0.55" in (tmp_path / "comparison.csv").read_text()


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


def test_presets_read(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.resources import files

    for name in ("compare.toml", "airline-compare.toml", "adapters.toml"):
        config, grid = read_comparison(Path(str(files("simulations"))) / "presets" / name, {})
        assert config.run.rounds in (15, 25)
        assert {1.0, 8.0} <= set(grid.epsilons)
