"""feddp compare: what each way of protecting users costs, at one promise and one compute."""

import csv
import json
import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.config import RunConfig, from_flat, read_flat, to_toml
from common.errors import ConfigError
from simulations.attacks import Interval, mean_interval
from simulations.cells import METHODS, Cell, Grid, run_cell

COMPARISON_NAME, ROWS_NAME, CONFIG_NAME = "comparison.json", "comparison.csv", "config.toml"
_GRID_KEYS = (
    "methods",
    "epsilons",
    "group-sizes",
    "seeds",
    "adapters",
    "examples-per-round",
    "local-passes",
    "seconds-per-cell",
)


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a method at one epsilon and group size, over its seeds.

    Attributes:
      metrics, leakage: means with intervals over seeds, by name.
      reason: why there is nothing, where no seed could be run.
    """

    method: str
    epsilon: float
    group_size: int
    num_seeds: int
    promise: Mapping[str, Any] | None
    metrics: Mapping[str, Interval]
    leakage: Mapping[str, Interval]
    seconds: float
    reason: str = ""
    adapter: str = ""

    @property
    def label(self) -> str:
        """The method, with its kind of adapter where several are compared."""
        return f"{self.method} {self.adapter}".strip()


def compare(
    path: Path,
    overrides: Mapping[str, object],
    *,
    output_path: Path,
    num_processes: int,
    is_quick: bool,
    is_private_data: bool,
) -> int:
    """Runs every cell of a grid that is not done yet, and prints and writes the table.

    Args:
      path: TOML file of a run, with a section [compare].
      overrides: dotted settings that replace the file's.
      output_path: folder of the comparison; a second call continues there.
      num_processes: cells at a time.
      is_quick: the smallest grid: one seed, the first epsilon, few rounds; to try the pipeline.
      is_private_data: the person asked for rows without privacy on data that is not generated.

    Returns:
      The exit code.
    """
    config, grid = read_comparison(path, overrides)
    if is_quick:
        config, grid = _quick(config, grid)
    if not config.is_generated and not is_private_data:
        raise ConfigError(
            [
                "feddp compare: what it measures on real users is neither noised nor charged, and "
                'its row "none" is trained without privacy. If you want that for your eyes only, '
                "add --on-private-data."
            ]
        )
    cells = grid.cells()
    output_path.mkdir(parents=True, exist_ok=True)
    _keep_config(output_path, config, grid)
    print("\n".join(_announcement(grid, cells, num_processes)), flush=True)
    results = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context) as executor:
        waiting = [executor.submit(run_cell, config, grid, cell, output_path) for cell in cells]
        for cell, future in zip(cells, waiting, strict=True):
            results.append(future.result())
            print(f"  {cell.name:<44} {_outcome(results[-1])}", flush=True)
    rows = summarise(results)
    write_comparison(output_path, rows, path)
    print("\n".join(["", *table_lines(rows), "", f"  {output_path / COMPARISON_NAME}"]))
    print(f"  a page with pictures: feddp report {output_path}")
    return 0


def read_comparison(path: Path, overrides: Mapping[str, object]) -> tuple[RunConfig, Grid]:
    """The run and the grid of a file.

    Raises:
      ConfigError: a key of [compare] is unknown, missing or malformed, or the run has problems.
    """
    flat = {**read_flat(path), **overrides}
    given = {k.removeprefix("compare."): v for k, v in flat.items() if k.startswith("compare.")}
    problems = [
        f'Unknown key "compare.{key}". The keys are {", ".join(_GRID_KEYS)}.'
        for key in given
        if key not in _GRID_KEYS
    ]
    if problems:
        raise ConfigError(problems)
    config = from_flat({k: v for k, v in flat.items() if not k.startswith("compare.")})
    try:
        grid = Grid(
            methods=_listed(given.get("methods", "none,els,uls"), str),
            epsilons=_listed(given.get("epsilons", "1,2,8"), float),
            group_sizes=_listed(given.get("group-sizes", "1,4"), int),
            seeds=_listed(given.get("seeds", "1,2,3"), int),
            adapters=_listed(given.get("adapters", ""), str) or ("",),
            examples_per_round=float(str(given.get("examples-per-round", 400))),
            local_passes=int(str(given.get("local-passes", 2))),
            seconds_per_cell=float(str(given.get("seconds-per-cell", 60))),
        )
    except ValueError as error:
        raise ConfigError([f"[compare]: {error}. Lists are comma-separated texts."]) from error
    unknown = [method for method in grid.methods if method not in METHODS]
    if unknown:
        raise ConfigError([f'compare.methods: "{unknown[0]}" is none of {", ".join(METHODS)}.'])
    return config, grid


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Cells to rows: the seeds of one method, epsilon and group size together."""
    groups: dict[tuple[str, float, int, str], list[Mapping[str, Any]]] = {}
    for result in results:
        cell = Cell(**result["cell"])
        key = (cell.method, cell.epsilon, cell.group_size, cell.adapter)
        groups.setdefault(key, []).append(result)
    return [_row(*key, found) for key, found in groups.items()]


