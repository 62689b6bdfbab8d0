"""The rows of a comparison: cells over their seeds, on disk and as a table."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from feddp.common.errors import ConfigError
from feddp.simulations.comparison.cells import ELS, FEDERATED, ULS, Cell
from feddp.simulations.leakage.attacks import Interval, mean_interval
from feddp.simulations.leakage.table import with_intervals

PAIRS = ((ULS, ELS), (FEDERATED, ULS))
COMPARED = ("loss", "accuracy", "user_inference")
COMPARISON_NAME, ROWS_NAME = "comparison.json", "comparison.csv"


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a method at one epsilon and group size, over its seeds.

    Attributes:
      metrics, leakage: means with intervals over seeds, by name.
      reason: why there are no results, if no seed could be run.
      tokens: expected in the run, if every example filled a row.
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
    tokens: float = 0.0

    @property
    def label(self) -> str:
        """The method, with its kind of adapter if several are compared."""
        return f"{self.method} {self.adapter}".strip()


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Row]:
    """One row per method, epsilon and group size, over its seeds."""
    groups: dict[Cell, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(replace(Cell(**result["cell"]), seed=0), []).append(result)
    return [_row(cell, found) for cell, found in groups.items()]


@dataclass(frozen=True)
class Difference:
    """One row minus another, seed by seed, so that effects of the seed cancel.

    Attributes:
      method, other: of the rows.
      figure: what is subtracted.
      interval: of the mean over the seeds that both have.
    """

    method: str
    other: str
    adapter: str
    epsilon: float
    group_size: int
    figure: str
    interval: Interval


def paired_differences(results: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """Users minus examples, and local passes minus one step, at equal promise and group size."""
    done = {Cell(**r["cell"]): _all_figures(r) for r in results if r["status"] == "done"}
    found: dict[tuple[str, str, str, float, int, str], list[float]] = {}
    for cell, figures in done.items():
        for method, other in PAIRS:
            reference = done.get(replace(cell, method=other))
            if cell.method != method or reference is None:
                continue
            for figure in set(COMPARED) & set(figures) & set(reference):
                key = (method, other, cell.adapter, cell.epsilon, cell.group_size, figure)
                found.setdefault(key, []).append(figures[figure] - reference[figure])
    return [
        Difference(*key, interval=mean_interval(np.array(values)))
        for key, values in sorted(found.items(), key=lambda pair: pair[0])
    ]


def difference_lines(differences: Sequence[Difference]) -> list[str]:
    """The paired differences as text; empty if nothing was paired."""
    if not differences:
        return []
    return [
        "  Differences, seed by seed",
        *(
            f"  {f'{d.method} - {d.other} {d.adapter}'.strip():<24}{d.group_size:>4}"
            f"{d.epsilon:>10g}   {d.figure:<16}{shown(d.interval, is_signed=True):>26}"
            for d in differences
        ),
        "",
    ]


def write_comparison(
    folder: Path, rows: Sequence[Row], differences: Sequence[Difference], command: str
) -> None:
    """Writes comparison.json, which `feddp report` reads, and comparison.csv."""
    content = {
        "command": command,
        "rows": [asdict(row) for row in rows],
        "differences": [asdict(difference) for difference in differences],
    }
    text = json.dumps(content, indent=2) + "\n"
    (folder / COMPARISON_NAME).write_text(text, encoding="utf-8")
    with (folder / ROWS_NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("method", "adapter", "epsilon", "group_size", "figure", "value", "low", "high")
        )
        for row in rows:
            key = (row.method, row.adapter, row.epsilon, row.group_size)
            numbers = {"tokens": row.tokens, **(row.promise or {})}
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    writer.writerow((*key, name, value, "", ""))
            for name, interval in {**row.metrics, **row.leakage}.items():
                writer.writerow((*key, name, interval.value, interval.low, interval.high))


def read_rows(folder: Path) -> tuple[str, list[Row], list[Difference]]:
    """(command, rows, differences) of a comparison's folder.

    Raises:
      ConfigError: there is none.
    """
    if not is_comparison(folder):
        raise ConfigError([f"{folder}: no comparison here (no {COMPARISON_NAME})."])
    content = json.loads((folder / COMPARISON_NAME).read_text(encoding="utf-8"))
    rows = [
        Row(**row | {key: with_intervals(row[key]) for key in ("metrics", "leakage")})
        for row in content["rows"]
    ]
    differences = [Difference(**with_intervals(found)) for found in content["differences"]]
    return str(content["command"]), rows, differences


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The comparison as text."""
    lines = [
        f"  {'method':<18}{'G':>4}{'user eps':>10}{'example eps':>13}{'black box':>11}"
        f"{'noise/C':>9}{'loss':>24}{'user inference':>24}{'tokens <=':>10}{'CPU s':>9}"
    ]
    for row in rows:
        if row.reason:
            lines.append(f"  {row.label:<18}{row.group_size:>4}   not available: {row.reason}")
            continue
        promise = row.promise or {}
        lines.append(
            f"  {row.label:<18}{row.group_size:>4}{number(promise.get('user_epsilon')):>10}"
            f"{example_epsilon(row):>13}"
            f"{number(promise.get('black_box_epsilon')):>11}"
            f"{number(promise.get('noise_to_signal')):>9}{shown(row.metrics.get('loss')):>24}"
            f"{shown(row.leakage.get('user_inference')):>24}{row.tokens:>10.3g}{row.seconds:>9.0f}"
        )
    return [
        *lines,
        "",
        "  Epsilons are upper bounds at the same delta. Brackets: 95 % intervals over seeds. "
        "Choosing among these rows by",
        "  their results on private users would itself be a use of them: each look is a run of "
        "its own, and costs its epsilon.",
        "  Where users are drawn, an example has at most (<=) its user's epsilon. Tokens: "
        "expected, if every example filled a row.",
    ]


