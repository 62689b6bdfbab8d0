"""The grid and its cells: what each changes, and what it promises."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feddp.common.assembly import load_model, load_users, plan_from_config
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.simulations.comparison.cells import (
    Cell,
    Grid,
    cell_config,
    mean_examples,
    promise_of,
    run_cell,
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


def test_a_finished_cell_is_not_run_again(tmp_path: Path) -> None:
    cell = Cell("uls", 2.0, 4, 1)
    kept = {"cell": {}, "status": "done", "seconds": 10.0}
    (tmp_path / f"{cell.name}.json").write_text(json.dumps(kept))
    assert run_cell(from_flat({}), GRID, cell, tmp_path) == kept


def test_a_cell_that_cannot_be_run_says_why_in_its_file_and_is_tried_again(tmp_path: Path) -> None:
    config = from_flat({"data.path": str(tmp_path / "absent.jsonl"), "privacy.num-users": 1000})
    cell = Cell("uls", 2.0, 4, 1)
    path = tmp_path / f"{cell.name}.json"
    for _ in range(2):
        found = run_cell(config, GRID, cell, tmp_path)
        assert found["status"] == "not available"
        assert "absent.jsonl" in found["reason"]
        assert json.loads(path.read_text()) == found
        found["reason"] = "an earlier one"
        path.write_text(json.dumps(found))


def test_where_examples_are_drawn_users_pay_for_all_of_theirs_and_a_black_box_for_more(
    tmp_path: Path,
) -> None:
    base, layout = load_model(RunConfig())
    flat = {"run.rounds": 2, "privacy.noise-multiplier": 4.0}

    def promise(method: str) -> dict[str, float | str | None]:
        cell = Cell(method, 2.0, 4, 1)
        config = cell_config(from_flat(flat), GRID, cell, tmp_path)
        plan = plan_from_config(config, trust="simulation", base=base, layout=layout)
        return dict(promise_of(plan, cell))

    uls, els, example = (promise(method) for method in ("uls", "els", "example"))
    assert uls["user_epsilon"] == uls["example_epsilon"] == uls["epsilon"]
    assert uls["black_box_epsilon"] is None
    assert els["user_epsilon"] == pytest.approx(els["epsilon"], rel=1e-3)
    assert els["example_epsilon"] < els["user_epsilon"] <= els["black_box_epsilon"]
    assert example["example_epsilon"] == pytest.approx(example["epsilon"], rel=1e-3)
    assert example["user_epsilon"] > 2 * example["example_epsilon"]