def write_comparison(folder: Path, rows: Sequence[Row], config_path: Path) -> None:
    """comparison.json, which `feddp report` reads, and comparison.csv."""
    content = {
        "command": f"feddp compare {config_path.name}",
        "rows": [asdict(row) for row in rows],
    }
    text = json.dumps(content, indent=2) + "\n"
    (folder / COMPARISON_NAME).write_text(text, encoding="utf-8")
    with (folder / ROWS_NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("method", "adapter", "epsilon", "group_size", "figure", "value", "low", "high")
        )
        for row in rows:
            for name, interval in {**row.metrics, **row.leakage}.items():
                cells = (interval.value, interval.low, interval.high)
                writer.writerow(
                    (row.method, row.adapter, row.epsilon, row.group_size, name, *cells)
                )


def read_rows(folder: Path) -> tuple[str, list[Row]]:
    """(command, rows) of a comparison's folder.

    Raises:
      ConfigError: there is none.
    """
    path = folder / COMPARISON_NAME
    if not path.is_file():
        raise ConfigError([f"{folder}: no comparison here (no {COMPARISON_NAME})."])
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Row(
            **{
                **row,
                "metrics": {k: Interval(**v) for k, v in row["metrics"].items()},
                "leakage": {k: Interval(**v) for k, v in row["leakage"].items()},
            }
        )
        for row in content["rows"]
    ]
    return str(content["command"]), rows


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The comparison as text."""
    lines = [
        f"  {'method':<18}{'G':>4}{'user eps':>10}{'example eps':>13}{'black box':>11}"
        f"{'noise/C':>9}{'loss':>24}{'user inference':>24}{'seconds':>9}"
    ]
    for row in rows:
        if row.reason:
            lines.append(f"  {row.label:<18}{row.group_size:>4}   not available: {row.reason}")
            continue
        promise = row.promise or {}
        lines.append(
            f"  {row.label:<18}{row.group_size:>4}{_number(promise.get('user_epsilon')):>10}"
            f"{_number(promise.get('example_epsilon')):>13}"
            f"{_number(promise.get('black_box_epsilon')):>11}"
            f"{_number(promise.get('noise_to_signal')):>9}{shown(row.metrics.get('loss')):>24}"
            f"{shown(row.leakage.get('user_inference')):>24}{row.seconds:>9.0f}"
        )
    return [
        *lines,
        "",
        "  Epsilons are upper bounds at the same delta. Brackets: 95 % intervals over seeds. "
        "Choosing among these rows by",
        "  their results on private users would itself be a use of them: each look is a run of "
        "its own, and costs its epsilon.",
    ]


def shown(interval: Interval | None) -> str:
    """A mean with its interval; without one where there is a single seed."""
    if interval is None:
        return "-"
    if not np.isfinite(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _row(
    method: str,
    epsilon: float,
    group_size: int,
    adapter: str,
    results: Sequence[Mapping[str, Any]],
) -> Row:
    done = [result for result in results if result["status"] == "done"]
    if not done:
        reason = str(results[0]["reason"])
        return Row(method, epsilon, group_size, 0, None, {}, {}, 0.0, reason, adapter)
    return Row(
        method=method,
        epsilon=epsilon,
        group_size=group_size,
        num_seeds=len(done),
        promise=done[0]["promise"],
        metrics=_means([result["metrics"] for result in done]),
        leakage=_means([_figures(result["leakage"]) for result in done]),
        seconds=float(np.mean([result["seconds"] for result in done])),
        adapter=adapter,
    )


def _figures(leakage: Mapping[str, Any]) -> dict[str, float]:
    """The one number of each attack."""
    found = {"user_inference": leakage["user_inference"]["auc"]["value"]}
    for name, attack in leakage["membership"].items():
        found[f"membership_{name}"] = attack["auc"]["value"]
    if leakage["exposure"]:
        found["exposure"] = leakage["exposure"]["mean"]["value"]
    if leakage["poison_gap"]:
        found["poison_gap"] = leakage["poison_gap"]["value"]
    if leakage["sensitive_tokens"]:
        found["sensitive_gain"] = leakage["sensitive_tokens"]["controlled_gain"]["value"]
    return found


def _means(results: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    return {
        name: mean_interval(np.array([result[name] for result in results if name in result]))
        for name in results[0]
    }


def _announcement(grid: Grid, cells: Sequence[Cell], num_processes: int) -> list[str]:
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
    """Writes what the cells are made of, and refuses to mix two comparisons in one folder."""
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


def _outcome(result: Mapping[str, Any]) -> str:
    if result["status"] != "done":
        return f"not available: {result['reason']}"
    loss = (result["metrics"] or {}).get("loss", float("nan"))
    auc = result["leakage"]["user_inference"]["auc"]["value"]
    return f"loss {loss:.3f}, user inference AUC {auc:.3f}, {result['seconds']:.0f} s"


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "-"


def default_processes() -> int:
    """One per core."""
    return os.cpu_count() or 1


def is_comparison(folder: Path) -> bool:
    """A folder that `compare` made."""
    return (folder / COMPARISON_NAME).is_file()