def example_epsilon(row: Row) -> str:
    """Epsilon of one example; if users are drawn, at most a user's, and marked so."""
    text = number((row.promise or {}).get("example_epsilon"))
    return f"<= {text}" if row.method in (ULS, FEDERATED) and text != "-" else text


def number(value: object) -> str:
    """A number in three digits; "-" for none."""
    return f"{value:.3g}" if isinstance(value, float) else "-"


def shown(interval: Interval | None, *, is_signed: bool = False) -> str:
    """A mean with its interval, if there are several seeds."""
    if interval is None:
        return "-"
    form = "+.3f" if is_signed else ".3f"
    if not np.isfinite(interval.low):
        return f"{interval.value:{form}}"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def is_comparison(folder: Path) -> bool:
    """Whether `compare` made this folder."""
    return (folder / COMPARISON_NAME).is_file()


def _row(cell: Cell, results: Sequence[Mapping[str, Any]]) -> Row:
    key = (cell.method, cell.epsilon, cell.group_size)
    done = [result for result in results if result["status"] == "done"]
    if not done:
        return Row(*key, 0, None, {}, {}, 0.0, str(results[0]["reason"]), cell.adapter)
    return Row(
        *key,
        num_seeds=len(done),
        promise=done[0]["promise"],
        metrics=_means([result["metrics"] for result in done]),
        leakage=_means([_figures(result["leakage"]) for result in done]),
        seconds=float(np.mean([result["seconds"] for result in done])),
        adapter=cell.adapter,
        tokens=float(done[0].get("tokens", 0.0)),
    )


def _figures(leakage: Mapping[str, Any]) -> dict[str, float]:
    """One number per attack."""
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


def _all_figures(result: Mapping[str, Any]) -> dict[str, float]:
    return {**result["metrics"], **_figures(result["leakage"])}


def _means(results: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    return {
        name: mean_interval(np.array([result[name] for result in results if name in result]))
        for name in results[0]
    }
