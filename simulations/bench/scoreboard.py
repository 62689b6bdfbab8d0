"""Results of a bench: printed as they arrive, and kept as bench.json and bench.png."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from feddp.simulations.bench.race import Spread

PACKAGES = ("torch", "transformers", "peft", "opacus", "pfl", "flwr", "ray")


@dataclass(frozen=True)
class Measure:
    """One line of the table: times of `what` relative to `beside`, and tokens per second."""

    case: str
    what: str
    beside: str
    ratio: Spread
    tokens_per_second: float


@dataclass
class Scoreboard:
    """Filled by the stages of a bench.

    Attributes:
      measures: paired ratios.
      figures: other numbers by name, as JSON values.
      skipped: stage to reason.
    """

    measures: list[Measure] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def measure(self, measures: Sequence[Measure]) -> None:
        """Adds and prints ratios."""
        for m in measures:
            rate = f"{m.tokens_per_second:.0f} tokens/s"
            print(f"{m.case:28} {m.what} / {m.beside:22} {m.ratio}  {rate}", flush=True)
        self.measures += measures

    def figure(self, name: str, value: Any) -> None:
        """Adds and prints another number, or several in a mapping."""
        print(f"{name}: {_rounded(value)}", flush=True)
        self.figures[name] = value

    def skip(self, stage: str, reason: str) -> None:
        """Adds and prints a stage that is not measured."""
        print(f"{stage}: skipped: {reason}", flush=True)
        self.skipped[stage] = reason

    def write(self, folder: Path) -> None:
        """Writes bench.json, and bench.png where there are ratios."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "versions": _versions(),
            "load_average": os.getloadavg(),
            "measures": [
                {
                    "case": m.case,
                    "what": m.what,
                    "beside": m.beside,
                    "ratio": [m.ratio.least, m.ratio.median, m.ratio.most],
                    "tokens_per_second": m.tokens_per_second,
                }
                for m in self.measures
            ],
            "figures": self.figures,
            "skipped": self.skipped,
        }
        (folder / "bench.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if self.measures:
            _plot(self.measures, folder / "bench.png")
        print(f"written: {folder}/bench.json" + (", bench.png" if self.measures else ""))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _plot(measures: Sequence[Measure], path: Path) -> None:
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(9, 0.4 * len(measures) + 1.4), layout="constrained")
    axes = figure.subplots()
    names = [f"{m.case}: {m.what} / {m.beside}" for m in measures]
    medians = [m.ratio.median for m in measures]
    below = [m.ratio.median - m.ratio.least for m in measures]
    above = [m.ratio.most - m.ratio.median for m in measures]
    axes.errorbar(medians, names, xerr=[below, above], fmt="o", color="tab:blue", capsize=3)
    for name, median in zip(names, medians, strict=True):
        axes.annotate(f"{median:.2f}", (median, name), (0, 5), textcoords="offset points")
    axes.grid(axis="x", alpha=0.3)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.invert_yaxis()
    axes.set_xlabel("times as fast, CPU time unless said otherwise; median and range")
    figure.savefig(path, dpi=150)
