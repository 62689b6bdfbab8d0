"""feddp.compare: the cost of each way of protecting users, at equal promise and compute."""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from feddp.common.config.run_config import RunConfig, from_flat, read_flat, to_flat, to_toml
from feddp.common.errors import ConfigError
from feddp.simulations.comparison.cells import ELS, METHODS, Cell, Grid, run_cell
from feddp.simulations.comparison.table import (
    Difference,
    Row,
    difference_lines,
    paired_differences,
    summarise,
    table_lines,
    write_comparison,
)
from feddp.simulations.run.progress import ignore

CONFIG_NAME = "config.toml"
_GRID_KEYS = (
    "methods",
    "epsilons",
    "group-sizes",
    "seeds",
    "adapters",
    "learning-rates",
    "num-examples-by-group-size",
    "examples-per-round",
    "local-passes",
    "seconds-per-cell",
)


@dataclass(frozen=True, repr=False)
class Comparison:
    """The results of a grid of runs; it prints as a table.

    Attributes:
      path: folder of the comparison, with one file per cell; `feddp.report` makes a page of it.
      rows: one per method, group size and epsilon, over its seeds.
      differences: between rows, seed by seed.
    """

    path: Path
    rows: Sequence[Row]
    differences: Sequence[Difference]

    def __repr__(self) -> str:
        return "\n".join([*table_lines(self.rows), "", *difference_lines(self.differences)])


def compare(
    config: RunConfig | Path | str,
    overrides: Mapping[str, object] | None = None,
    *,
    output_path: Path | str,
    num_processes: int | None = None,
    is_quick: bool = False,
    is_private_data: bool = False,
    command: str = "feddp.compare",
    on_start: Callable[[Grid, Sequence[Cell], int], None] = ignore,
    on_cell: Callable[[Cell, Mapping[str, Any]], None] = ignore,
) -> Comparison:
    """Runs every unfinished cell of a grid, and writes the table.

    Cells run concurrently, each in its own process that imports the caller's main module: a script
    must call this below `if __name__ == "__main__":`.

    Args:
      config: of the run, or its TOML file, which may have a section [compare].
      overrides: dotted settings that replace the file's, those of [compare] included.
      output_path: folder of the comparison; another call continues there.
      num_processes: concurrent cells; None: one per core.
      is_quick: the smallest grid (one seed, the first epsilon, few rounds), to try the pipeline.
      is_private_data: confirms rows without privacy on data that is not generated.
      command: the command line; it is kept with the results.
      on_start: called with the grid, its cells and the number of processes, before any is run.
      on_cell: called with each cell and its file's content, in the order of the grid.

    Raises:
      ConfigError: the grid or the run has problems, or the folder holds another comparison.
    """
    run_config, grid = read_comparison(config, overrides or {})
    folder, num_processes = Path(output_path), num_processes or os.cpu_count() or 1
    if is_quick:
        run_config, grid = _quick(run_config, grid)
    if not run_config.is_generated and not is_private_data:
        raise ConfigError(
            [
                "feddp compare: what it measures on real users is neither noised nor charged, and "
                'its row "none" is trained without privacy. If you want that for your eyes only, '
                "add --on-private-data."
            ]
        )
    cells = grid.cells()
    folder.mkdir(parents=True, exist_ok=True)
    _keep_config(folder, run_config, grid)
    on_start(grid, cells, num_processes)
    results = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context) as executor:
        waiting = [executor.submit(run_cell, run_config, grid, cell, folder) for cell in cells]
        for cell, future in zip(cells, waiting, strict=True):
            results.append(future.result())
            on_cell(cell, results[-1])
    rows, differences = summarise(results), paired_differences(results)
    write_comparison(folder, rows, differences, command)
    return Comparison(folder, rows, differences)


def read_comparison(
    source: RunConfig | Path | str, overrides: Mapping[str, object]
) -> tuple[RunConfig, Grid]:
    """The run and the grid of a file, or of a configuration with the grid in the overrides.

    Raises:
      ConfigError: a key of [compare] is unknown, missing or malformed, or the run has problems.
    """
    own = to_flat(source) if isinstance(source, RunConfig) else read_flat(Path(source))
    flat = {**own, **overrides}
    given = {k.removeprefix("compare."): v for k, v in flat.items() if k.startswith("compare.")}
    if unknown := [key for key in given if key not in _GRID_KEYS]:
        keys = ", ".join(_GRID_KEYS)
        raise ConfigError([f'Unknown key "compare.{key}". The keys are {keys}.' for key in unknown])
    config = from_flat({k: v for k, v in flat.items() if not k.startswith("compare.")})
    try:
        grid = Grid(
            methods=_listed(given.get("methods", "none,els,uls"), str),
            epsilons=_listed(given.get("epsilons", "1,2,8"), float),
            group_sizes=_listed(given.get("group-sizes", "1,4"), int),
            seeds=_listed(given.get("seeds", "1,2,3"), int),
            adapters=_listed(given.get("adapters", ""), str) or ("",),
            learning_rates=_mapped(given.get("learning-rates", ""), str, float),
            num_examples=_mapped(given.get("num-examples-by-group-size", ""), int, int),
            examples_per_round=float(str(given.get("examples-per-round", 400))),
            local_passes=int(str(given.get("local-passes", 2))),
            seconds_per_cell=float(str(given.get("seconds-per-cell", 60))),
        )
    except ValueError as error:
        raise ConfigError([f"[compare]: {error}. Lists are comma-separated texts."]) from error
    if problems := _grid_problems(config, grid):
        raise ConfigError(problems)
    return config, grid


def _grid_problems(config: RunConfig, grid: Grid) -> list[str]:
    problems = [
        f'compare.methods: "{method}" is none of {", ".join(METHODS)}.'
        for method in grid.methods
        if method not in METHODS
    ]
    problems += [
        f'compare.learning-rates: "{kind}" is none of compare.adapters.'
        for kind in grid.learning_rates
        if kind not in grid.adapters
    ]
    if config.is_generated or ELS not in grid.methods:
        return problems
    missing = [str(size) for size in grid.group_sizes if size not in grid.num_examples]
    if missing:
        problems.append(
            "compare.num-examples-by-group-size: declare how many examples there are with at most "
            f'{" and ".join(missing)} of each user, as in "1:7000,4:12000".'
        )
    return problems


def announcement_lines(grid: Grid, cells: Sequence[Cell], num_processes: int) -> list[str]:
    """Lines that say what is about to be run, and how long it may take."""
    seconds = grid.seconds_per_cell * len(cells) / num_processes
    return [
        f"{len(cells)} cells: {', '.join(grid.methods)}; epsilon "
        f"{', '.join(f'{e:g}' for e in grid.epsilons)}; G "
        f"{', '.join(map(str, grid.group_sizes))}; seeds {', '.join(map(str, grid.seeds))}",
        f"{grid.examples_per_round:g} examples a round in every cell; about "
        f"{grid.seconds_per_cell:g} s a cell, {num_processes} at a time: about "
        f"{max(1, round(seconds / 60))} min. Cells that are done are not run again.",
        "",
    ]


def _keep_config(folder: Path, config: RunConfig, grid: Grid) -> None:
    """Writes the configuration and grid; refuses to mix two comparisons in one folder."""
    text = to_toml(config) + f"\n# {json.dumps(asdict(replace(grid, seconds_per_cell=0.0)))}\n"
    path = folder / CONFIG_NAME
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(
            [f"{folder}: holds a comparison with other settings. Name another --output-dir."]
        )
    path.write_text(text, encoding="utf-8")


def _quick(config: RunConfig, grid: Grid) -> tuple[RunConfig, Grid]:
    small = replace(
        grid,
        epsilons=grid.epsilons[:1],
        group_sizes=grid.group_sizes[-1:],
        seeds=grid.seeds[:1],
        examples_per_round=min(grid.examples_per_round, 60),
    )
    return replace(config, run=replace(config.run, rounds=2)), small


def _listed(text: object, kind: Any) -> tuple[Any, ...]:
    return tuple(kind(part.strip()) for part in str(text).split(",") if part.strip())


def _mapped(text: object, kind: Any, number: Any) -> dict[Any, Any]:
    """{key: value} of "key:value,key:value"."""
    pairs = [part.partition(":") for part in _listed(text, str)]
    for key, separator, _ in pairs:
        if not separator:
            raise ValueError(f'"{key}" is no pair "key:value"')
    return {kind(key.strip()): number(value.strip()) for key, _, value in pairs}


def outcome_text(result: Mapping[str, Any]) -> str:
    """A cell's result in a few words."""
    if result["status"] != "done":
        return f"not available: {result['reason']}"
    loss = (result["metrics"] or {}).get("loss", float("nan"))
    auc = result["leakage"]["user_inference"]["auc"]["value"]
    return f"loss {loss:.3f}, user inference AUC {auc:.3f}, {result['seconds']:.0f} CPU s"
